"""Guided Grad-CAM: guided backpropagation, kept where Grad-CAM finds evidence.

    M_p = U_p sum over channels c of  G_cp

G is guided backpropagation's gradient at the input (see guided_backprop), U Grad-CAM's map
enlarged to the image (bilinear, align_corners=False). It has the detail of the one and the class
of the other; how faithful it is, Grad-CAM's map alone decides.

    visxai.Engine().explain("cat.jpg", method="guided_grad_cam")

Cost: two forwards, one backward from the score down to the layer and one down to the input.
Source: Selvaraju et al., Grad-CAM, ICCV 2017.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from visxai.methods._maps import upsample
from visxai.methods.base import Cost, LayerMethod, Maps
from visxai.methods.grad_cam import GradCam
from visxai.methods.guided_backprop import GuidedBackprop
from visxai.models.interface import Model, Need
from visxai.target import Settled, Target


@dataclass(frozen=True, repr=False)
class GuidedGradCam(LayerMethod):
    """Guided backpropagation times Grad-CAM; see the module's docstring."""

    needs = Need.LAYER_GRADIENT | Need.MODULE

    def __call__(self, model: Model, x: Tensor, target: Target) -> Maps:
        coarse = GradCam(self.layer)(model, x, target).values
        settled = Settled.on_aim(target, model.aim(x, target))
        fine = GuidedBackprop()(model, x, settled).values
        return Maps(fine * upsample(coarse, tuple(x.shape[2:])))

    def cost(self, model: Model, x: Tensor) -> Cost:
        return Cost(forwards=2, backwards=2)
