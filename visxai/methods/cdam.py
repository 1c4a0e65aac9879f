"""CDAM: how much each patch token that enters the last attention adds to the score.

    L_i = sum_k T_ki  dy / dT_ki

T_i is the token of patch i after the first norm of the last block, where it enters the attention
from which the class token reads, y the target's scalar. Unlike attention itself, the map belongs
to a class and has a sign. For the layer that the model chooses it is hires_cam's map; CDAM is the
name under which it was published for vision transformers, which alone it serves.

    visxai.Engine("timm:deit_small_patch16_224").explain("cat.jpg", method="cdam")

Cost: one forward, and one backward from the score down to the last block.
Source: Brocki et al., Class-discriminative attention maps for vision transformers, TMLR 2024.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from visxai.methods._maps import weighted
from visxai.methods.base import Cam
from visxai.models.interface import Need
from visxai.models.views import AtLayer


@dataclass(frozen=True, repr=False)
class Cdam(Cam):
    """Gradient times token before the last attention; see the module's docstring."""

    needs = Need.LAYER_GRADIENT | Need.ATTENTION

    def map(self, at: AtLayer) -> Tensor:
        return weighted(at.gradient, at.activation, relu=False)
