"""An image that is decoded and cut for a model: what decoding hands on to the engine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from visxai.references import ImageRef


@dataclass(frozen=True)
class Prepared:
    """A decoded image, resized and cropped for the model.

    Attributes:
        pixels: (h, w, c) uint8, or (c, h, w) float32 from a preprocessing that isn't visxai's.
        input: The image's size, bytes' hash and path, and where the pixels lie in it.
        source: The object that the caller gave, None for a path.
        expected: The index of the image's labelled class, None without a label.
        seconds: The seconds that decoding and cutting took.
        id: The caller's own identifier of the image, None without one.
    """

    pixels: np.ndarray[Any, Any]
    input: ImageRef
    source: Any = None
    expected: int | None = None
    seconds: float = 0.0
    id: str | None = None
