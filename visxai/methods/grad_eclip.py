"""Grad-ECLIP: the last attention's values, weighted by the score's gradient and by similarity.

    M_i = ( sum_q s_qi sum_k dy/dO_qk V_ik )⁺,    s_qi = cos(q_q, k_i) scaled to 0..1 over i

O_q is the output of the last block's attention at token q before its projection, V_i, k_i and q_q
are values, keys and queries, with all heads' channels k side by side. The sum over q runs over the
tokens that the head reads: the class token, or all patches where they are averaged. Softmax makes
attention sparse; the similarity s takes its place, so that every patch that the token looks for
counts. `relu=False` keeps the signed sum.

    matcher.explain("cat.jpg", ["a cat on a sofa"], method="grad_eclip")

Made for image encoders that are compared with texts (CLIP), it serves classifiers as well.

Cost: one forward, and one backward from the score down to the last block's attention.
Source: Zhao et al., Gradient-based visual explanation for transformer-based CLIP, ICML 2024.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from visxai.methods._attention import AttentionMethod
from visxai.methods.base import Maps
from visxai.models.interface import Model
from visxai.models.pytorch.sdpa import Call
from visxai.models.views import Attended
from visxai.target import Target


@dataclass(frozen=True, repr=False)
class GradEclip(AttentionMethod):
    """Values weighted by gradient and loosened attention; see the module's docstring.

    Attributes:
        relu: Whether to set negative values to zero; False keeps the signed sum.
    """

    relu: bool = True

    @property
    def two_sided(self) -> bool:
        return not self.relu

    def __call__(self, model: Model, x: Tensor, target: Target) -> Maps:
        seen = model.attention(x, target, weighted, last=True)
        return self.maps(seen.values.relu() if self.relu else seen.values, seen)


def weighted(seen: Attended) -> Tensor:
    """Compute the signed map (n, tokens) over all tokens; prefix tokens are scaled with none."""
    (call,) = seen.layers
    keys = torch.arange(call.key.shape[2], device=call.key.device) >= seen.tokens.prefix
    read = torch.tensor(seen.tokens.read, device=call.key.device)
    return evidence(call, read.expand(len(call.query), -1), keys.expand(len(call.query), -1))


def evidence(call: Call, read: Tensor, keys: Tensor) -> Tensor:
    """Compute the signed evidence of each key.

    Args:
        call: The attention of n rows, with the gradient at its output.
        read: (n, m) the tokens whose output the head reads.
        keys: (n, tokens) bool, the keys over which similarities are scaled to 0..1.

    Returns:
        (n, tokens), 0 at the other keys.
    """
    assert call.gradient is not None
    index = read.unsqueeze(2)

    def rows(value: Tensor) -> Tensor:
        joined = _joined(value)
        return joined.gather(1, index.expand(-1, -1, joined.shape[2]))

    similar = F.normalize(rows(call.query), dim=2) @ F.normalize(_joined(call.key), dim=2).mT
    outside = ~keys.unsqueeze(1)
    low = similar.masked_fill(outside, torch.inf).amin(2, keepdim=True)
    high = similar.masked_fill(outside, -torch.inf).amax(2, keepdim=True)
    # A single key is all that there is to look for.
    scaled = torch.where(high > low, (similar - low) / (high - low), torch.ones_like(similar))
    weights = scaled.masked_fill(outside, 0).mT @ rows(call.gradient)
    return (weights * _joined(call.value)).sum(2)


def _joined(value: Tensor) -> Tensor:
    """Lay the channels of all heads (n, heads, tokens, depth) side by side: (n, tokens, k)."""
    wide = value if value.dtype == torch.float64 else value.float()
    return wide.transpose(1, 2).flatten(2)
