"""The methods, one file each, found by listing this folder.

names()                                   what there is
load("occlusion(window=32, stride=16)")   a method from its spec string
load("captum:DeepLift(baseline=0.0)")     a member of a family of methods
"""

from __future__ import annotations

from functools import cache

from visxai.errors import UnknownName
from visxai.methods.base import Maps, Method
from visxai.spec import defined, listed, parse

__all__ = ["Maps", "Method", "find", "load", "names"]


@cache
def names() -> tuple[str, ...]:
    """The names of all methods, sorted: the files of this folder, without importing them."""
    return listed(__path__)


@cache
def find(name: str) -> type[Method]:
    """The class of a method by name, with or without a member; UnknownName lists the choices."""
    name = name.partition(":")[0]
    if name not in names():
        raise UnknownName("method", name, names())
    return defined(__name__, name, Method)  # type: ignore[type-abstract]


def load(spec: str | Method) -> Method:
    """A method from its spec string: a name, or a name with keyword arguments.

    >>> load("occlusion(window=32, stride=16)").window
    32
    """
    if isinstance(spec, Method):
        return spec
    name, member, options = parse(spec, "method", "occlusion(window=32, stride=16)")
    return find(name).of(member, options)
