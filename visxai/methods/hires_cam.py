"""HiResCAM: where activations and their gradients agree, position by position.

    L_i = sum_k g_ki A_ki,    g_ki = dy / dA_ki

A_ki is channel k of the layer's output at position i, y the target's scalar. Gradients are not
averaged over positions, so a map shows only what the score was computed from; for a network that
ends in one linear layer its sum is the score without the bias. Where g is constant over
positions (global average pooling and a linear layer) it equals grad_cam(relu=False). The map is
signed: what speaks against the target is negative.

    visxai.Engine().explain("cat.jpg", method="hires_cam")

Cost: one forward, and one backward from the score down to the layer.
Source: Draelos & Carin, Use HiResCAM instead of Grad-CAM, arXiv 2011.08891, 2020.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from visxai.methods._maps import weighted
from visxai.methods.base import Cam
from visxai.models.views import AtLayer


@dataclass(frozen=True, repr=False)
class HiresCam(Cam):
    """Gradient times activation, summed over channels; see the module's docstring."""

    def map(self, at: AtLayer) -> Tensor:
        return weighted(at.gradient, at.activation, relu=False)
