"""Grad-ECLIP: the last attention's values, weighted by the score's gradient and by similarity.

    L_w = sum_{i in w} ( s_qi sum_k dy/dO_qk V_ik )⁺,    s_qi = cos(q_q, k_i) scaled to 0..1 over i

O_q is the output of the last layer's attention at the piece q that the model reads (the end of the
text in CLIP, the first piece in BERT), V_i, k_i and q_q are values, keys and queries, with all
heads' channels k side by side. `visxai.methods.grad_eclip` is the same for the patches of an image.

    matcher.explain("cat.jpg", ["a cat on a sofa"], words="grad_eclip")

Cost: one forward and one backward.
Source: Zhao et al., Gradient-based visual explanation for transformer-based CLIP, ICML 2024.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from visxai.methods.grad_eclip import evidence
from visxai.text.methods._attention import Attending, words_of
from visxai.text.methods.base import Maps, Values
from visxai.text.model import Scalar, TextModel, Window


@dataclass(frozen=True, repr=False)
class GradEclip(Attending):
    """Values weighted by gradient and loosened attention; see the module's docstring."""

    def __call__(self, model: TextModel, windows: Sequence[Window], aim: Scalar) -> Maps:
        found: dict[int, Values] = {}
        for block, call in model.last_attention(windows, aim):
            read = torch.from_numpy(block.read).to(block.ids.device).unsqueeze(1)
            words_of(found, windows, block, evidence(call, read, block.inside()).relu())
        return Maps([found[index] for index in range(len(windows))])
