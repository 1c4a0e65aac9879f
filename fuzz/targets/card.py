"""Model cards as TOML: one that is read states a whole model."""

from __future__ import annotations

from visxai import models
from visxai.models import cards

WORDS = ("[source]", "[build]", "[preprocess]", "size = ", "labels = [", "mean = ", "layer = ")


def check(data: bytes) -> None:
    """The card and what it states."""
    cards.Card.of("card", data).stated()


def seeds() -> dict[str, bytes]:
    """The cards that come with visxai."""
    return {
        f"{name}.toml": (models.folder() / f"{name}.toml").read_bytes() for name in models.names()
    }
