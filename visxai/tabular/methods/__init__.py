"""Attribution methods for tables, one a file: exact for trees, linear models and few features.

visxai.tabular.methods.names()
visxai.tabular.methods.load("kernel_shap(samples=4096)")
"""

from __future__ import annotations

from typing import Any

from visxai.errors import ArgumentError, UnknownName
from visxai.spec import built, defined, listed, parse
from visxai.tabular.methods.base import TableMethod

__all__ = ["TableMethod", "find", "load", "names"]


def names() -> tuple[str, ...]:
    """List the methods' names."""
    return listed(__path__)


def find(name: str) -> type[TableMethod]:
    """Return the class of a method.

    Raises:
        UnknownName: There is no such method.
    """
    if name not in names():
        raise UnknownName("method for tables", name, names(), field="method")
    return defined(__name__, name, TableMethod)  # type: ignore[type-abstract]


def load(spec: str | TableMethod) -> TableMethod:
    """Make a method of its spec.

    Raises:
        ArgumentError: The text is no spec, or an option doesn't fit.
        UnknownName: There is no such method or option.
    """
    if isinstance(spec, TableMethod):
        return spec
    name, member, options = parse(spec, "method", "kernel_shap(samples=2048)")
    if member:
        raise ArgumentError(f"expected a method's name, got {spec!r}", field="method")
    options_: dict[str, Any] = options
    return built(find(name), options_)
