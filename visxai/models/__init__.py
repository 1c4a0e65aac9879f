"""Models by name: `load`, and the cards that describe the named models."""

from __future__ import annotations

from typing import TYPE_CHECKING

from visxai._lazy import hand_on

if TYPE_CHECKING:
    from visxai.models.cards import DEFAULT, Card, card, folder, names
    from visxai.models.loading import describe, fetch, load

__all__ = ["DEFAULT", "Card", "card", "describe", "fetch", "folder", "load", "names"]

__getattr__, __dir__ = hand_on(
    __name__,
    {
        "DEFAULT": "cards",
        "Card": "cards",
        "card": "cards",
        "folder": "cards",
        "names": "cards",
        "describe": "loading",
        "fetch": "loading",
        "load": "loading",
    },
)
