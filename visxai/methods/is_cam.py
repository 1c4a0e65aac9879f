"""IS-CAM: Score-CAM whose channels are weighted along the path from black to their masks.

    L_i = relu( sum_k w_k A_ki ),    w = softmax over k of  mean_j  y( j/samples * x * M_k )

M_k is channel k upsampled to the image and stretched to 0..1, j = 1 ... samples; A, x and y are
as in score_cam. The mean along the path is less at the mercy of a saturated score than its end,
at which score_cam reads it: with samples=1 it is score_cam.

    visxai.Engine().explain("cat.jpg", method="is_cam(top=64)")

Cost: one forward, and `samples` for each channel of the layer, or each of the `top`.
Source: Naidu et al., IS-CAM: integrated Score-CAM for axiomatic-based explanations, 2020
(arXiv 2010.03023).
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from visxai.methods._channels import Averaged, masks_of, stretched
from visxai.models.rows import Rows


@dataclass(frozen=True, repr=False)
class IsCam(Averaged):
    """Score-CAM along the path to each mask; see the module's docstring.

    Attributes:
        samples: Points on the path.
    """

    samples: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require(self.samples >= 1, "at least 1 sample", self.samples)

    def turns(self, x: Tensor, activation: Tensor) -> Rows:
        def build(image: Tensor, turn: Tensor) -> Tensor:
            mask, _ = masks_of(activation[image, turn // self.samples], tuple(x.shape[2:]))
            share = (turn % self.samples + 1).to(x) / self.samples
            return x[image].mul_(share[:, None, None, None] * stretched(mask))

        count = activation.shape[1] * self.samples
        return Rows(len(x), count, tuple(x.shape[1:]), build)
