"""Matplotlib figures as inline SVG with the colours of the page, for light and dark themes."""

import io
import itertools
import re

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

# Placeholder colours, replaced by the page's CSS variables in the SVG; figures use no other colours like them.
INK, MUTED, LINE = "#010101", "#010102", "#010103"
FIRST, SECOND, TRUTH = "#010104", "#010105", "#010106"
_VARIABLES = {INK: "ink", MUTED: "muted", LINE: "line", FIRST: "first", SECOND: "second", TRUTH: "truth"}
_STYLE = {"svg.fonttype": "none", "svg.hashsalt": "dmma", "font.size": 10.0}
_numbers = itertools.count()


def new_figure(width_in: float, height_in: float) -> Figure:
    """A figure outside pyplot's global state, with a constrained layout."""
    figure = Figure(figsize=(width_in, height_in), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def style_axes(axes: Axes, x_label: str = "", y_label: str = "") -> None:
    """Minimal style: a light grid, no box, muted tick labels."""
    axes.set_facecolor("none")
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(LINE)
    axes.tick_params(colors=MUTED, length=0, labelsize=9)
    axes.grid(True, color=LINE, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.set_xlabel(x_label, color=MUTED, fontsize=9)
    axes.set_ylabel(y_label, color=MUTED, fontsize=9)


def svg_of(figure: Figure, description: str) -> str:
    """The figure as `<svg role="img">` with `description` as its text alternative; scales with its container."""
    buffer = io.StringIO()
    with matplotlib.rc_context(_STYLE):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.S)
    text = re.sub(r'(<svg[^>]*?) (?:width|height)="[^"]*pt"', r"\1", text)
    text = re.sub(r'(<svg[^>]*?) (?:width|height)="[^"]*pt"', r"\1", text)
    text = re.sub(r"font: (\d+(?:\.\d+)?px) [^;\"]*", r"font-size: \1", text)
    text = re.sub(r"font-family: [^;\"]*;?", "", text)
    unique = f"f{next(_numbers)}-"
    text = re.sub(r'\bid="', f'id="{unique}', text)
    text = re.sub(r'href="#', f'href="#{unique}', text)
    text = re.sub(r"url\(#", f"url(#{unique}", text)
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, f"var(--{variable})")
    label = description.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
    return text.replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1)
