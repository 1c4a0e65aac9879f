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
from typing import ClassVar

from torch import Tensor

from visxai.methods._channels import Averaged, masks_of, stretched
from visxai.models.rows import Rows


@dataclass(frozen=True, repr=False)
class ScoreCam(Averaged):
    """Activations weighted by the scores of masked images; see the module's docstring."""

    samples: ClassVar[int] = 1

    def turns(self, x: Tensor, activation: Tensor) -> Rows:
        def build(image: Tensor, turn: Tensor) -> Tensor:
            mask, _ = masks_of(activation[image, turn], tuple(x.shape[2:]))
            return x[image].mul_(stretched(mask))

        return Rows(len(x), activation.shape[1], tuple(x.shape[1:]), build)
