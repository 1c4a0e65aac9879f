"""Plots, proxies and the figures of decisions by group."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pyarrow as pa
import pytest

from visxai import govern, tabular
from visxai.errors import ArgumentError, UnknownName
from visxai.record import TableExplanation
from visxai.tabular import plots

xgboost = pytest.importorskip("xgboost", reason="needs the extra tables")
pytest.importorskip("shap", reason="needs the extra tables")
pytest.importorskip("sklearn", reason="needs the extra tables")
plt = pytest.importorskip("matplotlib.pyplot", reason="needs the extra tables")

FEATURES = {"income": None, "town": ["a", "b"], "noise": None}


@cache
def table() -> pa.Table:
    """Town tells the group in nine of ten rows; income doesn't; the outcome is income and town."""
    rng = np.random.default_rng(0)
    group = rng.integers(0, 2, 300)
    town = np.where(rng.random(300) < 0.9, group, 1 - group)
    income = rng.normal(size=300)
    return pa.table(
        {
            "income": income,
            "town": [FEATURES["town"][one] for one in town],  # type: ignore[index]
            "noise": rng.normal(size=300),
            "group": [("x", "y")[one] for one in group],
            "years": group * 20.0 + rng.normal(40, 2, 300),
            "repaid": income + town + rng.normal(0, 0.5, 300) > 0.5,
        }
    )


@cache
def engine() -> tabular.Engine:
    features = tabular.Features.of(FEATURES)
    model = xgboost.XGBClassifier(n_estimators=15, max_depth=2, n_jobs=1).fit(
        features.matrix(table()), np.array(table().column("repaid"))
    )
    background = tabular.Background.sample(table(), most=30)
    return tabular.Engine(
        model, background, features, threshold=0.5, label="repaid", protected=["group", "years"]
    )


@cache
def records() -> tuple[TableExplanation, ...]:
    return tuple(engine().explain(table()))


def test_a_proxy_is_found_with_what_it_carries() -> None:
    for column in ("group", "years"):
        found = tabular.proxies(engine(), table(), column)
        assert found.features[0].feature == "town"
        # Of nine in ten right, with the mean of each side as the guess: 1 - 0.09 / 0.25.
        assert found.features[0].found == pytest.approx(0.64, abs=0.15)
        assert found.low < found.found < found.high
        assert found.features[-1].found < 0.1
        sizes = np.abs([one.values for one in records()]).sum(0)
        assert found.features[0].share == pytest.approx(sizes[1] / sizes.sum(), abs=1e-6)
    with pytest.raises(ArgumentError, match="isn't scored"):
        tabular.proxies(engine(), table(), "town")
    with pytest.raises(UnknownName):
        tabular.proxies(engine(), table(), "village")
    with pytest.raises(ArgumentError, match="20 rows"):
        tabular.proxies(engine(), table().slice(0, 9), "group")


def test_groups_are_compared_by_decisions_and_calibration() -> None:
    truth = np.array(table().column("repaid"))
    expected = ["repaid" if one else "not repaid" for one in truth]
    seen = govern.observe(records(), expected=expected)
    found = govern.fairness(seen, "group", draws=99)
    gaps = {(one.group, one.figure): one for one in found.gaps}
    of = np.array(table().column("group").to_pylist()) == "y"
    scores = np.array([one.score for one in records()])
    for figure, values in {
        "score": scores,
        "favourable": scores >= 0.5,
        "error": (scores >= 0.5) != truth,
        "calibration": scores - truth,
    }.items():
        gap = gaps["y", figure]
        assert gap.gap == pytest.approx(values[of].mean() - values[~of].mean(), abs=1e-6)
        assert gap.low < gap.gap < gap.high
        assert gap.n == of.sum()
    assert ("y", "attribution.town") in {(one.group, one.figure) for one in found.findings}
    assert len(seen.take(slice(0, 7)).decisions["favourable"]) == 7
    without = govern.observe([replace(one, threshold=None) for one in records()])
    assert without.decisions == {}


def test_plots_draw_the_records_and_leave_nothing_open() -> None:
    own = plt.figure()
    one, cohort = records()[0], records()[:40]
    drawn = {
        "summary": plots.summary(cohort, engine().model.features),
        "bars": plots.bars(cohort),
        "waterfall": plots.waterfall(one),
        "force": plots.force(one),
        "dependence": plots.dependence(cohort, "town", engine().model.features),
        "decision": plots.decision(cohort),
        "beside": plots.beside(one, cohort),
    }
    assert plt.get_fignums() == [own.number]
    plt.close(own)
    said = {
        name: " ".join(
            text.get_text() for axes in figure.axes for text in axes.findobj(match=plt.Text)
        )
        for name, figure in drawn.items()
    }
    assert all("town" in text for text in said.values()), said
    ticks = [text.get_text() for text in drawn["dependence"].axes[0].get_xticklabels()]
    assert ticks == FEATURES["town"]
    widths = [patch.get_width() for patch in drawn["beside"].axes[0].patches]
    assert sorted(widths) == pytest.approx(sorted(one.values.tolist()))
    with pytest.raises(ArgumentError, match="none"):
        plots.summary([])
    with pytest.raises(ArgumentError, match="none"):
        plots.beside(one, [])
    with pytest.raises(ArgumentError, match="a scored feature"):
        plots.dependence(cohort, "group")
