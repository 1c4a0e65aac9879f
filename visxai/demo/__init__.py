"""The live demo: pages on this machine that explain a photograph, a text or a row of a table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from visxai._lazy import hand_on

if TYPE_CHECKING:
    from visxai.demo.app import create
    from visxai.demo.studio import Bounds, Studio

__all__ = ["Bounds", "Studio", "create"]

__getattr__, __dir__ = hand_on(
    __name__,
    {
        "Bounds": "studio",
        "Studio": "studio",
        "create": "app",
    },
)
