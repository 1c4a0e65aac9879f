"""Explanations in one plain sentence each, for every kind of target and of input."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from visxai.images import heatmap

if TYPE_CHECKING:
    from visxai.images.heatmap import PlacedMap
    from visxai.record.base import Explanation

_ROWS, _COLUMNS = ("top", "middle", "bottom"), ("left", "centre", "right")
_SIDE = 128  # cells a side of the grid on which areas are counted


def claim(found: Explanation) -> str:
    """Say what the model answered: "efficientnet_lite0 gives “tabby” a score of 0.52"."""
    name, form = found.model.name, found.target.partition("=")
    if found.class_index is None and found.target.startswith("callable:"):
        what = found.target.removeprefix("callable:")
        of = "a function" if what == "<lambda>" else f"the function “{what}”"
        return f"{name} gives {of} of its scores the value {found.logit:.3g}"
    if found.class_index is None and form[0] == "match":
        return f"{name} finds a similarity of {found.logit:.3f} with {form[2]}"
    if form[0].strip() == "diff":
        verdict = "speaks for" if found.logit > 0 else "speaks against"
        return f"{name} {verdict} “{found.label}”, by {abs(found.logit):.2f} in its raw scores"
    if found.class_index is None or form[0].strip() == "any" or form[2].startswith("any:"):
        return f"{name} gives the set “{found.label}” a score of {found.score:.3f}"
    return f"{name} gives “{found.label}” a score of {found.score:.3f}"


def image(found: Explanation, placed: PlacedMap) -> str:
    """Describe where in an image the evidence lies, how much of it, and what speaks against."""
    said, method = claim(found), found.method.partition("(")[0]
    if found.degenerate:
        return f"{said}, but the map of {method} is flat and says nothing about where."
    size = _small(placed)
    values = placed.on_original(size)
    known = np.nan_to_num(values, nan=0.0)
    positive, negative = known.clip(min=0).sum(), -known.clip(max=0).sum()
    if positive <= 0:
        return f"{said}, and {method} finds nothing but evidence against it."
    area = heatmap.smallest_area(known, 0.5)
    said += (
        f", and by {method} half of the evidence for it lies on {_percent(area.mean())} of the "
        f"picture, at the {_where(known * area)}"
    )
    if negative > 0.05 * positive:
        said += f", while {_percent(negative / (positive + negative))} of all speaks against it"
    if (faithful := found.quality.get("faithful")) is not None:
        said += f"; the map {'passed' if faithful else 'did not pass'} the check of faithfulness"
    return said + "."


def parts(found: Explanation, names: Sequence[str], thing: str, count: int = 3) -> str:
    """Describe which words or features raised the score most, and which lowered it.

    Args:
        found: The explanation, with one value a part.
        names: The name of each part.
        thing: What a part is: "word" or "feature".
        count: The most parts to name on each side.
    """
    values = np.asarray(found.values, np.float64)
    order = np.argsort(-np.abs(values), kind="stable").tolist()
    raised = [names[at] for at in order if values[at] > 0][:count]
    lowered = [names[at] for at in order if values[at] < 0][:count]
    said = claim(found)
    if found.degenerate or not (raised or lowered):
        return f"{said}, and {found.method.partition('(')[0]} finds no {thing} that matters for it."
    if raised:
        said += f"; what raised it most: {_listed(raised)}"
    if lowered:
        said += f"; what lowered it most: {_listed(lowered)}"
    return said + "."


def _small(placed: PlacedMap) -> tuple[int, int]:
    factor = min(1.0, _SIDE / max(placed.width, placed.height))
    return max(1, round(placed.width * factor)), max(1, round(placed.height * factor))


def _where(weights: Any) -> str:
    """Name the ninth of the picture in which the middle of the weights lies."""
    rows, columns = np.indices(weights.shape)
    positive = weights.clip(min=0)
    total = positive.sum()
    row = float((positive * (rows + 0.5)).sum() / total) / weights.shape[0]
    column = float((positive * (columns + 0.5)).sum() / total) / weights.shape[1]
    place = _ROWS[min(2, int(row * 3))], _COLUMNS[min(2, int(column * 3))]
    return "centre" if place == ("middle", "centre") else " ".join(place)


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.01 else "less than 1 %"


def _listed(names: Sequence[str]) -> str:
    quoted = [f"“{name}”" for name in names]
    return quoted[0] if len(quoted) == 1 else f"{', '.join(quoted[:-1])} and {quoted[-1]}"
