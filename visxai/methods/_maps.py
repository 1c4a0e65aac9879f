"""Arithmetic shared by several methods: weighted sums, fusing, upsampling, baselines."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from visxai.errors import ArgumentError


def weighted(weights: Tensor, activation: Tensor, relu: bool) -> Tensor:
    """Sum activations over channels with weights: sum_k w_k A_k.

    Args:
        weights: Weights (r, k), or (r, k, u, v) where every position has its own.
        activation: Activations (r, k, u, v).
        relu: Whether to set negative sums to zero.

    Returns:
        Maps (r, u, v).
    """
    if weights.ndim == 2:
        signed = torch.einsum("rk,rkuv->ruv", weights, activation)
    else:
        signed = (weights * activation).sum(1)
    return signed.relu() if relu else signed


def quotient(numerator: Tensor, divisor: Tensor) -> Tensor:
    """Divide two tensors, with zero where the divisor is zero."""
    return torch.where(divisor == 0, torch.zeros_like(numerator), numerator / divisor)


def fuse(maps: list[Tensor]) -> Tensor:
    """Average the maps (r, u', v') of several layers to maps (r, u, v); see `LayerMethod`."""
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
    """Resize maps (r, u, v) to (r, *size): bilinear, align_corners=False."""
    if tuple(maps.shape[-2:]) == tuple(size):
        return maps
    resized = F.interpolate(maps.unsqueeze(1), size, mode="bilinear", align_corners=False)
    return resized.squeeze(1)


def baseline_like(x: Tensor, baseline: float | str | Tensor) -> Tensor:
    """Build the baseline of a batch x (b, c, h, w) in model space.

    Args:
        x: The batch.
        baseline: A number fills every value; "mean" is each image's own mean colour; "blur" is the
            image blurred by a Gaussian (σ a tenth of the shorter side, edges repeated); a tensor is
            taken as it is.

    Returns:
        A tensor of x's shape, or broadcastable to it.

    Raises:
        ArgumentError: The baseline is none of these.
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
    """Blur x (b, c, h, w) by a Gaussian, with its edges repeated.

    Args:
        x: The batch.
        sigma: The standard deviation in pixels; 0 or less returns x.
        radius: Pixels from the centre at which the kernel is cut, by default 3 σ.
    """
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
