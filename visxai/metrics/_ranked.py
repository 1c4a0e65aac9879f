"""Shared code of the metrics that replace pixels in the order of their rank."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from visxai.methods._maps import gaussian_blur
from visxai.metrics.base import Case, Metric
from visxai.models.interface import Model, Need
from visxai.models.rows import Rows
from visxai.target import Aim

# The blur that insertion starts from: σ in pixels, and the radius of the kernel in pixels.
BLUR, RADIUS = 5.0, 5


def replaced(
    model: Model,
    aim: Aim,
    owner: Tensor,
    ranks: Tensor,
    start: Tensor,
    end: Tensor,
    counts: Sequence[int],
) -> Tensor:
    """Evaluate a target on images whose most relevant pixels are replaced.

    The inputs are built block by block, each by one comparison of the ranks with a row's count.
    Rows come ranking by ranking, so the rows of a ranking are written together.

    Args:
        model: The model.
        aim: The target, settled on the clean images.
        owner: The map of `aim` that each ranking is judged for (m,).
        ranks: Rankings (m, h, w), 0 the pixel that is replaced first.
        start: The images before any replacement: (b, c, h, w), or (1, c, h, w) for all images.
        end: The images after all replacements, of either shape.
        counts: How many pixels show `end`, for each step.

    Returns:
        The target's scalars (m, len(counts)).
    """
    image_of, limits = aim.rows[owner].tolist(), ranks.new_tensor(counts)
    shape = tuple(start.shape[1:])

    def build(ranking: Tensor, turn: Tensor) -> Tensor:
        rows = end.new_empty(len(turn), *shape)
        which, lengths = torch.unique_consecutive(ranking, return_counts=True)
        sizes = lengths.tolist()
        parts = torch.split(limits[turn], sizes), torch.split(rows, sizes)
        runs = zip(which.tolist(), *parts, strict=True)
        for one, limit, into in runs:
            first = (ranks[one] < limit[:, None, None]).unsqueeze(1)
            image = image_of[one]
            torch.where(first, _of(end, image), _of(start, image), out=into)
        return rows

    return model.values(Rows(len(owner), len(counts), shape, build), aim.each(owner))


def _of(x: Tensor, image: int) -> Tensor:
    return x[0 if len(x) == 1 else image]


def curves(
    case: Case, owner: Tensor, ranks: Tensor, steps: int, ends: tuple[Tensor, Tensor], flip: bool
) -> Tensor:
    """Compute the class's probability along a replacement, both ends included.

    Args:
        case: The maps that are judged.
        owner: The map of the case that each ranking belongs to (m,).
        ranks: Rankings (m, h, w), 0 the pixel that is replaced first.
        steps: The number of equal steps.
        ends: The images (b, c, h, w) and their substitute (b or 1, c, h, w). The scores of both are
            computed once for all rankings.
        flip: Whether to start from the substitute, rather than from the images.

    Returns:
        Probabilities (m, steps + 1).
    """
    aim, model = case.certainty, case.probe
    full, empty = ends
    clean = case.clean(aim)[owner]
    blank = model.scores(empty).expand(len(full), -1) if len(empty) == 1 else model.scores(empty)
    gone = aim(blank[aim.rows])[owner]
    total = ranks.shape[1] * ranks.shape[2]
    counts = [step * total // steps for step in range(1, steps)]
    start, end = (empty, full) if flip else (full, empty)
    between = replaced(model, aim, owner, ranks, start, end, counts)
    first, last = (gone, clean) if flip else (clean, gone)
    return torch.cat([first.unsqueeze(1), between, last.unsqueeze(1)], 1)


def zeros(x: Tensor) -> Tensor:
    """Return the end point of deletion (1, c, h, w): zero in model space, the mean colour."""
    return torch.zeros_like(x[:1])


def blurred(x: Tensor) -> Tensor:
    """Blur x by a Gaussian of σ 5, cut to 11x11 pixels: the start of insertion."""
    return gaussian_blur(x, BLUR, RADIUS)


@dataclass(frozen=True, repr=False)
class Stepwise(Metric):
    """A metric that replaces all pixels in equal steps.

    Attributes:
        steps: Number of steps.
    """

    steps: int = 224

    needs = Need.SCORES

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require(self.steps >= 1, "at least 1 step", self.steps)

    def forwards(self) -> int:
        return self.steps

    def axis(self, case: Case) -> Tensor:
        """Compute the share of pixels replaced after each step (steps + 1,)."""
        total = case.x.shape[2] * case.x.shape[3]
        counts = torch.arange(self.steps + 1) * total // self.steps
        return (counts / total).to(case.x.device)
