"""Reasons: at most four, true of the record, in the direction that the model uses."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from visxai import tabular
from visxai.errors import ArgumentError
from visxai.record import TableExplanation
from visxai.tabular import german_credit as credit
from visxai.tabular.reasons import reasons_for

xgboost = pytest.importorskip("xgboost", reason="needs the extra tables")
pytest.importorskip("shap", reason="needs the extra tables")


@cache
def engine() -> tabular.Engine:
    """A model of German Credit that never likes less savings better, and the just approved."""
    table, known = credit.load(), credit.features()
    monotone = tuple(int(name == "savings") for name in known.names)
    model = xgboost.XGBClassifier(
        n_estimators=40, max_depth=3, learning_rate=0.15, monotone_constraints=monotone
    ).fit(known.matrix(table), np.array(table.column("repaid").to_pylist()))
    scores = tabular.Engine(model, features=known).predict(table)
    near = tabular.Background.approved_near(table, scores, 0.7, most=100)
    return tabular.Engine(model, near, known, threshold=0.7, protected=credit.PROTECTED)


@cache
def refused() -> tuple[TableExplanation, ...]:
    return tuple(one for one in engine().explain(credit.load()) if not one.favourable)


def test_more_savings_never_make_savings_a_reason() -> None:
    best = list(credit.LEVELS["savings"].values())[-1]
    rows = [dict(zip(one.features, one.input.data, strict=True)) for one in refused()]
    raised = engine().explain([{**row, "savings": best} for row in rows])
    for before, after in zip(refused(), raised, strict=True):
        assert after.score >= before.score - 1e-6
        assert after.value_of("savings") >= max(0.0, before.value_of("savings")) - 1e-5
        if not after.favourable:
            assert "savings" not in [one.feature for one in reasons_for(engine(), after).items]


def test_another_background_gives_other_reasons_and_the_record_says_so() -> None:
    everyone = tabular.Background.sample(credit.load(), most=100)
    other = tabular.Engine(engine().model, everyone, threshold=0.7, protected=credit.PROTECTED)
    again = [one for one in other.explain(credit.load()) if not one.favourable]
    changed = sum(
        [x.feature for x in reasons_for(engine(), a).items]
        != [x.feature for x in reasons_for(other, b).items]
        for a, b in zip(refused(), again, strict=True)
    )
    assert changed > 0.2 * len(again)
    assert again[0].background["rule"] != refused()[0].background["rule"]
    with pytest.raises(ArgumentError, match="a record of this engine's background"):
        reasons_for(engine(), again[0])


def test_reasons_that_can_not_be_given_say_so() -> None:
    record = refused()[0]
    assert reasons_for(engine(), replace(record, degenerate=True)).note
    equal = replace(record, values=np.full(len(record.features), -0.1))
    assert "counted equally" in reasons_for(engine(), equal).sentences[0]
    raised = replace(record, values=np.full(len(record.features), 0.1))
    assert "no detail lowered" in reasons_for(engine(), raised).sentences[0]
    with pytest.raises(ArgumentError, match="below its threshold"):
        reasons_for(engine(), replace(record, score=0.9))


def test_sentences_are_anyones_to_edit(tmp_path: Path) -> None:
    german = reasons_for(engine(), refused()[0], "de")
    assert all("Ihre Angabe ist" in one for one in german.sentences)
    text = (Path(tabular.__path__[0]) / "wording" / "en.toml").read_text("utf-8")
    own = tmp_path / "own.toml"
    name = german.items[0].feature
    own.write_text(text.replace("[names]", f'[names]\n{name} = "THIS ONE"'), "utf-8")
    assert reasons_for(engine(), refused()[0], own).sentences[0].startswith("THIS ONE: ")
    own.write_text("lower = 3", "utf-8")
    with pytest.raises(ArgumentError, match="got none for lower"):
        reasons_for(engine(), refused()[0], own)
    with pytest.raises(ArgumentError, match="expected en, de or a TOML file"):
        reasons_for(engine(), refused()[0], "fr")
