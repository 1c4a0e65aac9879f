"""Shared code of the methods that weight channels by scores of masked images, in several turns."""

from __future__ import annotations

from abc import abstractmethod
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
class Averaged(LayerMethod):
    """Score-CAM with a mean of several scores for each channel.

    Subclasses have `samples`, the number of scores of a channel.

    Attributes:
        output: 'logit' or 'probability': what the target is evaluated at.
        relu: Whether to set negative values to zero; False keeps the signed sum.
        top: Number of channels used, those that vary most over positions; None uses all.
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

    @abstractmethod
    def turns(self, x: Tensor, activation: Tensor) -> Rows:
        """Build x (b, c, h, w) masked by activation (b, channels, u, v), `samples` turns each."""

    def __call__(self, model: Model, x: Tensor, target: Target) -> Maps:
        seen = model.activations(x, target, self.layers(model, x))
        aim = seen.aim if self.output == "logit" else seen.aim.on(model.probabilities)
        maps = []
        for activation in seen.layers:
            if self.top is not None and self.top < activation.shape[1]:
                kept = activation.flatten(2).var(2).topk(self.top, dim=1).indices
                activation = activation[torch.arange(len(x), device=x.device)[:, None], kept]
            values = model.values(self.turns(x, activation), aim)
            weights = values.reshape(len(aim), activation.shape[1], -1).mean(2).softmax(1)
            maps.append(weighted(weights, activation[aim.rows], self.relu))
        return Maps(fuse(maps))

    def cost(self, model: Model, x: Tensor) -> Cost:
        counts = [model.layer_shape(x, name)[0] for name in self.layers(model, x)]
        samples: int = getattr(self, "samples")  # noqa: B009 - a field of the subclass
        return Cost(1 + samples * sum(min(count, self.top or count) for count in counts))


def masks_of(channel: Tensor, size: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Upsample channels (n, u, v) to masks (n, 1, *size), and measure their spans (n, 1, 1, 1)."""
    mask = F.interpolate(channel.unsqueeze(1), size, mode="bilinear", align_corners=False)
    return mask, mask.amax((2, 3), keepdim=True) - mask.amin((2, 3), keepdim=True)


def stretched(mask: Tensor) -> Tensor:
    """Stretch masks (n, 1, h, w) to 0..1; a flat mask hides everything."""
    low = mask.amin((2, 3), keepdim=True)
    return quotient(mask - low, mask.amax((2, 3), keepdim=True) - low)
