"""Drift: is a window of explanations unlike a reference, and on which side?

    found = govern.drift(govern.observe("REFERENCE"), govern.observe("OUT"), size=500)
    found.windows[0].alarm, found.windows[0].sides["explanation"].p

Items are cut into windows of equal size, in the order of time. In each window input, score and
explanation are compared with the reference (`govern.twosample`), each by itself. The p-values of
the sides are adjusted by Benjamini and Hochberg, and a side alarms where its adjusted p is at most
`level`: without any change at most that share of the windows alarms.

Read the three sides together. Where the input drifts as well, the model sees other inputs and its
explanations follow; where only explanations drift, the model judges alike inputs for other reasons:
another model, a shortcut, a changed preprocessing. Explanations differ between classes too, so
another mix of labels moves them with nothing wrong; the score's side shows that mix.

Outliers are items farther from the reference than any of its own items is from the rest of it, by
the mean distance to the five nearest, each column scaled by the middle 90 % of the reference. Among
items like the reference one in (reference + 1) is an outlier by chance, whatever the distribution.

Cost: no model call.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from visxai.errors import ArgumentError
from visxai.govern import twosample
from visxai.govern.observations import SIDES, Array, Observations
from visxai.govern.twosample import Comparison

LEVEL = 0.05
SIZE = 500
_NEAREST = 5  # neighbours whose mean distance says how unlike an item is
_TOLD = 5  # records that an alert names


@dataclass(frozen=True)
class Outlier:
    """An item unlike the reference.

    Attributes:
        id: The item.
        side: "input", "score" or "explanation".
        distance: Its distance, as a multiple of the largest inside the reference; above 1.
    """

    id: str
    side: str
    distance: float


@dataclass(frozen=True)
class Window:
    """A window compared with the reference.

    Attributes:
        first: The time of its first item.
        last: The time of its last item.
        n: The number of its items.
        sides: The comparison of each side that both have.
        q: The p-value of each side, adjusted for the number of sides.
        alarms: The sides that drifted, at the run's level.
        telling: The items of the window farthest from the reference, on the side that moved most.
        outliers: The items farther from the reference than any of its own.
        missing: The sides without a test, and the reasons.
    """

    first: str
    last: str
    n: int
    sides: Mapping[str, Comparison]
    q: Mapping[str, float]
    alarms: tuple[str, ...]
    telling: tuple[str, ...]
    outliers: tuple[Outlier, ...]
    missing: Mapping[str, str]

    @property
    def alarm(self) -> bool:
        """Whether any side drifted."""
        return bool(self.alarms)

    def to_dict(self) -> dict[str, Any]:
        """Return the window as plain values, ready for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Drift:
    """Windows compared with a reference.

    Attributes:
        model: The model's name.
        reference: The number of items of the reference.
        size: The items of a window.
        level: The false-alarm rate that is accepted for a window.
        windows: The windows in order.
    """

    model: str
    reference: int
    size: int
    level: float
    windows: tuple[Window, ...]

    @property
    def alarms(self) -> int:
        """The number of windows that drifted."""
        return sum(one.alarm for one in self.windows)

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as plain values, ready for JSON."""
        return {
            **{name: getattr(self, name) for name in ("model", "reference", "size", "level")},
            "windows": [one.to_dict() for one in self.windows],
        }


def drift(
    reference: Observations,
    stream: Observations,
    *,
    size: int = SIZE,
    level: float = LEVEL,
    permutations: int = twosample.PERMUTATIONS,
    seed: int = 0,
) -> Drift:
    """Compare the windows of a stream with a reference.

    Args:
        reference: The items that are as they should be.
        stream: The items to watch, in the order of time; a rest below half a window is left out
            unless it is all there is.
        size: The items of a window.
        level: The share of windows that may alarm without any change, 0 to 1.
        permutations: Of each test.
        seed: The seed of the permutations.

    Raises:
        ArgumentError: A number is out of range, or there are too few items to test.
    """
    if not 0 < level < 1:
        raise ArgumentError(f"expected a level between 0 and 1, got {level}: try level=0.05")
    if size < twosample.FEWEST:
        raise ArgumentError(
            f"expected windows of {twosample.FEWEST} items or more, got {size}: try size=500"
        )
    if level < 1 / (permutations + 1):
        raise ArgumentError(
            f"expected {round(1 / level)} permutations or more for level {level}, got "
            f"{permutations}: raise one of them"
        )
    starts = [at for at in range(0, len(stream), size) if not at or len(stream) - at >= size / 2]
    ends = [*starts[1:], min(len(stream), starts[-1] + size)] if starts else []
    windows = tuple(
        compare(
            reference,
            stream.take(slice(start, end)),
            level=level,
            permutations=permutations,
            seed=seed + number,
        )
        for number, (start, end) in enumerate(zip(starts, ends, strict=True))
    )
    return Drift(stream.model, len(reference), size, level, windows)


def compare(
    reference: Observations,
    window: Observations,
    *,
    level: float = LEVEL,
    permutations: int = twosample.PERMUTATIONS,
    seed: int = 0,
    sides: Sequence[str] = SIDES,
) -> Window:
    """Compare one window with a reference.

    Args:
        reference: The items that are as they should be.
        window: The items to test.
        level: The share of windows that may alarm without any change, 0 to 1.
        permutations: Of each test.
        seed: The seed of the permutations.
        sides: The sides to compare.

    Raises:
        ArgumentError: There are too few items to test.
    """
    classes = reference.frequent()
    found: dict[str, Comparison] = {}
    tables: dict[str, tuple[Array, Array]] = {}
    missing = {}
    for side in sides:
        names, before = reference.side(side, classes)
        others, after = window.side(side, classes)
        shared = [name for name in names if name in others]
        before = before[:, [names.index(name) for name in shared]]
        after = after[:, [others.index(name) for name in shared]]
        some = np.asarray(~(np.isnan(before).all(0) & np.isnan(after).all(0)))
        if not some.any():
            missing[side] = "no measurements in both reference and window"
            continue
        tables[side] = before[:, some], after[:, some]
        kept = [name for name, keep in zip(shared, some, strict=True) if keep]
        found[side] = twosample.compare(*tables[side], kept, permutations=permutations, seed=seed)
    adjusted = twosample.false_discoveries(np.array([one.p for one in found.values()]))
    q = {side: float(value) for side, value in zip(found, adjusted, strict=True)}
    alarms = tuple(side for side in found if q[side] <= level + 1e-12)
    unlike = {side: unlikeness(*tables[side]) for side in tables if side != "score"}
    outliers = [
        Outlier(window.ids[at], side, float(values[at]))
        for side, values in unlike.items()
        for at in np.flatnonzero(values > 1)
    ]
    outliers.sort(key=lambda one: -one.distance)
    most = min(found, key=lambda side: (found[side].p, -found[side].energy), default=None)
    telling: tuple[str, ...] = ()
    if most is not None:
        values = unlike[most] if most in unlike else unlikeness(*tables[most])
        order = np.argsort(-values, kind="stable")[:_TOLD]
        telling = tuple(window.ids[at] for at in order)
    return Window(
        min(window.created),
        max(window.created),
        len(window),
        found,
        q,
        alarms,
        telling,
        tuple(outliers),
        missing,
    )


def unlikeness(reference: Array, window: Array) -> Array:
    """Measure how unlike a reference items are.

    Args:
        reference: float64 (n, columns).
        window: float64 (m, columns).

    Returns:
        float64 (m,): the mean distance to the five nearest of the reference, as a multiple of the
        largest such distance inside the reference.
    """
    middle = np.nan_to_num(np.nanmedian(np.where(np.isnan(reference).all(0), 0.0, reference), 0))
    low, high = np.quantile(np.where(np.isnan(reference), middle, reference), (0.05, 0.95), axis=0)
    scale = np.where(high - low > 1e-12, high - low, 1.0)
    before = (np.where(np.isnan(reference), middle, reference) - middle) / scale
    after = (np.where(np.isnan(window), middle, window) - middle) / scale
    nearest = min(_NEAREST, len(before) - 1)
    own = np.sort(twosample.distances(before, before), 1)[:, 1 : nearest + 1].mean(1)
    away = np.sort(twosample.distances(after, before), 1)[:, :nearest].mean(1)
    found: Array = away / max(float(own.max()), 1e-12)
    return found
