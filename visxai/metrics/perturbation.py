"""Perturbation: does the class stay the model's first choice as pixels are blackened?

    value = negative - positive,    each = area under  [argmax f = class]  over 10 to 90 % black

Positive blackens the most relevant pixels first, and a good map makes it small; negative the
least relevant, and a good map keeps it large. Black is black in the photograph, before the
model's normalisation. The area is a mean over 0.1, 0.2, ..., 0.9 by the trapezoid rule, so over
many images it is a mean accuracy. Figures beside the value: `positive` and `negative`.

    metrics.load("perturbation")

The usual test of transformer methods. Needs a model whose preprocessing says what black is.

Cost: 18 forwards a map.
Source: Chefer et al., Transformer interpretability beyond attention visualization, CVPR 2021.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from visxai.errors import ArgumentError
from visxai.images.preprocess import Preprocess
from visxai.metrics._ranked import replaced
from visxai.metrics.base import Case, Metric, Scores, area
from visxai.models.interface import Need
from visxai.target import Aim

SHARES = tuple(share / 10 for share in range(1, 10))


@dataclass(frozen=True, repr=False)
class Perturbation(Metric):
    """Accuracy as pixels are blackened; see the module's docstring."""

    needs = Need.SCORES
    better = "higher"

    def forwards(self) -> int:
        return 2 * len(SHARES)

    def score(self, case: Case) -> Scores:
        preprocess, x, classes = case.model.preprocess, case.x, case.aim.classes
        if not isinstance(preprocess, Preprocess) or classes is None:
            raise ArgumentError(
                f"expected a model with a visxai.Preprocess and a target with classes for "
                f"perturbation, got {type(preprocess).__name__} and {case.target}: pass "
                "preprocess= to the engine, or use deletion"
            )
        black = preprocess.normalise(torch.zeros_like(x[:1], dtype=torch.uint8).movedim(1, -1))
        first = Aim(
            case.aim.rows,
            classes,
            lambda scores, which: (scores.argmax(1) == classes[which]).float(),
        )
        total = x.shape[2] * x.shape[3]
        counts = [round(share * total) for share in SHARES]
        owner = torch.arange(len(case.aim), device=x.device)
        axis = torch.tensor(SHARES, device=x.device)
        found = {}
        for name, ranks in (("positive", case.ranks), ("negative", total - 1 - case.ranks)):
            found[name] = replaced(case.probe, first, owner, ranks, x, black, counts)
        figures = {name: area(curve, axis) for name, curve in found.items()}
        return Scores(figures["negative"] - figures["positive"], figures, found, axis)
