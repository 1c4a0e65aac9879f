"""Two runs over the same inputs compared: other decisions, and the same for other reasons."""

from __future__ import annotations

from typing import TYPE_CHECKING

from visxai._lazy import hand_on

if TYPE_CHECKING:
    from visxai.compare.comparison import Comparison, Gate, Pair, run

__all__ = ["Comparison", "Gate", "Pair", "run"]

__getattr__, __dir__ = hand_on(__name__, dict.fromkeys(__all__, "comparison"))
