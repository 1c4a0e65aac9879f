"""What a method is: a frozen dataclass whose call is a pure function (model, x, target) -> maps.

A method's file is its documentation: theory, equation, cost and source in the docstring, then
the code. Its repr is its spec string, which names every option that changes numbers.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from visxai.backends.base import AtLayer, Model, Need
from visxai.errors import ArgumentError
from visxai.spec import Spec, built
from visxai.target import Target


@dataclass(frozen=True)
class Maps:
    """What a method returns for r maps.

    values: (r, u, v), float32, the native resolution, unscaled. quality: figures a map, such as
    completeness (relative error) or evaluations, each (r,).
    """

    values: Tensor
    quality: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Cost:
    """Rows through the network for one image with one map, the clean forward included.

    forwards: through the whole network, or from the input to the layer; heads: from a layer to
    the scores only; backwards: from the score down.
    """

    forwards: int
    backwards: int = 0
    heads: int = 0


@dataclass(frozen=True, repr=False)
class Method(Spec, ABC):
    """An explanation method. Subclasses are final, frozen, and state their needs."""

    needs: ClassVar[Need]

    @abstractmethod
    def __call__(self, model: Model, x: Tensor, target: Target) -> Maps:
        """Maps for a batch x (b, 3, h, w) in model space: one a map of the aimed target."""

    @abstractmethod
    def cost(self, model: Model, x: Tensor) -> Cost:
        """What one image like x (1, 3, h, w) costs."""

    def layer_of(self, model: Model, x: Tensor) -> str | None:
        """The layer the maps come from, for the record; None for methods without one."""
        return None

    @classmethod
    def of(cls, member: str, options: Mapping[str, Any]) -> Method:
        """The method with these options; `member` names one of a family ("captum:DeepLift")."""
        if member:
            raise ArgumentError(
                f"expected {cls.name()} without a member, got {cls.name()}:{member}: drop the "
                "part from the colon on"
            )
        return built(cls, options)


@dataclass(frozen=True, repr=False)
class LayerMethod(Method):
    """A map made of what one layer holds, or of several layers' maps, fused.

    layer: a dotted name, or several, joined by "+" ("layer3+layer4") or as a tuple; None is the
    model's own choice. Fused maps are each divided by their largest magnitude, brought to the
    finest resolution and averaged, so that no layer outweighs another by its units.
    """

    layer: str | None = None

    def __post_init__(self) -> None:
        given: Any = self.layer
        if isinstance(given, (tuple, list)):
            names = [str(name) for name in given]
            object.__setattr__(self, "layer", "+".join(names) or None)

    def layer_of(self, model: Model, x: Tensor) -> str:
        return self.layer or model.layer(x)

    def layers(self, model: Model, x: Tensor) -> list[str]:
        """The names of the layers, one by one."""
        return self.layer_of(model, x).split("+")


@dataclass(frozen=True, repr=False)
class Cam(LayerMethod):
    """A map made of one layer's activations and gradients, or of several layers' fused."""

    needs = Need.LAYER_GRADIENT

    def __call__(self, model: Model, x: Tensor, target: Target) -> Maps:
        seen = model.at_layers(x, target, self.layer.split("+") if self.layer else ())
        return Maps(fuse([self.map(at) for at in seen.layers]))

    @abstractmethod
    def map(self, at: AtLayer) -> Tensor:
        """The map (r, u, v) of one layer."""

    def cost(self, model: Model, x: Tensor) -> Cost:
        return Cost(forwards=1, backwards=1)


def weighted(weights: Tensor, activation: Tensor, relu: bool) -> Tensor:
    """sum_k w_k A_k, (r, u, v), of weights (r, k) or (r, k, u, v) and activations (r, k, u, v);
    with `relu` what is above zero."""
    if weights.ndim == 2:
        signed = torch.einsum("rk,rkuv->ruv", weights, activation)
    else:
        signed = (weights * activation).sum(1)
    return signed.relu() if relu else signed


def quotient(numerator: Tensor, divisor: Tensor) -> Tensor:
    """numerator / divisor, and zero where the divisor is."""
    return torch.where(divisor == 0, torch.zeros_like(numerator), numerator / divisor)


def fuse(maps: list[Tensor]) -> Tensor:
    """One map (r, u, v) from several layers' maps, as `LayerMethod` describes."""
    if len(maps) == 1:
        return maps[0]
    finest = max((tuple(m.shape[-2:]) for m in maps), key=lambda size: size[0] * size[1])
    peaks = [m.abs().amax((1, 2), keepdim=True).clamp_min(1e-30) for m in maps]
    resized = [upsample(m / peak, finest) for m, peak in zip(maps, peaks, strict=True)]
    total = resized[0]
    for one in resized[1:]:
        total = total + one
    return total / len(maps)


def upsample(maps: Tensor, size: tuple[int, ...]) -> Tensor:
    """Maps (r, u, v) at (r, *size): bilinear, align_corners=False, in float32."""
    if tuple(maps.shape[-2:]) == tuple(size):
        return maps
    resized = F.interpolate(maps.unsqueeze(1), size, mode="bilinear", align_corners=False)
    return resized.squeeze(1)


def baseline_like(x: Tensor, baseline: float | str | Tensor) -> Tensor:
    """The baseline of x (b, c, h, w), of x's shape or broadcastable to it, in model space.

    A number fills every value; "mean" is each image's own mean colour; "blur" a Gaussian blur of
    it (σ a tenth of the shorter side, edges repeated); a tensor is taken as it is.
    """
    if isinstance(baseline, Tensor):
        return baseline.to(x)
    if isinstance(baseline, (int, float)) and not isinstance(baseline, bool):
        return x.new_full((1, 1, 1, 1), float(baseline))
    if baseline == "mean":
        return x.mean((2, 3), keepdim=True)
    if baseline == "blur":
        return gaussian_blur(x, min(x.shape[2:]) / 10)
    raise ArgumentError(
        f"expected a baseline that is a number, 'mean', 'blur' or a tensor, got {baseline!r}"
    )


def gaussian_blur(x: Tensor, sigma: float, radius: int | None = None) -> Tensor:
    """x (b, c, h, w) blurred by a Gaussian of `sigma` pixels, edges repeated, cut at `radius`
    pixels from its centre (default: 3 σ)."""
    if sigma <= 0:
        return x
    radius = radius or max(1, int(3 * sigma + 0.5))
    at = x.new_tensor(range(-radius, radius + 1))
    kernel = (-0.5 * (at / sigma) ** 2).exp()
    kernel = kernel / kernel.sum()
    channels = x.shape[1]
    for axis, shape in ((2, (-1, 1)), (3, (1, -1))):
        padding = (0, 0, radius, radius) if axis == 2 else (radius, radius, 0, 0)
        weight = kernel.reshape(1, 1, *shape).expand(channels, 1, *kernel.reshape(shape).shape)
        x = F.conv2d(F.pad(x, padding, mode="replicate"), weight, groups=channels)
    return x
