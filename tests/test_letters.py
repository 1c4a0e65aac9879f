"""Letters: every sentence of a thousand is true of its record, its background and the model."""

from __future__ import annotations

import datetime
import html
import re
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from visxai import tabular
from visxai.errors import ArgumentError
from visxai.record import TableExplanation
from visxai.tabular import german_credit as credit
from visxai.tabular.reasons import wording_of

xgboost = pytest.importorskip("xgboost", reason="needs the extra tables")
pytest.importorskip("shap", reason="needs the extra tables")

LETTERS = 1000
ACTIONS = {name: credit.ACTIONS[name] for name in ("duration", "savings", "other_debtors")}


@cache
def engine() -> tabular.Engine:
    table, known = credit.load(), credit.features()
    model = xgboost.XGBClassifier(n_estimators=20, max_depth=3, learning_rate=0.3, n_jobs=1)
    model.fit(known.matrix(table), np.array(table.column("repaid")))
    scores = tabular.Engine(model, features=known).predict(table)
    near = tabular.Background.approved_near(table, scores, 0.7, most=40)
    return tabular.Engine(model, near, known, threshold=0.7, protected=credit.PROTECTED)


@cache
def refused() -> tuple[TableExplanation, ...]:
    """A thousand refusals: applicants, and others who have one's left and another's right half."""
    table, rng = credit.load(), np.random.default_rng(0)
    shuffled = [
        column.take(pa.array(order if at % 2 else rng.permutation(len(table))))
        for order in [np.arange(len(table))]
        for at, column in enumerate(table.columns)
    ]
    mixed = pa.table(dict(zip(table.column_names, shuffled, strict=True)))
    both = pa.concat_tables([table, mixed, mixed.take(pa.array(np.arange(999, -1, -1)))])
    low = np.flatnonzero(engine().predict(both) < 0.7)[:LETTERS]
    return tuple(engine().explain(both.take(pa.array(low))))


def pattern(sentence: str) -> re.Pattern[str]:
    """A template of the wording as a pattern that finds its values again."""
    parts = re.split(r"\{(\w+)\}", sentence)
    return re.compile(
        "".join(f"(?P<{one}>.*?)" if at % 2 else re.escape(one) for at, one in enumerate(parts))
    )


@pytest.mark.parametrize("language", ["en", "de"])
def test_every_sentence_of_a_thousand_letters_is_true(language: str) -> None:
    words = wording_of(language)
    forms = {one: pattern(words[one]) for one in ("lower", "higher", "other", "together")}
    item = pattern(words["letter"]["item"])
    background = engine().background
    assert background is not None
    assert len(refused()) == LETTERS
    swaps, gains, changed, kinds = [], [], [], set()
    asked = refused() if language == "en" else refused()[:100]
    for record in asked:
        written = tabular.letter(engine(), record, language, actions=ACTIONS)
        body = [html.unescape(one) for one in re.findall(r"<li>(.*?)</li>", written.html)]
        applicant = dict(zip(record.features, record.input.data, strict=True))
        typical = dict(zip(record.features, record.typical, strict=True))
        spoken = {name.replace("_", " "): name for name in record.features}
        reasons = 0
        for sentence in body:
            found = [(how, one.fullmatch(sentence)) for how, one in forms.items()]
            matching = [(how, one.groupdict()) for how, one in found if one]
            if not matching:  # a change
                change = item.fullmatch(sentence)
                assert change, sentence
                name = spoken[change["name"]]
                assert name in ACTIONS
                assert change["own"] == str(applicant[name])
                changed.append(1)
                continue
            how, told = matching[0]
            name = spoken[told["name"]]
            reasons += 1
            kinds.add(how)
            assert name not in (*credit.PROTECTED, *record.excluded)
            assert record.value_of(name) < 0
            assert told["own"] == str(applicant[name])
            if how == "together":
                continue
            assert told["typical"] == str(typical[name])
            swaps.append(({**applicant, name: typical[name]}, record.score))
            if how in ("lower", "higher"):
                column = np.array(background.table.column(name).to_pylist())
                more = how == "lower"
                assert (applicant[name] < typical[name]) == more
                beyond = column > applicant[name] if more else column < applicant[name]
                assert told["share"] == str(round(100 * float(beyond.mean())))
        strongest = [one.feature for one in record.contributions if one.value < -1e-6][:4]
        assert [one.feature for one in written.reasons.items] == strongest
        gains += [
            ({**applicant, one.feature: one.typical}, record.score + one.gain)
            for one in written.reasons.items
        ]
        assert reasons == len(strongest) == len(written.reasons.sentences)
        if written.counterfactual:
            assert len(written.counterfactual.changes) == len(body) - reasons
            new = {**applicant, **{x.feature: x.needed for x in written.counterfactual.changes}}
            swaps.append((new, 0.7))
            assert [name for name in applicant if new[name] != applicant[name]] == sorted(
                (x.feature for x in written.counterfactual.changes), key=record.features.index
            )
    # A direction is named only where the model agrees, and a change only where it suffices.
    scores = engine().predict([row for row, _ in swaps])
    assert (scores > np.array([least for _, least in swaps])).all()
    again = engine().predict([row for row, _ in gains])
    assert again == pytest.approx(np.array([score for _, score in gains]), abs=1e-6)
    assert kinds == set(forms)
    assert len(changed) > len(asked) / 4
    assert len(swaps) > 2 * len(asked)


def test_changes_are_the_smallest_of_those_allowed() -> None:
    record = next(one for one in refused() if 0.55 < one.score < 0.69)
    everything = credit.ACTIONS
    assert tabular.what_would_change(engine(), record, {}) is None
    found = tabular.what_would_change(engine(), record, everything)
    assert found
    assert found.score > 0.7
    applicant = dict(zip(record.features, record.input.data, strict=True))
    levels = {one.name: one.levels for one in engine().model.features.items}
    for one in found.changes:
        assert one.own == applicant[one.feature]
        place = levels[one.feature].index if levels[one.feature] else float
        raised = place(one.needed) > place(one.own)  # type: ignore[arg-type]
        assert raised == (everything[one.feature] == "raise")
    if len(found.changes) > 1:  # then no single change suffices
        for name, direction in everything.items():
            single = tabular.what_would_change(engine(), record, {name: direction})
            assert single is None
    for wrong in ({"age": "raise"}, {"duration": "sideways"}):
        with pytest.raises(ArgumentError, match="raise, lower or any"):
            tabular.what_would_change(engine(), record, wrong)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="below its threshold"):
        tabular.what_would_change(engine(), replace(record, score=0.9), everything)


def test_a_letter_says_where_there_is_nothing_to_say() -> None:
    record = replace(refused()[0], degenerate=True)
    told = tabular.letter(engine(), record, sender="The <Bank>", applicant="A & B")
    assert "No reasons can be given" in told.html
    assert "<li>" not in told.html
    assert "The &lt;Bank&gt;" in told.html
    assert "A &amp; B" in told.html
    stuck = tabular.letter(engine(), refused()[0], actions={"telephone": "lower"})
    assert stuck.counterfactual is None
    assert "no small change" in stuck.html
    assert "<script" not in told.html


def test_letters_are_anyones_to_edit(tmp_path: Path) -> None:
    text = (Path(tabular.__path__[0]) / "wording" / "en.toml").read_text("utf-8")
    own = tmp_path / "own.toml"
    own.write_text(text.replace("Yours sincerely,", "Cheers,"), "utf-8")
    day = datetime.date(2026, 1, 2)
    saved = tabular.letter(engine(), refused()[0], own, date=day).save(tmp_path / "letter.html")
    assert "Cheers," in saved.read_text("utf-8")
    assert "2026-01-02" in saved.read_text("utf-8")
    own.write_text(text.partition("[letter]")[0], "utf-8")
    with pytest.raises(ArgumentError, match="got none for language"):
        tabular.letter(engine(), refused()[0], own)
