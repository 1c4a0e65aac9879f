"""The engine: it runs methods on a model in batches, with a device, precision and acceleration."""

from __future__ import annotations

from typing import TYPE_CHECKING

from visxai._lazy import hand_on

if TYPE_CHECKING:
    from visxai.engine.engine import Engine

__all__ = ["Engine"]

__getattr__, __dir__ = hand_on(
    __name__,
    {
        "Engine": "engine",
    },
)
