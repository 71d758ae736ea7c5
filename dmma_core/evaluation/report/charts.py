"""The report's charts: loss curves, differences with intervals, spectrograms, level over time."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from dmma_core.evaluation.compare import BETTER, WORSE, Comparison
from dmma_core.evaluation.report.curves import Curve
from dmma_core.evaluation.report.svg import FIRST, INK, LINE, MUTED, SECOND, TRUTH, new_figure, style_axes, svg_of

Float = NDArray[np.floating]
RANGE_DB = 70.0
_SMOOTHING_POINTS = 60


def loss_chart(curves: Mapping[str, Mapping[str, Curve]]) -> str:
    """Validation loss (marked) and training loss (thin) of both arms against samples seen. `curves[arm][metric]`."""
    figure = new_figure(5.6, 3.4)
    axes = figure.add_subplot()
    style_axes(axes, "samples seen", "loss")
    summaries = []
    for (arm, metrics), colour in zip(curves.items(), (FIRST, SECOND), strict=True):
        if train := metrics.get("train/loss"):
            x, y = _downsampled(train)
            axes.plot(x, y, color=colour, linewidth=0.9, alpha=0.55)
        if val := metrics.get("val/loss"):
            axes.plot(val.samples, val.values, color=colour, linewidth=2, marker="o", markersize=3.5, label=arm)
            summaries.append(f"{arm}: first validation loss {val.values[0]:.3f}, last {val.values[-1]:.3f}")
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, labelcolor=INK, fontsize=9)
    return svg_of(figure, "Loss against samples seen. " + "; ".join(summaries) + ".")


def forest_chart(comparison: Comparison) -> str:
    """Every metric's difference in units of half its interval's width, signed so that right is better."""
    rows = comparison.rows
    figure = new_figure(5.6, 0.55 + 0.27 * len(rows))
    axes = figure.add_subplot()
    style_axes(axes)
    axes.grid(False)
    axes.axvline(0, color=MUTED, linewidth=1)
    for place, row in enumerate(rows):
        half = max((row.interval.high - row.interval.low) / 2, 1e-12)
        sign = 1 if row.spec.better == "higher" else -1
        ends = sorted((sign * row.interval.low / half, sign * row.interval.high / half))
        middle = sign * row.interval.difference / half
        colour = {BETTER: SECOND, WORSE: FIRST}.get(row.verdict, MUTED)
        axes.plot(ends, [place, place], color=colour, linewidth=2.2, solid_capstyle="round")
        axes.plot([middle], [place], marker="o", color=colour, markersize=6)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_yticks(range(len(rows)), [row.spec.short for row in rows], color=INK)
    limit = max([2.2, *(abs(x) * 1.1 for x in axes.get_xlim())])
    axes.set_xlim(-limit, limit)
    axes.set_xticks([0], ["no difference"])
    first, second = comparison.first.arm, comparison.second.arm
    axes.text(0.0, 1.0, f"← {first} better", transform=axes.transAxes, color=MUTED, fontsize=9, va="bottom")
    axes.text(
        1.0, 1.0, f"{second} better →", transform=axes.transAxes, color=MUTED, fontsize=9, va="bottom", ha="right"
    )
    verdicts = "; ".join(f"{row.spec.label}: {row.verdict}" for row in rows)
    return svg_of(figure, f"Differences with 95 % intervals. {verdicts}.")


def spectrogram_chart(level_db_MF: Float, top_db: float, duration_s: float, description: str) -> str:
    """Log-mel spectrogram (0 to 8 kHz) from `top_db` down to 70 dB below it."""
    figure = new_figure(3.4, 1.55)
    axes = figure.add_subplot()
    style_axes(axes)
    axes.grid(False)
    axes.imshow(
        level_db_MF,
        origin="lower",
        aspect="auto",
        cmap="magma",
        vmin=top_db - RANGE_DB,
        vmax=top_db,
        extent=(0, duration_s, 0, len(level_db_MF)),
        interpolation="nearest",
    )
    axes.set_yticks([0, len(level_db_MF)], ["0", "8 kHz"])
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.xaxis.set_major_formatter("{x:g} s")
    return svg_of(figure, description)


def level_chart(
    time_s_T: Float, levels: Sequence[tuple[str, Float]], distance_m_T: Float | None, description: str
) -> str:
    """Levels in dB over time: ground truth, both arms, and 20 log10(1 / distance) shifted to the ground truth's mean.

    Each level is shown without its mean, because only its changes matter.
    """
    figure = new_figure(5.6, 2.2)
    axes = figure.add_subplot()
    style_axes(axes, "time in s", "level − mean, dB")
    if distance_m_T is not None:
        expected_T = -20 * np.log10(distance_m_T)
        axes.plot(
            time_s_T,
            expected_T - expected_T.mean(),
            color=INK,
            linewidth=1.2,
            linestyle=(0, (4, 3)),
            label="1/distance",
        )
    for (name, level_T), colour in zip(levels, (TRUTH, FIRST, SECOND), strict=True):
        axes.plot(time_s_T, level_T - level_T.mean(), color=colour, linewidth=1.8, label=name)
    axes.axhline(0, color=LINE, linewidth=0.8)
    axes.set_xlim(0, float(time_s_T[-1]))
    figure.legend(loc="outside upper left", ncols=4, frameon=False, labelcolor=INK, fontsize=9)
    return svg_of(figure, description)


def _downsampled(curve: Curve) -> tuple[Float, Float]:
    """Means of at most _SMOOTHING_POINTS sections."""
    parts = min(_SMOOTHING_POINTS, len(curve.values))
    return tuple(np.array([part.mean() for part in np.array_split(x, parts)]) for x in (curve.samples, curve.values))  # type: ignore[return-value]
