"""Shapley-CAM: Grad-CAM with the curvature of the score taken into account.

    L_i = relu( sum_k w_k A_ki ),    w_k = mean_i ( g - H A / 2 )_ki

A_ki is channel k of the layer's output at position i, g the gradient and H the Hessian of y at A:
the weights are the channels' Shapley values in the second-order expansion of y around A, summed
over positions and per unit of activation. Where the head is piecewise linear (a pooling and a
linear layer, ReLUs) H is zero and it is grad_cam. `relu=False` keeps the signed sum.

    visxai.Engine("timm:convnext_tiny").explain("cat.jpg", method="shapley_cam")

Layers that output tokens are refused, and so is fused attention above the layer, which has no
second derivative in PyTorch.

Cost: one forward more than grad_cam for each layer, and a second backward down to the layer.
Source: Cai, CAMs as Shapley value-based explainers, 2025 (arXiv 2501.06261).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from visxai.errors import ModelError
from visxai.methods._maps import fuse, weighted
from visxai.methods.base import Cost, LayerMethod, Maps
from visxai.models.budget import is_out_of_memory
from visxai.models.interface import Model, Need
from visxai.target import Target

Run = Callable[[nn.Module, Tensor, Tensor], Tensor]


@dataclass(frozen=True, repr=False)
class ShapleyCam(LayerMethod):
    """Activations weighted by second-order Shapley values; see the module's docstring.

    Attributes:
        relu: Whether to set negative values to zero; False keeps the signed sum.
    """

    relu: bool = True

    needs = Need.LAYER_GRADIENT | Need.MODULE

    @property
    def two_sided(self) -> bool:
        return not self.relu

    def __call__(self, model: Model, x: Tensor, target: Target) -> Maps:
        aim = model.aim(x, target)
        maps = []
        for name in self.layers(model, x):
            run = signed(name, model.layer_shape(x, name), model.ref.name)
            found = model.through(x, aim, run)
            maps.append(found.relu() if self.relu else found)
        return Maps(fuse(maps))

    def cost(self, model: Model, x: Tensor) -> Cost:
        count = len(self.layers(model, x))
        return Cost(forwards=1 + count, backwards=count)


def signed(name: str, shape: tuple[int, ...], model: str) -> Run:
    """Make the function that computes the signed maps (n, u, v) of a layer.

    Args:
        name: The layer's dotted name.
        shape: Its shape (channels, u, v).
        model: The model's name, for the errors.
    """

    def run(network: nn.Module, inputs: Tensor, which: Tensor) -> Tensor:
        try:
            activation, weights = expanded(network, inputs, which, name)
        except RuntimeError as error:
            if is_out_of_memory(error) or "is not implemented" not in str(error):
                raise
            raise ModelError(
                f"expected a head with second derivatives above layer {name!r}, but {model} has "
                "fused attention there: use grad_cam or hires_cam"
            ) from None
        if activation.shape[1:] != shape and activation.ndim == 4:  # channels last
            activation, weights = activation.movedim(-1, 1), weights.movedim(-1, 1)
        if activation.shape[1:] != shape:
            raise ModelError(
                f"expected layer {name!r} to output channels at positions, got shape "
                f"{tuple(activation.shape)}: use grad_cam, which reads tokens too"
            )
        return weighted(weights.mean((2, 3)), activation, relu=False)

    return run


def expanded(network: nn.Module, inputs: Tensor, which: Tensor, name: str) -> tuple[Tensor, Tensor]:
    """Expand the target's scalars at a layer to second order.

    Args:
        network: From (inputs (n, c, h, w), map (n,)) to scalars (n, 1), as `Model.through` runs it.
        inputs: The images.
        which: The map of each image.
        name: The layer's dotted name.

    Returns:
        The layer's output A and g - H A / 2, both in the layer's own shape, float32.
    """
    kept: list[Tensor] = []

    def cut(_part: nn.Module, _args: Any, output: Any) -> Any:
        if not isinstance(output, Tensor):
            raise ModelError(
                f"expected layer {name!r} to output a tensor, got {type(output).__name__}: choose "
                "a layer inside it"
            )
        kept.append(output.detach().clone().requires_grad_())
        torch.set_grad_enabled(True)
        return kept[0].clone()

    handle = network.get_submodule(f"network.{name}").register_forward_hook(cut)
    try:
        with torch.no_grad():
            value = network(inputs, which).sum()
    finally:
        handle.remove()
    (leaf,) = kept
    (gradient,) = torch.autograd.grad(value, leaf, create_graph=True)
    curved = None
    if gradient.requires_grad:
        (curved,) = torch.autograd.grad(gradient, leaf, leaf.detach(), allow_unused=True)
    plain = gradient.detach().float()
    return leaf.detach().float(), plain if curved is None else plain - curved.float() / 2
