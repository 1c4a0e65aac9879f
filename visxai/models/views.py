"""What a model shows of itself to a method: gradients, layers, attention."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from visxai.target import Aim

if TYPE_CHECKING:
    from visxai.models.pytorch.sdpa import Call


@dataclass(frozen=True)
class Gradients:
    """Gradients at n inputs: (map, turn) (n,), gradient (n, 3, h, w), value (n,) of the target."""

    map: Tensor
    turn: Tensor
    gradient: Tensor
    value: Tensor


@dataclass(frozen=True)
class AtLayer:
    """A layer, seen by r maps: activation and gradient, both (r, channels, u, v), float32."""

    name: str
    activation: Tensor
    gradient: Tensor


@dataclass(frozen=True)
class AtLayers:
    """One forward's scores (b, k), the aim settled on them, and what the layers hold."""

    scores: Tensor
    aim: Aim
    layers: tuple[AtLayer, ...]


@dataclass(frozen=True)
class Activations:
    """One forward's scores (b, k), the aim settled on them, and what the layers hold of every
    image: each (b, channels, u, v), float32."""

    scores: Tensor
    aim: Aim
    layers: tuple[Tensor, ...]


@dataclass(frozen=True)
class Replay:
    """A layer of b images and the network above it, the head, which can be run again.

    scores (b, k), aim: of the clean images. activation: (b, channels, u, v), float32.
    head(image (n,), activation (n, channels, u, v)) -> scores (n, k) when the layer holds that
    activation instead for those images.
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
    """The attention of a transformer's layers, first to last, as n maps see it.

    layers: calls of n rows, with the gradient of each map's target if one was asked for; their
    attention weights are formed when read. tokens: the patch grid and what the head reads.
    """

    layers: tuple[Call, ...]
    tokens: Tokens

    @property
    def start(self) -> Tensor:
        """e (n, tokens): one-hot at the class token, or uniform over averaged patches."""
        query = self.layers[0].query
        like = query.float() if query.dtype != torch.float64 else query
        return self.tokens.start(like).expand(len(query), -1)


@dataclass(frozen=True)
class AtAttention:
    """One forward's scores (b, k), the aim settled on them, and for each of r maps what a method
    made of the attention, values (r, ...), and the norms (r, patches) of the final tokens.

    vanished: (r,) whether a gradient was all zero, or anywhere not finite.
    """

    scores: Tensor
    aim: Aim
    values: Tensor
    norms: Tensor
    tokens: Tokens
    vanished: Tensor


@dataclass(frozen=True)
class Tokens:
    """A transformer's tokens for one input size: prefix + height * width of them.

    blocks: the modules that hold one attention each, first to last. calls: which attention calls
    of a forward are theirs. read: the tokens whose final state the head reads: prefix tokens,
    or all patches where they are averaged. droppable: whether it runs without some patches.
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
        return self.prefix + self.height * self.width

    def start(self, like: Tensor) -> Tensor:
        """e (tokens,): uniform over the tokens that the head reads; one-hot for a class token."""
        row = torch.zeros(self.count, dtype=like.dtype, device=like.device)
        row[list(self.read)] = 1 / len(self.read)
        return row
