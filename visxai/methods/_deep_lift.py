"""Shared code of DeepLIFT and its mean over baselines: the rescale rule and its check."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from visxai.errors import ModelError
from visxai.methods._rectified import activations, ruled
from visxai.models.interface import Model
from visxai.models.rows import Rows
from visxai.target import Aim

INCOMPLETE = 0.1
_SMALL = 1e-6  # a change of an input below this counts as none


def contributions(model: Model, x: Tensor, aim: Aim, clean: Tensor, paint: Tensor) -> Tensor:
    """Compute DeepLIFT's contributions against one baseline an image.

    Args:
        model: The model.
        x: Images (b, c, h, w).
        aim: The target, settled on x.
        clean: The target's scalars (r,) at x.
        paint: The baselines (b, c, h, w).

    Returns:
        (r, h, w), summed over channels.

    Raises:
        ModelError: They don't add up to the score's change, to within 10 %.
    """
    name = model.ref.name

    def run(network: nn.Module, inputs: Tensor, which: Tensor) -> Tensor:
        against = paint[aim.rows[which]].to(inputs)
        leaf = inputs.requires_grad_()
        pools = [part for part in network.modules() if isinstance(part, nn.MaxPool2d)]
        handles = [part.register_forward_hook(pooled) for part in pools]
        try:
            with ruled(activations(network), rescaled):
                value = network(torch.cat([leaf, against]), which.repeat(2))
        finally:
            for handle in handles:
                handle.remove()
        (multiplier,) = torch.autograd.grad(value[: len(leaf)].sum(), leaf)
        return (multiplier * (leaf.detach() - against)).float().sum(1)

    maps = model.through(x, aim, run)
    rows = Rows(len(x), 1, tuple(x.shape[1:]), lambda image, _: paint[image])
    check(maps, clean - model.values(rows, aim)[:, 0], name)
    return maps


def rescaled(given: Tensor, output: Tensor) -> Tensor:
    """Give an activation the slope of the line between its values at image and baseline.

    Args:
        given: Inputs, the images' in the first half of the batch, the baselines' in the second.
        output: Outputs at them.
    """
    half = len(given) // 2
    z, plain = given[:half], given[half:]
    rise, run = (output[:half] - output[half:]).detach().float(), (z - plain).detach().float()
    still = run.abs() < _SMALL
    slope = torch.where(still, torch.zeros_like(rise), rise / run.masked_fill(still, 1))
    line = output[:half].detach() + slope.to(z.dtype) * (z - z.detach())
    # Where nothing changes, the activation's own derivative is the limit of that slope.
    return torch.cat([torch.where(still, output[:half], line), output[half:].detach()])


def pooled(part: nn.MaxPool2d, given: Any, output: Tensor) -> Tensor:
    """Give a maximum's change to the place where the larger of both maxima lies; see `rescaled`."""
    half = len(output) // 2
    options: Any = (part.kernel_size, part.stride, part.padding, part.dilation, part.ceil_mode)
    places = F.max_pool2d(given[0].detach(), *options, return_indices=True)[1].flatten(2)
    z, plain = given[0][:half].flatten(2), given[0][half:].flatten(2)
    rise = (output[:half] - output[half:]).detach().flatten(2).float()
    place = torch.where(rise > 0, places[:half], places[half:])
    there = z.gather(2, place)
    run = (there - plain.gather(2, place)).detach().float()
    still = run.abs() < _SMALL
    slope = torch.where(still, torch.zeros_like(rise), rise / run.masked_fill(still, 1))
    line = output[:half].detach().flatten(2) + slope.to(z.dtype) * (there - there.detach())
    return torch.cat([line.reshape_as(output[:half]), output[half:].detach()])


def check(maps: Tensor, change: Tensor, name: str) -> None:
    """Raise ModelError where contributions (r, h, w) miss the score's change (r,) by over 10 %."""
    missing = (maps.sum((1, 2)) - change).abs()
    # Where contributions cancel, rounding makes the relative error of the change meaningless.
    scale = torch.maximum(change.abs(), 0.05 * maps.abs().sum((1, 2)))
    worst = float((missing / scale.clamp_min(1e-6)).max()) if len(maps) else 0.0
    if not worst <= INCOMPLETE:
        raise ModelError(
            f"expected DeepLIFT's contributions to add up to the score's change, but for {name} "
            f"they miss it by {worst:.0%}, since it multiplies or normalises activations, or calls "
            "them as functions: use integrated_gradients"
        )
