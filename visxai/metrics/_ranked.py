"""What metrics share that replace pixels in the order of their rank."""

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

# Of the blur that insertion starts from: σ in pixels, and the pixels on each side of the kernel.
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
    """`aim` (m, len(counts)) where the first `count` pixels of a ranking show `end`, the rest
    `start`.

    ranks (m, h, w): m rankings, each judged for map owner (m,) of the aim. start, end:
    (b, c, h, w) or (1, c, h, w) for all images. The inputs are built block by block, each with one
    comparison of the ranks with a row's count. Rows come ranking by ranking, so those of one are
    written together, from the images where they lie.
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
    """The class's probability (m, steps + 1) along a replacement, both ends included.

    ends: x (b, c, h, w) and its substitute (b or 1, c, h, w), which replaces x; with `flip` x
    replaces the substitute. The ends are the same for all rankings and computed once.
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
    """What deletion leaves: (1, c, h, w), zero in model space, the mean colour in pixels."""
    return torch.zeros_like(x[:1])


def blurred(x: Tensor) -> Tensor:
    """What insertion starts from: x blurred by a Gaussian of σ 5, cut to 11x11 pixels."""
    return gaussian_blur(x, BLUR, RADIUS)


@dataclass(frozen=True, repr=False)
class Stepwise(Metric):
    """A metric that replaces all pixels in `steps` equal steps."""

    steps: int = 224

    needs = Need.SCORES

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require(self.steps >= 1, "at least 1 step", self.steps)

    def forwards(self) -> int:
        return self.steps

    def axis(self, case: Case) -> Tensor:
        """(steps + 1,): the share of pixels replaced after each step."""
        total = case.x.shape[2] * case.x.shape[3]
        counts = torch.arange(self.steps + 1) * total // self.steps
        return (counts / total).to(case.x.device)
