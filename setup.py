"""What pyproject.toml cannot state of the build: the commit goes into wheels and source archives, configs/ as a package.

configs/ is named dmma_configs in an installed copy, where every project shares one folder.
"""

import runpy
from pathlib import Path

from setuptools import find_namespace_packages, setup
from setuptools.command.build_py import build_py
from setuptools.command.sdist import sdist

_PROVENANCE = runpy.run_path(str(Path(__file__).parent / "dmma_core" / "provenance.py"))


def _stamp(root: str) -> None:
    file = Path(root) / "dmma_core" / _PROVENANCE["COMMIT_FILE"]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(_PROVENANCE["git_commit"]() + "\n")


class StampedBuild(build_py):
    """Not for editable installs: their code is the checkout itself."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            _stamp(self.build_lib)


class StampedArchive(sdist):
    """The archive has no `.git`, and wheels are built from it."""

    def make_release_tree(self, base_dir: str, files: list[str]) -> None:
        super().make_release_tree(base_dir, files)
        _stamp(base_dir)


setup(
    packages=[*find_namespace_packages(include=["dmma_core*", "ray_jobs*"]), "dmma_configs"],
    package_dir={"dmma_configs": "configs"},
    cmdclass={"build_py": StampedBuild, "sdist": StampedArchive},
)
