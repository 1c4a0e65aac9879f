"""Activations of a PyTorch model's layers, without gradients, and the network above a layer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from visxai.models.pytorch.capture import capture
from visxai.models.pytorch.layers import Layout
from visxai.models.pytorch.split import Split
from visxai.models.rows import Rows, wide
from visxai.models.views import Activations, Replay
from visxai.target import Target

if TYPE_CHECKING:
    from visxai.models.pytorch.network import Network


def activations(
    model: Network, x: Tensor, target: Target, names: Sequence[str], layouts: Sequence[Layout]
) -> Activations:
    """Compute the activations of layers in a forward without a graph.

    Args:
        model: the network.
        x: inputs (b, 3, h, w).
        target: the target to settle on the scores.
        names: the layers' names.
        layouts: where the positions lie in each layer's output.
    """

    def run(part: Tensor, *_: Any) -> list[Tensor]:
        with capture(model.module, *names) as seen:
            scores = wide(model.forward(part))
            raw = [seen[name] for name in names]
        return [scores, *(wide(at.maps(one)) for at, one in zip(layouts, raw, strict=True))]

    scores, *layers = _joined(model, x, run)
    return Activations(scores, target.aim(scores, model.probabilities(scores)), tuple(layers))


def replay(
    model: Network, x: Tensor, target: Target, name: str, layout: Layout, parts: Split
) -> Replay:
    """Compute a layer's activation and prepare the head above it: a trunk and a head an image.

    The trunk runs in the model's precision, the head in float32: the effect of a channel on a score
    is smaller than bfloat16's steps.

    Args:
        model: the network.
        x: inputs (b, 3, h, w).
        target: the target to settle on the scores.
        name: the layer's name.
        layout: where the positions lie in its output.
        parts: the model split at the layer or below it.
    """
    exact = model.in_precision("fp32")

    def run(part: Tensor, *_: Any) -> list[Tensor]:
        kept = []

        def both(inside: Tensor) -> Any:
            kept.append(parts.trunk(inside).to(model.dtype))
            with torch.autocast(model.device.type, enabled=False), exact._computing():
                return parts.head(kept[0])

        with capture(parts.head.module, name) as seen:
            scores = wide(model.forward(part, both))
            raw = seen[name]
        # A cut at the layer's output needs nothing from below; a cut further out starts there.
        below = scores[:, :0] if parts.at.output else kept[0].movedim(parts.axis, 0)
        return [scores, wide(layout.maps(raw)), layout.prefix_tokens(raw), below]

    scores, activation, prefix, below = _joined(model, x, run)

    def head(image: Tensor, changed: Tensor) -> Tensor:
        output = layout.joined(changed, prefix[image])
        with exact._computing():
            if parts.at.output:
                return wide(exact.forward(output, parts.head))
            under = below[image].movedim(0, parts.axis)
            return wide(exact.forward(output, lambda inside: parts.head(under, inside)))

    aim = target.aim(scores, model.probabilities(scores))
    return Replay(name, scores, aim, activation, head)


def _joined(model: Network, x: Tensor, run: Callable[..., list[Tensor]]) -> list[Tensor]:
    """Run a batch block by block, and concatenate the tensors of `run`, images along axis 0."""
    blocks = list(model._blocks(Rows.of(x), "scores", run))
    return [torch.cat(column) for column in zip(*blocks, strict=True)]
