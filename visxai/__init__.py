"""visxai explains what an image classifier saw: which pixels made the model give its score.

The names below load on first use, so that `import visxai` and `visxai --help` stay instant.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from visxai._lazy import hand_on
from visxai._version import __version__ as __version__
from visxai.process import wait_patiently

if TYPE_CHECKING:
    from visxai import (
        bench,
        compare,
        concepts,
        detection,
        drawing,
        errors,
        evaluate,
        fused,
        govern,
        images,
        methods,
        metrics,
        models,
        nearest,
        package,
        pipeline,
        record,
        report,
        results,
        scale,
        similarity,
        tabular,
        text,
    )
    from visxai.engine import Engine
    from visxai.errors import Failure
    from visxai.images import Preprocess
    from visxai.record import Explanation
    from visxai.target import Target

__all__ = [
    "Engine",
    "Explanation",
    "Failure",
    "Preprocess",
    "Target",
    "bench",
    "compare",
    "concepts",
    "detection",
    "drawing",
    "errors",
    "evaluate",
    "fused",
    "govern",
    "images",
    "methods",
    "metrics",
    "models",
    "nearest",
    "package",
    "pipeline",
    "record",
    "report",
    "results",
    "scale",
    "similarity",
    "tabular",
    "text",
]

wait_patiently()  # read by OpenMP when PyTorch is loaded, which no import of visxai has done yet

_HOMES = {
    "Engine": "engine",
    "Explanation": "record",
    "Failure": "errors",
    "Preprocess": "images",
    "Target": "target",
}

__getattr__, __dir__ = hand_on(__name__, {name: _HOMES.get(name, "") for name in __all__})
