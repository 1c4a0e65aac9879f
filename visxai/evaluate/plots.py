"""The plots of an evaluation, as SVG: ranks with their intervals, and curves."""

from __future__ import annotations

import io
from typing import Any

from visxai.errors import require

_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c564b", "#6a3d9a")
_GREY = "#8a8a8a"
PAPER = "#fcfcfb"  # the background of the plots, the page and the sheet of examples
# The labels of the axes x and y, for each curve of a metric.
_AXES = {
    "insertion": ("share of pixels shown, most relevant first", "score"),
    "deletion": ("share of pixels removed, most relevant first", "score"),
    "positive": ("share of pixels blackened, most relevant first", "accuracy"),
    "negative": ("share of pixels blackened, least relevant first", "accuracy"),
    "morf": ("share of pixels imputed, most relevant first", "score"),
    "lerf": ("share of pixels imputed, least relevant first", "score"),
    "similarity": ("share of parameters drawn anew", "rank correlation"),
}
_SHOWN = {"lower": "lower is better", "higher": "higher is better"}


def ranks(summary: dict[str, Any]) -> str | None:
    """Plot each method's rank by each metric, 1 the best, with its interval; None without ranks."""
    ranked = [
        one
        for one in summary["metrics"]
        if one["better"] != "neither" and any(e["value"] is not None for e in one["methods"])
    ]
    if not ranked:
        return None
    names = _names(summary)
    height = 0.9 + 0.28 * len(names)
    figure, axes = _figure(len(ranked), 3.4, height, sharey=True)
    for axis, one in zip(axes, ranked, strict=True):
        for place, entry in enumerate(one["methods"]):
            rank = entry["rank"]
            if rank["value"] is None:
                continue
            colour, _ = _style(summary, entry["method"])
            axis.plot([rank["low"], rank["high"]], [place, place], color=colour, linewidth=2)
            axis.plot([rank["value"]], [place], "o", color=colour, markersize=5)
        axis.set_title(f"{one['name']} ({_SHOWN[one['better']]})", fontsize=9, parse_math=False)
        axis.set_xlim(0.5, len(names) + 0.5)
        axis.locator_params(axis="x", integer=True)
        axis.set_xlabel("rank, 1 the best", fontsize=8)
        axis.grid(axis="x", color="#e4e4e4")
    axes[0].set_yticks(range(len(names)), list(names.values()), fontsize=8, parse_math=False)
    axes[0].set_ylim(len(names) - 0.5, -0.5)
    return _svg(figure)


def curves(summary: dict[str, Any]) -> str | None:
    """Plot the mean of every curve, a line a method; None without curves."""
    found = [one for one in summary["curves"] if one["axis"] is not None]
    if not found:
        return None
    names = _names(summary)
    figure, axes = _figure(len(found), 3.8, 3.2)
    for axis, one in zip(axes, found, strict=True):
        for method, points in one["methods"].items():
            colour, line = _style(summary, method)
            axis.plot(one["axis"], points, line, color=colour, linewidth=1.4, label=names[method])
        axis.set_title(one["curve"], fontsize=9, parse_math=False)
        along, up = _AXES.get(one["curve"].partition("-")[0], ("", ""))
        axis.set_xlabel(along, fontsize=8)
        axis.set_ylabel(up, fontsize=8)
        axis.grid(color="#ececec")
    drawn = axes[0].get_legend_handles_labels()
    legend = figure.legend(*drawn, loc="outside right upper", fontsize=8, frameon=False)
    for text in legend.get_texts():
        text.set_parse_math(False)
    return _svg(figure)


def _names(summary: dict[str, Any]) -> dict[str, str]:
    """Shorten the methods' names for the labels of an axis, by spec."""
    return {one["method"]: _cut(one["name"]) for one in summary["methods"]}


def _cut(name: str) -> str:
    return name if len(name) <= 34 else f"{name[:33]}…"


def _style(summary: dict[str, Any], method: str) -> tuple[str, str]:
    """Return the colour and line style of a method; controls are grey and dashed or dotted."""
    own = [one["method"] for one in summary["methods"] if not one["control"]]
    if method not in own:
        return _GREY, "--" if method.startswith("random") else ":"
    number = own.index(method)
    return _COLOURS[number % len(_COLOURS)], ("-", "-.", (0, (5, 1)))[number // len(_COLOURS) % 3]  # type: ignore[return-value]


def _figure(count: int, width: float, height: float, **options: Any) -> tuple[Any, list[Any]]:
    """Create a figure of `count` plots, at most three beside each other; return it and its axes."""
    figures = require("matplotlib.figure", "bench", "plots of an evaluation")
    columns = min(3, count)
    lines = -(-count // columns)
    # A figure outside pyplot, so that the caller's pyplot state stays unchanged.
    size = width * columns + 1.4, height * lines
    figure = figures.Figure(size, layout="constrained", facecolor=PAPER)
    axes = list(figure.subplots(lines, columns, squeeze=False, **options).flat)
    for axis in axes[count:]:
        axis.remove()
    for axis in axes[:count]:
        axis.set_facecolor(PAPER)
        axis.tick_params(labelsize=8)
        for side in ("top", "right"):
            axis.spines[side].set_visible(False)
    return figure, axes[:count]


def _svg(figure: Any) -> str:
    matplotlib = require("matplotlib", "bench", "plots of an evaluation")
    buffer = io.StringIO()
    # A fixed salt and no date, so that the same numbers give the same file.
    with matplotlib.rc_context({"svg.hashsalt": "visxai", "svg.fonttype": "path"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()
