"""Attention rollout: attention followed through all layers, with the residual connections.

    R = prod_l  norm( I + mean_h A^l_h ),    L_w = sum_{i in w} R[0, i]

norm divides each row by its sum. Rollout belongs to no class: it says which words reach the piece
that is classified, whatever the classifier makes of them.

    engine.explain("not bad at all", method="attention_rollout")

Cost: one forward.
Source: Abnar & Zuidema, Quantifying attention flow in transformers, ACL 2020.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from visxai.text.methods._attention import Attending, padded, words_of
from visxai.text.methods.base import Maps, Values
from visxai.text.model import Scalar, TextModel, Window


@dataclass(frozen=True, repr=False)
class AttentionRollout(Attending):
    """Attention through all layers; see the module's docstring."""

    def __call__(self, model: TextModel, windows: Sequence[Window], aim: Scalar) -> Maps:
        found: dict[int, Values] = {}
        for block, layers, _ in model.attended(windows, None):
            eye = torch.eye(block.ids.shape[1], device=block.ids.device)
            reached = eye.expand(len(block.rows), -1, -1)
            for layer in layers:
                step = padded(block, layer.float().mean(1)) + eye
                reached = step / step.sum(2, keepdim=True) @ reached
            words_of(found, windows, block, block.of_read(reached))
        return Maps([found[index] for index in range(len(windows))])
