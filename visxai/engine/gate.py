"""Which images are explained at all, and what their own class says about the model's answer."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from visxai.errors import TargetError
from visxai.labels import UNKNOWN, parse_number
from visxai.target import Target


def check_form(target: str | None = None, only: str | None = None) -> None:
    """Raise what `Target.of` and `Gate.of` would of how a target and a gate are written, for a
    model that isn't loaded yet; any name may be one of its labels."""
    if target is not None:
        Target.of(target, UNKNOWN)
    if only is not None:
        Gate.of(only, UNKNOWN)


@dataclass(frozen=True)
class Gate:
    """Which images are worth explaining, told by their scores: "class=nsfw>0.5", "top1<0.6".

    The left side is a target of one map an image (or a label by itself), compared as the model
    reports it (probability for softmax and sigmoid models) with the number on the right. Where
    the images' classes are known, "wrong" are those that the model says to be of another, and
    "right" the others.
    """

    target: Target
    above: bool
    limit: float
    text: str
    right: bool | None = None

    def __str__(self) -> str:
        return self.text

    @classmethod
    def of(cls, text: str | Gate, labels: Sequence[str] | None = None) -> Gate:
        """Parse a gate; raises TargetError where it isn't TARGET>NUMBER or TARGET<NUMBER."""
        if isinstance(text, Gate):
            return text
        if text in ("wrong", "right"):
            return cls(Target.of("top1"), True, 0.0, text, text == "right")
        wrong = TargetError(
            f"expected a condition on scores, got {text!r}: "
            "write it like class=nsfw>0.5 or top1<0.6"
        )
        if not isinstance(text, str):
            raise wrong
        # The last sign counts, since a label may hold others.
        left, sign, right = re.fullmatch(r"(?s)(.*?)([<>]?)([^<>]*)", text).groups()  # type: ignore[union-attr]
        limit = parse_number(right)
        if not left or not sign or limit is None:
            raise wrong
        target = Target.of(left, labels)
        if target.kind not in ("top", "class", "any") or target.value > 1:
            raise wrong
        return cls(target, sign == ">", limit, f"{target}{sign}{right.strip()}")

    def open(self, reported: Tensor) -> Tensor:
        """(b,) whether each image passes, from its target's reported scores (b,)."""
        return reported > self.limit if self.above else reported < self.limit
