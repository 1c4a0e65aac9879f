"""The model's answers for labelled images, judged from the stored rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from visxai.results.rows import Row


def right(rows: Sequence[Row], settings: Mapping[str, Any]) -> bool | None:
    """Tell whether the model's answer for the image of these rows is its label.

    Args:
        rows: The rows of one image.
        settings: The settings of the run.

    Returns:
        None where it can't be decided: the image has no label, the classes are independent
        (sigmoid), or the target is a class that the user named rather than the model's answer.
    """
    expected = rows[0].get("expected")
    # The strongest class is certain to be among the rows only where the scores choose the classes.
    chosen = str(settings.get("target")).startswith(("top", "above"))
    if expected is None or not chosen or settings.get("activation") == "sigmoid":
        return None
    answer = max(rows, key=lambda row: float(row["score"]))
    return str(answer["label"]) == str(expected)
