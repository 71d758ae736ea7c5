"""The shim works in a new process, whichever function is called first, and when called twice."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    "code",
    [
        "shim.import_timm().create_model('test_vit', pretrained=False)",
        "shim.import_open_clip().get_model_config('ViT-B-32')",
        "shim.make_torchvision_importable(); shim.make_torchvision_importable(); import torchvision.transforms.v2",
    ],
)
def test_libraries_that_need_torchvision_import_in_a_new_process(code: str) -> None:
    program = f"from dmma_core.encoders import torchvision_shim as shim; {code}"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr


def test_the_module_itself_imports_nothing_heavy() -> None:
    program = (
        "import sys, dmma_core.encoders.clip, dmma_core.encoders.depth; "
        "assert not {'timm', 'open_clip', 'torchvision', 'transformers'} & set(sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
