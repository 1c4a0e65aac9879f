"""The explanation methods, one file each, discovered by listing this folder.

names()                                   the names of all methods
load("occlusion(window=32, stride=16)")   a method from its spec string
load("captum:DeepLift(baseline=0.0)")     a member of a family of methods
load("GradCAM")                           another name of a method (`visxai.methods._names`)
"""

from __future__ import annotations

import difflib
import re
from functools import cache

from visxai.errors import UnknownName
from visxai.methods._names import OTHERS, folded, meant
from visxai.methods.base import Maps, Method
from visxai.spec import defined, listed, parse

__all__ = ["Maps", "Method", "find", "load", "names"]


@cache
def names() -> tuple[str, ...]:
    """List the names of all methods, sorted, without importing their files."""
    return listed(__path__)


@cache
def find(name: str) -> type[Method]:
    """Look up the class of a method by name.

    Args:
        name: The method's name or another spelling of it, with or without a member
            ("captum:DeepLift").

    Raises:
        UnknownName: No method has that name; the error lists the choices.
    """
    name = _known(name).partition(":")[0]
    if name not in names():
        raise UnknownName("method", name, names(), near=_near(name))
    return defined(__name__, name, Method)  # type: ignore[type-abstract]


def load(spec: str | Method) -> Method:
    """Load a method from its spec string: a name, or a name with keyword arguments.

    >>> load("occlusion(window=32, stride=16)").window
    32

    Args:
        spec: The spec string; a method is returned as it is.

    Raises:
        UnknownName: The method, its member or an option doesn't exist.
        ArgumentError: The spec can't be parsed, or an option's value is not allowed.
    """
    if isinstance(spec, Method):
        return spec
    if isinstance(spec, str):
        written, bracket, rest = spec.partition("(")
        spec = f"{_known(written)}{bracket}{rest}"
    name, member, options = parse(spec, "method", "occlusion(window=32, stride=16)")
    return find(name).of(member, options)


def _known(name: str) -> str:
    """Translate another spelling of a method's name; return any other text unchanged."""
    if ":" in name or not re.search(r"\w", name):
        return name
    return meant(name, names()) or name


def _near(name: str) -> list[str] | None:
    """List up to four methods, captum's included, that are spelt like `name`; None without any."""
    from visxai.methods.captum import NAMES

    spelt = {folded(one): one for one in names() if one != "captum"}
    spelt = {**{folded(one): f"captum:{one}" for one in NAMES}, **spelt, **OTHERS}
    alike = difflib.get_close_matches(folded(name), spelt, n=8, cutoff=0.6)
    return list(dict.fromkeys(spelt[one] for one in alike))[:4] or None
