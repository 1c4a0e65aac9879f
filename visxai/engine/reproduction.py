"""Reproduction: compute a stored explanation again and compare the two (`Engine.reproduce`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from visxai import methods
from visxai.errors import ArgumentError, Failure
from visxai.methods.base import Method
from visxai.models.interface import Model
from visxai.record.base import Explanation
from visxai.record.image import ImageExplanation


class Explainer(Protocol):
    """The part of an engine that reproduction and redaction use."""

    @property
    def model(self) -> Model:
        """Return the model that the engine runs."""

    def explain(
        self, images: Any, method: str | Method | Sequence[str | Method], target: Any
    ) -> list[ImageExplanation | Failure]:
        """Explain images, in input order."""

    def score(self, images: Any, target: Any) -> list[float]:
        """Score images, in input order."""


@dataclass(frozen=True)
class Reproduction:
    """The recomputation of a stored explanation, and its differences from the record.

    Attributes:
        explanation: The new explanation.
        map_difference: The greatest absolute difference of the maps, divided by the record's
            greatest magnitude; stored maps are float16, so 5e-4 is rounding. Infinite where the
            maps have other sizes.
        score_difference: The absolute difference of the scores.
        same_image: Whether both images have the same bytes.
    """

    explanation: Explanation
    map_difference: float
    score_difference: float
    same_image: bool

    @property
    def agrees(self) -> bool:
        """Tell whether map and score agree to float16 precision: 2e-3 and 1e-3."""
        return self.map_difference <= 2e-3 and self.score_difference <= 1e-3


def reproduce(
    engine: Explainer, record: ImageExplanation | Mapping[str, Any], image: Any
) -> Reproduction:
    """Compute a stored explanation again; see `Engine.reproduce`."""
    old = record if isinstance(record, ImageExplanation) else ImageExplanation.from_dict(record)
    check_model(engine, old)
    loaded = methods.load(old.method)
    if old.layer and getattr(loaded, "layer", old.layer) is None:
        # The record's layer was the model's choice: name it, should the choice have changed.
        loaded = type(loaded)(**{**vars(loaded), "layer": old.layer})
    source = old.original_source() if image is None else image
    (new,) = engine.explain([source], loaded, target_of(old))
    assert isinstance(new, ImageExplanation)
    peak = float(np.abs(old.values).max(initial=0.0)) or 1.0
    same_size = new.values.shape == old.values.shape
    worst = float(np.abs(new.values - old.values).max(initial=0.0)) if same_size else np.inf
    return Reproduction(
        new,
        worst / peak,
        abs(new.score - old.score),
        new.input.source_sha256 == old.input.source_sha256,
    )


def target_of(record: ImageExplanation) -> str | int:
    """Return the target that reproduces a record's map.

    Raises:
        ArgumentError: If the record's target was a callable, which a record can't hold.
    """
    if record.target.startswith(("any=", "diff=")):
        return record.target
    if record.class_index is None:
        raise ArgumentError(
            f"expected a record whose target can be written down, got {record.target!r}: "
            "explain the image again with the same callable"
        )
    return record.class_index


def check_model(engine: Explainer, record: ImageExplanation) -> None:
    """Raise ArgumentError if the engine's weights aren't those that made the record."""
    ours = engine.model.ref
    if record.model.weights_sha256 != ours.weights_sha256:
        raise ArgumentError(
            f"expected the model {record.model.name} with weights "
            f"{record.model.weights_sha256[:12]}…, got {ours.name} with "
            f"{ours.weights_sha256[:12]}…: use the engine that made the record"
        )
