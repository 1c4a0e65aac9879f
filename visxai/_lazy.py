"""Packages that hand on the names of their modules without importing them beforehand.

A worker process imports `visxai.pipeline.tasks` and must not get PyTorch with it, so a package's
`__init__` imports nothing: it says where each name lives, and the name loads on first use.
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
