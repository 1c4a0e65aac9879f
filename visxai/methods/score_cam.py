"""Score-CAM: channels weighted by the score the image gets when seen through each of them.

    L_i = relu( sum_k w_k A_ki ),    w = softmax over k of  y( x * M_k )

    M_k = (U_k - min U_k) / (max U_k - min U_k),    U_k = channel k upsampled to the image

A_ki is channel k of the layer's output at position i, y the target's scalar, x the image in
model space, so that a mask fades to the mean colour of the model's preprocessing. Upsampling is
bilinear (align_corners=False), the extremes are taken after it, and a channel that is flat masks
everything. The paper writes the increase y(x * M_k) - y(baseline); the baseline's score is the
same for all channels and cancels in the softmax, so it is not computed.

y is the logit, as in the paper. A softmax over logits that differ by tens lets a single channel
dominate; output='probability' reads the model's activation instead, whose weights are flatter.
`relu=False` keeps the signed sum. No gradient is needed.

`top=64` uses 64 channels only, those whose activation varies most over positions: the softmax
gives the others little weight, and the cost falls with their number.

    visxai.Engine().explain("cat.jpg", method="score_cam")

Masks are upsampled and multiplied block by block, so memory does not grow with the channels.

Cost: one forward, and one for each channel of the layer, or each of the `top`.
Source: Wang et al., Score-CAM, CVPR workshops 2020.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from visxai.methods._maps import fuse, quotient, weighted
from visxai.methods.base import Cost, LayerMethod, Maps
from visxai.models.interface import Model, Need
from visxai.models.rows import Rows
from visxai.target import Target


@dataclass(frozen=True, repr=False)
class ScoreCam(LayerMethod):
    """Activations weighted by the scores of masked images; see the module's docstring.

    Attributes:
        output: 'logit' or 'probability': what the target is evaluated at.
        relu: Whether to set negative values to zero; False keeps the signed sum.
        top: Number of channels used; None uses all.
    """

    output: Literal["logit", "probability"] = "logit"
    relu: bool = True
    top: int | None = None

    needs = Need.SCORES | Need.LAYER_ACTIVATION

    @property
    def two_sided(self) -> bool:
        return not self.relu

    def __post_init__(self) -> None:
        super().__post_init__()
        known = ("logit", "probability")
        self._require(self.output in known, f"an output of {' or '.join(known)}", self.output)
        self._require(self.top is None or self.top >= 1, "top of at least 1 channel", self.top)

    def __call__(self, model: Model, x: Tensor, target: Target) -> Maps:
        seen = model.activations(x, target, self.layers(model, x))
        aim = seen.aim if self.output == "logit" else seen.aim.on(model.probabilities)
        maps = []
        for activation in seen.layers:
            if self.top is not None and self.top < activation.shape[1]:
                kept = activation.flatten(2).var(2).topk(self.top, dim=1).indices
                activation = activation[torch.arange(len(x), device=x.device)[:, None], kept]
            weights = model.values(masked(x, activation), aim).softmax(1)
            maps.append(weighted(weights, activation[aim.rows], self.relu))
        return Maps(fuse(maps))

    def cost(self, model: Model, x: Tensor) -> Cost:
        counts = [model.layer_shape(x, name)[0] for name in self.layers(model, x)]
        return Cost(forwards=1 + sum(min(count, self.top or count) for count in counts))


def masked(x: Tensor, activation: Tensor) -> Rows:
    """Build x (b, 3, h, w) masked by each channel of activation (b, channels, u, v)."""

    def build(image: Tensor, turn: Tensor) -> Tensor:
        channel = activation[image, turn].unsqueeze(1)
        mask = F.interpolate(channel, x.shape[2:], mode="bilinear", align_corners=False)
        low = mask.amin((2, 3), keepdim=True)
        mask = quotient(mask - low, mask.amax((2, 3), keepdim=True) - low)
        return x[image].mul_(mask)

    return Rows(x.shape[0], activation.shape[1], tuple(x.shape[1:]), build)
