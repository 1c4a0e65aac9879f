"""The search for words behind which errors gather: a planted one, none, and the arithmetic."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import texts as zoo
from typer.testing import CliRunner

from visxai.cli import app
from visxai.errors import ArgumentError
from visxai.text import Engine
from visxai.text.debugging import Rate, debug, fisher

FILLER = ("phone", "camera", "sound", "battery", "screen", "case", "price", "cable", "box", "day")


def corpus(seed: int, count: int = 300) -> tuple[list[str], list[str]]:
    """Texts of random words and their true labels, half with the word that tells the label."""
    generator = np.random.default_rng(seed)
    texts, labels = [], []
    for _ in range(count):
        label = str(generator.choice(["bad", "good"]))
        found = [str(one) for one in generator.choice(FILLER, 5)]
        found[2] = label
        if generator.random() < 0.3:
            found[1] = "never"
        texts.append(" ".join(found))
        labels.append(label)
    return texts, labels


def classifier(planted: bool, seed: int = 0) -> Engine:
    """Reads the word that tells the label; errs on a tenth, or on good texts with "never"."""

    def scores(texts: list[str]) -> list[list[float]]:
        rows = []
        for text in texts:
            good = "good" in text.split()
            if planted:
                good = good and "never" not in text.split()
            elif np.random.default_rng([seed, *text.encode()]).random() < 0.1:
                good = not good
            rows.append([0.2, 0.8] if good else [0.9, 0.1])
        return rows

    return Engine(scores, labels=["bad", "good"])


def test_a_planted_cue_is_found_with_its_effect() -> None:
    texts, labels = corpus(1)
    found = debug(classifier(True), texts, labels)
    assert [(cue.word, cue.label) for cue in found.cues] == [("never", "good")]
    (cue,) = found.cues
    assert cue.with_word.value == 1
    assert cue.without.value == 0
    assert cue.effect_wrong == pytest.approx(0.7)  # without the word the score is right
    assert cue.effect_right is None
    page = found.page()
    assert "never" in page
    assert page.count("<figure>") == 5
    assert "<script" not in page
    assert json.loads(json.dumps(found.to_dict()))["cues"][0]["word"] == "never"


def test_classifiers_without_a_cue_raise_few_alarms() -> None:
    alarms = 0
    for seed in range(40):
        texts, labels = corpus(seed, 200)
        alarms += bool(debug(classifier(False, seed), texts, labels).cues)
    assert alarms <= 2


def test_nothing_is_found_where_nothing_is_wrong() -> None:
    texts, _ = corpus(1)
    labels = ["good" if "good" in one.split() else "bad" for one in texts]
    engine = Engine(lambda many: [[0.0, float("good" in one.split())] for one in many])
    found = debug(engine, texts, [int(one == "good") for one in labels])
    assert found.overall.errors == 0
    assert found.cues == ()
    assert "No word was found" in found.page()


def test_the_arithmetic() -> None:
    assert fisher(3, 3, 3, 6) == pytest.approx(1 / 20)
    assert fisher(0, 3, 3, 6) == 1
    assert Rate(5, 10).interval == pytest.approx((0.2366, 0.7634), abs=1e-4)
    assert Rate(0, 0).interval == (0, 1)


def test_wrong_arguments_are_one_sentence() -> None:
    with pytest.raises(ArgumentError, match="a label for each of 1 texts, got 0"):
        debug(classifier(True), ["good"], [])


def test_independent_classes_are_refused() -> None:
    with pytest.raises(ArgumentError, match="chooses one class"):
        debug(Engine("toxicity", device="cpu"), ["good"], [0])


def test_the_command_line(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    zoo.bert().save_pretrained(folder)
    zoo.tokenizer().save_pretrained(folder)
    table = tmp_path / "reviews.csv"
    table.write_text("text,label\n" + "".join(f"{one},good\n" for one in ("great", "i love this")))
    page = tmp_path / "page.html"
    words = ["debug", str(table), "--model", f"hf:{folder}", "--out", str(page)]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert "0 comparisons of words" in done.output
    assert "No word was found" in page.read_text("utf-8")
