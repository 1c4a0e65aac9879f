"""The part of a network above a layer, with a map's arithmetic, traced into ordinary operators.

scores = head(A),   g = d score_c / dA,   map = arithmetic(A, g)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from visxai.errors import VisxaiError
from visxai.models.pytorch.capture import capture
from visxai.models.pytorch.forms import Forms
from visxai.models.pytorch.layers import Layout
from visxai.models.pytorch.shortened import shorten
from visxai.models.pytorch.split import Split
from visxai.models.views import AtLayer, Tokens

TOLERANCE = 1e-5  # of the largest score or value of a map
Explain = Callable[..., tuple[Tensor, Tensor]]


class Below(Protocol):
    """What runs before the traced head, in a module of its own."""

    module: nn.Module

    def __call__(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Compute what the head takes of images x (b, c, h, w)."""


@dataclass(frozen=True)
class Parts:
    """A network below a layer and its traced head.

    Attributes:
        trunk: From images to the activation at the cut, or several; None where the head is the
            whole network.
        head: From those activations (and the class of each image) to scores and maps.
        activations: The activations of two images, which the head was traced with.
        axis: The activations' axis of images.
    """

    trunk: Below | None
    head: GraphModule
    activations: tuple[Tensor, ...]
    axis: int

    def below(self, x: Tensor) -> tuple[Tensor, ...]:
        """Compute what the head takes of images x (b, c, h, w)."""
        return below(self.trunk, x)


def below(trunk: Below | None, x: Tensor) -> tuple[Tensor, ...]:
    """Compute what a head takes of images x (b, c, h, w), each in memory of its own."""
    found = x if trunk is None else trunk(x)
    return tuple(one.clone() for one in ((found,) if isinstance(found, Tensor) else found))


@dataclass(frozen=True)
class Mapped:
    """A network with the maps that are made of its layers' activations and gradients.

    Attributes:
        model: The network, in float32.
        names: The layers.
        layouts: Where the positions lie in each layer's output.
        tokens: The network's tokens where it is a transformer, else None.
        arithmetic: From activation and gradient at each layer to maps (b, u, v).
        target: The class that maps explain, None for the strongest of each image.
    """

    model: Forms
    names: Sequence[str]
    layouts: Sequence[Layout]
    tokens: Tokens | None
    arithmetic: Callable[[Sequence[AtLayer]], Tensor]
    target: int | None = None

    def trace(self, x: Tensor, given: bool) -> Parts:
        """Trace the network above the first of the layers together with the maps.

        Args:
            x: Two inputs (2, c, h, w).
            given: Whether the head takes the class of each image as another input, where a
                negative number stands for `target`.

        Returns:
            The trunk and the head. The head's outputs are scores (b, k) and maps (b, u, v).
        """
        parts = self.model.split(min(self.names, key=self.model.survey(x).order), x)
        trunk = None if parts.whole else parts.trunk.again()
        explain = self._shortened(x, parts) or self._explain(parts, self.model.copied())
        return traced(explain, trunk, x, 0 if trunk is None else parts.axis, given)

    def _explain(self, parts: Split, module: nn.Module) -> Explain:
        """Return the function from the activation at the cut to scores and maps.

        Args:
            parts: The network in two parts.
            module: A copy of the network, which is changed.
        """
        run = module if parts.whole else parts.head.on(module)

        def explain(inside: Tensor, *wanted: Tensor) -> tuple[Tensor, Tensor]:
            with capture(module, *self.names, cut=True) as seen:
                scores = self.model.forward(inside, run)
            one = chosen(scores.detach(), self.target, *wanted)
            # Rows are independent, so that one backward serves all of them.
            gradients = torch.autograd.grad(scores, [seen[name] for name in self.names], one)
            layers = [
                AtLayer(name, layout.maps(seen[name].detach()), layout.maps(gradient))
                for name, layout, gradient in zip(self.names, self.layouts, gradients, strict=True)
            ]
            return scores.detach(), self.arithmetic(layers)

        return explain

    def _shortened(self, x: Tensor, parts: Split) -> Explain | None:
        """Return what runs of a transformer's last block only what the head reads.

        Returns:
            None where the network isn't such a transformer, or scores and maps aren't the same so.
        """
        tokens = self.tokens
        if tokens is None or max(tokens.read) >= tokens.prefix:  # the head reads all patches
            return None
        module = self.model.copied()
        try:
            shorten(module, tokens)
            short = self._explain(parts, module)
            plain = self._explain(parts, self.model.copied())
            with torch.inference_mode(False), torch.no_grad():
                inside = below(None if parts.whole else parts.trunk, x)
                found, wanted = short(*inside), plain(*inside)
        except (VisxaiError, RuntimeError):  # layers behind the last attention, for one
            return None
        same = all(
            one.shape == other.shape and (one - other).abs().max() <= TOLERANCE * other.abs().max()
            for one, other in zip(found, wanted, strict=True)
        )
        return short if same else None


def traced(explain: Explain, trunk: Below | None, x: Tensor, axis: int, given: bool) -> Parts:
    """Trace what explains the activations that a trunk leaves of two inputs x; see `Parts`."""
    from visxai.models.pytorch.symbolic import symbolic  # whose imports take a while

    with torch.inference_mode(False), torch.no_grad():
        activations = below(trunk, x)
        extra = [torch.full((2,), -1)] if given else []
        axes = [axis] * len(activations) + [0] * len(extra)
        head = symbolic(explain, [*activations, *extra], axes)
    return Parts(trunk, head, activations, axis)


def chosen(scores: Tensor, target: int | None, *wanted: Tensor) -> Tensor:
    """Return a row for each image that is 1 at its class and 0 elsewhere, (b, k) float."""
    classes = torch.arange(scores.shape[1])
    one = scores.argmax(1, keepdim=True)
    if target is not None:
        one = torch.full_like(one, target)
    for given in wanted:
        one = torch.where(given[:, None] < 0, one, given[:, None])
    return (classes == one).to(scores.dtype)
