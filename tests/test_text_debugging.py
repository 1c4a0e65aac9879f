"""The search for words behind which errors gather: a planted one, none, and the arithmetic."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
import texts as zoo
from typer.testing import CliRunner

from visxai.cli import app
from visxai.errors import ArgumentError, UnknownName
from visxai.text import Engine
from visxai.text.debugging import debug
from visxai.text.rates import Rate, fisher, holm, tau

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
    assert page.count("<figure>") == 5 + 2 * len(found.worst) == 15
    assert "<script" not in page
    assert json.loads(json.dumps(found.to_dict()))["cues"][0]["word"] == "never"


def test_classifiers_without_a_cue_raise_few_alarms() -> None:
    alarms = 0
    for seed in range(200):
        texts, labels = corpus(seed, 120)
        found = debug(classifier(False, seed), texts, labels, worst=0)
        assert found.overall.errors > 0
        alarms += bool(
            found.cues or any(one.p is not None and one.p <= 0.05 for one in found.slices)
        )
    assert alarms <= 10  # 5 %


def test_a_length_with_more_errors_is_found() -> None:
    texts, labels = corpus(2, 120)
    long = [f"{one} and {one}" for one in texts[:60]]
    engine = Engine(
        lambda many: [[0.5, float("good" in one.split() and len(one.split()) < 8)] for one in many],
        labels=["bad", "good"],
    )
    found = debug(engine, [*texts, *long], [*labels, *labels[:60]])
    marked = [one for one in found.slices if one.p is not None and one.p <= 0.05]
    assert [(one.label, one.shortest, one.longest) for one in marked] == [("good", 6, 11)]
    assert marked[0].rate.value == 1
    assert sum(one.rate.texts for one in found.slices) == 180
    assert found.page().count("errors gather here") == 1


def test_the_worst_texts_are_the_surest_mistakes_under_two_methods() -> None:
    texts, labels = corpus(1)
    found = debug(classifier(True), texts, labels)
    assert [one.label for one in found.worst] == ["good"] * 5
    for one in found.worst:
        assert "never" in texts[one.place].split()
        assert [each.label for each in one.explanations] == ["bad", "bad"]
        assert [each.method.partition("(")[0] for each in one.explanations] == [
            "lime",
            "leave_one_out",
        ]
        assert one.agreement is not None
        assert -1 <= one.agreement <= 1
    encoder = Engine(zoo.model("bert"))
    found = debug(encoder, ["great", "i love this phone"], ["bad", "bad"])
    methods = [each.method.partition("(")[0] for each in found.worst[0].explanations]
    assert methods == ["lime", "attention"]


def test_suggestions_have_the_cue_and_are_wrong_now() -> None:
    texts, labels = corpus(1)
    texts[0], labels[0] = "=SUM(1) never good sound case", "good"
    engine = classifier(True)
    found = debug(engine, texts, labels, names=[f"a.csv#row={i}" for i in range(len(texts))])
    made = found.suggestions
    assert {one.how for one in made} == {"swapped", "joined"}
    assert len(made) <= 40
    for one in made:
        assert "never" in one.text.split()
        assert (one.label, one.given, one.cue) == ("good", "bad", "never")
        assert one.text not in texts
        assert engine.predict(one.text)[0].label == "bad"
        origin = texts[int(one.source.partition("=")[2])]
        if one.how == "joined":
            assert one.text.startswith(origin)
        else:
            pairs = zip(one.text.split(), origin.split(), strict=True)
            assert sum(a != b for a, b in pairs) == 1
    rows = list(csv.DictReader(io.StringIO(found.to_csv())))
    assert len(rows) == len(made)
    assert all(one["text"].startswith("'=") for one in rows if "SUM" in one["text"])
    assert found.cues[0].lacking is not None


def test_what_a_label_lacks_is_counted() -> None:
    texts = ["not good"] * 10 + ["good"] * 30 + ["not bad at all"] * 20 + ["bad"] * 20
    engine = Engine(
        lambda many: [[float("not" in one.split()), 0.5] for one in many], labels=["bad", "good"]
    )
    found = debug(engine, texts, ["good"] * 40 + ["bad"] * 40)
    (cue,) = (one for one in found.cues if (one.word, one.label) == ("not", "good"))
    assert cue.lacking == 20  # 30 of 60, as 20 of 40


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
    assert holm([0.04, 0.01, 0.5]) == pytest.approx([0.08, 0.03, 0.5])
    ranked = np.array([1.0, 2, 3])
    assert tau(ranked, ranked**2) == 1
    assert tau(ranked, np.array([1.0, 3, 2])) == pytest.approx(1 / 3)
    assert np.isnan(tau(ranked, np.ones(3)))


def test_wrong_arguments_are_one_sentence() -> None:
    with pytest.raises(ArgumentError, match="a label for each of 1 texts, got 0"):
        debug(classifier(True), ["good"], [])
    with pytest.raises(ArgumentError, match="a name for each of 1 texts, got 2"):
        debug(classifier(True), ["good"], [1], names=["a", "b"])


def test_a_class_of_independent_ones_is_judged_by_its_threshold() -> None:
    def scores(texts: list[str]) -> list[list[float]]:  # "dog" makes a text rude for the model
        return [[2.0 if "dog" in one.split() else -2.0, 0.0] for one in texts]

    engine = Engine(scores, labels=["rude", "long"], activation="sigmoid")
    texts = [f"the dog is a {one}" for one in FILLER] + [f"the cat is a {one}" for one in FILLER]
    found = debug(engine, texts, ["no"] * 20, target="class=rude")
    assert found.overall == Rate(10, 20)
    assert list(found.labels) == ["not rude"]
    cue = next(one for one in found.cues if one.word == "dog")
    assert cue.with_word == Rate(10, 10)
    sigmoid = 1 / (1 + np.exp(-2))
    assert cue.effect_wrong == pytest.approx(2 * sigmoid - 1)  # towards the true label
    worst = found.worst[0]
    assert (worst.label, worst.given) == ("not rude", "rude")
    assert worst.score == pytest.approx(sigmoid)
    assert worst.explanations[0].label == "rude"
    assert "is not rude, the model says rude (0.88)" in found.page()
    right = ["rude"] * 10 + ["not rude"] * 10
    assert debug(engine, texts, right, target="rude").overall.errors == 0
    strict = debug(engine, texts, right, target="rude", threshold=0.9)  # 0.88 isn't above it
    assert strict.labels["rude"] == Rate(10, 10)


def test_independent_classes_need_a_target() -> None:
    engine = Engine("toxicity", device="cpu")
    with pytest.raises(ArgumentError, match=r"one class of toxicity.*target='class=toxic'"):
        debug(engine, ["good"], [0])
    with pytest.raises(UnknownName, match=r"'maybe'.*toxic, not toxic"):
        debug(engine, ["good"], ["maybe"], target="toxic")
    with pytest.raises(ArgumentError, match="threshold"):
        debug(engine, ["good"], [0], target="toxic", threshold=2)
    with pytest.raises(ArgumentError, match="expected one class"):
        debug(engine, ["good"], [0], target="top1")


def test_the_command_line(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    zoo.bert().save_pretrained(folder)
    zoo.tokenizer().save_pretrained(folder)
    table = tmp_path / "reviews.csv"
    table.write_text("text,label\n" + "".join(f"{one},good\n" for one in ("great", "i love this")))
    page = tmp_path / "page.html"
    words = ["debug", str(table), "--model", f"hf:{folder}", "--out", str(page)]
    words += ["--suggestions", str(tmp_path / "more.csv")]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert "0 comparisons" in done.output
    assert "No word was found" in page.read_text("utf-8")
    assert (tmp_path / "more.csv").read_text() == "text,label,given,cue,how,source\n"
    assert "texts to add" in done.output
