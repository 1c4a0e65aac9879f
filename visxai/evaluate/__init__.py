"""How good the maps of methods are, by metrics, over many images.

visxai.evaluate.run(["photos"], "OUT", visxai.Engine(), ["grad_cam"])
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
