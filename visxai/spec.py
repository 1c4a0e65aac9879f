"""Spec strings: a method's or a metric's name with every option that changes numbers.

    occlusion(window=32, stride=16, baseline=0.0)

A spec is the repr of a frozen dataclass. The class lies in a file of its own, whose name is the
class's name in snake case, so the folder is the list of what exists. The file's docstring
documents it.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import re
import sys
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from functools import cache
from typing import Any, TypeVar, get_type_hints

from visxai.errors import ArgumentError, UnknownName
from visxai.options import fitted, told

_LONGEST = 2**14  # characters of a spec: a longer text is an attack on the parser
# The errors that Python's parser and `ast.literal_eval` raise for text that is no plain expression
# or is nested too deeply.
_UNREADABLE = (SyntaxError, ValueError, TypeError, RecursionError, MemoryError)

# Python 3.11 counts the depth of a syntax tree for all threads together: two that parse at the same
# time raise SystemError. `inspect.getsource` of a class parses too.
PARSING = threading.Lock()


@dataclass(frozen=True, repr=False)
class Spec:
    """A frozen dataclass whose repr is its spec string and whose file's docstring documents it.

    A subclass with a `__post_init__` of its own calls this `__post_init__` first.
    """

    def __post_init__(self) -> None:
        """Check every option against its annotation; raise ArgumentError where it doesn't fit."""
        cls: Any = type(self)
        hints = _hints(cls)
        for item in fields(self):
            value, hint = getattr(self, item.name), hints[item.name]
            try:
                plain = fitted(value, hint)
            except TypeError:
                self._require(False, f"{item.name} being {told(hint)}", value)
            if plain is not value:
                object.__setattr__(self, item.name, plain)

    @classmethod
    def name(cls) -> str:
        """Return the name in spec strings: the class's name in snake case, as the file is named."""
        return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", cls.__name__).lower()

    @classmethod
    def about(cls, heading: str) -> str:
        """Extract a paragraph of the file's docstring.

        Args:
            heading: "Cost", "Source", or "" for the first paragraph.

        Returns:
            The paragraph on one line, without its heading; "" where there is none.
        """
        text = inspect.cleandoc(sys.modules[cls.__module__].__doc__ or "")
        if not heading:
            return " ".join(text.split("\n\n")[0].split())
        for paragraph in text.split("\n"):
            if paragraph.startswith(f"{heading}:"):
                start = text.index(paragraph)
                rest = text[start + len(heading) + 1 :]
                return " ".join(re.split(r"\n\n|\n[A-Z][a-z]+:", rest)[0].split())
        return ""

    def __repr__(self) -> str:
        options = ", ".join(
            f"{item.name}={value!r}"
            for item in fields(self)
            # None is left out only where it is the default.
            if (value := getattr(self, item.name)) is not None or item.default is not None
        )
        return f"{self.name()}({options})"

    __str__ = __repr__

    @property
    def brief(self) -> str:
        """The shortest spec that stands for it: its name, and the options that it changes."""
        options = ", ".join(
            f"{item.name}={value!r}"
            for item in fields(self)
            if (value := getattr(self, item.name)) != item.default
        )
        return f"{self.name()}({options})" if options else self.name()

    def _require(self, condition: bool, expected: str, got: Any) -> None:
        """Raise ArgumentError with `expected` and `got` unless the condition holds."""
        if not condition:
            raise ArgumentError(f"expected {self.name()} with {expected}, got {got!r}")


S = TypeVar("S", bound=Spec)


@cache
def _hints(cls: Any) -> dict[str, Any]:
    return get_type_hints(cls)


def listed(folder: Iterable[str], besides: tuple[str, ...] = ("base",)) -> tuple[str, ...]:
    """List the names of the files in a package's folder, sorted, without importing them.

    Args:
        folder: The package's `__path__`.
        besides: Names of files that define nothing; private files are left out too.
    """
    found = (module.name for module in pkgutil.iter_modules(folder))
    return tuple(sorted(n for n in found if n not in besides and not n.startswith("_")))


def defined(package: str, name: str, base: type[S]) -> type[S]:
    """Import the file `name` of a package and return the subclass of `base` called `name` in it.

    Raises:
        ArgumentError: The file defines no such class.
    """
    module = importlib.import_module(f"{package}.{name}")
    for value in vars(module).values():
        if (
            inspect.isclass(value)
            and issubclass(value, base)
            and value.__module__ == module.__name__
            and value.name() == name
        ):
            return value
    raise ArgumentError(
        f"expected one {base.__name__.lower()} in {module.__name__}, found none: name its class as "
        "the file is called"
    )


def built(cls: type[S], options: Mapping[str, Any]) -> S:
    """Make an instance with these options; raise UnknownName for an option that doesn't exist."""
    known = [item.name for item in fields(cls)]
    for option in options:
        if option not in known:
            raise UnknownName(f"option of {cls.name()}", option, known)
    return cls(**options)


def split_specs(text: str, option: str = "methods") -> list[str]:
    """Split a text at its commas into specs; commas inside brackets or quotes separate nothing.

    >>> split_specs("grad_cam,occlusion(window=64, stride=32)")
    ['grad_cam', 'occlusion(window=64, stride=32)']
    """
    parts, depth, quote = [""], 0, ""
    for character in text:
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"":
            quote = character
        elif character in "([{":
            depth += 1
        elif character in ")]}":
            depth -= 1
        elif character == "," and depth == 0:
            parts.append("")
            continue
        parts[-1] += character
    specs = [part.strip() for part in parts]
    if not all(specs):
        raise ArgumentError(f"expected specs between the commas of {option}, got {text!r}")
    return specs


def parse(spec: Any, kind: str, example: str) -> tuple[str, str, dict[str, Any]]:
    """Parse a spec string; only literals are ever evaluated.

    Args:
        spec: The spec string, such as "occlusion(window=32)" or "captum:Saliency(abs=True)".
        kind: The kind of spec for the error messages, such as "method".
        example: A valid spec for the error messages.

    Returns:
        The name, the member of a family ("" for none) and the options.

    Raises:
        ArgumentError: The text isn't a spec.
    """
    if not isinstance(spec, str):
        raise ArgumentError(
            f"expected a {kind}'s spec string, got {type(spec).__name__}: try {example!r}"
        )
    if len(spec) > _LONGEST:
        raise ArgumentError(
            f"expected a {kind}'s spec of at most {_LONGEST} characters, got {len(spec)}: try "
            f"{example!r}"
        )
    wrong = ArgumentError(
        f"expected a {kind} like {example!r}, got {spec!r}: "
        "write a name, and options as name=value with plain values"
    )
    family = re.match(r"\s*(\w+)\s*:", spec)
    try:
        with PARSING:
            node = ast.parse(spec[family.end() if family else 0 :].strip(), mode="eval").body
            if isinstance(node, ast.Name):
                return (family[1], node.id, {}) if family else (node.id, "", {})
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name) or node.args:
                raise wrong
            options = {str(item.arg): _literal(item.value) for item in node.keywords}
    except _UNREADABLE:
        raise wrong from None
    # `**options` has no name, and a name written twice leaves fewer options than keywords.
    if len(options) != len(node.keywords) or not all(item.arg for item in node.keywords):
        raise wrong
    return (family[1], node.func.id, options) if family else (node.func.id, "", options)


def _literal(node: ast.expr) -> Any:
    """Evaluate a literal; raise ValueError for a value whose repr isn't a literal, like 1e999."""
    value = ast.literal_eval(node)
    if ast.literal_eval(repr(value)) != value:
        raise ValueError
    return value
