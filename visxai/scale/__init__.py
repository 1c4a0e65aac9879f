"""Runs on a Ray cluster, which write the same folder of results as local runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from visxai._lazy import hand_on

if TYPE_CHECKING:
    from visxai.scale.run import explain

__all__ = ["explain"]

__getattr__, __dir__ = hand_on(
    __name__,
    {
        "explain": "run",
    },
)
