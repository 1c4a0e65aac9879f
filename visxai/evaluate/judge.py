"""Metrics asked while maps are made: figures for the rows, curves, and how methods agree."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from visxai.errors import ArgumentError
from visxai.metrics import load
from visxai.metrics.base import Ask, Case, Metric, mean_ranks

_DIGITS = 6  # of what curves hold


def loaded(specs: Sequence[str | Metric]) -> tuple[Metric, ...]:
    """Metrics from their specs, each once; ArgumentError for one that can't judge a method."""
    if not specs:
        raise ArgumentError("expected at least one metric, got none: try 'insertion'")
    found = tuple(dict.fromkeys(load(spec) for spec in specs))
    for metric in found:
        if Ask.OTHERS in metric.asks:
            raise ArgumentError(
                f"expected metrics of one method, got {metric.name()}, which every evaluation "
                "holds: leave it out"
            )
    return found


def named(metrics: Sequence[Metric]) -> dict[str, Metric]:
    """Metrics by the names of their figures: of a second insertion it is "insertion-2"."""
    names = [metric.name() for metric in metrics]
    return {
        name + (f"-{names[:i].count(name) + 1}" if name in names[:i] else ""): metric
        for i, (name, metric) in enumerate(zip(names, metrics, strict=True))
    }


@dataclass
class Judge:
    """Asks metrics about the maps of one batch, method after method.

    metrics: by the names of their figures. objects (b, h, w), bool: the objects in the model's
    view, None when no metric asks. step: called after each metric of each method. Curves, and
    ranks for the agreement, stay here.
    """

    metrics: Mapping[str, Metric]
    objects: Tensor | None = None
    step: Callable[[], None] = lambda: None
    curves: list[dict[str, Tensor]] = field(default_factory=list)
    axes: dict[str, list[float]] = field(default_factory=dict)
    figures: dict[str, list[str]] = field(default_factory=dict)
    ranks: list[Tensor] = field(default_factory=list)

    def quality(self, case: Case) -> dict[str, Tensor]:
        """The figures of a case's maps, each (r,); NaN where they aren't defined."""
        case = replace(case, objects=self.objects)
        figures: dict[str, Tensor] = {}
        curves: dict[str, Tensor] = {}
        for name, metric in self.metrics.items():
            scores = metric(case)
            told = {metric.name(): scores.values, **scores.figures}
            if Ask.OBJECTS in metric.asks:
                there = case.inside.flatten(1).any(1)
                told = {n: torch.where(there, v, torch.nan) for n, v in told.items()}
            suffix = name.removeprefix(metric.name())
            told = {figure + suffix: values for figure, values in told.items()}
            figures.update(told)
            self.figures[name] = list(told)
            for curve, points in scores.curves.items():
                curves[curve + suffix] = points.cpu()
                if scores.axis is not None:
                    self.axes[curve + suffix] = _rounded(scores.axis)
            self.step()
        self.curves.append(curves)
        ranks = mean_ranks(case.pixels.flatten(1))
        self.ranks.append((ranks / ranks.norm(dim=1, keepdim=True).clamp_min(1e-30)).float())
        return figures

    def extras(self) -> list[list[dict[str, Any]]]:
        """For each method, what each of its maps' rows holds besides the record: curves, layout
        (each metric's figures, each curve's axis), and the rank correlation with every method's
        map of the same image and class."""
        layout = json.dumps({"figures": self.figures, "axes": self.axes})
        stacked = torch.stack(self.ranks)
        agreement = torch.einsum("arn,brn->abr", stacked, stacked).cpu()
        return [
            [
                {
                    "curves": json.dumps({name: _rounded(c[row]) for name, c in curves.items()}),
                    "layout": layout,
                    "agreement": [round(v, _DIGITS) for v in agreement[number, :, row].tolist()],
                }
                for row in range(stacked.shape[1])
            ]
            for number, curves in enumerate(self.curves)
        ]


def _rounded(values: Tensor) -> list[float]:
    return [round(value, _DIGITS) for value in values.tolist()]
