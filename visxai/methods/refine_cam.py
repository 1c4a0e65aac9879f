"""Refine-CAM: the places on which the class activation maps of several layers agree.

    L = product over layers l of  resized( M_l / max M_l )

M_l is Grad-CAM++ (method='grad_cam_plus_plus'), grad_cam or layer_cam at layer l, without negative
values. Maps are resized to the finest layer's resolution (bilinear, align_corners=False). A late
layer says roughly where, an early one sharpens it, and what one of them leaves out is left out.

    visxai.Engine().explain("cat.jpg", method="refine_cam(layer='blocks.2+bn2')")

With one layer, the default, it is that layer's map divided by its maximum: name two or more.

Cost: one forward, and one backward from the score down to the first of the layers.
Source: Refine-CAM, 2026 (arXiv 2605.14641); LayerCAM and Grad-CAM++ as named on their pages.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from visxai.methods._maps import upsample
from visxai.methods.base import Cam, Maps
from visxai.methods.grad_cam import GradCam
from visxai.methods.grad_cam_plus_plus import GradCamPlusPlus
from visxai.methods.layer_cam import LayerCam
from visxai.models.interface import Model
from visxai.models.views import AtLayer
from visxai.target import Target

KINDS: dict[str, type[GradCamPlusPlus | GradCam | LayerCam]] = {
    "grad_cam_plus_plus": GradCamPlusPlus,
    "grad_cam": GradCam,
    "layer_cam": LayerCam,
}


@dataclass(frozen=True, repr=False)
class RefineCam(Cam):
    """The product of several layers' maps; see the module's docstring.

    Attributes:
        method: The map of each layer: 'grad_cam_plus_plus', 'grad_cam' or 'layer_cam'.
    """

    method: Literal["grad_cam_plus_plus", "grad_cam", "layer_cam"] = "grad_cam_plus_plus"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require(self.method in KINDS, f"a method of {', '.join(KINDS)}", self.method)

    @property
    def two_sided(self) -> bool:
        return False

    def __call__(self, model: Model, x: Tensor, target: Target) -> Maps:
        seen = model.at_layers(x, target, self.layer.split("+") if self.layer else ())
        maps = [self.map(at) for at in seen.layers]
        finest = max((tuple(m.shape[-2:]) for m in maps), key=lambda size: size[0] * size[1])
        product = upsample(maps[0], finest)
        for one in maps[1:]:
            product = product * upsample(one, finest)
        return Maps(product)

    def map(self, at: AtLayer) -> Tensor:
        positive = KINDS[self.method]().map(at)
        return positive / positive.amax((1, 2), keepdim=True).clamp_min(1e-30)
