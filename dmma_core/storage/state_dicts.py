"""State dicts in published layouts: read without running code, unwrapped, and checked against the network's shapes."""

import errno
import pickle
import struct
from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from dmma_core.errors import StorageError, WeightsError
from dmma_core.storage import paths
from dmma_core.storage.tensor_files import read_tensors, write_tensors

_CONTAINERS = ("weights", "ema", "state_dict", "generator", "model")  # keys that contain published networks
_PREFIX = "module."  # added to every name by torch's parallel wrappers
_MAX_NAMED = 6
_DAMAGED_PICKLE = (  # raised by torch's reader for bytes that are not weights
    pickle.UnpicklingError,
    struct.error,
    EOFError,
    RuntimeError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    AssertionError,
    ArithmeticError,
    MemoryError,
)


def read_state_dict(path: str) -> dict[str, Tensor]:
    """State dict of a .safetensors file or a PyTorch file (.pt, .pth, .bin), whose code is never run.

    Unwrapped as by `unwrap`. Raises WeightsError for a file that is missing, truncated, contains code, or no network.
    """
    try:
        content = read_tensors(path) if path.endswith(".safetensors") else _read_pickled(path)
    except StorageError as error:
        raise WeightsError(
            error.message, remedy="Use the path of a complete weights file, or get it with `dmma weights fetch`."
        ) from error
    return unwrap(content, path)


def write_state_dict(uri: str, state: Mapping[str, Tensor]) -> None:
    """Write a state dict atomically: as safetensors for a .safetensors name, else as a PyTorch file without code."""
    if uri.endswith(".safetensors"):
        write_tensors(uri, state)
        return
    with paths.open_write(uri) as file:
        torch.save({name: value.contiguous() for name, value in state.items()}, file)


def unwrap(content: Any, where: str = "The checkpoint") -> dict[str, Tensor]:
    """The tensors of a network in a file's content: a state dict, or a checkpoint that contains it under a known key.

    The keys are "weights", "ema", "state_dict", "generator" and "model", also nested; a prefix "module." of
    all names is removed. Raises WeightsError, starting with `where`, if there are no tensors.
    """
    for _ in _CONTAINERS:  # bounded depth, because a file may contain itself
        content = _contained(content)
    entries = content if isinstance(content, Mapping) else {}
    tensors = {str(name): value for name, value in entries.items() if isinstance(value, Tensor)}
    if not tensors:
        raise WeightsError(
            f"{where} contains no network ({_shortened(entries) or f'a {type(content).__name__}'}).",
            remedy="Use the weights of a network, not a file of features or of an optimiser.",
        )
    if all(name.startswith(_PREFIX) for name in tensors):
        return {name.removeprefix(_PREFIX): value for name, value in tensors.items()}
    return tensors


def checked_state_dict(
    state: Mapping[str, Any],
    shapes: Mapping[str, tuple[int, ...]],
    network: str,
    where: str = "The checkpoint",
    *,
    optional: Collection[str] = (),
    unused: tuple[str, ...] = (),
    may_be_nan: Collection[str] = (),
    identify: Callable[[Mapping[str, Tensor]], str | None] | None = None,
) -> dict[str, Tensor]:
    """float32 tensors of exactly the names and `shapes` that `network` expects; `state` may be wrapped, see `unwrap`.

    Half precision is converted to float32; integer scalars (counters) are unchanged. Names in `optional` may be absent,
    those that start with one of `unused` are ignored, those in `may_be_nan` need not be finite. Raises WeightsError
    that lists missing, unexpected and non-finite tensors and those of another shape or type; `identify` may name the
    actual network.
    """
    tensors = {name: value for name, value in unwrap(state, where).items() if not name.startswith(unused)}
    mismatches = _mismatches(tensors, shapes, optional)
    is_another = any(mismatches.values())
    tensors = {name: _as_float32(value) for name, value in tensors.items()}
    mismatches["not finite"] = [
        name
        for name, value in tensors.items()
        if name not in may_be_nan and _is_plain(value) and not value.isfinite().all()
    ]
    found = "; ".join(f"{len(names)} {kind} ({_shortened(names)})" for kind, names in mismatches.items() if names)
    if not found:
        return tensors
    if is_another and identify and (actual := identify(tensors)):
        found += f". It is a {actual} checkpoint"
    raise WeightsError(
        f"{where} cannot be loaded into {network}: {found}.",
        remedy="Use the file of this network, or the network of this file." if is_another else "Fetch the file again.",
    )


def load_strictly(
    module: nn.Module, state: Mapping[str, Any], network: str, where: str, unused: tuple[str, ...] = ()
) -> None:
    """Copy `state` into `module`, whose names are the published ones, after `checked_state_dict`.

    For a module on the meta device the tensors are assigned. When WeightsError is raised, the module is unchanged.
    """
    current = module.state_dict()
    shapes = {name: tuple(value.shape) for name, value in current.items()}
    tensors = checked_state_dict(state, shapes, network, where, unused=unused)
    module.load_state_dict(tensors, assign=any(value.is_meta for value in current.values()))


def _read_pickled(path: str) -> Any:
    with paths.open_read(path) as file:
        try:
            return torch.load(file, map_location="cpu", weights_only=True)
        except (*_DAMAGED_PICKLE, OSError) as error:
            # EINVAL is a seek before the start of a damaged file; other OSErrors are errors of the storage.
            if isinstance(error, OSError) and error.errno != errno.EINVAL:
                raise
            if forbidden := _forbidden_part(error):
                raise WeightsError(
                    f"{path} contains more than tensors ({forbidden}) and was not opened: its code could run.",
                    remedy="Use the published file, or convert it to safetensors if you trust it.",
                ) from error
            raise WeightsError(
                f"{path} is truncated, damaged or not a PyTorch weights file.",
                remedy="Fetch it again and compare its sha256.",
            ) from error


def _forbidden_part(error: Exception) -> str:
    """Name of the Python object that torch refused to load, from its message; empty for other errors."""
    _, found, rest = str(error).partition("GLOBAL ")
    return rest.split()[0] if found else ""


def _contained(content: Any) -> Any:
    if isinstance(content, Mapping):
        return next((content[key] for key in _CONTAINERS if isinstance(content.get(key), Mapping)), content)
    return content


def _mismatches(
    tensors: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]], optional: Collection[str]
) -> dict[str, list[str]]:
    """Names by kind of mismatch between `tensors` and `shapes`."""
    return {
        "missing": [name for name in shapes if name not in tensors and name not in optional],
        "unexpected": [name for name in tensors if name not in shapes],
        "of another shape": [
            f"{name} {tuple(tensors[name].shape)} instead of {tuple(shape)}"
            for name, shape in shapes.items()
            if name in tensors and tensors[name].shape != torch.Size(shape)
        ],
        "of another type": [f"{name} {value.type()}" for name, value in tensors.items() if not _is_plain(value)],
    }


def _is_plain(value: Tensor) -> bool:
    """Floating-point numbers, or an integer counter; neither quantised nor sparse nor without values."""
    return value.layout == torch.strided and not value.is_meta and (value.is_floating_point() or value.ndim == 0)


def _as_float32(value: Tensor) -> Tensor:
    return value.detach().to(torch.float32) if value.is_floating_point() else value.detach()


def _shortened(names: Collection[Any]) -> str:
    rest = f", … and {len(names) - _MAX_NAMED} more" if len(names) > _MAX_NAMED else ""
    return ", ".join(str(name) for name in list(names)[:_MAX_NAMED]) + rest
