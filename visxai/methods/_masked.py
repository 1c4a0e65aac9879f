"""Shared code of the methods that paint over parts of an image: paint, parts and responses."""

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
    """A method whose map is made from the scores of partly painted images.

    Attributes:
        baseline: The paint, in model space: a number, 'mean' (the image's mean colour), 'blur' or a
            tensor.
        output: 'logit' aims the target at the scores, 'probability' at what the model reports
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
        """Settle the target on x, and evaluate it there.

        Returns:
            The aim at this method's output, and its scalars (r,) on the unpainted images.
        """
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
        """Evaluate the target on images that are partly painted over.

        Args:
            model: The model.
            x: Images (b, c, h, w) in model space.
            aim: The target, settled on x.
            turns: The number of masks for each image.
            keep: A function of image (n,) and turn (n,) indices that returns (n, 1, h, w) in 0..1:
                how much of each pixel shows through the paint.

        Returns:
            The target's scalars (r, turns).
        """
        paint = baseline_like(x, self.baseline).expand_as(x)

        def painted(image: Tensor, turn: Tensor) -> Tensor:
            return torch.lerp(paint[image], x[image], keep(image, turn).to(x.dtype))

        return model.values(Rows(x.shape[0], turns, tuple(x.shape[1:]), painted), aim)


def shown(labels: Tensor, presence: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    """Build the `keep` function of `Masked.responses` for parts that are shown or painted.

    Args:
        labels: The part each pixel belongs to, (b, h, w) long, or (1, h, w) for all images.
        presence: How much of each part is shown, in 0..1: (b, turns, parts), or (1, turns, parts)
            for all images.
    """
    flat = labels.flatten(1)

    def keep(image: Tensor, turn: Tensor) -> Tensor:
        part = flat[image] if len(flat) > 1 else flat.expand(len(image), -1)
        present = presence[image if len(presence) > 1 else image.new_zeros(()), turn]
        return present.gather(1, part).reshape(len(image), 1, *labels.shape[1:])

    return keep


def cells(size: tuple[int, ...], grid: tuple[int, int]) -> Tensor:
    """Label the pixels with the cells of a grid, numbered row by row.

    Sides that the grid doesn't divide give cells that differ by at most one pixel.

    Args:
        size: Height and width in pixels.
        grid: Rows and columns of cells.

    Returns:
        Labels (1, h, w), long.
    """
    (height, width), (rows, columns) = size, grid
    down = torch.arange(height) * rows // height
    across = torch.arange(width) * columns // width
    return (down.unsqueeze(1) * columns + across).unsqueeze(0)


def grid_of(x: Tensor, segments: int | tuple[int, int]) -> tuple[int, int] | None:
    """Return the grid that `segments` names, no finer than x's pixels; None for superpixels."""
    if isinstance(segments, int):
        return None
    return min(segments[0], x.shape[2]), min(segments[1], x.shape[3])


def parts_of(x: Tensor, segments: int | tuple[int, int]) -> tuple[Tensor, list[int]]:
    """Cut each image x (b, c, h, w) into parts.

    Args:
        x: The batch.
        segments: A pair is a grid (rows, columns); a number is the approximate number of SLIC
            superpixels, computed for each image alone after its values are stretched to 0..1.

    Returns:
        Labels (b, h, w), or (1, h, w) for a grid, and the number of parts of each image.
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
    """Stack matrices (n_i, m_i) as (b, max n, max m) float32, padded with zeros."""
    rows, columns = (max(one.shape[axis] for one in matrices) for axis in (0, 1))
    out = torch.zeros(len(matrices), rows, columns)
    for into, one in zip(out, matrices, strict=True):
        into[: one.shape[0], : one.shape[1]] = one
    return out.to(device)
