"""Runs over the texts of tables: results, going on, reports and exports."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import texts as zoo
from typer.testing import CliRunner

from visxai import results
from visxai.cli import app, main
from visxai.errors import ArgumentError, StoreError, UnknownName
from visxai.record import TextExplanation
from visxai.report import build
from visxai.results import export
from visxai.text import Engine
from visxai.text.run import explain

ROWS = [
    ("1", "You are not stupid at all", "bad"),
    ("2", "i love this phone", "good"),
    ("3", "", "good"),
    ("4", "<script>alert(1)</script> bad", "good"),
    ("5", "good good not bad", "good"),
]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    lines = ["id,comment,label", *(f'{a},"{b}",{c}' for a, b, c in ROWS)]
    path = tmp_path / "comments.csv"
    path.write_text("\n".join(lines), "utf-8")
    return path


def counting() -> Engine:
    return Engine(zoo.model("function"))


def rows(out: Path) -> list[tuple]:
    found = []
    for one in results.read(out):
        assert isinstance(one, TextExplanation)
        found.append((one.input, one.label, one.score, one.values.tolist()))
    return found


def test_a_run_explains_each_row_and_is_read_back(table: Path, tmp_path: Path) -> None:
    done = explain([table], tmp_path / "out", counting(), "leave_one_out", "class=bad")
    assert done.complete
    assert done.counts["maps"] == 4  # the empty cell is left out
    found = rows(tmp_path / "out")
    assert [one[0].path.rpartition("#")[2] for one in found] == ["row=1", "row=2", "row=4", "row=5"]
    (whole,) = counting().explain(ROWS[3][1], "leave_one_out", "class=bad")
    assert found[2][3] == whole.values.tolist()
    assert results.dataset(tmp_path / "out").to_table(columns=["text"]).num_rows == 4


def test_a_stopped_run_goes_on_to_the_same_rows(table: Path, tmp_path: Path) -> None:
    options = {"chunk_size": 1, "method": "lime(samples=20)", "target": "class=good"}
    explain([table], tmp_path / "whole", counting(), **options)
    calls: list[int] = []

    def stop() -> bool:
        calls.append(1)
        return len(calls) > 2

    stopped = explain([table], tmp_path / "out", counting(), **options, stop=stop)
    assert not stopped.complete
    assert 0 < stopped.counts["finished"] < 4
    again = explain([table], tmp_path / "out", counting(), **options)
    assert again.complete
    assert rows(tmp_path / "out") == rows(tmp_path / "whole")
    with pytest.raises(StoreError, match="settings"):
        explain([table], tmp_path / "out", counting(), "leave_one_out", chunk_size=1)


def test_other_sources_give_the_same_rows(table: Path, tmp_path: Path) -> None:
    texts = [text for _, text, _ in ROWS if text]
    lines = tmp_path / "reviews.jsonl"
    lines.write_text("\n".join(json.dumps({"text": one}) for one in texts), "utf-8")
    parquet = tmp_path / "reviews.parquet"
    pq.write_table(pa.table({"review": texts}), parquet)
    stream = io.BytesIO("\n".join(texts).encode())
    found = {}
    for name, source in (("csv", table), ("jsonl", lines), ("parquet", parquet), ("stdin", "-")):
        explain([source], tmp_path / name, counting(), "leave_one_out", stream=stream)
        found[name] = [(one.text, label, values) for one, label, _, values in rows(tmp_path / name)]
    assert all(one == found["csv"] for one in found.values())


def test_gates_compare_scores_or_labels(table: Path, tmp_path: Path) -> None:
    explain([table], tmp_path / "a", counting(), "leave_one_out", only="class=good>0.9")
    assert [one[0].text for one in rows(tmp_path / "a")] == [ROWS[1][1], ROWS[4][1]]
    wrong = explain([table], tmp_path / "b", counting(), "leave_one_out", only="wrong")
    assert [one[0].text for one in rows(tmp_path / "b")] == [ROWS[0][1], ROWS[3][1]]
    assert wrong.counts["labelled"] == 4
    assert wrong.counts["right"] == 2


def test_a_text_that_fails_costs_a_failure(table: Path, tmp_path: Path) -> None:
    def fragile(texts: list[str]):
        if any("script" in one for one in texts):
            raise RuntimeError("no tags")
        return zoo.counts(texts)

    done = explain([table], tmp_path / "out", Engine(fragile, labels=zoo.CLASSES), "leave_one_out")
    assert done.complete
    (failed,) = done.failed
    assert failed.reason == (
        "expected a text that can be explained, got RuntimeError: no tags; leave it out, or choose "
        "another method"
    )
    assert done.counts["maps"] == 3
    # Nor does it when it is the only text of its chunk.
    engine = Engine(fragile, labels=zoo.CLASSES)
    single = explain([table], tmp_path / "single", engine, "leave_one_out", chunk_size=1)
    assert single.complete
    assert len(single.failed) == 1
    assert single.counts["maps"] == 3


def test_wrong_sources_are_one_sentence(table: Path, tmp_path: Path) -> None:
    def run(source: object, **more: object) -> None:
        explain([source], tmp_path / "out", counting(), "leave_one_out", **more)

    with pytest.raises(UnknownName, match="did you mean comment"):
        run(table, text_column="coment")
    (tmp_path / "bare.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ArgumentError, match="name it with text_column"):
        run(tmp_path / "bare.csv")
    (tmp_path / "broken.jsonl").write_text('{"text": "a"}\n[1]\n')
    with pytest.raises(ArgumentError, match="on line 2"):
        run(tmp_path / "broken.jsonl")
    (tmp_path / "photo.jpg").write_bytes(b"x")
    with pytest.raises(ArgumentError, match="a text a row"):
        run(tmp_path / "photo.jpg")


def test_the_report_shows_any_text_as_text(table: Path, tmp_path: Path) -> None:
    explain([table], tmp_path / "out", counting(), "leave_one_out", "class=bad")
    made = build(tmp_path / "out")
    page = made.path.read_text("utf-8")
    assert (made.shown, made.rows) == (4, 4)
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert page.count("<figure>") == 4


def test_exports_of_texts_are_tables(table: Path, tmp_path: Path) -> None:
    explain([table], tmp_path / "out", counting(), "leave_one_out", "class=bad")
    made = export(tmp_path / "out", "csv")
    assert made.written == 4
    assert "text,spans" in (made.path / "explanations.csv").read_text("utf-8").splitlines()[0]
    with pytest.raises(StoreError, match="export to csv"):
        export(tmp_path / "out", "fiftyone")


def test_the_command_line(table: Path, tmp_path: Path) -> None:
    words = ["explain", str(table), "--model", "toxicity", "-t", "class=toxic", "-o"]
    out = str(tmp_path / "out")
    done = CliRunner().invoke(app, [*words, out, "--method", "input_x_gradient"])
    assert done.exit_code == 0, done.output
    assert len(rows(tmp_path / "out")) == 4
    assert CliRunner().invoke(app, ["report", out]).exit_code == 0


def test_a_method_of_images_is_refused_for_texts(
    table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["explain", str(table), "--model", "toxicity", "--out", str(tmp_path / "out")]
    with pytest.raises(SystemExit, match="2"):
        main([*words, "--method", "grad_cam"])
    assert "unknown method for texts 'grad_cam'" in capsys.readouterr().err
