"""Runs over folders of images in this process and its worker processes.

visxai.pipeline.explain(["photos"], "OUT", visxai.Engine())
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from visxai._lazy import hand_on

if TYPE_CHECKING:
    from visxai.pipeline.run import explain

__all__ = ["explain"]

__getattr__, __dir__ = hand_on(
    __name__,
    {
        "explain": "run",
    },
)
