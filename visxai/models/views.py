"""The quantities that a model computes for a method: gradients, layers, attention.

b images have r maps, where r is the number of their targets; k is the number of classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from visxai.target import Aim

if TYPE_CHECKING:
    from visxai.models.pytorch.sdpa import Call


@dataclass(frozen=True)
class Gradients:
    """The gradients of the target at n inputs.

    Attributes:
        map: (n,) the map of each gradient.
        turn: (n,) its turn.
        gradient: (n, 3, h, w).
        value: (n,) the target's scalar at the input.
        runs: (map, first, end) of each map's gradients among the n, where they lie in sequence;
            None where `map` must be read to know.
    """

    map: Tensor
    turn: Tensor
    gradient: Tensor
    value: Tensor
    runs: tuple[tuple[int, int, int], ...] | None = None

    def by_map(self, values: Tensor) -> Iterator[tuple[int, Tensor]]:
        """Yield each map with those of `values` (n, ...) that are its own."""
        if self.runs is not None:
            for index, first, end in self.runs:
                yield index, values[first:end]
        else:
            for index in sorted(set(self.map.tolist())):
                yield index, values[self.map == index]


@dataclass(frozen=True)
class AtLayer:
    """A layer's activation and the target's gradient at it, for each of r maps.

    Attributes:
        name: the layer's dotted name.
        activation: (r, channels, u, v), float32.
        gradient: (r, channels, u, v), float32.
    """

    name: str
    activation: Tensor
    gradient: Tensor


@dataclass(frozen=True)
class AtLayers:
    """Activations and gradients at layers in a forward.

    Attributes:
        scores: (b, k).
        aim: the target settled on these scores.
        layers: activation and gradient at each layer.
    """

    scores: Tensor
    aim: Aim
    layers: tuple[AtLayer, ...]


@dataclass(frozen=True)
class LayerMaps:
    """Maps made of the activations and gradients at layers in a forward.

    Attributes:
        scores: (b, k).
        aim: the target settled on these scores.
        maps: (r, u, v), float32.
        graph: what made them, for the record.
    """

    scores: Tensor
    aim: Aim
    maps: Tensor
    graph: str


@dataclass(frozen=True)
class AtInput:
    """The gradient at the input in a forward that also settles the target.

    Attributes:
        scores: (b, k).
        aim: the target settled on these scores.
        gradient: (maps, c, h, w) the gradient of each map's scalar, float32.
    """

    scores: Tensor
    aim: Aim
    gradient: Tensor


@dataclass(frozen=True)
class Activations:
    """Activations of layers in a forward.

    Attributes:
        scores: (b, k).
        aim: the target settled on these scores.
        layers: the activation of each layer, (b, channels, u, v), float32.
    """

    scores: Tensor
    aim: Aim
    layers: tuple[Tensor, ...]


@dataclass(frozen=True)
class Replay:
    """A layer of b images and the network above it, the head, which can be run again.

    Attributes:
        name: the layer's dotted name.
        scores: (b, k) of the clean images.
        aim: the target settled on these scores.
        activation: (b, channels, u, v), float32.
        head: head(image (n,), activation (n, channels, u, v)) computes the scores (n, k) of those
            images with that activation in the layer's place.
    """

    name: str
    scores: Tensor
    aim: Aim
    activation: Tensor
    head: Callable[[Tensor, Tensor], Tensor]

    @property
    def clean(self) -> Tensor:
        """The target's scalars (maps,) of the clean images."""
        return self.aim(self.scores[self.aim.rows])


@dataclass(frozen=True)
class Attended:
    """The attention of a transformer's layers, first to last, for n maps.

    Attributes:
        layers: calls of attention with n rows, with the gradient of each map's target if it was
            requested; their attention weights are computed when read.
        tokens: the patch grid, and the tokens that the head reads.
    """

    layers: tuple[Call, ...]
    tokens: Tokens

    @property
    def start(self) -> Tensor:
        """(n, tokens), each row 1 at the class token, or uniform over averaged patches."""
        query = self.layers[0].query
        like = query.float() if query.dtype != torch.float64 else query
        return self.tokens.start(like).expand(len(query), -1)


@dataclass(frozen=True)
class AtAttention:
    """What a method computed from the attention in a forward, for each of r maps.

    Attributes:
        scores: (b, k).
        aim: the target settled on these scores.
        values: (r, ...) the method's result.
        norms: (r, patches) the norms of the patches' final tokens.
        tokens: the patch grid, and the tokens that the head reads.
        vanished: (r,) whether a gradient was all zero, or contained a value that isn't finite.
    """

    scores: Tensor
    aim: Aim
    values: Tensor
    norms: Tensor
    tokens: Tokens
    vanished: Tensor


@dataclass(frozen=True)
class Tokens:
    """A transformer's tokens for an input size: `prefix` tokens, then height * width patches.

    Attributes:
        blocks: the modules that hold an attention each, first to last.
        calls: the blocks' attention calls, numbered among all calls of a forward.
        prefix: the number of tokens before the patches (class, registers).
        height: the rows of the patch grid.
        width: the columns of the patch grid.
        read: the tokens whose final state the head reads: prefix tokens, or all patches where they
            are averaged.
        droppable: whether the model runs without some of its patches.
    """

    blocks: tuple[str, ...]
    calls: tuple[int, ...]
    prefix: int
    height: int
    width: int
    read: tuple[int, ...]
    droppable: bool

    @property
    def count(self) -> int:
        """The number of tokens, prefix and patches."""
        return self.prefix + self.height * self.width

    def start(self, like: Tensor) -> Tensor:
        """Return a row (tokens,) that is uniform over the tokens the head reads and 0 elsewhere.

        Args:
            like: a tensor of the row's type and device.
        """
        row = torch.zeros(self.count, dtype=like.dtype, device=like.device)
        row[list(self.read)] = 1 / len(self.read)
        return row
