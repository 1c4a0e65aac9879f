"""Redaction: hide the area with the strongest attribution, score the rest (`Engine.redact`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from visxai.engine.reproduction import Explainer, check_model, target_of
from visxai.errors import ArgumentError
from visxai.record.image import ImageExplanation

if TYPE_CHECKING:
    from PIL.Image import Image


How = Literal["blur", "fill"]


@dataclass(frozen=True, eq=False)
class Redaction:
    """An image whose area of strongest attribution is hidden, and the target's score for it.

    Attributes:
        image: The redacted PIL image, upright, at the original's size.
        label: The label of the explained class.
        share: The share of the positive attribution that is hidden, 0 to 1.
        area: The share of the image's pixels that is hidden, 0 to 1.
        before: The target's score of the original, as the model reports it.
        after: The target's score of the redacted image.
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


def redact(
    engine: Explainer, explanation: ImageExplanation, image: Any, share: float, how: How
) -> Redaction:
    """Redact an image; see `Engine.redact`."""
    import cv2
    from PIL import Image

    if how not in ("blur", "fill"):
        raise ArgumentError(f"expected how='blur' or how='fill', got {how!r}")
    check_model(engine, explanation)
    mask = explanation.mask(share)
    pixels = np.asarray(explanation.original(image)).copy()
    if how == "blur":
        # Wide enough that a region a tenth of the picture across can't be recognised.
        painted = cv2.GaussianBlur(pixels, (0, 0), max(2.0, min(mask.shape) / 15))
    else:
        painted = np.broadcast_to(np.uint8(127), pixels.shape)
    pixels[mask] = painted[mask]
    hidden = Image.fromarray(pixels)
    after = engine.score([hidden], target_of(explanation))[0]
    return Redaction(hidden, explanation.label, share, float(mask.mean()), explanation.score, after)
