"""The layer that makes the scores, kept in float32 while the network below it runs in less.

bfloat16 has 8 bits of mantissa: between 8 and 16 its steps are 0.0625. Scores that the last layer
rounds to such steps tie, cross thresholds, and hide the drops that occlusion and RISE measure. The
layer is a small part of the work, so it computes in the type of its own weights and its inputs are
widened, which costs nothing that can be measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from visxai.models.pytorch.layers import Survey

_KINDS = (nn.Linear, nn.Conv2d)


class InWeightsType:
    """A layer that widens its input to its weights' type, and that autocast doesn't narrow."""

    def forward(self, x: Tensor) -> Tensor:
        """Compute the layer's output in the type of its weights."""
        layer: Any = super()
        given = x.to(self.weight.dtype)  # type: ignore[attr-defined]
        # Asked first: tracers of float32 forwards then see no autocast at all.
        if not torch.is_autocast_enabled(x.device.type):
            return layer.forward(given)  # type: ignore[no-any-return]
        with torch.autocast(x.device.type, enabled=False):
            return layer.forward(given)  # type: ignore[no-any-return]


def classifiers(seen: Survey, module: nn.Module) -> list[str]:
    """Return the names of the layers that make the scores, the last first.

    These are the last linear layer or convolution that ran, and those right before it that output
    as many scores too: two heads whose scores are averaged.

    Args:
        seen: the module's survey.
        module: the network.
    """
    names: list[str] = []
    width = 0
    for visit in reversed(seen.visits):
        part = module.get_submodule(visit.name)
        if not isinstance(part, _KINDS):
            continue
        size = part.out_features if isinstance(part, nn.Linear) else part.out_channels
        pooled = visit.shape[1:] in ((size,), (size, 1, 1))
        if names and not (pooled and size == width):
            break
        names.append(visit.name)
        width = size
        if not pooled:
            break
    return names


def keep_wide(module: nn.Module, names: Sequence[str]) -> None:
    """Let layers compute in the type of their weights, whatever the rest computes in.

    Args:
        module: the network; the layers keep their weights, their names and their class as a base.
        names: the layers.
    """
    for name in names:
        part = module.get_submodule(name)
        if not isinstance(part, InWeightsType):
            part.__class__ = _wide(type(part))


def _wide(kind: Any) -> Any:
    """Return the subclass of a layer's class that computes in its weights' type."""
    return type(kind.__name__, (InWeightsType, kind), {"__module__": kind.__module__})
