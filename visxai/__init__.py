"""visxai: which pixels made the model say that?

The names below load on first use, so that `import visxai` and `visxai --help` stay instant.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from visxai._version import __version__ as __version__

if TYPE_CHECKING:
    from visxai import (
        bench,
        errors,
        evaluate,
        export,
        images,
        methods,
        metrics,
        models,
        pipeline,
        record,
        render,
        report,
        results,
        scale,
    )
    from visxai.engine import Engine
    from visxai.preprocess import Preprocess
    from visxai.record import Explanation, Failure
    from visxai.target import Target

__all__ = [
    "Engine",
    "Explanation",
    "Failure",
    "Preprocess",
    "Target",
    "bench",
    "errors",
    "evaluate",
    "export",
    "images",
    "methods",
    "metrics",
    "models",
    "pipeline",
    "record",
    "render",
    "report",
    "results",
    "scale",
]

_HOMES = {
    "Engine": "visxai.engine",
    "Preprocess": "visxai.preprocess",
    "Explanation": "visxai.record",
    "Failure": "visxai.record",
    "Target": "visxai.target",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    if name in __all__:
        return importlib.import_module(f"visxai.{name}")
    raise AttributeError(f"module 'visxai' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
