"""Gates: conditions on an image's scores or label that decide whether it is explained."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from visxai.errors import TargetError
from visxai.labels import parse_number
from visxai.models.probe import Probe
from visxai.target import Target
from visxai.target_form import TargetForm


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
        TargetForm.parse(target)
    if only is not None and only not in ("wrong", "right"):
        _check_target(TargetForm.parse(_parted(only)[0]), only)


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
        left, sign, right = _parted(text)
        target = Target.of(left, labels)
        _check_target(target, text)
        return cls(target, sign == ">", float(right), f"{target}{sign}{right}")

    def open(self, reported: Tensor) -> Tensor:
        """Compare the target's reported scores (b,) with the limit; return (b,) bool."""
        return reported > self.limit if self.above else reported < self.limit


def _parted(text: str) -> tuple[str, str, str]:
    """Part a condition on scores into its target, its sign and its number."""
    if not isinstance(text, str):
        raise _not_a_gate(text)
    # The last < or > counts, since a label may contain such signs.
    left, sign, right = re.fullmatch(r"(?s)(.*?)([<>]?)([^<>]*)", text).groups()  # type: ignore[union-attr]
    if not left or not sign or parse_number(right) is None:
        raise _not_a_gate(text)
    return left, sign, right.strip()


def _check_target(target: Target | TargetForm, text: str) -> None:
    """Raise TargetError for a condition whose target has not one map an image, from one class."""
    if target.kind not in ("top", "class", "any") or target.value > 1:
        raise _not_a_gate(text)


def _not_a_gate(text: object) -> TargetError:
    return TargetError(
        f"expected a condition on scores, got {text!r}: write it like class=nsfw>0.5 or top1<0.6"
    )


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
