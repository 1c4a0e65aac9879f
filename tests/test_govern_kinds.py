"""Real texts and rows of tables through the log: features, trends, drift, gaps and the page."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import select
from stores import explanation, photograph

from visxai import govern, tabular, text
from visxai.errors import VisxaiError
from visxai.govern import daily, tables
from visxai.govern.log import Item, Log
from visxai.ledger import Envelope
from visxai.tabular import german_credit as credit
from visxai.tabular.run import explain as run_rows
from visxai.text.run import explain as run_texts

RUDE = ["You are an idiot", "What a stupid fool you are", "SHUT UP , you moron"]
KIND = ["Thank you for the kind words", "I don't think that it is wrong", "See the talk page"]


def data_of(log: Log) -> dict[str, Any]:
    """What the page of a log is made of."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', govern.page(log))
    assert found is not None
    told: dict[str, Any] = json.loads(found[1])
    return told


def test_comments_judged_for_toxicity(tmp_path: Path) -> None:
    engine = text.Engine("toxicity")
    options = {"method": "input_x_gradient", "target": "class=toxic"}
    with govern.logged(engine, tmp_path / "log.db", **options) as log:

        @log
        def predict(texts: list[str]) -> list[str]:
            return ["toxic" if one in RUDE else "fine" for one in texts]

        predict(KIND * 6)
        predict(RUDE * 6)
        log.explain(RUDE + KIND, metadata=[{"dialect": one} for one in "aaabbb"])
        (model,) = log.log.models()
        assert model.n == 42
        seen = log.log.observe(model.id)
        assert seen.explanations["capitals"].max() > 0  # SHUT UP
        assert {"third_0", "negation", "concentration"} <= set(seen.explanations)
        found = govern.watch(log.log, size=18)
        assert (found.windows, len(found.alerts)) == (1, 1)  # rude ones after kind ones
        assert set(govern.alerts(log.log)[0]["alarms"]) == {"score", "explanation"}
        gaps = govern.fairness(seen, "dialect").gaps
        assert {one.warning[:9] for one in gaps} == {"only 3 it"}
        (shown,) = data_of(log.log)["models"]
        assert "negation" in shown["trends"][""]
        words = {part[0] for row in shown["items"]["rows"] for part in row["parts"]}
        assert "idiot" in words
        assert all(line.verdict != "fail" for line in govern.audit(tmp_path / "log.db").lines[:3])


def test_loans_of_german_credit(tmp_path: Path) -> None:
    from sklearn.linear_model import LogisticRegression

    table, known = credit.load(), credit.features()
    repaid = np.array(table.column(credit.OUTCOME))
    model = LogisticRegression(solver="newton-cholesky").fit(known.matrix(table), repaid)
    engine = tabular.Engine(
        model,
        table.slice(0, 100),
        known,
        threshold=0.5,
        label="repaid",
        protected=credit.PROTECTED,
        name="credit",
    )
    rows = table.to_pylist()
    dear = [row for row in rows if row["amount"] > 4000][:60]
    ordinary = rows[:120]
    with govern.logged(engine, tmp_path / "log.db") as log:
        for some in (ordinary, dear):
            sexes = ["f" if "female" in row["personal_status_sex"] else "m" for row in some]
            true = ["repaid" if row[credit.OUTCOME] else "not repaid" for row in some]
            log.explain(some, metadata=[{"sex": one} for one in sexes], truth=true)
        (model_,) = log.log.models()
        seen = log.log.observe(model_.id)
        shares = [values for name, values in seen.explanations.items() if name.startswith("share.")]
        np.testing.assert_allclose(np.sum(shares, 0), 1, atol=1e-9)
        assert set(credit.PROTECTED) | {"sex"} == set(seen.groups)
        np.testing.assert_array_equal(seen.decisions["favourable"], seen.scores >= 0.5)
        good = np.array([row[credit.OUTCOME] for row in ordinary + dear])
        wrong = (seen.scores >= 0.5) != good
        np.testing.assert_array_equal(seen.decisions["error"], wrong)
        with log.log.ledger.database.reading() as connection:
            sums = daily.means(connection, model_.id)
        assert sums["error"] == (180, pytest.approx(wrong.mean()))  # not against "repaid" alone
        assert sums["calibration"] == (180, pytest.approx((seen.scores - good).mean()))
        assert govern.watch(log.log, size=60).windows == 2
        (alert,) = govern.alerts(log.log)
        moved = {one["figure"] for one in alert["moved"]}
        assert {"amount", "attribution.amount"} <= moved  # input and explanation, side by side
        (shown,) = data_of(log.log)["models"]
        assert "share.amount" in shown["trends"][""]
        names = [part[0] for part in shown["items"]["rows"][0]["parts"]]
        assert set(names) <= set(known.names)
        by = {one["attribute"]: one for one in shown["gaps"]}
        assert {gap["group"] for gap in by["sex"]["gaps"]} == {"f", "m"}
        assert any(gap["figure"] == "share.amount" for gap in by["sex"]["gaps"])


def test_a_score_without_a_decision_has_no_error(tmp_path: Path) -> None:
    engine = tabular.Engine(lambda x: 0.5 + 0 * x[:, 0], [{"a": 1.0}] * 2, ["a"],
                            scale="probability", label="repaid")  # fmt: skip
    with govern.logged(engine, tmp_path / "log.db") as log:
        log.explain([{"a": 2.0}, {"a": 3.0}], truth=["repaid", "not repaid"])
        seen = log.log.observe(log.log.models()[0].id)
        assert seen.decisions.keys() == {"calibration"}
        assert seen.decisions["calibration"].tolist() == [-0.5, 0.5]
        with log.log.ledger.database.reading() as connection:
            assert "error" not in daily.means(connection, log.log.models()[0].id)
    assert "error" not in {one.figure for one in govern.fairness(
        govern.observe(engine.explain([{"a": 2.0}] * 2), groups={"sex": ["f", "m"]},
                       expected=["repaid", "not repaid"]), "sex", draws=19).gaps}  # fmt: skip


def test_runs_over_texts_and_tables_are_imported(tmp_path: Path) -> None:
    comments = tmp_path / "comments.csv"
    comments.write_text("\n".join(["comment", *RUDE, *(f'"{one}"' for one in KIND)]), "utf-8")
    engine = text.Engine("toxicity")
    run_texts([comments], tmp_path / "texts", engine, method="input_x_gradient")
    rows = tmp_path / "rows.csv"
    rows.write_text("a,b,sex,ok\n1,2,f,1\n3,1,m,0\n2,2,f,1\n", "utf-8")
    tables_ = tabular.Engine(lambda x: x[:, 0] / 4, [{"a": 1.0, "b": 2.0}] * 2, ["a", "b"],
                             scale="probability", threshold=0.5, label="ok",
                             protected=["sex"])  # fmt: skip
    run_rows([rows], tmp_path / "table", tables_, label_column="ok")
    with Log(tmp_path / "log.db") as log:
        assert log.import_run(tmp_path / "texts") == 6
        assert log.import_run(tmp_path / "table") == 3
        assert log.import_run(tmp_path / "texts") == log.import_run(tmp_path / "table") == 0
        seen = {log.observe(one.id).model: log.observe(one.id) for one in log.models()}
        told = next(one for one in seen.values() if "attribution.a" in one.explanations)
        assert told.groups == {"sex": ("f", "m", "f")}
        assert told.decisions["error"].tolist() == [1, 1, 0]
        words = next(one for one in seen.values() if "negation" in one.explanations)
        assert len(words) == 6
        assert log.ledger.verify()


def test_regions_that_callers_name(tmp_path: Path) -> None:
    photo = photograph(tmp_path / "in" / "a.png", 1)  # 96 x 64, seen from 16 to 80
    made = explanation(photo, peak=(2, 3))
    whole = {"region:left": [16, 0, 48, 64], "region:view": "16 0 80, 64", "region:none": "x"}
    with Log(tmp_path / "log.db") as log:
        log.add([Item(made, Envelope(metadata=whole | {"site": "n"}))])
        (model,) = log.models()
        seen = log.observe(model.id)
        assert seen.groups == {"site": ("n",), "region:none": ("x",)}
        assert seen.explanations["region:view"] == pytest.approx([1])
        share = made.values.astype(float) / made.values.sum()
        left = share[:, :3].sum() + share[:, 3].sum() / 2
        assert seen.explanations["region:left"] == pytest.approx([left])
        with log.ledger.database.reading() as connection:
            (point,) = daily.trend(connection, model.id, ["region:left"])["region:left"]
        assert (point.n, point.mean) == (1, pytest.approx(left))
    table = tmp_path / "people.csv"
    table.write_text('path,site,region:left\na.png,n,"16,0,48,64"\n', "utf-8")
    direct = govern.observe([made], metadata=table)
    assert direct.groups == {"site": ("n",)}
    assert direct.explanations["region:left"] == pytest.approx([left])


def test_a_wide_table_has_bounded_sums(tmp_path: Path) -> None:
    names = [f"f{at}" for at in range(150)]
    engine = tabular.Engine(lambda x: x.sum(1), [dict.fromkeys(names, 0.0)] * 2, names,
                            method="kernel_shap(samples=400)", scale="response")  # fmt: skip
    with govern.logged(engine, tmp_path / "log.db") as log:
        log.explain([dict.fromkeys(names, 1.0)])
        with log.log.ledger.database.reading() as connection:
            sums = connection.execute(select(tables.daily.c.figure).distinct()).scalars().all()
            (row,) = connection.execute(select(tables.measures)).all()
    assert len(json.loads(row.others)) == 300
    assert 100 <= len(sums) <= 110


def test_an_explanation_that_fails_leaves_the_answer(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken:
        def explain(self, inputs: Any, **_: Any) -> list[Any]:
            raise VisxaiError("expected a map, got none: look")

    photo = photograph(tmp_path / "a.png", 1)
    with Log(tmp_path / "log.db") as log:
        log.add([Item(explanation(photo), Envelope())])
        with govern.logged(Broken(), log) as broken:
            assert broken(lambda path: "cat")(photo) == "cat"
            assert broken(lambda paths: ["cat"] * len(paths))([photo, photo]) == ["cat"] * 2
        assert "could not be explained" in caplog.text
    with Log(tmp_path / "log.db") as log, log.ledger.database.reading() as connection:
        rows = connection.execute(select(tables.coverage)).all()
    assert (sum(row.seen for row in rows), sum(row.explained for row in rows)) == (4, 1)
