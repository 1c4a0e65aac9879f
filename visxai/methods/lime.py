"""LIME: a linear model of the score near the image, in terms of its superpixels.

    w = argmin_w  sum_z  k(z) ( f(x with z) - w_0 - w z )^2  +  ridge |w|^2
    k(z) = exp( -d(z)^2 / (2 kernel_width^2) ),      d = 1 - sqrt(shown parts / parts)

z in {0, 1}^S says which parts of the image are shown, each with probability 1/2; d is the cosine
distance of z to all ones, and the first z is all ones. `segments` is the approximate number of
SLIC superpixels, or a grid (rows, columns). The fit is linear in the scores, so it is one
matrix, made once for each number of parts; the intercept is not penalised by the ridge.

    visxai.Engine().explain("cat.jpg", method="lime(segments=50, samples=1000)")

A pixel of the map carries the weight of its superpixel: the score that its presence adds. A grid
gives a map of the grid's size, superpixels a map at pixel resolution. The weights depend on the
kernel and the ridge, which is why both are in the spec; kernel_shap has no such freedom.

Cost: one forward, and `samples` more.
Source: Ribeiro et al., "Why should I trust you?": explaining the predictions of any classifier,
KDD 2016.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from visxai.methods._masked import Masked, grid_of, padded, parts_of, shown
from visxai.methods.base import Cost, Maps
from visxai.models.interface import Model
from visxai.target import Target


@dataclass(frozen=True, repr=False)
class Lime(Masked):
    """Weights of a local linear model of superpixels; see the module's docstring.

    Attributes:
        segments: Approximate number of superpixels, or a grid (rows, columns).
        samples: Number of masks.
        kernel_width: Width of the kernel that weights masks by their distance to the image.
        ridge: Penalty on the squared weights.
        seed: Seed of the masks.
    """

    segments: int | tuple[int, int] = 50
    samples: int = 1000
    kernel_width: float = 0.25
    ridge: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        least = self.segments if isinstance(self.segments, int) else min(self.segments)
        self._require(least >= 1, "at least 1 segment", self.segments)
        self._require(self.samples >= 2, "at least 2 samples", self.samples)
        self._require(self.kernel_width > 0, "a kernel_width above 0", self.kernel_width)
        self._require(self.ridge > 0, "a ridge above 0", self.ridge)

    def __call__(self, model: Model, x: Tensor, target: Target) -> Maps:
        aim, clean = self.clean(model, x, target)
        labels, counts = parts_of(x, self.segments)
        presence = [self._presence(count) for count in counts]
        fits = padded([self._fit(one) for one in presence], x.device)
        keep = shown(labels, padded(presence, x.device))
        responses = self.responses(model, x, aim, self.samples, keep)
        # A fit's rows sum to zero, so subtracting a constant only reduces rounding errors.
        change = (responses - clean.unsqueeze(1)).unsqueeze(2)
        weights = (fits[aim.rows] @ change.to(fits)).squeeze(2)
        grid = grid_of(x, self.segments)
        if grid is not None:
            return Maps(weights.reshape(-1, *grid))
        pixels = weights.gather(1, labels[aim.rows].flatten(1))
        return Maps(pixels.reshape(-1, *x.shape[2:]))

    def cost(self, model: Model, x: Tensor) -> Cost:
        return Cost(1 + self.samples)

    def _presence(self, count: int) -> Tensor:
        """Draw the masks (samples, count) of 0 and 1, the first row all ones."""
        generator = torch.Generator().manual_seed(self.seed)
        presence = (torch.rand(self.samples, count, generator=generator) < 0.5).double()
        presence[0] = 1
        return presence

    def _fit(self, presence: Tensor) -> Tensor:
        """Build the matrix (count, samples) from the masks' scores to the weights of the parts."""
        distance = 1 - presence.mean(1).sqrt()
        kernel = torch.exp(-(distance**2) / (2 * self.kernel_width**2))
        centred = presence - (kernel @ presence) / kernel.sum()
        weighted = centred.T * kernel
        eye = torch.eye(presence.shape[1], dtype=presence.dtype)
        fitted: Tensor = torch.linalg.solve(weighted @ centred + self.ridge * eye, weighted)
        return fitted
