import numpy as np
import pytest
import torch

from dmma_core.errors import ConfigError
from dmma_core.tensors import TensorSpec, device_named


def test_tensor_bytes_round_trip_without_a_copy() -> None:
    spec = TensorSpec("rgb", (3, 4), "float16")
    value = np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4)
    data = spec.to_bytes(value)
    assert len(data) == spec.num_bytes == 24
    back = spec.from_bytes(data)
    np.testing.assert_array_equal(back, value.astype(np.float16))
    assert not back.flags.owndata
    assert not back.flags.writeable


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.zeros((4, 3)), r"rgb has shape \(4, 3\), expected \(3, 4\)"),
        (np.full((3, 4), np.nan), "not finite"),
        (np.full((3, 4), 1e6), "not finite in float16"),
    ],
)
def test_wrong_tensors_never_become_bytes(value: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TensorSpec("rgb", (3, 4), "float16").to_bytes(value)


def test_device_names() -> None:
    assert device_named("cpu") == torch.device("cpu")
    assert device_named("auto").type in {"cpu", "cuda"}
    with pytest.raises(ConfigError, match="no device 'toaster'"):
        device_named("toaster")
    with pytest.raises(ConfigError, match="does not exist"):
        device_named("cuda:63")
