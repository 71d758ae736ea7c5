"""Folders of the code and of the shipped configurations: in a checkout, in Ray's copy of one, or installed."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]  # site-packages for an installed copy
IS_CHECKOUT = (ROOT / "pyproject.toml").is_file()
CONFIG_ROOT = ROOT / ("configs" if IS_CHECKOUT else "dmma_configs")  # setup.py names it so
