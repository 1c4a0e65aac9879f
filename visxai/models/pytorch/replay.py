"""Reading a layer of a PyTorch model without gradients, and running again what lies above it."""

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
    """What the layers `names` hold of x, in one forward without a graph."""

    def run(part: Tensor, *_: Tensor) -> list[Tensor]:
        with capture(model.module, *names) as seen:
            scores = wide(model.forward(part))
            raw = [seen[name] for name in names]
        return [scores, *(wide(at.maps(one)) for at, one in zip(layouts, raw, strict=True))]

    scores, *layers = _joined(model, x, run)
    return Activations(scores, target.aim(scores, model.probabilities(scores)), tuple(layers))


def replay(
    model: Network, x: Tensor, target: Target, name: str, layout: Layout, parts: Split
) -> Replay:
    """The layer `name` of x and the head above it: one trunk and one head an image.

    The trunk runs in the model's precision, the head in float32: what one channel changes of a
    score is smaller than bfloat16's steps.
    """
    exact = model.in_precision("fp32")

    def run(part: Tensor, *_: Tensor) -> list[Tensor]:
        kept = []

        def both(inside: Tensor) -> Any:
            kept.append(parts.trunk(inside).to(model.dtype))
            with torch.autocast(model.device.type, enabled=False), exact._computing():
                return parts.head(kept[0])

        with capture(parts.head.module, name) as seen:
            scores = wide(model.forward(part, both))
            raw = seen[name]
        # At the layer's own output the head reads nothing else; further out it starts below.
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
    """run's tensors, images along axis 0, over a batch that is run block by block."""
    blocks = list(model._blocks(Rows.of(x), "scores", run))
    return [torch.cat(column) for column in zip(*blocks, strict=True)]
