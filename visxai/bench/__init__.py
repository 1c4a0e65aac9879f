"""Measurement of what explaining costs, relative to the plain forward of a model.

report = visxai.bench.run(visxai.bench.Setup("timm:resnet18", ("grad_cam",)))
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from visxai._lazy import hand_on

if TYPE_CHECKING:
    from visxai.bench.cases import Setup, run, work
    from visxai.bench.measure import (
        allocator_peak,
        contest,
        environment,
        peak_increase,
        percentile,
        ratio,
        spread,
        timed,
    )
    from visxai.bench.report import Change, compare, markdown, plot_lines, plots, read, table, tell

__all__ = [
    "Change",
    "Setup",
    "allocator_peak",
    "compare",
    "contest",
    "environment",
    "markdown",
    "peak_increase",
    "percentile",
    "plot_lines",
    "plots",
    "ratio",
    "read",
    "run",
    "spread",
    "table",
    "tell",
    "timed",
    "work",
]

__getattr__, __dir__ = hand_on(
    __name__,
    {
        "Setup": "cases",
        "run": "cases",
        "work": "cases",
        "allocator_peak": "measure",
        "contest": "measure",
        "environment": "measure",
        "peak_increase": "measure",
        "percentile": "measure",
        "ratio": "measure",
        "spread": "measure",
        "timed": "measure",
        "Change": "report",
        "compare": "report",
        "markdown": "report",
        "plot_lines": "report",
        "plots": "report",
        "read": "report",
        "table": "report",
        "tell": "report",
    },
)
