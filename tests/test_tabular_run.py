"""Runs over the rows of tables: results, going on, failures, engines on disk, the command line."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from visxai import govern, results, tabular
from visxai.cli import app
from visxai.errors import ArgumentError, ModelError, StoreError, UnknownName
from visxai.foreign import for_html
from visxai.record import TableExplanation
from visxai.tabular.run import explain

xgboost = pytest.importorskip("xgboost", reason="needs the extra tables")
pytest.importorskip("shap", reason="needs the extra tables")

CHROMIUM = shutil.which("chromium")
FEATURES = {"income": None, "savings": ["none", "some", "much"]}


@cache
def table() -> pa.Table:
    rng = np.random.default_rng(0)
    savings = rng.integers(0, 3, 90)
    income = rng.normal(30, 8, 90).round(1)
    return pa.table(
        {
            "id": [f"A{number}" for number in range(90)],
            "income": income,
            "savings": [FEATURES["savings"][one] for one in savings],  # type: ignore[index]
            "sex": ["f" if one else "m" for one in rng.integers(0, 2, 90)],
            "repaid": income + 8 * savings + rng.normal(0, 6, 90) > 36,
        }
    )


@cache
def engine(method: str | None = None) -> tabular.Engine:
    features = tabular.Features.of(FEATURES)
    model = xgboost.XGBClassifier(n_estimators=8, max_depth=2, n_jobs=1).fit(
        features.matrix(table()), np.array(table().column("repaid"))
    )
    scores = tabular.Engine(model, features=features).predict(table())
    near = tabular.Background.approved_near(table(), scores, 0.5, most=20)
    return tabular.Engine(
        model, near, features, method=method, threshold=0.5, label="repaid", protected=["sex"]
    )


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "applicants.parquet"
    pq.write_table(table(), path)
    return path


def rows(out: Path) -> list[tuple[Any, ...]]:
    found = []
    for one in results.read(out):
        assert isinstance(one, TableExplanation)
        found.append((one.input, one.id, one.outcome, dict(one.groups), one.values.tolist()))
    return found


def test_a_run_holds_the_records_of_the_engine(file: Path, tmp_path: Path) -> None:
    done = explain([file], tmp_path / "out", engine(), label_column="repaid", chunk_size=40)
    assert done.complete
    assert done.counts["maps"] == done.counts["labelled"] == 90
    whole = engine().explain(file)
    found = list(results.read(tmp_path / "out"))
    for made, kept in zip(whole, found, strict=True):
        assert isinstance(kept, TableExplanation)
        assert kept.input == made.input
        assert kept.values.tolist() == made.values.tolist()
        assert kept.background == made.background == engine().explained_against
        assert (kept.threshold, kept.groups) == (0.5, made.groups)
    assert [one.id for one in found] == table().column("id").to_pylist()
    read = results.reading.tables(tmp_path / "out", ["expected"])
    expected = [one["expected"] for part in read for one in part.to_pylist()]
    true = ["repaid" if one else "not repaid" for one in table().column("repaid").to_pylist()]
    assert expected == true
    right = [one.outcome == true[at] for at, one in enumerate(whole)]
    assert done.counts["right"] == sum(right) > 60


def test_a_stopped_run_goes_on_to_the_same_rows(file: Path, tmp_path: Path) -> None:
    explain([file], tmp_path / "whole", engine(), chunk_size=20)
    calls: list[int] = []

    def stop() -> bool:
        calls.append(1)
        return len(calls) > 2

    stopped = explain([file], tmp_path / "out", engine(), chunk_size=20, stop=stop)
    assert (stopped.complete, stopped.counts["finished"]) == (False, 40)
    assert explain([file], tmp_path / "out", engine(), chunk_size=20).complete
    assert rows(tmp_path / "out") == rows(tmp_path / "whole")
    with pytest.raises(StoreError, match="settings"):
        explain([file], tmp_path / "out", engine("tree_shap"), chunk_size=20)


def test_a_table_that_grew_goes_on_and_one_of_another_order_is_looked_up(tmp_path: Path) -> None:
    path, out = tmp_path / "a.parquet", tmp_path / "out"
    pq.write_table(table().slice(0, 30), path)
    explain([path], out, engine(), chunk_size=20)
    pq.write_table(table().slice(0, 50), path)
    grown = explain([path], out, engine(), chunk_size=20)
    assert (grown.counts["maps"], grown.changed) == (50, 0)
    (tmp_path / "b").mkdir()
    other = tmp_path / "b" / "a.parquet"  # the same name in another folder
    pq.write_table(table().slice(50, 40), other)
    both = explain([other, path], out, engine(), chunk_size=20)
    assert (both.counts["maps"], both.changed) == (90, 0)
    whole = engine().explain(table())
    found = {(one.input.path, one.input.row): one.values.tolist() for one in results.read(out)}  # type: ignore[attr-defined]
    assert len(found) == 90
    assert found[str(path), 49] == whole[49].values.tolist()
    assert found[str(other), 39] == whole[89].values.tolist()
    pq.write_table(table().slice(10, 40), other)
    assert explain([path, other], out, engine(), chunk_size=20).changed == 40


def test_a_listing_in_order_lists_what_any_listing_does(file: Path, tmp_path: Path) -> None:
    from visxai.results.inputs import Inputs, Progress
    from visxai.tabular.run import _Listing, _Table

    held = {str(file): _Table(engine(), file, "repaid")}
    listing, nothing = _Listing(held, "repaid"), Progress((), (), ())
    general, ordered = Inputs(tmp_path / "g"), Inputs(tmp_path / "o")
    assert general.add(listing, 40, nothing)[:2] == (90, 0)
    assert ordered.add_in_order(listing, 40, nothing, {f"{file}#row=3"}) == (
        90, 0, {f"{file}#row=3"}
    )  # fmt: skip
    assert ordered._table.equals(general._table)
    assert ordered.add_in_order(list(listing)[::-1], 40, nothing, ()) is None
    assert len(ordered) == 90
    unlike = _Listing({str(file): _Table(engine(), file, None)}, None)
    assert ordered.add_in_order(unlike, 40, Progress({0, 1, 2}, (), ()), ()) == (0, 90, set())


def test_rows_are_read_forward_and_let_go(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from visxai.tabular import run

    monkeypatch.setattr(run, "_CHUNK", 8)
    read = run._Table(engine(), file, None)
    for first, count in ((0, 20), (20, 20), (25, 1), (39, 1), (40, 20), (0, 5), (88, 9)):
        part = read.slice(first, count)
        assert part.column("id").to_pylist() == table().column("id").to_pylist()[first:][:count]
        assert read._held is not None
        assert read._held.num_rows <= 20 + 8


def test_a_row_that_can_not_be_explained_is_a_failure(file: Path, tmp_path: Path) -> None:
    path = tmp_path / "applicants.csv"
    wrong = table().slice(0, 6).to_pylist()
    wrong[3]["savings"] = "a sock"
    wrong[4]["savings"] = wrong[5]["income"] = None  # empty cells are missing values
    pyarrow.csv.write_csv(pa.Table.from_pylist(wrong), path)
    done = explain([path], tmp_path / "out", engine())
    assert [one.path.rpartition("#")[2] for one in done.failed] == ["row=4"]
    assert "a sock" in done.failed[0].reason
    found = rows(tmp_path / "out")
    assert [one[0].row for one in found] == [0, 1, 2, 4, 5]
    assert found[3][0].data[1] is None
    again = explain([file], tmp_path / "out", engine(), retry_failures=True)  # its table is gone
    assert any("which an earlier run listed" in one.reason for one in again.failed)
    with pytest.raises(UnknownName, match="paid"):
        explain([path], tmp_path / "other", engine(), label_column="paid")
    with pytest.raises(ArgumentError, match="true or false"):
        explain([path], tmp_path / "other", engine(), label_column="savings")
    narrow = tmp_path / "narrow.csv"
    narrow.write_text("income\n3\n", "utf-8")
    with pytest.raises(ArgumentError, match="without 'savings'"):
        explain([narrow], tmp_path / "other", engine())


def test_the_page_of_a_run_holds_its_rows(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from visxai.report import build, tables

    hostile = table().slice(0, 7).to_pylist()
    hostile[1]["id"] = "</script><img src=x>"
    path = tmp_path / "applicants.parquet"
    pq.write_table(pa.Table.from_pylist(hostile), path)
    monkeypatch.setattr(tables, "HELD", 3)
    explain([path], tmp_path / "out", engine(), label_column="repaid")
    made = build(tmp_path / "out")
    assert (made.shown, made.rows, made.path.name) == (3, 7, "index.html")
    text = made.path.read_text("utf-8")
    assert "<img" not in text
    assert not re.search(r"https?://(?!www\.w3\.org)", text)
    held = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)
    assert held
    data = json.loads(held[1])
    records = engine().explain(path)
    means = np.abs([one.values for one in records]).mean(0)
    assert data["mean"] == pytest.approx(means.tolist(), rel=1e-6)
    assert (data["step"], [one["row"] for one in data["rows"]]) == (3, [0, 3, 6])
    for one in data["rows"]:
        assert one["base"] + sum(one["values"]) == pytest.approx(one["logit"], abs=1e-3)
        assert one["outcome"] == records[one["row"]].outcome
    assert data["rows"][0]["expected"] in ("repaid", "not repaid")
    single = build(tmp_path / "out", single_file=True).path
    assert single == tmp_path / "out" / "report.html"


@pytest.mark.skipif(
    CHROMIUM is None or importlib.util.find_spec("playwright") is None,
    reason="no browser: install chromium, and playwright with 'visxai[browser]'",
)
@pytest.mark.xdist_group("browser")
def test_the_page_of_a_run_in_a_browser(file: Path, tmp_path: Path) -> None:
    from playwright.sync_api import sync_playwright

    from visxai.report import build

    hostile = table().to_pylist()
    hostile[1]["id"] = "<img src=x onerror=window.hacked=1>"
    pq.write_table(pa.Table.from_pylist(hostile), file)
    explain([file], tmp_path / "out", engine(), label_column="repaid")
    path, records = build(tmp_path / "out").path, engine().explain(table())
    wrong: list[str] = []
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page()
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda told: wrong.append(told.text) if told.type == "error" else None)
        papers = set()
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
            for width in (420, 1400):
                page.set_viewport_size({"width": width, "height": 900})
                page.goto(path.as_uri())
                assert page.evaluate("document.documentElement.scrollWidth") <= width
                papers.add(
                    page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
                )
        assert len(papers) == 2
        assert page.evaluate("window.hacked") is None
        first = next(at for at, one in enumerate(records) if not one.favourable)
        assert f"row {first + 1} (A{first})" in page.locator("#row-told").inner_text()
        page.locator("#find").fill("A40")
        assert page.locator("#list tr").count() == 1
        page.locator("#list button").click()
        told = page.locator("#row-told").inner_text()
        assert f"repaid {records[40].score:.3f}, 0.5 needed: {records[40].outcome}" in told
        drawn = page.locator("#waterfall").text_content() or ""
        for one in records[40].contributions:
            assert f"{abs(one.value):.3g}" in drawn.replace("\u2212", "-")
        page.locator("#find").fill("")
        page.locator("#outcome").select_option("not repaid")
        assert page.locator("#list tr").count() == sum(not one.favourable for one in records)
        page.locator("#cohort").select_option("repaid")
        before = page.locator("#dependence svg").inner_html()
        page.locator("#feature").select_option(index=1)
        assert page.locator("#dependence svg").inner_html() != before
        page.locator("#summary .dot").nth(3).click(force=True)
        assert page.locator("#row-told").inner_text() != told
        browser.close()
    assert not wrong


def test_an_engine_comes_back_from_disk(tmp_path: Path) -> None:
    card = tabular.save_engine(engine(), tmp_path / "credit.json")
    for path in (card, tmp_path / "credit.json"):
        opened = tabular.load_engine(path)
        assert opened.explained_against == engine().explained_against
        assert (opened.threshold, opened.label, opened.protected) == (0.5, "repaid", ("sex",))
        for a, b in zip(opened.explain(table()), engine().explain(table()), strict=True):
            assert a.values.tolist() == b.values.tolist()
            assert a.model.weights_sha256 == b.model.weights_sha256
    other = tabular.load_engine(card, method="tree_shap")
    assert other.explained_against["rows"] == 0
    card.unlink()
    bare = tabular.load_engine(tmp_path / "credit.json", features=FEATURES)
    assert (bare.threshold, bare.model.name) == (None, "credit")


def test_an_engine_of_lightgbm_comes_back_too(tmp_path: Path) -> None:
    lightgbm = pytest.importorskip("lightgbm", reason="needs the extra tables")
    features = tabular.Features.of(FEATURES)
    model = lightgbm.LGBMClassifier(n_estimators=4, min_child_samples=5, verbose=-1, n_jobs=1)
    model.fit(features.matrix(table()), np.array(table().column("repaid")))
    made = tabular.Engine(model.booster_, features=features, threshold=0.5)
    tabular.save_engine(made, tmp_path / "credit.txt")
    opened = tabular.load_engine(tmp_path / "credit.txt")
    assert np.array_equal(opened.predict(table()), made.predict(table()))
    with pytest.raises(ArgumentError, match=r"\.txt"):
        tabular.save_engine(made, tmp_path / "credit.json")


@pytest.mark.parametrize(
    ("card", "said"),
    [
        ("model = 3", "'model' = 3"),
        ("colour = 'red'", "'colour'"),
        ("model = '../secret.json'", "a file beside it"),
        ("model = 'a/b.json'", "a file beside it"),
        ("threshold = ", "a card of a model"),
        ("name = 'x'", "a file beside it"),
        ("model = 'gone.json'", "check the path"),
        ("model = 'torn.json'", "save it again"),
    ],
)
def test_a_wrong_card_says_what_is_wrong(card: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "card.toml").write_text(card, "utf-8")
    (tmp_path / "torn.json").write_text('{"learner": {', "utf-8")
    with pytest.raises((ArgumentError, ModelError), match=said):
        tabular.load_engine(tmp_path / "card.toml")


def test_letters_have_names_of_their_own(tmp_path: Path) -> None:
    some = table().slice(0, 40).to_pylist()
    for one in some:
        one["id"] = "../x" if one["savings"] == "none" else "CON"
        one["income"] = 1.0
    path = tmp_path / "applicants.parquet"
    pq.write_table(pa.Table.from_pylist(some), path)
    explain([path], tmp_path / "out", engine())
    made = tabular.write_letters(tmp_path / "out", engine(), tmp_path / "letters", wording="de")
    found = sorted(one.name for one in (tmp_path / "letters").iterdir())
    assert len(found) == made.letters > 2
    assert "CON.html" not in found
    assert not list(tmp_path.glob("*.html"))


def test_the_command_line_explains_and_governs_applicants(file: Path, tmp_path: Path) -> None:
    tabular.save_engine(engine(), tmp_path / "credit.json")
    out, run = tmp_path / "out", CliRunner()
    asked = ["explain", str(file), "--model", str(tmp_path / "credit.json"), "--out", str(out)]
    done = run.invoke(app, [*asked, "--label-column", "repaid"])
    assert "90 rows in" in done.stdout, done.output
    assert run.invoke(app, ["export", str(out), "--to", "csv"]).exit_code == 0
    assert "income" in (out / "export" / "csv" / "explanations.csv").read_text("utf-8")
    seen = govern.observe(out)
    assert set(seen.groups["sex"]) == {"f", "m"}
    found = govern.fairness(seen, "sex", draws=19)
    assert {"score", "error", "attribution.income"} <= {one.figure for one in found.gaps}
    told = run.invoke(app, ["govern", "fairness", str(out), "--by", "sex"])
    assert "gaps between groups of sex" in told.stdout, told.output
    database = f"sqlite:///{tmp_path / 'log.db'}"
    imported = run.invoke(app, ["govern", "import", str(out), "--database", database])
    assert "90 explanations on record" in imported.stdout, imported.output
    written = tmp_path / "letters"
    asking = ["letters", str(out), "--model", str(tmp_path / "credit.json"), "--out", str(written)]
    made = run.invoke(app, [*asking, "--sender", "The <Bank>", "--change", "savings=raise"])
    refused_ids = [one.id for one in results.read(out) if not one.favourable]  # type: ignore[attr-defined]
    assert f"{len(refused_ids)} letters for 90 rows" in " ".join(made.stdout.split()), made.output
    assert {one.name for one in written.iterdir()} == {f"{one}.html" for one in refused_ids}
    page = (written / f"{refused_ids[0]}.html").read_text("utf-8")
    by_hand = tabular.letter(
        engine(), engine().explain(table())[int(str(refused_ids[0])[1:])], sender="The <Bank>",
        actions={"savings": "raise"},
    )  # fmt: skip
    for sentence in by_hand.sentences:
        assert for_html(sentence) in page
    assert "@page" in page
    assert "The &lt;Bank&gt;" in page
    assert isinstance(run.invoke(app, [*asking, "--change", "savings"]).exception, ArgumentError)
    tabular.save_engine(engine("tree_shap"), tmp_path / "other.json")
    asking[3] = str(tmp_path / "other.json")
    assert isinstance(run.invoke(app, asking).exception, ArgumentError)
    for extra in (["--target", "top3"], ["--only", "wrong"], ["--method", "lime,tree_shap"]):
        refused = run.invoke(app, [*asked, *extra])
        assert isinstance(refused.exception, ArgumentError), extra
