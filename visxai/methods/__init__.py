"""The methods, one file each, found by listing this folder.

names()                                   what there is
load("occlusion(window=32, stride=16)")   a method from its spec string
"""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
from dataclasses import fields
from functools import cache
from typing import Any

from visxai.errors import ArgumentError, UnknownName
from visxai.methods.base import Maps, Method

__all__ = ["Maps", "Method", "find", "load", "names"]


@cache
def names() -> tuple[str, ...]:
    """The names of all methods, sorted: the files of this folder, without importing them."""
    found = (module.name for module in pkgutil.iter_modules(__path__))
    return tuple(sorted(name for name in found if name != "base"))


@cache
def find(name: str) -> type[Method]:
    """The class of a method by name; UnknownName lists the choices."""
    if name not in names():
        raise UnknownName("method", name, names())
    module = importlib.import_module(f"{__name__}.{name}")
    for value in vars(module).values():
        if (
            inspect.isclass(value)
            and issubclass(value, Method)
            and value.__module__ == module.__name__
            and value.name() == name
        ):
            return value
    raise ArgumentError(f"expected one method in {module.__name__}, found none")


def load(spec: str | Method) -> Method:
    """A method from its spec string: a name, or a name with keyword arguments.

    >>> load("occlusion(window=32, stride=16)").window
    32
    """
    if isinstance(spec, Method):
        return spec
    if not isinstance(spec, str):
        raise ArgumentError(
            f"expected a method's spec string, got {type(spec).__name__}: try 'grad_cam'"
        )
    name, arguments = _parse(spec)
    method = find(name)
    known = [item.name for item in fields(method)]
    for argument in arguments:
        if argument not in known:
            raise UnknownName(f"option of {name}", argument, known)
    return method(**arguments)


def _parse(spec: str) -> tuple[str, dict[str, Any]]:
    """The name and the arguments of a spec; only literals are ever evaluated."""
    wrong = ArgumentError(
        f"expected a method like 'occlusion(window=32, stride=16)', got {spec!r}: "
        "write a name, and options as name=value with plain values"
    )
    try:
        node = ast.parse(spec.strip(), mode="eval").body
    except (SyntaxError, ValueError):
        raise wrong from None
    if isinstance(node, ast.Name):
        return node.id, {}
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name) or node.args:
        raise wrong
    try:
        return node.func.id, {
            str(item.arg): ast.literal_eval(item.value) for item in node.keywords if item.arg
        }
    except (ValueError, TypeError, SyntaxError):
        raise wrong from None
