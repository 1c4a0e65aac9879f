"""The examples about texts run, and say what is true."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import pytest
import torch

HERE = Path(__file__).parents[1] / "examples" / "text"


def test_why_a_comment_was_flagged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["toxic_comment.py", str(tmp_path)])
    runpy.run_path(str(HERE / "toxic_comment.py"))
    told = capsys.readouterr().out.splitlines()
    assert "flagged      strongest word 'stupid'" in told[1]
    assert "not flagged" in told[6]
    assert [line.split()[1] for line in told[7:10]] == ["stupid"] * 3
    records = json.loads((tmp_path / "why.json").read_text("utf-8"))
    page = (tmp_path / "why.html").read_text("utf-8")
    assert len(records) == len(told) - 4 == page.count("<figure")
    assert "<script" not in page


def test_the_story_of_the_study_tells_its_figures(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pyplot = pytest.importorskip("matplotlib.pyplot")
    monkeypatch.setattr(pyplot, "show", lambda: pyplot.close("all"))
    runpy.run_path(str(HERE / "study.py"))
    told = capsys.readouterr().out
    tables = (HERE / "sentiment.md").read_text("utf-8")
    for way in ("templates", "real", "both"):
        (line,) = [one for one in told.splitlines() if one.startswith(way)]
        assert line[len(way) : line.index(" on")].strip() in tables


def test_the_study_draws_rows_as_it_says() -> None:
    study = runpy.run_path(str(HERE / "sentiment.py"))
    base, held = study["training"]("base", 0)
    assert (len(base), len(base) + len(held)) == (690, 990)
    for arm in ("plain", "templates", "real", "both"):
        rows, test = study["training"](arm, 0)
        added = rows[690:]
        assert (rows[:690], test) == (base, held)
        assert [label for _, label in added] == [0, 1] * 60
        negated = [bool(study["NEGATED"].search(text)) for text, _ in added]
        assert set(negated) == {arm != "plain"}
        tests = [row[0] for rows in (test, *study["unseen"]().values()) for row in rows]
        assert not {text for text, _ in added} & set(tests)
    assert not {row["text"] for row in study["read"]("snippets.csv")} & {
        row["text"] for row in study["read"]("reviews.csv")
    }


def test_the_study_trains(tmp_path: Path) -> None:
    import texts

    study = runpy.run_path(str(HERE / "sentiment.py"))
    texts.bert().bert.save_pretrained(tmp_path)
    texts.tokenizer().save_pretrained(tmp_path)
    rows = [("good camera", 1), ("bad camera", 0)] * 8
    right = []
    for epochs in (1, 60):
        module, tokenizer = study["fine_tune"](tmp_path, rows, 0, epochs)
        given = tokenizer(["bad camera", "good camera"], padding=True, return_tensors="pt")
        right.append(module(**given).logits.softmax(1).diagonal().mean().item())
        kept = module.get_input_embeddings().weight
        assert torch.equal(kept, texts.bert().get_input_embeddings().weight)
    assert right[1] > right[0]
    assert module.config.id2label == {0: "negative", 1: "positive"}


def test_the_study_compares_ways_with_the_control() -> None:
    study = runpy.run_path(str(HERE / "sentiment.py"))
    counts = {"reviews": 300, "snippets": len(study["read"]("snippets.csv"))}
    counts |= {name: len(rows) for name, rows in study["unseen"]().items()}
    runs = [
        {
            "arm": arm,
            "seed": seed,
            "right": {k: str(int(arm != "plain")) * n for k, n in counts.items()},
        }
        for seed in (0, 1)
        for arm in study["ARMS"]
    ]
    found = study["summarise"]([*runs, {**runs[0], "seed": 2}], 20)
    assert found["seeds"] == 2  # the third isn't whole
    both = found["tests"]["snippets, all"]["both"]
    assert both["beyond_interval"] == [1, 1]
    assert both["right"] - both["beyond_plain"] == 0
    assert "| snippets, negated and positive (" in study["page"]({**found, "cues": []})
