"""Gates: conditions on an image's scores or label that decide whether it is explained."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from visxai.errors import TargetError
from visxai.labels import UNKNOWN, parse_number
from visxai.models.probe import Probe
from visxai.target import Target


def check_form(target: str | None = None, only: str | None = None) -> None:
    """Check how a target and a gate are written, before the model is loaded.

    Any name may be one of the model's labels.

    Args:
        target: The target, None for no check.
        only: The gate, None for no check.

    Raises:
        TargetError: If the target or the gate can't be parsed.
    """
    if target is not None:
        Target.of(target, UNKNOWN)
    if only is not None:
        Gate.of(only, UNKNOWN)


@dataclass(frozen=True)
class Gate:
    """A condition that images must meet to be explained: "class=nsfw>0.5", "top1<0.6", "wrong".

    The left side is a target of one map an image (or a label by itself); its score as the model
    reports it (a probability for softmax and sigmoid models) is compared with the number on the
    right. For images with labels, "wrong" selects those whose label hasn't the model's greatest
    score, and "right" those whose label has it.

    Attributes:
        target: The target on the left side.
        above: Whether the score must be above the limit rather than below it.
        limit: The number on the right side.
        text: The condition as written in a run's settings.
        right: True for "right", False for "wrong", None for a condition on scores.
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
        """Parse a gate.

        Args:
            text: TARGET>NUMBER, TARGET<NUMBER, "wrong" or "right"; a gate is returned as it is.
            labels: The model's labels, which the target may name.

        Raises:
            TargetError: If the text is no such condition.
        """
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
        # The last < or > counts, since a label may contain such signs.
        left, sign, right = re.fullmatch(r"(?s)(.*?)([<>]?)([^<>]*)", text).groups()  # type: ignore[union-attr]
        limit = parse_number(right)
        if not left or not sign or limit is None:
            raise wrong
        target = Target.of(left, labels)
        if target.kind not in ("top", "class", "any") or target.value > 1:
            raise wrong
        return cls(target, sign == ">", limit, f"{target}{sign}{right.strip()}")

    def open(self, reported: Tensor) -> Tensor:
        """Compare the target's reported scores (b,) with the limit; return (b,) bool."""
        return reported > self.limit if self.above else reported < self.limit


def is_right(probe: Probe, x: Tensor, expected: Sequence[int | None], wanted: bool) -> Tensor:
    """Select the labelled images that the model gets right, or those that it gets wrong.

    Args:
        probe: The model as this batch sees it.
        x: Inputs (b, 3, h, w) in model space.
        expected: The labelled class of each image; images without one are never selected.
        wanted: True for images whose label has the greatest score, False for the others.

    Returns:
        (b,) bool, on x's device.
    """
    best = probe.scores(x).argmax(1).tolist()
    known = [
        label is not None and (label == index) is wanted
        for label, index in zip(expected, best, strict=True)
    ]
    return torch.tensor(known, device=x.device)
