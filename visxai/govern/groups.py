"""Gaps between groups: whom do scores, errors and explanations treat differently?

    found = govern.fairness(seen, "sex")            seen.groups["sex"], as the caller gave it
    found.gaps[0].figure, found.gaps[0].gap         "cell_03", 0.21

Groups come from the caller's metadata and are never inferred. For each group g and each figure
(score, error where the truth is known, each feature of the explanations; of rows of tables also how
often the decision is favourable, and calibration: the score minus the true outcome):

    gap = mean over g - mean over all others,    interval = 2.5 and 97.5 % of its bootstrap

and p from permutations of who belongs to which group, by the largest |gap| / standard error over
all figures and groups: at most `level` of attributes without any difference have a finding at all.

A gap is a fact about these items, not a verdict: groups may differ in what they send. A gap in the
explanations with none in scores and errors is how a shortcut for one group looks before it does
harm.

Cost: no model call; about a second for 5,000 items and 30 figures.
Source: Efron and Tibshirani, An introduction to the bootstrap, 1993; Westfall and Young,
Resampling-based multiple testing, 1993.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visxai.errors import ArgumentError, UnknownName
from visxai.govern.observations import Array, Observations

FEW = 30  # items of a group below which its figures are uncertain
LEVEL = 0.05
DRAWS = 999
_BLOCK = 2**22  # draws x items held at once


@dataclass(frozen=True)
class Gap:
    """A figure of one group beside that of all others.

    Attributes:
        group: The group, as the metadata calls it.
        figure: What is compared.
        n: The items of the group that have the figure.
        mean: The group's mean; NaN without items.
        others: The mean of all other groups.
        rest: The items of all other groups that have the figure.
        gap: The difference.
        low: The lower end of its 95 % interval.
        high: The upper end.
        p: The p-value, adjusted for all figures and groups of the attribute.
        warning: Why the figure is uncertain, "" where it isn't.
    """

    group: str
    figure: str
    n: int
    mean: float
    others: float
    rest: int
    gap: float
    low: float
    high: float
    p: float
    warning: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain values."""
        return asdict(self)


@dataclass(frozen=True)
class Fairness:
    """The gaps of one attribute.

    Attributes:
        attribute: The column of the metadata.
        level: The share of attributes without any difference that may have a finding.
        unknown: The number of items whose group isn't known; they belong to none.
        gaps: All gaps, the least likely by chance first.
    """

    attribute: str
    level: float
    unknown: int
    gaps: tuple[Gap, ...]

    @property
    def findings(self) -> tuple[Gap, ...]:
        """The gaps that chance doesn't explain, of groups that are large enough."""
        return tuple(one for one in self.gaps if one.p <= self.level and not one.warning)

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as plain values, ready for JSON."""
        return {
            "attribute": self.attribute,
            "level": self.level,
            "unknown": self.unknown,
            "gaps": [one.to_dict() for one in self.gaps],
        }


def fairness(
    seen: Observations,
    attribute: str,
    *,
    level: float = LEVEL,
    draws: int = DRAWS,
    seed: int = 0,
) -> Fairness:
    """Compare the groups of an attribute.

    Args:
        seen: The items, with the attribute among their groups.
        attribute: The column of the metadata, such as "sex".
        level: The share of attributes without any difference that may have a finding, 0 to 1.
        draws: The number of bootstrap draws, and of permutations.
        seed: The seed of both.

    Raises:
        UnknownName: The items have no such attribute.
        ArgumentError: Fewer than two groups are there.
    """
    if attribute not in seen.groups:
        raise UnknownName("attribute", attribute, sorted(seen.groups))
    told = seen.groups[attribute]
    known = np.flatnonzero([one is not None and one != "" for one in told])
    names = sorted({str(told[at]) for at in known})
    if len(names) < 2:
        raise ArgumentError(
            expected=f"two groups or more of {attribute!r}",
            got=f"{len(names)}: {', '.join(names) or 'none'}",
            remedy="give each item its group in the metadata",
            field="groups",
        )
    figures, values = _figures(seen.take(known))
    of = np.array([names.index(str(told[at])) for at in known])
    member = (of[None] == np.arange(len(names))[:, None]).astype(np.float64)  # (groups, items)
    generator = np.random.default_rng(seed)
    means, others, n, rest = _means(values, member)
    low, high = _intervals(values, member, draws, generator)
    p = _adjusted(values, member, draws, generator)
    gaps = [
        Gap(
            name,
            figure,
            int(n[g, f]),
            float(means[g, f]),
            float(others[g, f]),
            int(rest[g, f]),
            float(means[g, f] - others[g, f]),
            float(low[g, f]),
            float(high[g, f]),
            float(p[g, f]),
            _warning(int(n[g, f]), int(rest[g, f])),
        )
        for g, name in enumerate(names)
        for f, figure in enumerate(figures)
        if n[g, f] + rest[g, f]
    ]
    gaps.sort(key=lambda one: (one.p, bool(one.warning), -_size(one)))
    return Fairness(attribute, level, len(seen) - len(known), tuple(gaps))


def _figures(seen: Observations) -> tuple[list[str], Array]:
    """List what is compared, and its values (items, figures), NaN where it isn't defined."""
    columns = {"score": seen.scores}
    columns |= {**seen.decisions, **seen.explanations}
    values = np.stack(list(columns.values()), 1)
    # A figure that is the same for all items says nothing about groups.
    kept = np.array([len(np.unique(one[~np.isnan(one)])) > 1 for one in values.T])
    kept[:1] = True
    return [name for name, keep in zip(columns, kept, strict=True) if keep], values[:, kept]


def _means(values: Array, weights: Array) -> tuple[Array, Array, Array, Array]:
    """Compute means and counts (rows, figures) of the weighted items and of all others."""
    there = ~np.isnan(values)
    filled = np.where(there, values, 0.0)
    n, total = weights @ there, weights @ filled
    rest, remaining = there.sum(0) - n, filled.sum(0) - total
    with np.errstate(invalid="ignore", divide="ignore"):
        return total / n, remaining / rest, n, rest


def _intervals(
    values: Array, member: Array, draws: int, generator: np.random.Generator
) -> tuple[Array, Array]:
    """Compute the ends (groups, figures) of the gaps' 95 % intervals; groups keep their sizes."""
    there = ~np.isnan(values)
    filled = np.where(there, values, 0.0)
    ends = []
    for row in member:
        drawn = _redrawn(filled, there, np.flatnonzero(row), draws, generator)
        drawn = drawn - _redrawn(filled, there, np.flatnonzero(row == 0), draws, generator)
        with np.errstate(all="ignore"):
            sure = np.where(np.isnan(drawn).all(0), 0.0, drawn)
            found = np.nanquantile(sure, (0.025, 0.975), axis=0)
        ends.append(np.where(np.isnan(drawn).all(0), np.nan, found))
    low, high = np.stack(ends, 1)
    return low, high


def _redrawn(
    filled: Array,
    there: NDArray[np.bool_],
    chosen: NDArray[np.intp],
    draws: int,
    generator: np.random.Generator,
) -> Array:
    """Compute the means (draws, figures) of as many items drawn with replacement."""
    count = len(chosen)
    found = []
    size = max(1, _BLOCK // max(1, count))
    for start in range(0, draws, size):
        times = generator.multinomial(
            count, np.full(count, 1 / count), size=min(size, draws - start)
        ).astype(np.float64)
        with np.errstate(invalid="ignore", divide="ignore"):
            found.append((times @ filled[chosen]) / (times @ there[chosen]))
    return np.concatenate(found)


def _adjusted(values: Array, member: Array, draws: int, generator: np.random.Generator) -> Array:
    """Compute p-values (groups, figures) by the largest studentised gap of each permutation."""
    observed = _studentised(values, member)
    largest = [np.nanmax(observed, initial=0.0)]
    for _ in range(draws):
        shuffled = member[:, generator.permutation(member.shape[1])]
        largest.append(np.nanmax(_studentised(values, shuffled), initial=0.0))
    ordered = np.sort(largest)
    above = len(ordered) - np.searchsorted(ordered, observed - 1e-9, "left")
    p = above / len(ordered)
    return np.where(np.isnan(observed), 1.0, p)


def _studentised(values: Array, member: Array) -> Array:
    """Compute |gap| over its standard error under equality (groups, figures)."""
    means, others, n, rest = _means(values, member)
    there = ~np.isnan(values)
    with np.errstate(all="ignore"):
        spread = np.nanstd(np.where(there.any(0), values, 0.0), axis=0)
        found = np.abs(means - others) / (spread * np.sqrt(1 / n + 1 / rest))
    return np.where(np.isfinite(found), found, np.nan)


def _size(gap: Gap) -> float:
    return abs(gap.gap) if np.isfinite(gap.gap) else 0.0


def _warning(n: int, rest: int) -> str:
    fewer = min(n, rest)
    return f"only {fewer} items on one side: uncertain below {FEW}" if fewer < FEW else ""
