"""Compares two runs over the same inputs: two models, two versions, or two methods.

    found = visxai.compare.run("OUT_A", "OUT_B")
    found.agreement.value, found.changed, found.pairs[0].id

    agreement of a pair = Spearman's rank correlation of its two maps

    mean agreement       over all pairs, with its bootstrap interval
    changed decisions    pairs whose strongest class differs

Inputs are the same where their content's SHA-256 is. Of an input's explanations the first of each
run counts: the strongest class. Maps of one resolution and one view are compared cell by cell;
others are placed on the original, 48 pixels on its longer side, and compared where both models saw
it. A pair with a flat map has no agreement and is counted apart.

Cost: no model call; about 0.2 ms a pair.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visxai.compare.correlation import rank_correlation
from visxai.errors import ArgumentError, StoreError
from visxai.evaluate.statistics import Interval, intervals
from visxai.record.base import Explanation
from visxai.record.image import ImageExplanation
from visxai.results import reading

_SIDE = 48  # pixels of the longer side of the original on which maps of different views meet


@dataclass(frozen=True)
class Pair:
    """One input, explained by both runs.

    Attributes:
        id: The input's path, or the SHA-256 of its content.
        a: The explanation of the first run.
        b: The explanation of the second run.
        agreement: The rank correlation of the maps, -1 to 1; NaN where one of them is flat.
    """

    id: str
    a: Explanation = field(repr=False)
    b: Explanation = field(repr=False)
    agreement: float

    @property
    def changed(self) -> bool:
        """Whether the runs decided differently."""
        return self.a.label != self.b.label

    def to_dict(self) -> dict[str, Any]:
        """Return what the pair says as plain values."""
        return {
            "id": self.id,
            "agreement": None if math.isnan(self.agreement) else self.agreement,
            "changed": self.changed,
            "label_a": self.a.label,
            "label_b": self.b.label,
            "score_a": self.a.score,
            "score_b": self.b.score,
        }


@dataclass(frozen=True)
class Gate:
    """A threshold and how the comparison did against it.

    Attributes:
        name: What is required.
        passed: Whether it holds.
        said: The figure and the threshold in words.
    """

    name: str
    passed: bool
    said: str


@dataclass(frozen=True)
class Comparison:
    """Two runs compared.

    Attributes:
        a: What the first run is: its model, weights and method.
        b: What the second run is.
        pairs: The inputs that both explained, the least agreement first.
        agreement: The mean agreement of the pairs that have one, with its 95 % interval.
        changed: The number of pairs with different decisions.
        changes: The share of such pairs, with its 95 % interval.
        flat: The number of pairs without an agreement, as a map is flat.
        only_a: The number of inputs that only the first run explained.
        only_b: The number that only the second run explained.
    """

    a: dict[str, str]
    b: dict[str, str]
    pairs: tuple[Pair, ...]
    agreement: Interval
    changed: int
    changes: Interval
    flat: int
    only_a: int
    only_b: int

    def gates(
        self, min_agreement: float | None = None, max_changed: float | None = None
    ) -> list[Gate]:
        """Hold the comparison against thresholds.

        Args:
            min_agreement: The least mean agreement, -1 to 1.
            max_changed: The largest share of changed decisions, 0 to 1.

        Returns:
            A gate for the inputs being the same, and one for each threshold.
        """
        alone = self.only_a + self.only_b
        found = [
            Gate(
                "both runs explain the same inputs",
                not alone,
                f"{len(self.pairs)} in both, {self.only_a} only in A, {self.only_b} only in B",
            )
        ]
        if min_agreement is not None:
            one = self.agreement
            said = f"{_interval(one)} over {len(self.pairs) - self.flat} inputs"
            holds = one.value >= min_agreement  # not where there is none
            found.append(Gate(f"mean agreement at least {min_agreement:g}", holds, said))
        if max_changed is not None:
            said = f"{self.changed} of {len(self.pairs)}: {_interval(self.changes)}"
            holds = self.changes.value <= max_changed
            found.append(Gate(f"changed decisions at most {max_changed:g}", holds, said))
        return found

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as plain values, ready for JSON."""
        return {
            "a": self.a,
            "b": self.b,
            "n": len(self.pairs),
            "agreement": self.agreement.to_dict(),
            "changed": self.changed,
            "changes": self.changes.to_dict(),
            **{name: getattr(self, name) for name in ("flat", "only_a", "only_b")},
            "pairs": [one.to_dict() for one in self.pairs],
        }


def run(a: str | os.PathLike[str], b: str | os.PathLike[str]) -> Comparison:
    """Compare two runs.

    Args:
        a: The folder of the first run.
        b: The folder of the second run.

    Returns:
        The comparison.

    Raises:
        StoreError: A folder isn't a run's or is damaged, or the runs have no input in common.
        ArgumentError: The runs are about different kinds of inputs.
    """
    first = dict(_explained(a))
    pairs: list[Pair] = []
    only_b = 0
    for digest, other in _explained(b):
        mine = first.pop(digest, None)
        if mine is None:
            only_b += 1
            continue
        pairs.append(Pair(mine.input.path or digest, mine, other, agreement_of(mine, other)))
    if not pairs:
        raise StoreError(
            expected="two runs over the same inputs",
            got=f"{len(first)} inputs in {os.fspath(a)} and {only_b} others in {os.fspath(b)}",
            remedy="explain the same files with both models",
        )
    # One that isn't defined comes last: it says nothing about a reason that changed.
    pairs.sort(key=lambda one: math.inf if math.isnan(one.agreement) else one.agreement)
    figures = np.array([[one.agreement, float(one.changed)] for one in pairs])
    agreement, changes = intervals(figures)
    return Comparison(
        _about(pairs[0].a, Path(a)),
        _about(pairs[0].b, Path(b)),
        tuple(pairs),
        agreement,
        sum(one.changed for one in pairs),
        changes,
        int(np.isnan(figures[:, 0]).sum()),
        len(first),
        only_b,
    )


def agreement_of(a: Explanation, b: Explanation) -> float:
    """Compute the rank correlation of the maps of two explanations of one input.

    Returns:
        From -1 to 1, NaN where a map is flat or the models saw no common part.

    Raises:
        ArgumentError: The explanations are of different kinds, or of lists of different lengths.
    """
    if a.kind != b.kind:
        raise ArgumentError(
            f"expected explanations of one kind, got {a.kind} and {b.kind}: compare runs over the "
            "same inputs"
        )
    if isinstance(a, ImageExplanation) and isinstance(b, ImageExplanation):
        x, y = _placed(a, b)
    else:
        x, y = a.values.ravel(), b.values.ravel()
        if x.shape != y.shape:
            raise ArgumentError(
                f"expected maps over the same parts of {a.input}, got {len(x)} and {len(y)} "
                "values: compare models that divide their input alike"
            )
    seen = np.isfinite(x) & np.isfinite(y)
    return rank_correlation(x[seen], y[seen])


def _placed(
    a: ImageExplanation, b: ImageExplanation
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return both maps as values (n,) at the same places."""
    if a.values.shape == b.values.shape and a.input.transform == b.input.transform:
        return a.values.ravel(), b.values.ravel()
    width, height = a.input.width, a.input.height
    factor = min(1.0, _SIDE / max(width, height))
    size = max(1, round(width * factor)), max(1, round(height * factor))
    return a.heatmap(size).ravel(), b.heatmap(size).ravel()


def _explained(out: str | os.PathLike[str]) -> Iterator[tuple[str, Explanation]]:
    """Yield each input's first explanation by the SHA-256 of its content; copies count once."""
    known: set[str] = set()
    for one in reading.read(out):
        digest = one.input.source_sha256
        if digest not in known:
            known.add(digest)
            yield digest, one


def _about(one: Explanation, out: Path) -> dict[str, str]:
    return {
        "out": out.name or str(out),
        "model": one.model.name,
        "weights": one.model.weights_sha256,
        "method": one.method,
    }


def _interval(one: Interval) -> str:
    if math.isnan(one.value):
        return "none"
    return f"{one.value:.3f} ({one.low:.3f} to {one.high:.3f})"
