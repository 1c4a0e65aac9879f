"""Lazy imports: a package offers the names of its modules without importing them.

A worker process imports `visxai.pipeline.tasks` and must not load PyTorch by that, so the
`__init__` of a package imports nothing: it names the module of each public name, and the module
is imported when the name is first used.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any


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
            return importlib.import_module(f"{package}.{name}")
        return getattr(importlib.import_module(f"{package}.{homes[name]}"), name)

    def listed() -> list[str]:
        return sorted(homes)

    return get, listed
