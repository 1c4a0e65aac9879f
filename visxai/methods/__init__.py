"""The methods, one file each, found by listing this folder.

names()                                   what there is
load("occlusion(window=32, stride=16)")   a method from its spec string
load("captum:DeepLift(baseline=0.0)")     a member of a family of methods
load("GradCAM")                           another name of one (`visxai.methods._names`)
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
    """The names of all methods, sorted: the files of this folder, without importing them."""
    return listed(__path__)


@cache
def find(name: str) -> type[Method]:
    """The class of a method by name, with or without a member; UnknownName lists the choices."""
    name = _known(name).partition(":")[0]
    if name not in names():
        raise UnknownName("method", name, names(), near=_near(name))
    return defined(__name__, name, Method)  # type: ignore[type-abstract]


def load(spec: str | Method) -> Method:
    """A method from its spec string: a name, or a name with keyword arguments.

    >>> load("occlusion(window=32, stride=16)").window
    32
    """
    if isinstance(spec, Method):
        return spec
    if isinstance(spec, str):
        written, bracket, rest = spec.partition("(")
        spec = f"{_known(written)}{bracket}{rest}"
    name, member, options = parse(spec, "method", "occlusion(window=32, stride=16)")
    return find(name).of(member, options)


def _known(name: str) -> str:
    """A name as methods have it, where it is another way to write one; else as it is."""
    if ":" in name or not re.search(r"\w", name):
        return name
    return meant(name, names()) or name


def _near(name: str) -> list[str] | None:
    """At most four methods, captum's among them, that may have been meant; None where no name is
    spelt alike."""
    from visxai.methods.captum import NAMES

    spelt = {folded(one): one for one in names() if one != "captum"}
    spelt = {**{folded(one): f"captum:{one}" for one in NAMES}, **spelt, **OTHERS}
    alike = difflib.get_close_matches(folded(name), spelt, n=8, cutoff=0.6)
    return list(dict.fromkeys(spelt[one] for one in alike))[:4] or None
