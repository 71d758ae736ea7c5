"""Metrics of the tiny encoders on rendered clips that were not used for training."""

import numpy as np
import torch
from scipy.stats import rankdata

from dmma_core.data.scenes.backdrop import SKY_DEPTH_M
from dmma_core.encoders.clip import ClipEncoder
from dmma_core.encoders.depth import DepthEncoder, depth_images, normalized_depth
from dmma_core.encoders.pretraining.data import SIDE, Samples
from dmma_core.encoders.pretraining.training import CLASS_CAPTIONS

THRESHOLDS = {
    ("depth", "spearman"): 0.9,
    ("depth", "object_pearson"): 0.9,
    ("clip", "frame_top1"): 0.9,
    ("clip", "clip_top1"): 0.9,
}
"""Lower bounds for the weights in the package, by network and metric."""
_REACH_PX = 2  # half size of the window around the object in which the nearest point is searched


def depth_metrics(encoder: DepthEncoder, unseen: Samples, seen: Samples) -> dict[str, float]:
    """Agreement of estimated with true inverse depth.

    "spearman": rank correlation over the pixels of a frame, averaged over frames; "spearman_without_sky" leaves out
    pixels at the far limit, whose true ranks are tied; "spearman_of_mean_picture" is the value of a constant
    prediction, the mean true map of the training clips. "object_pearson" and "object_spearman" compare, over all frames
    of all clips, raw inverse depth at the object with the true one, and "object_distance_spearman" with 1 / distance:
    these are high only if the network's scale is constant. "median_relative_error" is that of all pixels' depth.
    """
    frames = torch.from_numpy(unseen.frames_BTHWC).flatten(0, 1)
    estimate = encoder.inverse_depth(frames).numpy()
    truth = unseen.inverse_depth_BTHW.reshape(-1, SIDE, SIDE).astype(np.float32)
    mean_map = seen.inverse_depth_BTHW.astype(np.float32).mean(axis=(0, 1)).ravel()
    land = truth > 1.001 / SKY_DEPTH_M
    pairs = list(zip(estimate, truth, land, strict=True))
    at_object = _at_object(estimate, unseen), _at_object(truth, unseen)
    return {
        "spearman": float(np.mean([_rank_correlation(a.ravel(), b.ravel()) for a, b, _ in pairs])),
        "spearman_without_sky": float(np.mean([_rank_correlation(a[c], b[c]) for a, b, c in pairs])),
        "spearman_of_mean_picture": float(np.mean([_rank_correlation(mean_map, b.ravel()) for b in truth])),
        "object_pearson": _correlation(*at_object),
        "object_spearman": _rank_correlation(*at_object),
        "object_distance_spearman": _rank_correlation(at_object[0], 1 / unseen.distance_m_BT.ravel()),
        "median_relative_error": float(np.median(np.abs(estimate / truth - 1))),
    }


def clip_metrics(encoder: ClipEncoder, depth: DepthEncoder, unseen: Samples) -> dict[str, float]:
    """Top-1 accuracy of caption retrieval over the classes, for frames, clips (mean embedding of their frames) and
    depth images ("depth_picture_top1").
    """
    text_ND = encoder.pooled_text_embeddings(CLASS_CAPTIONS).detach()
    hits: dict[str, list[bool]] = {"frame_top1": [], "clip_top1": [], "depth_picture_top1": []}
    for frames_THWC, label in zip(torch.from_numpy(unseen.frames_BTHWC), unseen.class_B, strict=True):
        image_TD = encoder.encode_images(frames_THWC)
        grey_THW = normalized_depth(depth.inverse_depth(frames_THWC), depth.config)
        depth_TD = encoder.encode_pixels(depth_images(grey_THW, SIDE))
        hits["frame_top1"] += ((image_TD @ text_ND.T).argmax(1) == label).tolist()
        hits["clip_top1"].append(bool((image_TD.mean(0) @ text_ND.T).argmax() == label))
        hits["depth_picture_top1"] += ((depth_TD @ text_ND.T).argmax(1) == label).tolist()
    return {name: float(np.mean(values)) for name, values in hits.items()}


def _at_object(maps: np.ndarray, samples: Samples) -> np.ndarray:
    """The largest inverse depth in a small window around the object's position in each frame."""
    values = []
    for map_HW, row, column in zip(maps, samples.row_BT.ravel(), samples.column_BT.ravel(), strict=True):
        y, x = (int(np.clip(position, _REACH_PX, SIDE - 1 - _REACH_PX)) for position in (row, column))
        values.append(map_HW[y - _REACH_PX : y + _REACH_PX + 1, x - _REACH_PX : x + _REACH_PX + 1].max())
    return np.asarray(values, np.float32)


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson's correlation; 0 where one side is constant."""
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return 0.0
    return float(np.corrcoef(a, b)[0, 1])


def _rank_correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's correlation with mean ranks for ties; 0 where one side is constant."""
    return _correlation(rankdata(a), rankdata(b))
