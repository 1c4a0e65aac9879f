"""Images with texts: one score of two models, and what each of the two added to it.

engine = visxai.fused.Engine("harmful.toml")
engine.explain([("photo.jpg", "what a day")])
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from visxai._lazy import hand_on

if TYPE_CHECKING:
    from visxai.fused.card import Card
    from visxai.fused.engine import Engine

__all__ = ["Card", "Engine"]

__getattr__, __dir__ = hand_on(__name__, {"Card": "card", "Engine": "engine"})
