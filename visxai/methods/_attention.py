"""What the attention methods share: from relevance of tokens to a map, with outliers masked.

Some vision transformers keep global notes in a few background patches, whose tokens then have
norms far above the others' and draw attention that says nothing of the place (Darcet et al.,
Vision transformers need registers, ICLR 2024). `outliers=z` takes for outliers the patches whose
token after the last block has a norm more than z robust standard deviations above the image's
median (1.4826 times the median absolute deviation), and gives each the median of its up to eight
neighbours that aren't. None, the default, leaves the map as the method defines it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from visxai.methods.base import Cost, Maps, Method
from visxai.models.interface import Model, Need
from visxai.models.views import AtAttention


@dataclass(frozen=True, repr=False)
class AttentionMethod(Method):
    """A map made of attention; outliers: see the module's docstring."""

    outliers: float | None = None

    needs = Need.ATTENTION

    def __post_init__(self) -> None:
        super().__post_init__()
        good = self.outliers is None or self.outliers > 0
        self._require(good, "outliers above 0 standard deviations, or None", self.outliers)

    def cost(self, model: Model, x: Tensor) -> Cost:
        return Cost(forwards=1, backwards=1)

    def maps(self, relevance: Tensor, seen: AtAttention) -> Maps:
        """Maps (r, u, v) of the patches' relevance, from that of all tokens (r, tokens)."""
        grid = (seen.tokens.height, seen.tokens.width)
        values = relevance[:, seen.tokens.prefix :].reshape(-1, *grid)
        if self.outliers is not None:
            values = smoothed(values, outlying(seen.norms, self.outliers).reshape(-1, *grid))
        return Maps(values.float())


def outlying(norms: Tensor, limit: float) -> Tensor:
    """Which of an image's patches (r, patches) have norms more than `limit` robust standard
    deviations above the median."""
    away = norms - norms.median(1, keepdim=True).values
    spread = 1.4826 * away.abs().median(1, keepdim=True).values
    return away > limit * spread.clamp_min(torch.finfo(norms.dtype).tiny)


def smoothed(maps: Tensor, outliers: Tensor) -> Tensor:
    """maps (r, u, v) with outliers set to the median of their neighbours that are none, or of
    the whole map's where all neighbours are outliers."""
    kept = maps.masked_fill(outliers, float("nan"))
    around = F.pad(kept, (1, 1, 1, 1), value=float("nan")).unfold(1, 3, 1).unfold(2, 3, 1)
    near = around.flatten(3).nanmedian(3).values
    whole = kept.flatten(1).nanmedian(1).values[:, None, None].expand_as(maps)
    near = torch.where(near.isnan(), whole, near)
    return torch.where(outliers, near, maps)
