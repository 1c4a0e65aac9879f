"""Chefer's relevance: attention weighted by its gradient, followed through all layers.

    R <- R + mean_h relu( dy/dA^l_h * A^l_h ) R,     L_w = sum_{i in w} R[q, i]

R starts as the identity, layer by layer from the first; q is the piece that the model reads. Unlike
rollout it belongs to the class y.

    engine.explain("not bad at all", method="chefer")

Cost: one forward and one backward.
Source: Chefer, Gur & Wolf, Generic attention-model explainability, ICCV 2021.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from visxai.text.methods._attention import Attending, padded, words_of
from visxai.text.methods.base import Maps, Values
from visxai.text.model import Scalar, TextModel, Window


@dataclass(frozen=True, repr=False)
class Chefer(Attending):
    """Attention times gradient through all layers; see the module's docstring."""

    def __call__(self, model: TextModel, windows: Sequence[Window], aim: Scalar) -> Maps:
        found: dict[int, Values] = {}
        for block, layers, slopes in model.attended(windows, aim):
            eye = torch.eye(block.ids.shape[1], device=block.ids.device)
            relevance = eye.expand(len(block.rows), -1, -1)
            for layer, slope in zip(layers, slopes, strict=True):
                step = padded(block, (slope * layer).float().relu().mean(1))
                relevance = relevance + step @ relevance
            words_of(found, windows, block, block.of_read(relevance))
        return Maps([found[index] for index in range(len(windows))])
