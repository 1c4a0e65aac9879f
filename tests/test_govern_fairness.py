"""Gaps between groups: hand-computed answers, error rate, planted gaps, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from test_govern_drift import seen

from visxai import govern
from visxai.errors import ArgumentError, UnknownName
from visxai.govern.observations import Observations


def grouped(count: int, seed: int = 0, **changes: Any) -> Observations:
    """Made-up items of two groups, x and y, by turns."""
    groups = {"sex": tuple("xy"[at % 2] for at in range(count))}
    return seen(count, seed, **({"groups": groups} | changes))


def test_gaps_by_hand() -> None:
    one = grouped(
        4,
        scores=np.array([0.1, 0.5, 0.3, 0.9]),
        decisions={"error": np.array([0.0, 1.0, 0.0, np.nan])},
        explanations={"border": np.array([1.0, 0.0, np.nan, 0.5])},
    )
    found = {(gap.group, gap.figure): gap for gap in govern.fairness(one, "sex").gaps}
    assert found["x", "score"].mean == pytest.approx(0.2)
    assert found["x", "score"].gap == pytest.approx(0.2 - 0.7)
    assert (found["y", "error"].mean, found["y", "error"].n) == (1.0, 1)
    assert (found["x", "border"].n, found["x", "border"].gap) == (1, 0.75)
    assert "below 30" in found["x", "score"].warning
    assert not govern.fairness(one, "sex").findings


def test_a_planted_gap_is_found_with_its_interval() -> None:
    border = np.random.default_rng(5).random(300)
    border[::2] += 0.4
    features = {"border": border, "entropy": np.random.default_rng(6).random(300)}
    found = govern.fairness(grouped(300, explanations=features), "sex")
    assert {gap.figure for gap in found.findings} == {"border"}
    gap = next(gap for gap in found.findings if gap.group == "x")
    assert gap.low < 0.4 < gap.high
    assert gap.low < gap.gap < gap.high
    assert gap.high - gap.low == pytest.approx(2 * 1.96 * np.sqrt(2 * (1 / 12) / 150), rel=0.15)


def test_without_a_difference_findings_are_rare() -> None:
    found = [
        bool(govern.fairness(grouped(80, seed), "sex", draws=59).findings) for seed in range(150)
    ]
    assert np.mean(found) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 150)


def test_unknown_groups_belong_to_none() -> None:
    groups = {"sex": (None, "", *("xy"[at % 2] for at in range(98)))}
    found = govern.fairness(grouped(100, groups=groups), "sex")
    assert found.unknown == 2
    assert {gap.n + gap.rest for gap in found.gaps} == {98}


def test_three_groups_are_each_compared_with_all_others() -> None:
    groups = {"site": tuple("abc"[at % 3] for at in range(90))}
    found = govern.fairness(grouped(90, groups=groups), "site")
    assert {(gap.group, gap.n, gap.rest) for gap in found.gaps} == {
        (name, 30, 60) for name in "abc"
    }


def test_what_is_not_known_is_refused() -> None:
    with pytest.raises(UnknownName, match="did you mean sex"):
        govern.fairness(grouped(40), "sexx")
    with pytest.raises(ArgumentError, match="two groups or more of 'sex', got 1: x"):
        govern.fairness(grouped(40, groups={"sex": ("x",) * 40}), "sex")
