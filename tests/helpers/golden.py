"""Reference data of the published implementations: its folder, and the rule that fills weights from their names.

The folder is `DMMA_GOLDEN_DIR`, by default `../shared/golden` next to the project. Any folder of the same layout works:
tests read sizes, salts and configs from a file's `__meta__`.
"""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
import torch
from torch import Tensor

DEFAULT_DIR = Path(__file__).resolve().parents[3] / "shared" / "golden"
NO_DATA = "no golden data"
_COMPUTED = ("data_mean", "data_std", "mel_basis", "hann_window", "num_batches_tracked", "relative_position_index")


def golden_dir() -> Path:
    """The folder of reference data, which need not exist."""
    configured = os.environ.get("DMMA_GOLDEN_DIR")
    return Path(configured) if configured else DEFAULT_DIR


@dataclass(frozen=True)
class GoldenFile:
    """One `.npz`: `meta` is its `__meta__`, `file["name"]` an array as a tensor on the CPU."""

    name: str
    meta: dict[str, Any]
    arrays: Mapping[str, Any]

    def __contains__(self, key: str) -> bool:
        return key in self.arrays

    def __getitem__(self, key: str) -> Tensor:
        return torch.from_numpy(np.array(self.arrays[key]))

    def array(self, key: str) -> np.ndarray:
        """The array as numpy, for dtypes that torch does not know (text)."""
        return np.array(self.arrays[key])

    def names(self) -> list[str]:
        return [key for key in self.arrays if key != "__meta__"]

    def key_of(self, name: str) -> str:
        """The key of an array that may be stored subsampled: `name`, `name[::8]` or `name.slice[:, ::4]`."""
        (key,) = (key for key in self.names() if key.partition("[")[0].removesuffix(".slice") == name)
        return key


def thinned(values: Tensor, key: str) -> Tensor:
    """The part of `values` that the array `key` contains: its name ends in the slices, if any."""
    _, is_thinned, slices = key.partition("[")
    if not is_thinned:
        return values
    parts = [[int(number) if number.strip() else None for number in part.split(":")] for part in slices[:-1].split(",")]
    return values[tuple(slice(*numbers) for numbers in parts)]


def lack(reason: str, folder: Path) -> NoReturn:
    """Skip the calling test; fail it where CI is true and `folder` is there, whose content then is incomplete."""
    if os.environ.get("CI") == "true" and folder.is_dir():
        pytest.fail(f"{reason}, and CI runs with {folder}")
    pytest.skip(reason)


def golden_path(name: str) -> Path:
    """Path of a reference file; where it is absent, the calling test is skipped or fails, as `lack` says."""
    path = golden_dir() / name
    if name.startswith("keys/") and not path.exists():
        path = (
            DEFAULT_DIR / name
        )  # names and shapes do not depend on the reference data, so another folder may lack them
    if not path.exists():
        lack(f"{NO_DATA}: {name} is not in {golden_dir()}", golden_dir())
    return path


def golden_file(name: str) -> GoldenFile:
    """Open `<golden>/<name>.npz`, or skip the test."""
    arrays = np.load(golden_path(f"{name}.npz"), allow_pickle=False)
    return GoldenFile(name, json.loads(str(arrays["__meta__"])) if "__meta__" in arrays else {}, arrays)


def golden_json(name: str) -> Any:
    """Parsed `<golden>/<name>.json` (also of subfolders: "keys/_params"), or skip the test."""
    return json.loads(golden_path(f"{name}.json").read_text())


def golden_names(*patterns: str, default: str) -> list[str]:
    """Names (without suffix) of all `.npz` files that match one of the globs, for parametrize.

    Where none does, `default` is returned, so that the test is skipped for lack of data as any other is.
    """
    return sorted({path.stem for pattern in patterns for path in golden_dir().glob(f"{pattern}.npz")}) or [default]


def golden_shapes(name: str) -> dict[str, tuple[int, ...]]:
    """State-dict keys and shapes of an official network at full size, in state-dict order."""
    return {key: tuple(shape) for key, (shape, _) in golden_json(f"keys/{name}.keys").items()}


def is_filled(key: str) -> bool:
    """Whether the rule fills this tensor; the others keep the values computed by the code."""
    return not (key.endswith(".filter") or key.endswith(_COMPUTED))


def fill_tensor(key: str, shape: Sequence[int], salt: str) -> Tensor:
    """Deterministic float32 value of one parameter, from its official name, its shape and the salt."""
    seed = int.from_bytes(hashlib.sha256(f"{salt}:{key}".encode()).digest()[:8], "little")
    noise = np.random.Generator(np.random.PCG64(seed)).standard_normal(size=tuple(shape), dtype=np.float32)
    noise = np.asarray(noise, dtype=np.float32)
    last = key.rpartition(".")[2]
    if last in ("running_var", "latent_std"):
        value = np.float32(1) + np.float32(0.1) * np.abs(noise)
    elif last in ("weight_g", "original0"):
        value = np.float32(0.8) + np.float32(0.08) * noise
    elif (last.endswith("weight") or last in ("weight_v", "original1")) and noise.ndim >= 2:
        value = noise * np.float32(1 / np.sqrt(np.prod(shape[1:])))
    elif last.endswith("weight"):
        value = np.float32(1) + np.float32(0.1) * noise
    else:
        value = np.float32(0.1) * noise
    return torch.from_numpy(np.asarray(value, dtype=np.float32))


def fill_state_dict(shapes: Mapping[str, Sequence[int]], salt: str) -> dict[str, Tensor]:
    """Values of all filled tensors among `shapes` (official key -> shape)."""
    return {key: fill_tensor(key, shape, salt) for key, shape in shapes.items() if is_filled(key)}


def fill_digest(state: Mapping[str, Tensor]) -> str:
    """sha256 over keys and float32 bytes in sorted order: equal to `meta["fill"]["sha256"]` if the weights are."""
    digest = hashlib.sha256()
    for key in sorted(state):
        digest.update(key.encode())
        digest.update(np.ascontiguousarray(state[key].numpy(), dtype="<f4").tobytes())
    return digest.hexdigest()


def fill_module(module: torch.nn.Module, salt: str, prefix: str = "") -> dict[str, Tensor]:
    """Fill a module whose own names are the official ones (after `prefix`); returns what was filled."""
    shapes = {prefix + key: tuple(value.shape) for key, value in module.state_dict().items()}
    filled = fill_state_dict(shapes, salt)
    module.load_state_dict({key.removeprefix(prefix): value for key, value in filled.items()}, strict=False)
    return filled


def assert_close(actual: Tensor, expected: Tensor, relative: float = 2e-5) -> None:
    """Largest difference at most `relative` times the largest expected magnitude."""
    assert actual.shape == expected.shape, f"{tuple(actual.shape)} is not {tuple(expected.shape)}"
    difference = (actual.double() - expected.double()).abs().max().item()
    bound = relative * expected.double().abs().max().item()
    assert difference <= bound, f"largest difference {difference:.3g} exceeds {bound:.3g}"
