"""Evaluation of methods by quality metrics over many images.

visxai.evaluate.run(visxai.Engine(), ["photos"], ["grad_cam"], out="OUT")
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from visxai._lazy import hand_on

if TYPE_CHECKING:
    from visxai.evaluate.evaluation import METRICS, Evaluation, run

__all__ = ["METRICS", "Evaluation", "run"]

__getattr__, __dir__ = hand_on(
    __name__,
    {
        "METRICS": "evaluation",
        "Evaluation": "evaluation",
        "run": "evaluation",
    },
)
