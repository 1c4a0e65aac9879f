"""Figures that judge explanations of texts: hand-computed ones, the control, the command line."""

from __future__ import annotations

import csv
import io
import json
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import texts as zoo
from typer.testing import CliRunner

from visxai.cli import app
from visxai.errors import ArgumentError, StoreError, UnknownName
from visxai.evaluate import texts as evaluation
from visxai.record.text import TextExplanation
from visxai.results import read
from visxai.text import Engine, judging, run
from visxai.text.rates import tau

TEN = "bad a b c d e f g h i"


def flagging() -> Engine:
    """Says 1 for a text with "bad"."""
    return Engine(lambda many: [[float("bad" in one.split())] for one in many], labels=["flag"])


def explained(values: list[float], engine: Engine, text: str = TEN) -> TextExplanation:
    (found,) = engine.explain(text, "leave_one_out", "flag")
    return replace(found, values=np.array(values, np.float32))


def test_figures_by_hand() -> None:
    engine = flagging()
    best = explained([1.0, *[0.0] * 9], engine)
    worst = explained([-1.0, *[0.0] * 9], engine)
    third = explained([2.0, 4.0, 3.0, *[0.0] * 7], engine)
    found = judging.judge(engine.model, [best, worst, third])
    for how in judging.REPLACEMENTS:
        assert [one[f"comprehensiveness_{how}"] for one in found] == pytest.approx([1, 0, 3 / 5])
        assert [one[f"sufficiency_{how}"] for one in found] == pytest.approx([0, 1, 2 / 5])


def test_the_check_tells_a_good_order_from_a_bad_one() -> None:
    engine = flagging()
    best = explained([1.0, *[0.0] * 9], engine)
    worst = explained([-1.0, *[0.0] * 9], engine)
    good, bad, flat = judging.check(engine.model, [best, worst, replace(best, degenerate=True)])
    assert (good["faithfulness"], bad["faithfulness"]) == pytest.approx((1, -1))
    assert -1 < good["faithfulness_controls"] == bad["faithfulness_controls"] < 1
    assert (good["faithful"], bad["faithful"], flat["faithful"]) == (True, False, False)


@pytest.mark.parametrize("kind", zoo.KINDS)
def test_an_unaltered_text_has_its_score_and_company_changes_nothing(kind: str) -> None:
    engine = Engine(zoo.model(kind))
    texts = [*zoo.TEXTS, " ".join(zoo.TEXTS * 6), "", "🎉"]
    made = engine.explain(texts, "leave_one_out", [0] * len(texts))
    encoded = engine.model.encode(texts)
    asked = [(one, np.ones((2, len(one.spans)), bool), 0) for one in encoded]
    for one, scores in zip(made, judging._scores(engine.model, asked, "delete"), strict=True):
        assert scores == pytest.approx([one.score] * 2, abs=1e-5)
    together = judging.judge(engine.model, made)
    for one, figures in zip(made, together, strict=True):
        (alone,) = judging.judge(engine.model, [one])
        assert figures == {
            name: value if value is None else pytest.approx(value, abs=1e-5)
            for name, value in alone.items()
        }
    assert together[-2]["sufficiency_mask"] is None  # no word
    assert judging.check(engine.model, made)[-2] == {}
    assert judging.check(engine.model, []) == []


def test_targets_of_several_classes_are_refused() -> None:
    engine = Engine(zoo.model("function"))
    made = engine.explain("good", "leave_one_out", "diff=good,bad")
    with pytest.raises(ArgumentError, match="explanations of one class"):
        judging.judge(engine.model, made)


def table(folder: Path) -> Path:
    path = folder / "comments.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([["text"], *([one] for one in [*zoo.TEXTS, "=bad <script>x</script>"])])
    return path


def test_methods_are_judged_beside_a_random_control(tmp_path: Path) -> None:
    engine = Engine(zoo.model("bag"))
    out = tmp_path / "out"
    methods = "integrated_gradients,leave_one_out"
    found = evaluation.run(engine, [table(tmp_path)], methods, out=out, draws=200).figures
    told = {(one.method.partition("(")[0], one.metric): one for one in found}
    assert told["leave_one_out", "tau"].mean.value == pytest.approx(1)
    assert told["leave_one_out", "comprehensiveness_delete"].beats
    assert not told["random", "comprehensiveness_delete"].beats
    assert told["integrated_gradients", "completeness"].mean.value < 0.05
    assert ("leave_one_out", "completeness") not in told
    assert all(one.mean.low <= one.mean.value <= one.mean.high for one in found)
    rows = list(csv.DictReader(io.StringIO((out / "rows.csv").read_text("utf-8"))))
    assert len(rows) == 5 * 3
    assert ("integrated_gradients", "stability_seeds") not in told  # it draws nothing
    assert {one.method for one in read(out)} == {*(one["method"] for one in rows)}
    mine = [float(one["tau"]) for one in rows if one["method"] == "random" and one["tau"]]
    assert np.mean(mine) == pytest.approx(told["random", "tau"].mean.value)
    page = (out / "evaluation.html").read_text("utf-8")
    assert "<script" not in page
    assert "comprehensiveness_mask" in page
    assert len(json.loads((out / "evaluation.json").read_text())["figures"]) == len(found)
    again = evaluation.run(engine, [table(tmp_path)], methods, ["tau"], out, draws=200).figures
    assert [one.mean for one in again] == [one.mean for one in found if one.metric == "tau"]


def test_methods_that_draw_are_judged_by_other_seeds(tmp_path: Path) -> None:
    def first(texts: list[str]) -> list[list[float]]:  # one word decides, all others are equal
        return [[float(one.startswith("the"))] for one in texts]

    (tmp_path / "a.jsonl").write_text('{"text": "the a b c d e f"}\n{"text": "the x y z u v"}\n')
    engine, methods = Engine(first, labels=["the"]), "kernel_shap,lime(samples=8)"
    done = evaluation.run(
        engine, [tmp_path / "a.jsonl"], methods, ["stability_seeds"], tmp_path / "out", draws=50
    )
    exact, drawn, random = done.figures
    assert exact.mean.value == pytest.approx(1)  # so few words have all their coalitions taken
    assert random.method == "random"
    assert drawn.mean.value < 0.95
    record = next(one for one in read(tmp_path / "out") if one.method.startswith("lime"))
    maps = [
        engine.explain(record.text, f"lime(samples=8, seed={seed})", 0)[0].values
        for seed in range(3)
    ]
    by_hand = [tau(maps[0], other) for other in maps[1:]]
    assert record.quality["stability_seeds"] == pytest.approx(np.mean(by_hand))


_EVALUATE = """
import os, signal, sys
from visxai.evaluate import texts
from visxai.text import Engine

def scores(many):
    return [[float(len(one)), float(one.count("a"))] for one in many]

def evaluate(table, out, kill_at=None):
    def told(progress):
        if progress.done == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    engine = Engine(scores, labels=["long", "a"])
    given = {"chunk_size": 2, "draws": 50, "progress": told}
    texts.run(engine, [table], "lime(samples=20)", out=out, **given)
"""


def test_a_killed_evaluation_goes_on_to_the_same_rows(tmp_path: Path) -> None:
    made: dict[str, Any] = {}
    exec(_EVALUATE, made)
    lines = [json.dumps({"text": f"a text of {'a ' * n} words {n}"}) for n in range(7)]
    given = tmp_path / "a.jsonl"
    given.write_text("\n".join(lines))
    script = f"{_EVALUATE}\nevaluate({str(given)!r}, {str(tmp_path / 'killed')!r}, 4)"
    ended = subprocess.run([sys.executable, "-c", script], check=False)
    assert ended.returncode == -signal.SIGKILL
    assert not (tmp_path / "killed/evaluation.json").exists()
    before = {one: one.stat().st_mtime_ns for one in (tmp_path / "killed").rglob("*.parquet")}
    kept = {one: when for one, when in before.items() if one.parent.name == "explanations"}
    assert len(kept) == 2
    made["evaluate"](given, tmp_path / "killed")
    made["evaluate"](given, tmp_path / "whole")
    assert {one: one.stat().st_mtime_ns for one in kept} == kept  # what was done wasn't done again
    for name in ("rows.csv", "evaluation.json", "evaluation.html"):
        killed, whole = ((tmp_path / out / name).read_text() for out in ("killed", "whole"))
        assert killed == whole
    other = Engine(lambda many: [[0.0] for _ in many])
    with pytest.raises(StoreError, match="settings"):
        evaluation.run(other, [given], "lime(samples=20)", out=tmp_path / "whole")


def test_a_wrong_metric_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match="metric of texts"):
        evaluation.run(flagging(), [table(tmp_path)], "lime", ["insertion"], tmp_path / "out")


def test_the_command_line(tmp_path: Path) -> None:
    words = ["evaluate", str(table(tmp_path)), "--model", "toxicity", "--device", "cpu"]
    words += ["--target", "class=toxic", "--draws", "100", "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(app, [*words, "--methods", "gradient_norm", "--metrics", "tau"])
    assert done.exit_code == 0, done.output
    assert "tau (higher is better)" in done.output
    assert "random" in done.output
    refused = CliRunner().invoke(app, [*words, "--workers", "2"])
    assert isinstance(refused.exception, ArgumentError)
    assert "got --workers" in str(refused.exception)


def test_a_run_with_the_check_keeps_its_figures(tmp_path: Path) -> None:
    engine, out = flagging(), tmp_path / "out"
    (tmp_path / "a.jsonl").write_text(f'{{"text": "{TEN}"}}\n')
    outcome = run.explain(
        [tmp_path / "a.jsonl"], out, engine, "leave_one_out", check="faithfulness"
    )
    assert outcome.complete
    gated = run.explain(
        [tmp_path / "a.jsonl"],
        tmp_path / "gated",
        engine,
        only="flag<0.5",
        check="faithfulness",
        method="leave_one_out",
    )
    assert gated.complete
    assert not gated.failed
    (one,) = read(out)
    assert one.quality["faithful"] is True
    assert one.quality["faithfulness"] == pytest.approx(1)
    wrongs: list[dict[str, Any]] = [
        {"check": "insertion"},
        {"check": "faithfulness", "target": "any=0"},
    ]
    for wrong in wrongs:
        with pytest.raises(ArgumentError):
            run.explain([tmp_path / "a.jsonl"], tmp_path / "no", engine, "leave_one_out", **wrong)
