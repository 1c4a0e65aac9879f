"""RISE: a pixel matters if the score is high whenever the pixel is seen.

    M_p = sum_m f(x under m) m_p / sum_m m_p  -  mean_m f(x under m)

an estimate of E[ f | pixel p is shown ] - E[ f ]; `centred=False` omits the second term, as the
paper does, and the map's values then lie around E[ f ], whatever that is.

Each mask m is a grid of cells, shown with probability `show`, enlarged bilinearly to one cell
more than the image and cropped at a random shift, so that its blobs are smooth and lie anywhere.
The masks are drawn once from `seed` and are the same for every image.

The paper divides by masks * show, the expectation of the sum of m_p; the sum itself is taken
here. Both have the same limit, but only the latter is flat, as it should be, for a model with a
constant output: with few masks most of the paper's texture is how often a pixel was shown.

    visxai.Engine().explain("cat.jpg", method="rise(masks=4000)")

Maps are at pixel resolution, in units of the score.

Cost: one forward, and `masks` more.
Source: Petsiuk et al., RISE: randomized input sampling for explanation of black-box models,
BMVC 2018.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from visxai.methods._masked import Masked
from visxai.methods.base import Cost, Maps
from visxai.models.interface import Model
from visxai.target import Target

CHUNK = 64  # masks held at pixel resolution at once, beside those of a block of rows


@dataclass(frozen=True, repr=False)
class Rise(Masked):
    """Mean score while a pixel is shown; see the module's docstring.

    Attributes:
        output: 'probability' or 'logit': what the target is evaluated at.
        masks: Number of masks.
        grid: Cells a side of a mask.
        show: Probability that a cell is shown, between 0 and 1.
        centred: Whether to subtract the mean score.
        seed: Seed of the masks.
    """

    output: Literal["logit", "probability"] = "probability"
    masks: int = 4000
    grid: int = 7
    show: float = 0.5
    centred: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require(self.masks >= 1, "at least 1 mask", self.masks)
        self._require(self.grid >= 1, "a grid of at least 1 cell a side", self.grid)
        self._require(0 < self.show < 1, "show between 0 and 1", self.show)

    def __call__(self, model: Model, x: Tensor, target: Target) -> Maps:
        aim, _ = self.clean(model, x, target)
        draw = self.drawn(x)
        responses = self.responses(
            model, x, aim, self.masks, lambda _, turn: draw(turn).unsqueeze(1)
        )
        return Maps(self.averaged(responses, draw, x))

    def averaged(self, responses: Tensor, draw: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """Average the responses (r, masks) of the masks that show each pixel of x: (r, h, w)."""
        # Relative to the first response: for a constant model the differences are exact zeros.
        first = responses[:, :1]
        weights = torch.cat([responses - first, responses.new_ones(1, self.masks)])
        total = x.new_zeros((len(weights), x.shape[2] * x.shape[3]), dtype=weights.dtype)
        for turns in torch.split(torch.arange(self.masks, device=x.device), CHUNK):
            total += weights[:, turns] @ draw(turns).flatten(1)
        level = -weights[:-1].mean(1, keepdim=True) if self.centred else first
        maps: Tensor = level + total[:-1] / total[-1].clamp_min(1e-12)
        return maps.reshape(-1, *x.shape[2:])

    def cost(self, model: Model, x: Tensor) -> Cost:
        return Cost(1 + self.masks)

    def drawn(self, x: Tensor) -> Callable[[Tensor], Tensor]:
        """Build a function from turns (n,) to their masks (n, h, w) in 0..1.

        A shifted bilinear enlargement is a matrix on either side of the grid; so a mask costs two
        small products, and only the masks of the given turns are made.
        """
        generator = torch.Generator().manual_seed(self.seed)
        drawn = torch.rand(self.masks, self.grid, self.grid, generator=generator)
        shown = (drawn < self.show).float().to(x.device)
        enlarged, shifts = [], []
        for size in x.shape[2:]:
            cell = -(-size // self.grid)
            shifts.append(torch.randint(cell, (self.masks,), generator=generator).to(x.device))
            one = torch.nn.functional.interpolate(
                torch.eye(self.grid).unsqueeze(0),
                cell * (self.grid + 1),
                mode="linear",
                align_corners=False,
            )[0].T.to(x.device)
            enlarged.append((one, torch.arange(size, device=x.device)))

        def draw(turns: Tensor) -> Tensor:
            down, across = (
                matrix[at + shift[turns].unsqueeze(1)]
                for (matrix, at), shift in zip(enlarged, shifts, strict=True)
            )
            return down @ shown[turns] @ across.transpose(1, 2)

        return draw
