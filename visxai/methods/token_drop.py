"""Token dropping: how far the score rests on a patch, by running without it and many others.

    M_j = mean of y over the subsets with patch j  -  mean of y over those without it

A subset keeps a share `keep` of the patches, and only those, with the class and register tokens,
enter the first block: nothing is painted over, so no paint is mistaken for evidence, and the
sequences are shorter, so each subset costs less than a forward. Subsets are drawn as smooth random
fields of `cells` x `cells` values whose highest patches stay, since single missing patches barely
change a transformer's score; every other field is the negative of the one before. All images share
the draws.

    visxai.Engine("timm:deit_small_patch16_224").explain("cat.jpg", method="token_drop")

It serves transformers that add positions before their first block; not those whose blocks read
positions of their own (rotary or relative).

Cost: one forward, and `masks` forwards at a share of `keep` of the tokens.
Source: Englebert et al., Explaining through transformer input sampling, ICCV workshops 2023; the
subsets are drawn at random as in Petsiuk et al., RISE, BMVC 2018.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from visxai.methods.base import Cost, Maps, Method
from visxai.models.interface import Model, Need
from visxai.target import Target


@dataclass(frozen=True, repr=False)
class TokenDrop(Method):
    """Score by random subsets of patches; see the module's docstring.

    Attributes:
        masks: Number of subsets.
        keep: Share of the patches that a subset keeps, between 0 and 1.
        cells: Values a side of the random fields.
        seed: Seed of the subsets.
    """

    masks: int = 256
    keep: float = 0.5
    cells: int = 7
    seed: int = 0

    needs = Need.TOKENS

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require(self.masks >= 2, "at least 2 masks", self.masks)
        self._require(0 < self.keep < 1, "keep between 0 and 1", self.keep)
        self._require(self.cells >= 2, "at least 2 cells", self.cells)

    def __call__(self, model: Model, x: Tensor, target: Target) -> Maps:
        aim = model.aim(x, target)
        tokens = model.tokens(x)
        keep = self.subsets(tokens.height, tokens.width)
        values = model.token_values(x, keep.to(x.device), aim)
        kept = torch.zeros(self.masks, tokens.height * tokens.width)
        kept = kept.scatter(1, keep, 1.0).to(values)
        # Centred first: rounding relative to the scores' mean would hide small differences.
        values = values - values.mean(1, keepdim=True)
        present, absent = kept.sum(0).clamp_min(1), (1 - kept).sum(0).clamp_min(1)
        maps = values @ kept / present - values @ (1 - kept) / absent
        return Maps(maps.reshape(-1, tokens.height, tokens.width))

    def subsets(self, height: int, width: int) -> Tensor:
        """Draw the patches that each mask keeps (masks, kept), in ascending order.

        Args:
            height: Rows of patches.
            width: Columns of patches.
        """
        generator = torch.Generator().manual_seed(self.seed)
        pairs = math.ceil(self.masks / 2)
        coarse = torch.randn(pairs, 1, self.cells, self.cells, generator=generator)
        fields = F.interpolate(coarse, (height, width), mode="bilinear").flatten(1)
        fields = torch.stack([fields, -fields], 1).flatten(0, 1)[: self.masks]
        count = max(1, min(round(self.keep * height * width), height * width - 1))
        return fields.topk(count, dim=1).indices.sort(dim=1).values

    def cost(self, model: Model, x: Tensor) -> Cost:
        return Cost(forwards=1 + self.masks)
