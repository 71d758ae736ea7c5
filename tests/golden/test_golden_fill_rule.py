"""The fill rule for weights reproduces its examples; all tests in tests/golden depend on it."""

import pytest
import torch

from helpers.golden import fill_tensor, golden_file


def test_examples_are_reproduced_bit_by_bit() -> None:
    file = golden_file("fill_rule_check")
    for key in file.names():
        if key.startswith("input:"):
            continue
        assert torch.equal(fill_tensor(key, tuple(file[key].shape), file.meta["salt"]), file[key]), key


@pytest.mark.parametrize("key", ["a.weight", "b.bias"])
def test_another_salt_gives_other_weights(key: str) -> None:
    assert not torch.equal(fill_tensor(key, (4, 4), "one"), fill_tensor(key, (4, 4), "two"))
