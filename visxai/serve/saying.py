"""Sentences for people: how far an explanation can be relied on, and what would have changed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from visxai.record.base import Explanation
from visxai.record.pair import PairExplanation
from visxai.record.table import TableExplanation


def sentences(confidence: Mapping[str, Any], made: Explanation) -> list[str]:
    """Say in whole sentences how far an explanation can be relied on.

    Args:
        confidence: What its envelope says of its quality.
        made: The explanation.
    """
    if isinstance(made, TableExplanation):
        return _row_sentences(confidence)
    if isinstance(made, PairExplanation):
        return _post_sentences(confidence, made)
    found = []
    what, gone = ("words", "left out") if made.kind == "text" else ("image", "hidden")
    if made.degenerate:
        found.append("The map says nothing: it is flat.")
    if (hidden := confidence.get("counterfactual")) is not None:
        found.append(
            f"With {hidden['area']:.0%} of the {what} {gone}, {hidden['before']:.2f} "
            f"{'falls' if hidden['after'] < hidden['before'] else 'goes'} to {hidden['after']:.2f}."
        )
    if (faithful := confidence.get("faithful")) is not None:
        found.append(
            "Hiding what the map names changes the score more than hiding the same areas elsewhere."
            if faithful
            else "Hiding what the map names changes the score no more than hiding other areas: "
            "don't rely on it."
        )
    if (agrees := confidence.get("agreement")) is not None:
        found.append(f"It agrees with the fast map to {agrees:.2f} (1 is the same order).")
    if (stable := confidence.get("stability")) is not None:
        found.append(f"Maps of other random draws agree to {stable:.2f} or more.")
    return found


def _post_sentences(confidence: Mapping[str, Any], made: PairExplanation) -> list[str]:
    """Say what hiding the strongest of both parts does, and how far each map can be relied on."""
    found = []
    if abs(made.interaction) >= 0.005:
        more = "more" if made.interaction > 0 else "less"
        found.append(
            f"Together the image and the text add {abs(made.interaction):.2f} {more} than each "
            "does alone."
        )
    if (hidden := confidence.get("counterfactual")) is not None:
        falls = "falls" if hidden["after"] < hidden["before"] else "goes"
        found.append(
            f"With {hidden['image']:.0%} of the image hidden and {hidden['words']:.0%} of the "
            f"words left out, {hidden['before']:.2f} {falls} to {hidden['after']:.2f}; with the "
            f"image's part alone to {hidden['image_alone']:.2f}, with the words alone to "
            f"{hidden['text_alone']:.2f}."
        )
    for name, part in (("Image", made.image), ("Text", made.text)):
        told = dict(confidence.get(name.lower(), {}))
        told.pop("counterfactual", None)
        found += [f"{name}: {one[0].lower()}{one[1:]}" for one in sentences(told, part)]
    return found


def _row_sentences(confidence: Mapping[str, Any]) -> list[str]:
    """Say what would have changed a decision on a row, and how exact its explanation is."""
    found = []
    if (note := confidence.get("no_reasons")) is not None:
        found.append(note)
    if (change := confidence.get("change")) is not None:
        told = " and ".join(
            f"{one['feature'].replace('_', ' ')} {_told(one['needed'])} instead of "
            f"{_told(one['own'])}"
            for one in change["changes"]
        )
        found.append(f"With {told} the score would have been {change['score']:.2f}.")
    found.append(
        "The effects of all details add up to the score."
        if confidence.get("additive")
        else "The effects of all details don't add up to the score: don't rely on them."
    )
    return found


def _told(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return "missing" if value is None else str(value)
