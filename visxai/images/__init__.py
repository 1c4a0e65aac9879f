"""Images: finding them, decoding them within limits, and preprocessing them for a model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from visxai._lazy import hand_on

if TYPE_CHECKING:
    from visxai.images.decoding import decode
    from visxai.images.preprocess import Preprocess

__all__ = ["Preprocess", "decode"]

__getattr__, __dir__ = hand_on(
    __name__,
    {
        "decode": "decoding",
        "Preprocess": "preprocess",
    },
)
