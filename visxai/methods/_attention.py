"""Shared code of the attention methods: a map from the relevance of tokens, with outliers masked.

Some vision transformers store global information in a few background patches. The tokens of these
patches have norms far above the others' and draw attention that is unrelated to their place
(Darcet et al., Vision transformers need registers, ICLR 2024). With `outliers=z`, a patch is an
outlier if its token after the last block has a norm more than z robust standard deviations (1.4826
times the median absolute deviation) above the image's median; its value is replaced by the median
of those of its up to eight neighbours that aren't outliers. With None, the default, the map stays
as the method defines it.
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
    """A method whose map is made of attention weights.

    Attributes:
        outliers: Robust standard deviations above the median from which a patch's norm makes it an
            outlier, see the module's docstring; None masks no patch.
    """

    outliers: float | None = None

    needs = Need.ATTENTION

    def __post_init__(self) -> None:
        super().__post_init__()
        good = self.outliers is None or self.outliers > 0
        self._require(good, "outliers above 0 standard deviations, or None", self.outliers)

    def cost(self, model: Model, x: Tensor) -> Cost:
        return Cost(forwards=1, backwards=1)

    def maps(self, relevance: Tensor, seen: AtAttention) -> Maps:
        """Arrange the relevance of all tokens (r, tokens) as maps (r, u, v) over the patches.

        Args:
            relevance: One value for each token, prefix tokens (class, registers) first.
            seen: The attention it was computed from, for the patch grid and the tokens' norms.
        """
        grid = (seen.tokens.height, seen.tokens.width)
        values = relevance[:, seen.tokens.prefix :].reshape(-1, *grid)
        if self.outliers is not None:
            values = smoothed(values, outlying(seen.norms, self.outliers).reshape(-1, *grid))
        return Maps(values.float())


def outlying(norms: Tensor, limit: float) -> Tensor:
    """Mark the patches whose norms are far above the median of their image.

    Args:
        norms: Norms of the patch tokens (r, patches).
        limit: Robust standard deviations above the median beyond which a patch is an outlier.

    Returns:
        A boolean tensor (r, patches), true for outliers.
    """
    away = norms - norms.median(1, keepdim=True).values
    spread = 1.4826 * away.abs().median(1, keepdim=True).values
    return away > limit * spread.clamp_min(torch.finfo(norms.dtype).tiny)


def smoothed(maps: Tensor, outliers: Tensor) -> Tensor:
    """Replace the outliers of maps (r, u, v) by the median of their neighbours.

    Only neighbours that aren't outliers themselves count; where all of them are, the median of the
    whole map's other values is taken.
    """
    kept = maps.masked_fill(outliers, float("nan"))
    around = F.pad(kept, (1, 1, 1, 1), value=float("nan")).unfold(1, 3, 1).unfold(2, 3, 1)
    near = around.flatten(3).nanmedian(3).values
    whole = kept.flatten(1).nanmedian(1).values[:, None, None].expand_as(maps)
    near = torch.where(near.isnan(), whole, near)
    return torch.where(outliers, near, maps)
