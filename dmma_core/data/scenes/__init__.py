"""Rendered clips of a small physical world with known ground truth, for the demo, tests and the distance metrics."""

from dmma_core.data.scene_config import MOTIONS, OBJECT_CLASSES, SceneConfig
from dmma_core.data.scenes.clip import RenderedClip, SceneTruth, render_clip
from dmma_core.data.scenes.dataset import (
    check_settings,
    complete_render,
    is_rendered,
    read_render_marker,
    read_truth,
    render_block,
    unfinished_blocks,
)

__all__ = [
    "MOTIONS",
    "OBJECT_CLASSES",
    "RenderedClip",
    "SceneConfig",
    "SceneTruth",
    "check_settings",
    "complete_render",
    "is_rendered",
    "read_render_marker",
    "read_truth",
    "render_block",
    "render_clip",
    "unfinished_blocks",
]
