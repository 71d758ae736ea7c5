"""safetensors files, local or in a bucket. Pickle is never read here."""

from collections.abc import Mapping

from safetensors import SafetensorError
from safetensors.torch import load, load_file, save
from torch import Tensor

from dmma_core.errors import StorageError
from dmma_core.storage import paths


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


def write_tensors(uri: str, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors (any device, any layout) atomically."""
    plain = {name: tensor.detach().to("cpu").contiguous() for name, tensor in tensors.items()}
    paths.write_bytes(uri, save(plain, metadata={}))
