"""A model's scores for one image."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from visxai.foreign import shown
from visxai.labels import label_of
from visxai.references import InputRef

if TYPE_CHECKING:
    from visxai.images.heatmap import Array


@dataclass(frozen=True, eq=False)
class Prediction:
    """A model's scores for one image: probabilities (k,) float32, and the strongest class."""

    input: InputRef
    probabilities: Array
    class_index: int
    label: str
    score: float
    labels: tuple[str, ...] | None = field(default=None, repr=False)

    def __repr__(self) -> str:
        where = self.input.path or f"{self.input.width}x{self.input.height} image"
        best = ", ".join(f"{label} {score:.3f}" for label, score in self.top(3))
        return f"<Prediction {shown(where)}: {shown(best)}, of {len(self.probabilities)} classes>"

    def top(self, count: int = 5) -> tuple[tuple[str, float], ...]:
        """The `count` strongest classes as (label, score), strongest first."""
        order = np.argsort(-self.probabilities, kind="stable")[:count]
        return tuple(
            (label_of(self.labels, int(index)), float(self.probabilities[index])) for index in order
        )
