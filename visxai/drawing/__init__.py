"""Drawing of maps in colours: over their photographs, in panels and on contact sheets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from visxai._lazy import hand_on

if TYPE_CHECKING:
    from visxai.drawing.overlays import overlay, save
    from visxai.drawing.sheets import panel, sheet

__all__ = ["overlay", "panel", "save", "sheet"]

__getattr__, __dir__ = hand_on(
    __name__,
    {
        "overlay": "overlays",
        "save": "overlays",
        "panel": "sheets",
        "sheet": "sheets",
    },
)
