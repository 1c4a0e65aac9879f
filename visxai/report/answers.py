"""Whether the model is right about an image, told from what is stored of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from visxai.results.rows import Row


def right(rows: Sequence[Row], settings: Mapping[str, Any]) -> bool | None:
    """Whether the model's answer for the image of these rows is its label.

    None where that can't be told: the image has no label, the classes are independent, or the
    target is a class that was named rather than the model's answer.
    """
    expected = rows[0].get("expected")
    # The strongest class is among those explained only where the scores choose them.
    chosen = str(settings.get("target")).startswith(("top", "above"))
    if expected is None or not chosen or settings.get("activation") == "sigmoid":
        return None
    answer = max(rows, key=lambda row: float(row["score"]))
    return str(answer["label"]) == str(expected)
