"""Configurations and the list of commands load no heavy package: a mistake on the command line is reported at once."""

import subprocess
import sys

import pytest

HEAVY = {
    *("av", "decord", "fsspec", "gcsfs", "matplotlib", "mlflow", "numpy", "open_clip", "pyarrow", "ray", "scipy"),
    *("soundfile", "timm", "torch", "torchvision", "transformers"),
}


@pytest.mark.parametrize(
    "code",
    [
        "import dmma_core.job_configs as configs; configs.TrainConfig(); configs.GenerateConfig(); configs.CleanConfig()",
        "from ray_jobs.common.cli import main; assert main(['--help']) == 0",
        "from ray_jobs.common.cli import main; assert main(['exract']) == 2",
    ],
)
def test_light_parts_stay_light(code: str) -> None:
    command = [sys.executable, "-c", f"import sys; {code}; print(*sys.modules)"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    loaded = set(done.stdout.splitlines()[-1].split())
    assert "dmma_core.job_configs" in loaded or "ray_jobs.common.cli" in loaded
    assert not loaded & HEAVY
