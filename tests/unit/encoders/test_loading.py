"""Weights files: what is accepted, and the sentence for what is not."""

import pickle
from pathlib import Path

import pytest
import torch
from torch import nn

from dmma_core.encoders.loading import fill_with_random_weights, fingerprint, load_strictly, read_state
from dmma_core.errors import StorageError, WeightsError
from dmma_core.storage.tensor_files import write_tensors


def _linear(seed: str = "a") -> nn.Linear:
    return fill_with_random_weights(nn.Linear(3, 2), seed)


def test_half_precision_and_nested_files_are_accepted(tmp_path: Path) -> None:
    source = _linear()
    state = {key: value.half() for key, value in source.state_dict().items()}
    write_tensors(str(tmp_path / "w.safetensors"), state)
    torch.save({"epoch": 3, "state_dict": state}, tmp_path / "w.pth")
    for name in ("w.safetensors", "w.pth"):
        loaded = _linear("b")
        load_strictly(loaded, read_state(str(tmp_path / name), containers=("state_dict",)), name)
        assert loaded.weight.dtype == torch.float32
        torch.testing.assert_close(loaded.weight, source.weight, atol=1e-3, rtol=0)


def test_a_file_with_code_inside_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    path.write_bytes(pickle.dumps({"weight": print}))
    with pytest.raises(WeightsError, match="not a readable PyTorch weights file"):
        read_state(str(path))


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_truncated_and_missing_files_are_sentences(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"w{suffix}"
    with pytest.raises((WeightsError, StorageError)):
        read_state(str(path))
    if suffix == ".pth":
        torch.save(_linear().state_dict(), path)
    else:
        write_tensors(str(path), _linear().state_dict())
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises((WeightsError, StorageError)):
        read_state(str(path))


def test_a_file_without_a_state_dict_is_refused(tmp_path: Path) -> None:
    torch.save({"args": {"lr": 1.0}}, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match="does not hold a state dict"):
        read_state(str(tmp_path / "w.pth"))


def test_weights_of_another_architecture_are_listed_and_leave_the_module_unchanged() -> None:
    module = _linear()
    before = module.weight.clone()
    state = {"weight": torch.zeros(5, 3), "scale": torch.zeros(1)}
    with pytest.raises(
        WeightsError, match=r"1 missing \(bias\); 1 unexpected \(scale\); 1 of another shape \(weight\)"
    ):
        load_strictly(module, state, "some.pth")
    assert torch.equal(module.weight, before)


def test_the_fingerprint_follows_architecture_and_every_weight() -> None:
    module = _linear()
    base = fingerprint({"width": 3}, module)
    assert base == fingerprint({"width": 3}, _linear())
    assert base != fingerprint({"width": 4}, module)
    with torch.no_grad():
        module.bias[1] += 1e-7
    assert base != fingerprint({"width": 3}, module)
    assert fingerprint({}, _linear()) != fingerprint({}, _linear().half())
