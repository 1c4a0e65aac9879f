"""Lazy imports: a package offers the names of its modules without importing them.

A worker process imports `visxai.pipeline.tasks` and must not load PyTorch by that, so the
`__init__` of a package imports nothing: it names the module of each public name, and the module
is imported when the name is first used.
"""

from __future__ import annotations

import gc
import importlib
import sys
import threading
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

_importing = threading.Lock()


def _imported(name: str) -> ModuleType:
    """Import a module; while PyTorch may come with it, search for unused cycles rarely.

    PyTorch's modules are hundreds of thousands of objects that stay, which Python would walk
    through again and again.
    """
    if "torch" in sys.modules or not _importing.acquire(blocking=False):
        return importlib.import_module(name)
    before = gc.get_threshold()
    try:
        gc.set_threshold(max(50_000, before[0]) if before[0] else 0, *before[1:])
        return importlib.import_module(name)
    finally:
        gc.set_threshold(*before)
        _importing.release()


def hand_on(
    package: str, homes: Mapping[str, str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Make the `__getattr__` and `__dir__` of a package.

    Args:
        package: The package's own name, `__name__`.
        homes: For each public name the module that defines it, relative to the package. A name
            whose home is "" is itself a module of the package.

    Returns:
        The two functions, to be assigned at the top level of the package.
    """

    def get(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        if not homes[name]:
            return _imported(f"{package}.{name}")
        return getattr(_imported(f"{package}.{homes[name]}"), name)

    def listed() -> list[str]:
        return sorted(homes)

    return get, listed
