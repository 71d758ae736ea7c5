"""State dicts of published files: reading, checks, and error messages."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from dmma_core.errors import WeightsError
from dmma_core.storage import paths
from dmma_core.storage.state_dicts import checked_state_dict, load_strictly, read_state_dict, unwrap

SHAPES = {"a.weight": (2, 3), "steps": ()}


def state() -> dict[str, Tensor]:
    return {"a.weight": torch.arange(6.0).reshape(2, 3), "steps": torch.tensor(7)}


class Exploit:
    """Unpickling it makes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.marker,)


WRAPPINGS: dict[str, Callable[[dict[str, Tensor]], Any]] = {
    "plain": lambda tensors: tensors,
    "weights": lambda tensors: {"weights": tensors, "ema": {"n": 1}, "optimizer": {}, "it": 3},
    "ema": lambda tensors: {"ema": tensors, "it": 3},
    "state_dict": lambda tensors: {"epoch": 3, "state_dict": tensors},
    "generator": lambda tensors: {"generator": tensors},
    "model": lambda tensors: {"model": tensors, "epoch": 1},
    "nested": lambda tensors: {"model": {"state_dict": tensors}},
    "parallel": lambda tensors: {"state_dict": {f"module.{name}": value for name, value in tensors.items()}},
    "with a number too": lambda tensors: {**tensors, "epoch": 3},
}


@pytest.mark.parametrize("wrapping", WRAPPINGS.values(), ids=WRAPPINGS)
@pytest.mark.parametrize("filename", ["new.pth", "old.pt", "x.bin", "x"])
def test_a_state_dict_is_read_at_any_nesting(
    tmp_path: Path, wrapping: Callable[[dict[str, Tensor]], Any], filename: str
) -> None:
    content = wrapping(state())
    torch.save(content, tmp_path / filename, _use_new_zipfile_serialization=not filename.startswith("old"))
    for read in (read_state_dict(str(tmp_path / filename)), unwrap(content)):
        assert read.keys() == state().keys() and all(torch.equal(read[name], value) for name, value in state().items())


def test_safetensors_and_files_of_a_bucket_are_read(tmp_path: Path, bucket: str) -> None:
    save_file(state(), tmp_path / "x.safetensors")
    torch.save({"ema": state()}, tmp_path / "x.pth")
    for name in ("x.safetensors", "x.pth"):
        paths.write_bytes(f"{bucket}/{name}", (tmp_path / name).read_bytes())
        for folder in (str(tmp_path), bucket):
            assert torch.equal(read_state_dict(f"{folder}/{name}")["a.weight"], state()["a.weight"])


def cut(tmp_path: Path, filename: str, keep: float) -> None:
    if filename.endswith("safetensors"):
        save_file({"a": torch.zeros(1000)}, tmp_path / filename)
    else:
        torch.save({"a": torch.zeros(1000)}, tmp_path / filename)
    full = (tmp_path / filename).read_bytes()
    (tmp_path / filename).write_bytes(full[: int(keep * len(full))])


NO_STATE_DICTS: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "absent": ("x.pth", lambda path: None, "There is no"),
    "absent safetensors": ("x.safetensors", lambda path: None, "There is no"),
    "empty": ("x.pth", Path.touch, "truncated, damaged or not a PyTorch weights file"),
    "empty safetensors": ("x.safetensors", Path.touch, "not a complete safetensors file"),
    "folder": ("x.pth", Path.mkdir, "is a folder"),
    "folder of that name": ("x.safetensors", Path.mkdir, "is a folder"),
    "below a file": ("y/x.pth", lambda path: path.parent.touch(), "below a file"),
    "half": ("x.pth", lambda path: cut(path.parent, path.name, 0.5), "truncated"),
    "nearly complete": ("x.pth", lambda path: cut(path.parent, path.name, 0.99), "truncated"),
    "a few bytes": ("x.pth", lambda path: cut(path.parent, path.name, 0.01), "truncated"),
    "half safetensors": ("x.safetensors", lambda path: cut(path.parent, path.name, 0.5), "not a complete"),
    "web page": ("x.pth", lambda path: path.write_text("<!DOCTYPE html>"), "not a PyTorch weights file"),
    "git-lfs": ("x.pt", lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\n"), "not a PyTorch"),
    "text": ("x.pth", lambda path: path.write_text("hello"), "not a PyTorch weights file"),
    "text safetensors": ("x.safetensors", lambda path: path.write_text("hello"), "not a complete safetensors"),
    "stray opcodes": ("x.pth", lambda path: path.write_bytes(b"."), "not a PyTorch weights file"),
    "list": ("x.pth", lambda path: torch.save([torch.zeros(1)], path), r"contains no network \(a list\)"),
    "tensor": ("x.pth", lambda path: torch.save(torch.zeros(1), path), r"contains no network \(a Tensor\)"),
    "optimiser": ("x.pth", lambda path: torch.save({"lr": 1, "it": 2}, path), r"contains no network \(lr, it\)"),
    "full module": (
        "x.pth",
        lambda path: torch.save(nn.Linear(1, 1), path),
        r"more than tensors \(torch\.nn\S+Linear",
    ),
    "numpy": ("x.pth", lambda path: torch.save({"a": torch.zeros(1).numpy()}, path), r"more than tensors \(numpy"),
    "around itself": ("x.pth", lambda path: torch.save(around_itself(), path), "contains no network"),
}


def around_itself() -> dict[str, Any]:
    content: dict[str, Any] = {}
    content["model"] = content
    return content


@pytest.mark.parametrize(("filename", "make", "message"), NO_STATE_DICTS.values(), ids=NO_STATE_DICTS)
def test_a_file_without_a_state_dict_gives_one_error_message(
    tmp_path: Path, filename: str, make: Callable[[Path], object], message: str
) -> None:
    path = tmp_path / filename
    make(path)
    with pytest.raises(WeightsError, match=message) as raised:
        read_state_dict(str(path))
    assert str(path) in raised.value.message and raised.value.remedy and "\n" not in str(raised.value)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("seed", range(3))
def test_damaged_bytes_always_give_an_error_message(tmp_path: Path, seed: int) -> None:
    """Every kind of exception of torch's reader is converted."""
    generator = torch.Generator().manual_seed(seed)
    path = tmp_path / "x.pth"
    torch.save({"a": torch.zeros(3), "b": {"c": 1.0}}, path, _use_new_zipfile_serialization=False)
    full = path.read_bytes()
    num_refused = 0
    for _ in range(300):
        damaged = bytearray(full)
        for place in torch.randint(len(full), (3,), generator=generator).tolist():
            damaged[place] = int(torch.randint(256, (), generator=generator))
        path.write_bytes(damaged)
        try:
            read_state_dict(str(path))
        except WeightsError:
            num_refused += 1
    assert num_refused > 100


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_code_in_a_pickle_is_never_run(tmp_path: Path) -> None:
    marker = tmp_path / "was-run"
    torch.save({"a": torch.zeros(1), "b": Exploit(marker)}, tmp_path / "evil.pth")
    (tmp_path / "raw.pth").write_bytes(pickle.dumps(Exploit(marker)))
    with pytest.raises(WeightsError, match=r"contains more than tensors \(\S+\) and was not opened.*convert it"):
        read_state_dict(str(tmp_path / "evil.pth"))
    with pytest.raises(WeightsError, match="not a PyTorch weights file"):
        read_state_dict(str(tmp_path / "raw.pth"))
    assert not marker.exists()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.float8_e4m3fn])
def test_other_precisions_become_float32_and_counters_stay(dtype: torch.dtype) -> None:
    narrow = {"a.weight": state()["a.weight"].to(dtype), "steps": state()["steps"]}
    tensors = checked_state_dict({"ema": narrow}, SHAPES, "a network")
    assert tensors["a.weight"].dtype == torch.float32 and torch.equal(tensors["a.weight"], state()["a.weight"])
    assert tensors["steps"].dtype == torch.int64


def test_all_mismatches_are_in_one_message() -> None:
    bad = {
        "a.weight": torch.full((3, 2), torch.nan),
        "surprise": torch.zeros(1),
        "table": torch.zeros(2, dtype=torch.int8),
        "sparse": torch.zeros(2).to_sparse(),
    }
    with pytest.raises(WeightsError) as raised:
        checked_state_dict(bad, {**SHAPES, "table": (2,), "sparse": (2,)}, "the network x", "file.pth")
    assert str(raised.value) == (
        "file.pth cannot be loaded into the network x: 1 missing (steps); 1 unexpected (surprise); 1 of another shape "
        "(a.weight (3, 2) instead of (2, 3)); 2 of another type (table torch.CharTensor, sparse torch.sparse.FloatTensor); "
        "1 not finite (a.weight). Use the file of this network, or the network of this file."
    )


def test_long_lists_are_shortened() -> None:
    with pytest.raises(WeightsError, match=r"20 missing \(n0, n1, n2, n3, n4, n5, … and 14 more\); 1 unexpected"):
        checked_state_dict({"x": torch.zeros(1)}, {f"n{i}": (1,) for i in range(20)}, "a network")


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_values_that_are_not_finite_are_refused_unless_they_mark_absence(value: float) -> None:
    damaged = {**state(), "a.weight": torch.full((2, 3), value)}
    with pytest.raises(WeightsError, match=r"1 not finite \(a\.weight\)\. Fetch the file again"):
        checked_state_dict(damaged, SHAPES, "a network", identify=lambda tensors: "known")
    assert not checked_state_dict(damaged, SHAPES, "a network", may_be_nan=("a.weight",))["a.weight"].isfinite().any()


def test_optional_and_unused_tensors() -> None:
    tensors = checked_state_dict(
        {**state(), "head.weight": torch.full((1,), torch.nan)},
        {**SHAPES, "filter": (12,)},
        "a network",
        optional=("filter",),
        unused=("head.",),
    )
    assert tensors.keys() == state().keys()


def test_another_network_is_named_where_it_is_known() -> None:
    with pytest.raises(WeightsError, match=r"1 missing \(b\)\. It is a known_44k checkpoint\. Use the file"):
        checked_state_dict(state(), {**SHAPES, "b": (1,)}, "a network", identify=lambda tensors: "known_44k")
    with pytest.raises(WeightsError, match=r"1 missing \(b\)\. Use the file"):
        checked_state_dict(state(), {**SHAPES, "b": (1,)}, "a network", identify=lambda tensors: None)


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_a_module_is_loaded_or_left_unchanged(device: str) -> None:
    module = nn.BatchNorm1d(4, device=device)
    given = {name: value.half() if value.ndim else value for name, value in nn.BatchNorm1d(4).state_dict().items()}
    given["weight"] += 1
    with pytest.raises(WeightsError, match=r"x\.pth cannot be loaded into a norm: 1 missing \(bias\)"):
        load_strictly(module, {name: value for name, value in given.items() if name != "bias"}, "a norm", "x.pth")
    assert module.weight.is_meta if device == "meta" else bool((module.weight == 1).all())
    load_strictly(module, given, "a norm", "x.pth")
    assert module.weight.dtype == torch.float32 and bool((module.weight == 2).all())
    assert module.weight.requires_grad and module.num_batches_tracked.dtype == torch.int64
