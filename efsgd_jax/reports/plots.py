"""Plots as inline SVG that use the colours of the page's style sheet, for light and dark mode and for printing."""

import contextlib
import html
import io
import re
import zlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

# Matplotlib draws in these placeholder colours. In the SVG they are replaced by variables of the style sheet.
INK, SOFT, GRID = "#010203", "#010204", "#010205"
SERIES = ("#010211", "#010212", "#010213", "#010214")
COLOURS = {INK: "currentColor", SOFT: "var(--soft)", GRID: "var(--line)"}
COLOURS |= {colour: f"var(--c{i})" for i, colour in enumerate(SERIES, 1)}

# Text is kept as text in the page's font, so that files are small and can be searched. The fixed salt makes the SVG of
# a plot reproducible.
SETTINGS: Any = {"svg.fonttype": "none", "svg.hashsalt": "efsgd_jax", "text.parse_math": False}

# Values from which an axis counts in thousands or millions.
LARGE = 1e5


class Point(NamedTuple):
    """A mark in the plot ``tradeoff``.

    Attributes:
      epsilon: position on the horizontal axis; infinity is shown at the right edge.
      value: position on the vertical axis, in percent.
      interval: 95% interval (low, high) in percent; NaN if it is not known.
      name: short label beside the mark.
      guarantee: whether the epsilon is a guarantee; if not, the mark is hollow.
    """

    epsilon: float
    value: float
    interval: tuple[float, float]
    name: str
    guarantee: bool


def curve(name: str, x: Sequence[float], y: Sequence[float], *, x_label: str, y_label: str) -> str:
    """A line plot as SVG. ``name`` is its title, and part of its text for screen readers."""
    shown = [v for v in y if np.isfinite(v)]
    said = f"{name} against {x_label}, from {shown[0]:.3g} to {shown[-1]:.3g}" if shown else f"{name}: no finite value"
    from matplotlib.ticker import EngFormatter

    with _axes(3.6, 2.3) as (figure, axes):
        axes.plot(x, y, color=SERIES[0], linewidth=1.6)
        axes.set_xlabel(x_label, color=SOFT)
        axes.set_ylabel(y_label, color=SOFT)
        axes.set_title(name, loc="left", fontsize=10, color=INK)
        axes.set_xlim(left=0)
        if y_label.startswith("share"):
            axes.set_ylim(-0.05, 1.05)
        if max(map(abs, shown), default=0.0) >= LARGE:  # "3 M", not "3" below "1e6"
            axes.yaxis.set_major_formatter(EngFormatter(sep=" "))
    return _svg(figure, said)


def tradeoff(points: Sequence[Point], anchors: Sequence[Point], *, y_label: str, said: str) -> str:
    """A plot of scores against epsilon, on a logarithmic axis, as SVG. Runs without noise are at the right edge.

    Args:
      points: the runs; hollow marks are those without a guarantee.
      anchors: published results, shown as crosses.
      y_label: label of the vertical axis.
      said: description of the plot for screen readers.
    """
    finite = [p.epsilon for p in (*points, *anchors) if np.isfinite(p.epsilon)] or [1.0]
    low, high = min(finite) / 1.8, max(finite) * 1.8
    edge = high * 1.8  # the position that stands for infinity
    noiseless = any(np.isinf(p.epsilon) for p in points)
    with _axes(4.4, 3.1) as (figure, axes):
        axes.set_xscale("log")
        beside = _offsets([p._replace(epsilon=min(p.epsilon, edge)) for p in (*anchors, *points)])
        for anchor, offset in zip(anchors, beside, strict=False):
            axes.plot(anchor.epsilon, anchor.value, "x", color=SOFT, markersize=6, markeredgewidth=1.4)
            _name(axes, anchor.epsilon, anchor, SOFT, offset)
        for point, offset in zip(points, beside[len(anchors) :], strict=True):
            x = point.epsilon if np.isfinite(point.epsilon) else edge
            axes.plot([x, x], point.interval, color=SERIES[0], linewidth=1.4, solid_capstyle="butt")
            fill = SERIES[0] if point.guarantee else "none"
            axes.plot(x, point.value, "o", markersize=7, color=SERIES[0], markerfacecolor=fill, markeredgewidth=1.6)
            _name(axes, x, point, INK, offset)
        ticks = _ticks(low, high)
        labels = [f"{t:g}" for t in ticks]
        if noiseless:
            axes.axvline(edge / 1.35, color=GRID, linewidth=1, linestyle=(0, (3, 3)))
            ticks, labels = [*ticks, edge], [*labels, "no noise"]
        axes.set_xticks(ticks, labels)
        axes.set_xticks([], minor=True)
        axes.set_xlim(low, edge * 1.35 if noiseless else high)
        axes.set_xlabel("epsilon (logarithmic)", color=SOFT)
        axes.set_ylabel(y_label, color=SOFT)
        axes.margins(y=0.12)
    return _svg(figure, said)


def _offsets(points: Sequence[Point]) -> list[tuple[float, float]]:
    """Where the label of each mark is, in points from it: of marks that are near, the highest has its label above."""
    spread = max(p.value for p in points) - min(p.value for p in points) if points else 0.0
    corners = ((6.0, 4.0), (6.0, -11.0), (-14.0, -11.0), (-14.0, 4.0))
    found: dict[int, tuple[float, float]] = {}
    for i in sorted(range(len(points)), key=lambda i: -points[i].value):
        near = {
            offset
            for k, offset in found.items()
            if abs(np.log(points[i].epsilon / points[k].epsilon)) < 0.35
            and abs(points[i].value - points[k].value) <= 0.12 * spread
        }
        found[i] = next((corner for corner in corners if corner not in near), corners[0])
    return [found[i] for i in range(len(points))]


def _name(axes: Any, x: float, point: Point, colour: str, offset: tuple[float, float]) -> None:
    axes.annotate(point.name, (x, point.value), offset, textcoords="offset points", fontsize=9, color=colour)


def _ticks(low: float, high: float) -> list[float]:
    """Ticks at 1, 2 and 5 times powers of ten; at the powers of ten only if the former are more than 7."""
    decades = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    for steps in ((1, 2, 5), (1,)):
        ticks = [m * 10.0**d for d in decades for m in steps if low <= m * 10.0**d <= high]
        if len(ticks) <= 7:
            break
    return ticks


@contextlib.contextmanager
def _axes(width: float, height: float) -> Iterator[tuple[Any, Any]]:
    """Makes a figure of ``width`` x ``height`` inches with one pair of axes, in the page's colours."""
    import matplotlib as mpl  # imported here because it takes long and only pages need it
    from matplotlib.figure import Figure

    with mpl.rc_context({**SETTINGS, "font.size": 9}):
        figure = Figure((width, height), layout="constrained")
        axes = figure.subplots()
        axes.grid(color=GRID, linewidth=0.8)
        axes.set_axisbelow(True)
        axes.tick_params(colors=SOFT, length=0)
        for side, spine in axes.spines.items():
            spine.set_visible(side == "bottom")
            spine.set_color(SOFT)
        yield figure, axes


def _svg(figure: Any, said: str) -> str:
    """Converts the figure to an ``<svg>`` element whose ids do not collide with those of other plots."""
    import matplotlib as mpl

    file = io.StringIO()
    with mpl.rc_context(SETTINGS):
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = file.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|font-family: [^;]*; ", "", svg, flags=re.DOTALL)
    for drawn, shown in COLOURS.items():
        svg = svg.replace(drawn, shown)
    svg = re.sub(r' id="(?![mp][0-9a-f]{10}")[^"]*"', "", svg)  # removes ids of groups, to which nothing refers
    prefix = f"s{zlib.crc32(said.encode()):08x}-"
    svg = re.sub(r'( id="|href="#|url\(#)', rf"\g<1>{prefix}", svg)
    return svg.replace("<svg", f'<svg role="img" aria-label="{html.escape(said)}"', 1)
