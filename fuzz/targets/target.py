"""Targets and gates as they are written: those that parse give themselves back."""

from __future__ import annotations

import torch

from visxai.engine.gate import Gate, check_form
from visxai.errors import VisxaiError
from visxai.target import Target

LABELS = ("tabby, tabby cat", "great grey owl", "a<b>c", "nsfw", "nsfw", "7")
WORDS = ("top", "class=", "any=", "diff=", "above=", ">0.5", "<0.6", "nan", "tabby", "wrong")


def check(data: bytes) -> None:
    """A target and a gate from the same text; what parses is settled on a batch."""
    text = data.decode("utf-8", "surrogateescape")
    scores = torch.linspace(-1, 1, 12).reshape(2, 6)
    for labels in (LABELS, None):
        for of in (Target.of, Gate.of):
            try:
                found = of(text, labels)
            except VisxaiError:
                continue
            again = of(str(found), labels)
            assert again == found, "a target that doesn't give itself back"
            one = found.target if isinstance(found, Gate) else found
            try:
                aim = one.aim(scores, scores.sigmoid())
            except VisxaiError:
                continue
            assert aim(scores[aim.rows]).shape == (len(aim),)
    check_form(target=text)
    check_form(only=text)


def seeds() -> dict[str, bytes]:
    """One of every form."""
    forms = (
        *("top1", "top3", "class=2", "class=tabby", "any=1,2", "any=tabby,nsfw", "diff=1,2"),
        *("above=0.5", "above=nan", "class=great grey owl > 0.5", "top1<0.6", "wrong", "right"),
        *("class=a<b>c>0.5", "any=1,", "class=" + "9" * 5000, "top" + "9" * 5000, "top1>nan"),
    )
    return {f"form-{number:02}": form.encode() for number, form in enumerate(forms)}
