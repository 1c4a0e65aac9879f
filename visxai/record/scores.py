"""A model's scores for an image, kept for every image of a run, explained or not."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

TOP = 5  # classes kept for each image


class Ranked(NamedTuple):
    """A class among those with the greatest scores.

    Attributes:
        class_index: The class.
        label: Its label.
        score: Its score as the model reports it, None where it isn't finite.
    """

    class_index: int
    label: str
    score: float | None


@dataclass(frozen=True)
class Scores:
    """The greatest scores of an image: probabilities for softmax and sigmoid models.

    Attributes:
        path: The image's address, None for an image passed as an object.
        classes: At most TOP class indices, the greatest score first.
        labels: The labels of these classes.
        values: The scores of these classes; a score that isn't finite is stored as None.
        gate: The score that the run's gate compared, None without a gate on scores.
        explained: Whether the image has an explanation.
    """

    path: str | None
    classes: tuple[int, ...]
    labels: tuple[str, ...]
    values: tuple[float | None, ...]
    gate: float | None = None
    explained: bool = True

    @property
    def top(self) -> tuple[Ranked, ...]:
        """The classes with their labels and scores, the greatest score first."""
        values = (value if value is None or math.isfinite(value) else None for value in self.values)
        return tuple(map(Ranked, self.classes, self.labels, values))


def pack(scores: Sequence[Scores]) -> dict[str, Any]:
    """Convert scores to plain values for JSON, with each label once."""
    labels = {
        str(index): label
        for one in scores
        for index, label in zip(one.classes, one.labels, strict=True)
    }
    return {
        "path": [one.path for one in scores],
        "classes": [list(one.classes) for one in scores],
        "values": [[_shortest(value) for value in one.values] for one in scores],
        "gate": [_shortest(one.gate) for one in scores],
        "explained": [one.explained for one in scores],
        "labels": labels,
    }


def unpack(packed: Mapping[str, Any]) -> tuple[Scores, ...]:
    """Read the scores that `pack` converted."""
    columns = (packed[name] for name in ("path", "classes", "values", "gate", "explained"))
    labels = packed["labels"]
    return tuple(
        Scores(
            path,
            tuple(classes),
            tuple(labels[str(index)] for index in classes),
            tuple(values),
            gate,
            explained,
        )
        for path, classes, values, gate, explained in zip(*columns, strict=True)
    )


def _shortest(value: float | None) -> float | None:
    """Return the shortest number with the same float32; return None where it isn't finite."""
    return float(str(np.float32(value))) if value is not None and math.isfinite(value) else None
