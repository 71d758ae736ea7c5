"""Rendered clips: a small physical world whose truth is known, for demonstration, tests, and measuring the use of depth."""

from dmma_core.data.scenes.clip import RenderedClip, SceneTruth, render_clip
from dmma_core.data.scenes.config import MOTIONS, OBJECT_CLASSES, SceneConfig
from dmma_core.data.scenes.dataset import (
    check_settings,
    finish,
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
    "finish",
    "is_rendered",
    "read_render_marker",
    "read_truth",
    "render_block",
    "render_clip",
    "unfinished_blocks",
]
