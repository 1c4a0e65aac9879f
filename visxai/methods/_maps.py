"""Arithmetic that several methods share: weighted sums, fusing, upsampling, baselines."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from visxai.errors import ArgumentError


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
