"""MC-RISE: RISE whose hidden cells get colours in turn, so that no one colour is taken for absence.

    M_p = E[ f | pixel p is shown ] - E[ f ],  over masks and colours

Each mask paints its hidden cells in one of the colours: the corners of the image's own range of
values in model space, (low or high) in each channel, which for photographs are black, white, red,
green, blue, cyan, magenta and yellow. A class whose evidence is a colour (a fire engine's red,
the white of snow) isn't marked wherever the paint lacks or has it. Masks are those of rise with
the same seed; consecutive masks take consecutive colours. With colours=1 it is rise painted in
each channel's lowest value.

    visxai.Engine().explain("cat.jpg", method="mc_rise(masks=4000)")

Maps are at pixel resolution, in units of the score.

Cost: one forward, and `masks` more.
Source: Hatakeyama et al., Visualizing color-wise saliency of black-box image classification models,
ACCV 2020; here the maps of all colours are averaged.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from visxai.methods.base import Cost, Maps, Method
from visxai.methods.rise import Rise
from visxai.models.interface import Model, Need
from visxai.models.rows import Rows
from visxai.target import Target


@dataclass(frozen=True, repr=False)
class McRise(Method):
    """RISE with several paints; see the module's docstring.

    Attributes:
        output: 'probability' or 'logit': what the target is evaluated at.
        masks: Number of masks.
        grid: Cells a side of a mask.
        show: Probability that a cell is shown, between 0 and 1.
        colours: Number of colours, at most 2 to the number of channels.
        seed: Seed of the masks.
    """

    output: Literal["logit", "probability"] = "probability"
    masks: int = 4000
    grid: int = 7
    show: float = 0.5
    colours: int = 8
    seed: int = 0

    needs = Need.SCORES

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require(self.colours >= 1, "at least 1 colour", self.colours)
        self.inner.__post_init__()

    @property
    def inner(self) -> Rise:
        """Return RISE with the same masks."""
        return Rise(
            output=self.output, masks=self.masks, grid=self.grid, show=self.show, seed=self.seed
        )

    def __call__(self, model: Model, x: Tensor, target: Target) -> Maps:
        aim, _ = self.inner.clean(model, x, target)
        draw = self.inner.drawn(x)
        paints = self.paints(x)

        def painted(image: Tensor, turn: Tensor) -> Tensor:
            return torch.lerp(
                paints[image, turn % paints.shape[1]], x[image], draw(turn).unsqueeze(1).to(x)
            )

        rows = Rows(len(x), self.masks, tuple(x.shape[1:]), painted)
        return Maps(self.inner.averaged(model.values(rows, aim), draw, x))

    def paints(self, x: Tensor) -> Tensor:
        """Return the colours of each image x (b, c, h, w): (b, colours, c, 1, 1)."""
        low, high = x.amin((2, 3)), x.amax((2, 3))
        corners = list(itertools.product((0.0, 1.0), repeat=x.shape[1]))
        # The darkest and the brightest first, so that few colours differ most.
        order = sorted(range(len(corners)), key=lambda i: (i not in (0, len(corners) - 1), i))
        chosen = x.new_tensor([corners[i] for i in order[: self.colours]])
        return torch.lerp(low[:, None], high[:, None], chosen)[..., None, None]

    def cost(self, model: Model, x: Tensor) -> Cost:
        return Cost(1 + self.masks)
