"""Shared code of the methods that change how a gradient passes an activation function.

The rule of each is added to a private copy of the network by forward hooks alone: the output of an
activation module is replaced by one of the same value with another gradient. So a module may run
more than once, work in place in the original, and be hooked by other threads elsewhere.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from visxai.errors import ModelError
from visxai.methods.base import Cost, Maps, Method
from visxai.models.interface import Model, Need
from visxai.target import Target

# Activation modules by the names that PyTorch, timm and transformers give their classes.
_RECTIFIER = re.compile(r"relu|elu|gelu|silu|swish|mish", re.IGNORECASE)
_OTHER = re.compile(r"sigmoid|tanh|softplus|softsign", re.IGNORECASE)

Rule = Callable[[Tensor, Tensor], Tensor]  # from an activation's input and output to a new output


def rectifiers(network: nn.Module) -> list[nn.Module]:
    """List the modules that cut off negative values: ReLU and its smooth relatives."""
    return [part for part in _leaves(network) if _RECTIFIER.search(type(part).__name__)]


def activations(network: nn.Module) -> list[nn.Module]:
    """List the modules that apply a function to each value by itself."""
    others = [part for part in _leaves(network) if _OTHER.search(type(part).__name__)]
    return rectifiers(network) + others


def _leaves(network: nn.Module) -> Iterator[nn.Module]:
    return (part for part in network.modules() if not any(True for _ in part.children()))


@contextmanager
def ruled(parts: list[nn.Module], rule: Rule) -> Iterator[None]:
    """Apply a rule to the outputs of modules inside the block."""

    def hook(_part: nn.Module, given: Any, output: Tensor) -> Tensor:
        return rule(given[0], output)

    handles = [part.register_forward_hook(hook) for part in parts]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def clipped(network: nn.Module, inputs: Tensor, which: Tensor, rule: Rule, name: str) -> Tensor:
    """Compute the gradient at the input with a rule at each rectifier.

    Args:
        network: From (inputs, map (n,)) to scalars (n, 1), as `Model.through` runs it.
        inputs: The images (n, c, h, w).
        which: The map of each image.
        rule: The rule.
        name: The model's name, for the error.

    Returns:
        (n, c, h, w) float32.

    Raises:
        ModelError: The network has no rectifier that is a module.
    """
    parts = rectifiers(network)
    if not parts:
        raise ModelError(
            "expected a model with ReLU, GELU or SiLU modules, whose gradients the method changes, "
            f"but {name} has none: use input_x_gradient or saliency"
        )
    leaf = inputs.requires_grad_()
    with ruled(parts, rule):
        value = network(leaf, which)
    (gradient,) = torch.autograd.grad(value.sum(), leaf)
    return gradient.float()


def guided(_given: Tensor, output: Tensor) -> Tensor:
    """Let positive gradients alone pass, where the activation itself lets gradients pass."""
    passed = output.clone()
    if passed.requires_grad:
        passed.register_hook(torch.relu)  # type: ignore[no-untyped-call]
    return passed


def deconvolved(given: Tensor, output: Tensor) -> Tensor:
    """Let positive gradients alone pass, wherever the activation's input was."""
    return guided(given, output.detach() + (given - given.detach()))


@dataclass(frozen=True, repr=False)
class Clipped(Method):
    """The gradient at the input with a rule at each rectifier.

    Attributes:
        signed: Whether to sum over channels, rather than take the largest magnitude.
    """

    signed: bool = True

    needs = Need.MODULE

    @staticmethod
    @abstractmethod
    def rule(given: Tensor, output: Tensor) -> Tensor:
        """Return an activation's output, of the same value, with the method's gradient."""

    @property
    def two_sided(self) -> bool:
        return self.signed

    def __call__(self, model: Model, x: Tensor, target: Target) -> Maps:
        def run(network: nn.Module, inputs: Tensor, which: Tensor) -> Tensor:
            gradient = clipped(network, inputs, which, self.rule, model.ref.name)
            return gradient.sum(1) if self.signed else gradient.abs().amax(1)

        return Maps(model.through(x, model.aim(x, target), run))

    def cost(self, model: Model, x: Tensor) -> Cost:
        return Cost(forwards=2, backwards=1)
