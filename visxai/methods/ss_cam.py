"""SS-CAM: Score-CAM whose channels are weighted by a mean over noisy copies of their masks.

    L_i = relu( sum_k w_k A_ki ),    w = softmax over k of  mean_j  y( x * M_kj )

    M_kj = normalised( U_k + sigma (max U_k - min U_k) e_kj ),    e_kj normal, j = 1 ... samples

U_k is channel k upsampled to the image, `normalised` stretches it to 0..1, A, x and y are as in
score_cam. Noise keeps a channel's weight from hanging on one sharp mask. All images and channels
share the draws e_j, made from `seed`. With sigma 0 it is score_cam.

    visxai.Engine().explain("cat.jpg", method="ss_cam(samples=10, top=64)")

Cost: one forward, and `samples` for each channel of the layer, or each of the `top`.
Source: Wang et al., SS-CAM: smoothed Score-CAM for sharper visual feature localization, 2020
(arXiv 2006.14255).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from visxai.methods._channels import Averaged, masks_of, stretched
from visxai.methods._draws import shared
from visxai.models.rows import Rows


@dataclass(frozen=True, repr=False)
class SsCam(Averaged):
    """Score-CAM over noisy masks; see the module's docstring.

    Attributes:
        samples: Number of noisy copies of each mask.
        sigma: Standard deviation of the noise, relative to each channel's range.
        seed: Seed of the noise.
    """

    samples: int = 10
    sigma: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require(self.samples >= 1, "at least 1 sample", self.samples)
        self._require(self.sigma >= 0, "a sigma of at least 0", self.sigma)

    def turns(self, x: Tensor, activation: Tensor) -> Rows:
        shape = (self.samples, 1, *x.shape[2:])
        draws = shared(
            ("normal", shape, self.seed),
            x,
            lambda: torch.randn(shape, generator=torch.Generator().manual_seed(self.seed)),
        )

        def build(image: Tensor, turn: Tensor) -> Tensor:
            mask, span = masks_of(activation[image, turn // self.samples], tuple(x.shape[2:]))
            noise = self.sigma * span * draws[turn % self.samples]
            return x[image].mul_(stretched(mask + noise))

        count = activation.shape[1] * self.samples
        return Rows(len(x), count, tuple(x.shape[1:]), build)
