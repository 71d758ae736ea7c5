"""`dmma <job> …`: finds the job's module and runs it. A module is imported only when its job is called."""

import importlib
import importlib.util
import sys
from collections.abc import Sequence

# In the order of the chain; each is a module of ray_jobs, or of ray_jobs.tools, with '_' for '-'.
JOBS = {
    "render": "render clips with known sound, distance and depth",
    "clean": "check a folder of videos: a manifest of the good ones, a reason for each of the others",
    "extract": "CLIP, depth, Synchformer and audio features of every clip, into Parquet",
    "train": "train the baseline and the depth arm side by side",
    "generate": "generate sound for a held-out split, or for your own video",
    "evaluate": "measure generated sound beside the true one",
    "compare": "baseline against depth: table, intervals, verdict, report.html",
    "demo": "all of the above at a small size, on this machine",
    "ui": "open the MLflow UI on the results",
    "sync-metrics": "upload metrics of runs that were trained while MLflow was not reachable",
    "pretrain-tiny": "train the tiny encoders that come with DMMA, on rendered clips",
    "weights": "list, fetch and verify the published weights",
    "doctor": "check this machine: Python, torch, GPU, disk, Ray, MLflow, storage, weights",
}
TOOLS = {"ui", "sync-metrics", "weights", "doctor"}
# Modules of the extra `jobs`, which an install that only launches clusters leaves out.
JOB_PACKAGES = (
    "aiohttp", "av", "gcsfs", "google", "jinja2", "markupsafe", "matplotlib", "mlflow", "numpy", "open_clip", "pyarrow",
    "ray", "safetensors", "scipy", "soundfile", "sqlalchemy", "timm", "torch", "torchvision",
)  # fmt: skip
USAGE = 2


def main(argv: Sequence[str] | None = None) -> int:
    """Run one job; returns its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in {"-h", "--help"}:
        print(_help())
        return 0
    name, *rest = arguments
    if name not in JOBS:
        print(f"dmma: there is no job {name!r}. Jobs: {', '.join(JOBS)}.", file=sys.stderr)
        return USAGE
    try:
        module = importlib.import_module(module_name(name))
        code: int = getattr(module, "JOB", module).main(rest)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in JOB_PACKAGES:
            raise  # a defect of DMMA
        absent = ", ".join(package for package in JOB_PACKAGES if importlib.util.find_spec(package) is None)
        print(
            f"dmma {name} needs packages that are not installed here ({absent or error.name}). "
            "Install them: pip install 'dmma[jobs]'.",
            file=sys.stderr,
        )
        return 1
    return code


def module_name(job: str) -> str:
    """The module behind `dmma <job>`; `python -m <module>` runs it as well."""
    package = "ray_jobs.tools" if job in TOOLS else "ray_jobs"
    return f"{package}.{job.replace('-', '_')}"


def _help() -> str:
    width = max(map(len, JOBS))
    jobs = "\n".join(f"  {name.ljust(width)}  {summary}" for name, summary in JOBS.items())
    return (
        "dmma <job> [--config FILE] [--dry-run] [key=value …]\n\n"
        f"Trains depth-aware video-to-audio models and shows whether depth helps.\n\n{jobs}\n\n"
        "dmma <job> --help shows a job's settings with their defaults. Start with: dmma demo"
    )


if __name__ == "__main__":
    raise SystemExit(main())
