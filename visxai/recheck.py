"""What asks the model again about an explanation: reproducing it, redacting what it shows.

Both are the engine's (`engine.reproduce`, `engine.redact`); the results are plain records.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from visxai import methods
from visxai.errors import ArgumentError
from visxai.record import Explanation

if TYPE_CHECKING:
    from PIL.Image import Image

    from visxai.engine import Engine

How = Literal["blur", "fill"]


@dataclass(frozen=True)
class Reproduction:
    """A stored explanation beside its recomputation.

    map_difference: max abs difference over the record's largest magnitude (stored maps are
    float16, so 5e-4 is nothing); score_difference: absolute; same_image: the bytes agree.
    """

    explanation: Explanation
    map_difference: float
    score_difference: float
    same_image: bool

    @property
    def agrees(self) -> bool:
        """Whether map and score agree to float16 precision: 2e-3 and 1e-3."""
        return self.map_difference <= 2e-3 and self.score_difference <= 1e-3


@dataclass(frozen=True, eq=False)
class Redaction:
    """An image without its strongest evidence, and what the model says of it.

    image: PIL, upright, original size. share: of the positive evidence that was hidden; area: of
    the image's pixels, 0 to 1. before, after: the target's score, as the model reports it.
    """

    image: Image
    label: str
    share: float
    area: float
    before: float
    after: float

    def __str__(self) -> str:
        return (
            f"with {self.area:.0%} of the image hidden, {self.label} "
            f"{'falls' if self.after < self.before else 'goes'} from {self.before:.2f} to "
            f"{self.after:.2f}"
        )


def reproduce(engine: Engine, record: Explanation | Mapping[str, Any], image: Any) -> Reproduction:
    """See `Engine.reproduce`."""
    old = record if isinstance(record, Explanation) else Explanation.from_dict(record)
    _check_model(engine, old)
    loaded = methods.load(old.method)
    if old.layer and getattr(loaded, "layer", old.layer) is None:
        # The record's layer was the model's choice: name it, should the choice have changed.
        loaded = type(loaded)(**{**vars(loaded), "layer": old.layer})
    source = old.original_source() if image is None else image
    (new,) = engine.explain([source], loaded, target_of(old))
    assert isinstance(new, Explanation)
    peak = float(np.abs(old.values).max(initial=0.0)) or 1.0
    same_size = new.values.shape == old.values.shape
    worst = float(np.abs(new.values - old.values).max(initial=0.0)) if same_size else np.inf
    return Reproduction(
        new,
        worst / peak,
        abs(new.score - old.score),
        new.input.source_sha256 == old.input.source_sha256,
    )


def redact(
    engine: Engine, explanation: Explanation, image: Any, share: float, how: How
) -> Redaction:
    """See `Engine.redact`."""
    import cv2
    from PIL import Image

    if how not in ("blur", "fill"):
        raise ArgumentError(f"expected how='blur' or how='fill', got {how!r}")
    _check_model(engine, explanation)
    mask = explanation.mask(share)
    pixels = np.asarray(explanation.original(image)).copy()
    if how == "blur":
        # Wide enough that nothing of a region a tenth of the picture across can be told.
        painted = cv2.GaussianBlur(pixels, (0, 0), max(2.0, min(mask.shape) / 15))
    else:
        painted = np.broadcast_to(np.uint8(127), pixels.shape)
    pixels[mask] = painted[mask]
    hidden = Image.fromarray(pixels)
    after = engine.score([hidden], target_of(explanation))[0]
    return Redaction(hidden, explanation.label, share, float(mask.mean()), explanation.score, after)


def target_of(record: Explanation) -> str | int:
    """The target that gives a record's map again, from the record alone."""
    if record.target.startswith(("any=", "diff=")):
        return record.target
    if record.class_index is None:
        raise ArgumentError(
            f"expected a record whose target can be written down, got {record.target!r}: "
            "explain the image again with the same callable"
        )
    return record.class_index


def _check_model(engine: Engine, record: Explanation) -> None:
    ours = engine.model.ref
    if record.model.weights_sha256 != ours.weights_sha256:
        raise ArgumentError(
            f"expected the model {record.model.name} with weights "
            f"{record.model.weights_sha256[:12]}…, got {ours.name} with "
            f"{ours.weights_sha256[:12]}…: use the engine that made the record"
        )
