"""`dmma doctor`: is this machine ready? Every line is OK, or FAIL with the remedy.

dmma doctor                  Python, torch, GPU, memory, disk, media, Ray, MLflow, storage, weights
dmma doctor gs://my-bucket   also writes to that bucket
dmma doctor --models         parameter counts of all network presets, with and without depth
"""

import argparse
import os
import platform
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from dmma_core.errors import DmmaError
from dmma_core.log import setup_logging, without_password

GIB = 1 << 30
_MINIMUM_MEMORY_GIB = 7
_MINIMUM_DISK_GIB = 5


def main(argv: Sequence[str] | None = None) -> int:
    """Print one line per check; the exit code is the number of failures.

    Every check imports what it needs itself, so that a missing or broken package fails only its own check.
    """
    arguments = arguments_parser().parse_args(argv)
    setup_logging()
    if arguments.models:
        print(_model_table())
        return 0
    checks: list[tuple[str, Callable[[], str]]] = [
        ("Python", _python),
        ("torch", _torch),
        ("GPU", _gpu),
        ("memory", _memory),
        ("disk", _disk),
        ("video and sound", _media),
        ("tiny encoders", _tiny_bundle),
        ("Ray", _ray),
        ("MLflow", _mlflow),
        *((f"storage {uri}", lambda uri=uri: _storage(uri)) for uri in (*arguments.storage, ".")),
        ("published weights", _weights),
    ]
    return sum(not _passes(name, check) for name, check in checks)


def arguments_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dmma doctor", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "storage", nargs="*", default=[], help="folders or gs:// buckets that DMMA must be able to write to"
    )
    parser.add_argument("--models", action="store_true", help="print the parameter counts of the network presets")
    return parser


def _passes(name: str, check: Callable[[], str]) -> bool:
    try:
        print(f"OK    {name}: {check()}")
    except DmmaError as error:
        print(f"FAIL  {name}: {error}")
    except Exception as error:  # whatever is broken, the other checks still run
        reason = next(reversed(str(error).strip().splitlines()), "no message")
        print(f"FAIL  {name}: {type(error).__name__}: {reason}")
    else:
        return True
    return False


def _python() -> str:
    return platform.python_version()


def _torch() -> str:
    import torch

    build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU build"
    return f"{torch.__version__} ({build}), {torch.get_num_threads()} threads"


def _gpu() -> str:
    import torch

    if not torch.cuda.is_available():
        if torch.version.cuda:
            raise DmmaError("torch is a CUDA build but finds no GPU.", remedy="Check `nvidia-smi` and the driver.")
        return "none; the tiny models run on the CPU (on a GPU machine install a CUDA build of torch; in a checkout: `make setup TORCH=cuda`)"
    names = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    return ", ".join(f"{device.name} {device.total_memory / GIB:.0f} GiB" for device in names)


def _memory() -> str:
    total_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB
    if total_gib < _MINIMUM_MEMORY_GIB:
        raise DmmaError(f"This machine has {total_gib:.1f} GiB of memory.", remedy="The demo needs 8 GB.")
    return f"{total_gib:.1f} GiB"


def _disk() -> str:
    free_gib = shutil.disk_usage(".").free / GIB
    if free_gib < _MINIMUM_DISK_GIB:
        raise DmmaError(
            f"{free_gib:.1f} GiB are free here.", remedy=f"Free {_MINIMUM_DISK_GIB} GiB, or work elsewhere."
        )
    return f"{free_gib:.0f} GiB free here"


def _media() -> str:
    import numpy as np

    from dmma_core.storage import media

    with tempfile.TemporaryDirectory() as folder:
        uri = str(Path(folder) / "probe.mp4")
        frames_THWC = np.full((10, 64, 64, 3), 128, np.uint8)
        media.write_video(uri, frames_THWC, 10.0, np.zeros(16_000, np.float32), 16_000)
        request = media.FrameRequest("probe", fps=5.0, height=32, width=32, fit="squash")
        clip = media.decode_clip(uri, 0.0, 1.0, (request,), 16_000)
    return f"an H.264 + AAC clip was written and read back ({len(clip.frames['probe'])} frames)"


def _tiny_bundle() -> str:
    from dmma_core.encoders.bundle import load_bundle

    return f"loaded, features of {load_bundle('tiny', duration_s=4.0).schema.text.shape[-1]} dimensions"


def _ray() -> str:
    import ray

    from ray_jobs.common.runtime import connect

    with connect():
        resources = ray.cluster_resources()
    return f"{ray.__version__}, {resources.get('CPU', 0):.0f} CPUs, {resources.get('GPU', 0):.0f} GPUs"


def _mlflow() -> str:
    from ray_jobs.common.tracking_server import given_tracking_uri, is_server, require_tracking_server

    uri = given_tracking_uri()
    require_tracking_server(uri)
    if is_server(uri):
        return f"{without_password(uri)} answers"
    return f"results go to {without_password(uri) or 'a SQLite file beside the runs'}; `dmma ui` opens it"


def _storage(uri: str) -> str:
    from dmma_core.storage import paths

    paths.check_writable(uri)
    return "can be written"


def _weights() -> str:
    from dmma_core.storage import weights

    present, missing = weights.inventory()
    return f"{len(present)} of {len(present) + len(missing)} files are in the cache; `dmma weights list` shows them"


def _model_table() -> str:
    from dmma_core.encoders.depth import SCALAR_NAMES
    from dmma_core.models.initialisation import parameter_count
    from dmma_core.models.presets import PRESETS, mmdit_config

    forms: tuple[tuple[str, dict[str, Any]], ...] = (
        ("without depth", {}),
        ("with depth", {"depth": "both", "num_depth_scalars": len(SCALAR_NAMES)}),
        ("DeepMMAudio", {"depth": "rgb_like", "fusion": "deepmmaudio"}),
    )
    lines = [f"{'parameters':<16}" + "".join(f"{name:>16}" for name, _ in forms)]
    for preset in PRESETS:
        counts = [parameter_count(mmdit_config(preset, **form))[0] for _, form in forms]
        lines.append(f"{preset:<16}" + "".join(f"{count:>16,}" for count in counts))
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
