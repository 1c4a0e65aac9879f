"""How much of the evidence lies on each segment of a picture, such as on the dog."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from visxai.errors import ArgumentError
from visxai.images.heatmap import PlacedMap, working_size

if TYPE_CHECKING:
    from PIL.Image import Image

Names = Mapping[int, str] | Sequence[str]


class Segment(NamedTuple):
    """A segment and what lies on it.

    Attributes:
        label: The segment's name.
        share: The share of the positive evidence that lies on it, 0 to 1.
        area: The share of the explained part of the picture that it covers, 0 to 1.
    """

    label: str
    share: float
    area: float


def measure(
    placed: PlacedMap,
    segments: Any | Callable[[Image], Any],
    names: Names | None,
    original: Callable[[], Image],
) -> tuple[Segment, ...]:
    """Share out the positive evidence of a map among the segments of its picture.

    Args:
        placed: The map.
        segments: (height, width) integers, the segment of each pixel of the upright original at
            any size of the same shape; or a function from the original to them.
        names: The segments' names, by their integers; None for "segment 3".
        original: Opens the upright original, for a function.

    Returns:
        The segments, the one with the most evidence first; empty where there is no evidence for
        the target.

    Raises:
        ArgumentError: `segments` isn't such an array or function.
    """
    labels = np.asarray(segments(original()) if callable(segments) else segments)
    if labels.ndim != 2 or labels.dtype.kind not in "biu" or not labels.size:
        raise ArgumentError(
            f"expected segments as integers (height, width), got {labels.dtype} {labels.shape}: "
            "give each pixel the number of its segment, such as scores.argmax(0)"
        )
    size = working_size(placed.width, placed.height)
    heat = placed.on_original(size)
    rows, columns = (
        np.arange(cells) * pixels // cells
        for cells, pixels in zip(heat.shape, labels.shape, strict=True)
    )
    found, at = np.unique(labels[np.ix_(rows, columns)], return_inverse=True)
    at = at.reshape(heat.shape)
    seen = ~np.isnan(heat)
    positive = np.where(seen, heat, 0).clip(min=0).astype(np.float64)
    total = positive.sum()
    if total <= 0:
        return ()
    held = np.bincount(at.ravel(), weights=positive.ravel(), minlength=len(found)) / total
    covered = np.bincount(at[seen], minlength=len(found)) / seen.sum()
    order = np.argsort(-held, kind="stable")
    return tuple(
        Segment(_named(int(found[one]), names), float(held[one]), float(covered[one]))
        for one in order
        if covered[one] > 0
    )


def say(found: Sequence[Segment], most: int = 2) -> str:
    """Say where the evidence lies: "72 % of the evidence lies on: dog (a third of …)"."""
    first = [one for one in found[:most] if one.share >= 0.1] or list(found[:1])
    return " and ".join(
        f"{100 * one.share:.0f} % of the evidence for it lies on: {one.label}, which covers "
        f"{100 * one.area:.0f} % of the picture"
        for one in first
    )


def _named(segment: int, names: Names | None) -> str:
    if isinstance(names, Mapping):
        return str(names.get(segment, f"segment {segment}"))
    known = names is not None and 0 <= segment < len(names)
    return str(names[segment]) if names is not None and known else f"segment {segment}"
