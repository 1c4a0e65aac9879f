"""What concepts are made of: images prepared for a model, and a layer's activations of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from visxai.engine.engine import Engine
from visxai.engine.given import list_images
from visxai.errors import ArgumentError
from visxai.images.prepared import Prepared
from visxai.target import Target


@dataclass(frozen=True)
class Looked:
    """Images as a model sees them.

    Attributes:
        engine: The engine of the model.
        prepared: The images, cut for the model.
        x: The images (n, c, h, w) in model space.
        layer: The name of the layer that is looked at.
    """

    engine: Engine
    prepared: tuple[Prepared, ...]
    x: Tensor
    layer: str

    def parts(self, x: Tensor) -> Iterator[Tensor]:
        """Yield inputs in batches of the engine's size."""
        yield from torch.split(x, self.engine.batch_size)

    def read(self, x: Tensor, reduce: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        """Read the layer: the scores (n, k) of inputs, and what is reduced of their activations.

        Args:
            x: Inputs (n, c, h, w).
            reduce: A function of activations (m, channels, u, v), negative values set to zero.
        """
        found = []
        for part in self.parts(x):
            seen = self.engine.model.activations(part, Target.of("top1"), (self.layer,))
            found.append((seen.scores, reduce(seen.layers[0].clamp_min(0))))
        scores, values = zip(*found, strict=True)
        return torch.cat(scores), torch.cat(values)


def look(model: Any, images: Any, layer: str | None, least: int = 1) -> Looked:
    """Prepare images for a model.

    Args:
        model: An `Engine`, or what one takes as its model.
        images: As for `Engine.explain`.
        layer: The layer to look at; None is the model's own choice.
        least: The fewest images.

    Raises:
        ArgumentError: There are fewer images, or several layers are named.
        ImageError: An image can't be read.
        ModelError: The model offers no layers.
    """
    engine = model if isinstance(model, Engine) else Engine(model)
    many = list_images(images)
    if len(many) < least:
        raise ArgumentError(f"expected at least {least} images, got {len(many)}: add images")
    prepared = tuple(one for one in map(engine.prepare, many) if isinstance(one, Prepared))
    x = engine.tensor([one.pixels for one in prepared])
    name = layer or engine.model.layer(x[:1])
    if "+" in name:
        raise ArgumentError(
            f"expected one layer for concepts, got {name!r}: name one of them as layer="
        )
    return Looked(engine, prepared, x, name)


def require_count(count: int, most: int) -> None:
    """Raise ArgumentError unless there are 1 to `most` concepts."""
    if not 1 <= count <= most:
        raise ArgumentError(
            f"expected 1 to {most} concepts for these images, got count={count}: try "
            f"count={min(5, most)}"
        )


def require_between(name: str, value: float, low: float, high: float) -> None:
    """Raise ArgumentError unless an argument lies between two bounds."""
    if not low <= value <= high:
        raise ArgumentError(f"expected {name} from {low} to {high}, got {value}")
