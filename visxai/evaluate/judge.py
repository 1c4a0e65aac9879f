"""Metrics computed while maps are made: figures for the rows, curves, and agreement of methods."""

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

_DIGITS = 6  # decimals of the values of curves


def loaded(specs: Sequence[str | Metric]) -> tuple[Metric, ...]:
    """Load metrics from their specs, without repetitions.

    Raises:
        ArgumentError: There are no metrics, a spec is wrong, or a metric compares methods.
    """
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
    """Key metrics by the names of their figures; a second insertion is "insertion-2"."""
    names = [metric.name() for metric in metrics]
    return {
        name + (f"-{names[:i].count(name) + 1}" if name in names[:i] else ""): metric
        for i, (name, metric) in enumerate(zip(names, metrics, strict=True))
    }


@dataclass
class Judge:
    """Computes metrics of the maps of a batch, method after method.

    Attributes:
        metrics: The metrics, by the names of their figures.
        objects: The objects in the model's view (b, h, w), bool; None if no metric needs them.
        step: A function that is called after each metric of each method.
        curves: The curves (r, points) of each method, by name.
        axes: The abscissa of each curve.
        figures: The names of each metric's figures.
        ranks: The normalised ranks (r, pixels) of each method's maps, for the agreement.
    """

    metrics: Mapping[str, Metric]
    objects: Tensor | None = None
    step: Callable[[], None] = lambda: None
    curves: list[dict[str, Tensor]] = field(default_factory=list)
    axes: dict[str, list[float]] = field(default_factory=dict)
    figures: dict[str, list[str]] = field(default_factory=dict)
    ranks: list[Tensor] = field(default_factory=list)

    def quality(self, case: Case) -> dict[str, Tensor]:
        """Compute the figures of a case's maps, each (r,); NaN where they aren't defined."""
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
        """Collect what each map's row holds besides the record.

        Returns:
            For each method, a dictionary for each map: its curves, the layout (each metric's
            figures and each curve's axis), and the rank correlation with every method's map of the
            same image and class.
        """
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
