"""What the methods that paint over parts of an image share: the paint, the cells, the responses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from visxai.errors import require
from visxai.methods._maps import baseline_like
from visxai.methods.base import Method
from visxai.models.interface import Model, Need
from visxai.models.rows import Rows
from visxai.target import Aim, Target


@dataclass(frozen=True, repr=False)
class Masked(Method):
    """A map made from the scores of an image that is partly painted over.

    baseline: the paint, in model space: a number, 'mean' (the image's mean colour), 'blur' or a
    tensor. output: 'logit' aims the target at the scores, 'probability' at what the model reports
    (softmax, sigmoid or the scores themselves).
    """

    baseline: float | str | Tensor = 0.0
    output: Literal["logit", "probability"] = "logit"

    needs = Need.SCORES

    def __post_init__(self) -> None:
        super().__post_init__()
        known = ("logit", "probability")
        self._require(self.output in known, f"an output of {' or '.join(known)}", self.output)

    def clean(self, model: Model, x: Tensor, target: Target) -> tuple[Aim, Tensor]:
        """The aim settled on x at this method's output, and its scalars (maps,) there."""
        aim = model.aim(x, target)
        if self.output == "probability":
            aim = aim.on(model.probabilities)
        return aim, aim(model.scores(x)[aim.rows])

    def responses(
        self,
        model: Model,
        x: Tensor,
        aim: Aim,
        turns: int,
        keep: Callable[[Tensor, Tensor], Tensor],
    ) -> Tensor:
        """The target (maps, turns) where keep(image (n,), turn (n,)) (n, 1, h, w), from 0 to 1,
        says how much of x shows through the paint."""
        paint = baseline_like(x, self.baseline).expand_as(x)

        def painted(image: Tensor, turn: Tensor) -> Tensor:
            return torch.lerp(paint[image], x[image], keep(image, turn).to(x.dtype))

        return model.values(Rows(x.shape[0], turns, tuple(x.shape[1:]), painted), aim)


def shown(labels: Tensor, presence: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    """The `keep` of parts that are shown or painted.

    labels (b, h, w), long: the part each pixel belongs to, or (1, h, w) for all images.
    presence (b, turns, parts), from 0 to 1, or (1, turns, parts) for all images.
    """
    flat = labels.flatten(1)

    def keep(image: Tensor, turn: Tensor) -> Tensor:
        part = flat[image] if len(flat) > 1 else flat.expand(len(image), -1)
        present = presence[image if len(presence) > 1 else image.new_zeros(()), turn]
        return present.gather(1, part).reshape(len(image), 1, *labels.shape[1:])

    return keep


def cells(size: tuple[int, ...], grid: tuple[int, int]) -> Tensor:
    """(1, h, w) long: the cell of a grid (rows, columns) each pixel lies in, numbered row by row.

    Sides that don't divide make cells that differ by at most one pixel.
    """
    (height, width), (rows, columns) = size, grid
    down = torch.arange(height) * rows // height
    across = torch.arange(width) * columns // width
    return (down.unsqueeze(1) * columns + across).unsqueeze(0)


def grid_of(x: Tensor, segments: int | tuple[int, int]) -> tuple[int, int] | None:
    """The grid that `segments` asks for, no finer than the pixels of x; None for superpixels."""
    if isinstance(segments, int):
        return None
    return min(segments[0], x.shape[2]), min(segments[1], x.shape[3])


def parts_of(x: Tensor, segments: int | tuple[int, int]) -> tuple[Tensor, list[int]]:
    """Labels (b or 1, h, w) of the parts of each image x (b, c, h, w), and how many each has.

    A pair is a grid (rows, columns); a number asks for about that many SLIC superpixels, found in
    each image alone, after its values were stretched to 0..1.
    """
    grid = grid_of(x, segments)
    if grid is not None:
        return cells(tuple(x.shape[2:]), grid).to(x.device), [grid[0] * grid[1]] * len(x)
    slic = require("skimage.segmentation", "segments", "cutting an image into superpixels").slic
    low, high = x.flatten(1).aminmax(dim=1)
    span = (high - low).clamp_min(1e-12)
    pixels = (x - low[:, None, None, None]) / span[:, None, None, None]
    found = [
        torch.from_numpy(slic(image, n_segments=segments, compactness=10, start_label=0))
        for image in pixels.permute(0, 2, 3, 1).double().cpu().numpy()
    ]
    return torch.stack(found).to(x.device), [int(labels.max()) + 1 for labels in found]


def padded(matrices: Sequence[Tensor], device: torch.device) -> Tensor:
    """Matrices (n_i, m_i) as one (b, max n, max m) float32, zero where a matrix ends."""
    rows, columns = (max(one.shape[axis] for one in matrices) for axis in (0, 1))
    out = torch.zeros(len(matrices), rows, columns)
    for into, one in zip(out, matrices, strict=True):
        into[: one.shape[0], : one.shape[1]] = one
    return out.to(device)
