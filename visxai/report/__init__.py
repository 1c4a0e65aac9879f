"""The gallery of a results folder, as a page that opens from disk."""

from __future__ import annotations

from typing import TYPE_CHECKING

from visxai._lazy import hand_on

if TYPE_CHECKING:
    from visxai.report.gallery import build

__all__ = ["build"]

__getattr__, __dir__ = hand_on(
    __name__,
    {
        "build": "gallery",
    },
)
