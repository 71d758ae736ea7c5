"""safetensors files, local or in a bucket. Pickle is never read here."""

import json
from collections.abc import Mapping

from safetensors import SafetensorError
from safetensors.torch import load, load_file, save
from torch import Tensor

from dmma_core.errors import StorageError
from dmma_core.storage import paths

_MAX_HEADER_BYTES = 100_000_000  # the limit of the format


def read_tensors(uri: str) -> dict[str, Tensor]:
    """All tensors of a safetensors file, on the CPU. Raises StorageError for a missing or damaged file."""
    try:
        if paths.is_remote(uri):
            return dict(load(paths.read_bytes(uri)))
        with paths.open_read(uri):  # for its error messages; load_file maps the file instead of copying it
            return dict(load_file(paths.absolute(uri)))
    except SafetensorError as error:
        raise StorageError(
            f"{uri} is not a complete safetensors file ({error}).", remedy="Fetch or write it again."
        ) from error


def tensor_names(uri: str) -> set[str]:
    """Names of the tensors of a safetensors file, read from its header; empty if it is absent or of another format."""
    if not paths.exists(uri):
        return set()
    with paths.open_read(uri) as file:
        length = int.from_bytes(file.read(8), "little")
        header = file.read(length) if length <= _MAX_HEADER_BYTES else b""
    try:
        return set(json.loads(header)) - {"__metadata__"}
    except (ValueError, TypeError):
        return set()


def write_tensors(uri: str, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors (any device, any layout) atomically."""
    plain = {name: tensor.detach().to("cpu").contiguous() for name, tensor in tensors.items()}
    paths.write_bytes(uri, save(plain, metadata={}))
