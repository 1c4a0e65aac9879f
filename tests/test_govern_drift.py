"""Drift tests: exact error rates, power, missing values, outliers, and which side moved."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stores import explanation, photograph

from visxai import govern
from visxai.errors import ArgumentError
from visxai.govern import twosample, windows
from visxai.govern.observations import Observations


def seen(count: int, seed: int = 0, **changes: Any) -> Observations:
    """Items of made-up numbers: two features, a score, brightness, and two classes."""
    rng = np.random.default_rng(seed)
    made: dict[str, Any] = {
        "ids": tuple(f"{seed}-{at}" for at in range(count)),
        "created": tuple(
            f"2026-01-01T00:{at // 60:02d}:{at % 60:02d}+00:00" for at in range(count)
        ),
        "model": "m",
        "weights": "a" * 64,
        "labels": tuple("ab"[value] for value in rng.integers(0, 2, count)),
        "expected": (None,) * count,
        "scores": rng.random(count),
        "logits": rng.normal(size=count),
        "explanations": {"border": rng.random(count), "entropy": rng.random(count)},
        "inputs": {"brightness": rng.random(count)},
    }
    return Observations(**(made | changes))


def test_the_statistics_by_hand() -> None:
    x, y = np.array([[0.0], [0.0], [1.0], [1.0]] * 2), np.array([[1.0]] * 8)
    found = twosample.compare(x, y, ["a"], permutations=99)
    (column,) = found.columns
    assert column.statistic == pytest.approx(0.5)
    assert (column.before, column.after) == (0.5, 1.0)
    # Ranks are 0.1 for the zeros (places 0 to 3 of 16, mean 1.5 / 15) and 9.5 / 15 for the ones.
    step = 9.5 / 15 - 1.5 / 15
    assert found.energy == pytest.approx(step * (2 * 0.5 - 0.5 - 0))


def test_equal_samples_have_no_distance() -> None:
    x = np.random.default_rng(0).normal(size=(40, 3))
    found = twosample.compare(x, x.copy(), list("abc"))
    assert found.energy == pytest.approx(0, abs=1e-9)
    assert found.p > 0.9
    assert {column.statistic for column in found.columns} == {0.0}


def test_ks_equals_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(50, 1)), rng.normal(0.3, 1, (70, 1)).round(1)
    found = twosample.compare(x, y, ["a"], permutations=19)
    assert found.columns[0].statistic == pytest.approx(stats.ks_2samp(x[:, 0], y[:, 0]).statistic)


def test_under_no_change_p_is_uniform() -> None:
    """400 pairs of dependent, skewed columns with missing values: each level holds."""
    rng, found = np.random.default_rng(2), []
    for seed in range(400):
        x = np.exp(rng.normal(size=(60, 1)) + 0.3 * rng.normal(size=(60, 4)))
        x[rng.random(x.shape) < 0.1] = np.nan
        found.append(twosample.compare(x[:30], x[30:], list("abcd"), permutations=79, seed=seed).p)
    for level in (0.05, 0.2, 0.5):
        rate = np.mean(np.array(found) <= level)
        assert abs(rate - level) < 4 * math.sqrt(level * (1 - level) / 400) + 1 / 80


def test_the_classifier_sees_columns_that_spread_a_little() -> None:
    """Twenty columns whose middle stays: no distance between items tells it, nor does a column."""
    rng = np.random.default_rng(4)
    values = rng.normal(size=(200, 20))
    values[100:] *= 1.25
    found = twosample.compare(values[:100], values[100:], [str(at) for at in range(20)])
    assert found.classifier_p == 1 / 500
    assert min(found.energy_p, found.ks_p) > 0.05
    assert found.p <= 3 / 500


def test_the_classifier_judges_items_that_it_was_not_fitted_on() -> None:
    """The closed form against fits without each item, by hand."""
    rng = np.random.default_rng(5)
    ranks, member = twosample.to_ranks(rng.normal(size=(12, 2))), np.zeros((1, 12))
    member[0, :5] = 1
    z = np.concatenate([ranks - 0.5, (ranks - 0.5) ** 2], 1)
    z = (z - z.mean(0)) / z.std(0)
    sign, unseen = 2 * member[0] - 1, np.zeros(12)
    design, ridge = np.concatenate([z, np.ones((12, 1))], 1), np.diag([12.0] * 4 + [0.0])
    for at in range(12):
        rest = np.arange(12) != at
        normal = design[rest].T @ design[rest] + ridge
        unseen[at] = design[at] @ np.linalg.solve(normal, design[rest].T @ sign[rest])
    expected = (unseen * (sign - sign.mean())).mean()
    assert twosample._separations(ranks, member)[0] == pytest.approx(expected)


def test_false_discoveries_by_hand() -> None:
    found = twosample.false_discoveries(np.array([0.04, 0.01, 0.02, 0.5]))
    assert found.tolist() == pytest.approx([0.16 / 3, 0.04, 0.04, 0.5])


def test_missing_values_that_become_more_are_seen() -> None:
    rng = np.random.default_rng(3)
    x, y = rng.random((100, 2)), rng.random((100, 2))
    y[:40, 1] = np.nan
    found = twosample.compare(x, y, ["a", "b"])
    assert found.p <= 0.01
    assert found.columns[0].name == "b"


@pytest.mark.parametrize("side", ["input", "score", "explanation"])
def test_the_side_that_moved_alarms_alone(side: str) -> None:
    changes: dict[str, Any] = {
        "input": {"inputs": {"brightness": np.random.default_rng(9).random(300) ** 3}},
        "score": {"labels": ("a",) * 260 + ("b",) * 40},
        "explanation": {
            "explanations": {
                "border": np.random.default_rng(9).random(300) ** 3,
                "entropy": np.random.default_rng(8).random(300),
            }
        },
    }[side]
    found = windows.compare(seen(300), seen(300, 1, **changes))
    assert found.alarms == (side,)
    first = found.sides[side].columns[0].name
    assert first.startswith(
        {"input": "brightness", "score": "class=", "explanation": "border"}[side]
    )
    assert len(found.telling) == 5
    assert set(found.telling) <= {f"1-{at}" for at in range(300)}


def test_windows_are_cut_in_order_and_a_small_rest_is_left_out() -> None:
    found = govern.drift(seen(100), seen(230, 1), size=100)
    assert [one.n for one in found.windows] == [100, 100]
    assert found.windows[0].first == "2026-01-01T00:00:00+00:00"
    assert [one.n for one in govern.drift(seen(100), seen(260, 1), size=100).windows][-1] == 60
    assert [one.n for one in govern.drift(seen(100), seen(20, 1), size=100).windows] == [20]
    assert found.to_dict()["windows"][1]["sides"]["score"]["p"] > 0


def test_a_side_without_measurements_says_so() -> None:
    found = windows.compare(seen(50, inputs={}), seen(50, 1))
    assert "input" not in found.sides
    assert "no measurements" in found.missing["input"]


def test_an_outlier_is_named() -> None:
    far = seen(60, 1)
    far.explanations["border"][17] = 9.0
    found = windows.compare(seen(200), far)
    (first, *_) = found.outliers
    assert (first.id, first.side) == ("1-17", "explanation")
    assert first.distance > 5
    # By chance one in 201 on each side: 60 items of two sides have well below five.
    assert len(windows.compare(seen(200), seen(60, 2)).outliers) < 5


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"level": 0.0}, "level between 0 and 1"),
        ({"size": 4}, "8 items or more"),
        ({"level": 0.001}, "1000 permutations"),
    ],
)
def test_settings_that_can_not_work_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ArgumentError, match=words):
        govern.drift(seen(50), seen(50, 1), **options)
    with pytest.raises(ArgumentError, match="larger window"):
        govern.drift(seen(50), seen(5, 1))


def test_an_item_counts_once(tmp_path: Path) -> None:
    a, b = photograph(tmp_path / "a.png", 1), photograph(tmp_path / "b.png", 2)
    made = [
        explanation(a, label="cat"),
        explanation(a, label="dog"),  # the second class of the same item
        explanation(a, label="cat", method="saliency()"),
        explanation(b, label="cat"),
        explanation(b, label="cat"),  # sent again
    ]
    found = govern.observe(made, groups={"sex": ["f", "m", "m"]})
    assert found.ids == (str(a), str(b), str(b))
    assert found.labels == ("cat",) * 3
    with pytest.raises(ArgumentError, match="expected 3 values in 'sex', got 5"):
        govern.observe(made, groups={"sex": ["f"] * 5})
    with pytest.raises(ArgumentError, match="expected explanations, got none"):
        govern.observe([])
