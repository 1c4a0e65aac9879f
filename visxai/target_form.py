"""The written forms of a target, which are read before any model is loaded.

top3    class=tabby    any=281,282    cats=any:281,282    diff=207,282    above=0.5
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from visxai.errors import TargetError
from visxai.labels import parse_index, parse_number

FormKind = Literal["top", "class", "any", "diff", "above"]
FORMS = (
    "top1, top3, class=207, class=tabby, any=281,282, cats=any:281,282, diff=207,282, above=0.5, "
    "an int, a label, one of them per image, or a callable scores (b, k) -> (b,)"
)

_NAME = re.compile(r"\w[\w -]*").fullmatch


@dataclass(frozen=True)
class TargetForm:
    """A target as it is written, whose classes are still names or indices as text.

    Attributes:
        kind: The form.
        text: The target as text, as the record keeps it.
        members: The classes that it names, as they are written.
        value: The count of "top" or the limit of "above".
        name: The name of a set of classes, "" without a name.
    """

    kind: FormKind
    text: str
    members: tuple[str, ...] = ()
    value: float = 0.0
    name: str = ""

    @classmethod
    def parse(cls, text: str) -> TargetForm:
        """Parse a target's text; the classes that it names aren't looked up.

        Raises:
            TargetError: The text has none of the forms.
        """
        name, given, argument = text.strip().partition("=")
        name, argument = name.strip(), argument.strip()
        if not given and name.startswith("top") and (parse_index(name[3:]) or 0) > 0:
            return cls("top", name, value=int(name[3:]))
        if given and argument and name == "class":
            return cls("class", f"class={argument}", (argument,))
        if given and name == "any" and (members := _members(argument)):
            return cls("any", f"any={argument}", members)
        if given and name == "diff" and (members := _members(argument)):
            if len(members) != 2 or members[0].casefold() == members[1].casefold():
                raise two_classes(text)
            return cls("diff", f"diff={argument}", members)
        if given and name == "above" and (limit := parse_number(argument)) is not None:
            return cls("above", f"above={argument}", value=limit)
        if given and argument.startswith("any:") and name not in ("above", "class", "any", "diff"):
            return cls._named_set(name, argument.removeprefix("any:").strip())
        raise TargetError(f"expected a target, got {text!r}: use {FORMS}")

    @classmethod
    def _named_set(cls, name: str, argument: str) -> TargetForm:
        members = _members(argument) if _NAME(name) else ()
        if not members:
            raise TargetError(
                f"expected a set of classes with a name of letters, digits, spaces, - and _, got "
                f"{name + '=any:' + argument!r}: write it like weapons=any:413,764"
            )
        return cls("any", f"{name}=any:{argument}", members, name=name)


def two_classes(text: str) -> TargetError:
    """Return the error of a difference that doesn't have two classes."""
    return TargetError(
        f"expected two different classes in diff=a,b, got {text!r}: try diff=207,282"
    )


def _members(text: str) -> tuple[str, ...]:
    """Split at commas; return an empty tuple where a place is empty."""
    parts = tuple(part.strip() for part in text.split(","))
    return parts if all(parts) else ()
