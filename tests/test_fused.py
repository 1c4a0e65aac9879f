"""Images with texts: Shapley values by hand, records, redaction, runs over tables, the page."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import visxai
from visxai import results
from visxai.cli import app
from visxai.errors import ArgumentError, ImageError, ModelError, StoreError
from visxai.fused import Card, Engine, run
from visxai.fused.rules import Rule, shares
from visxai.record import Explanation, PairExplanation, schema
from visxai.report import build
from visxai.results import export

SCHEMAS = Path(__file__).parents[1] / "schemas"
CARD = """
label = "harmful"
rule = "{rule}"

[image]
model = "efficientnet_lite0"
target = "any=413,764"

[text]
model = "toxicity"
target = "class=toxic"
"""


def test_shapley_values_by_hand() -> None:
    # noisy-or of .5 and .4: v() = 0, v(image) = .5, v(text) = .4, v(both) = .7
    found = shares(Rule("noisy_or"), 0.5, 0.4, (0.0, 0.0))
    assert found == pytest.approx((0.4, 0.3, -0.2, 0.0))
    # max of .6 and .2 over blanks of .1 and .3: .3, .6, .2, .6
    found = shares(Rule("max"), 0.6, 0.2, (0.1, 0.3))
    assert found == pytest.approx((0.35, -0.05, 0.1, 0.3))
    # a mean has no interaction: each part moves it by its weight
    found = shares(Rule("mean", 0.25), 0.8, 0.5, (0.4, 0.1))
    assert found == pytest.approx((0.1, 0.3, 0.0, 0.175))


@pytest.mark.parametrize("rule", [Rule("noisy_or"), Rule("max"), Rule("mean", 0.5)])
def test_axioms_of_shapley_values(rule: Rule) -> None:
    draw = np.random.default_rng(0)
    for p, q, a, b in draw.random((50, 4)):
        found = shares(rule, p, q, (a, b))
        assert found.image + found.text == pytest.approx(rule(p, q) - rule(a, b))  # efficiency
        other = shares(rule, q, p, (b, a))
        assert other == pytest.approx((found.text, found.image, found.interaction, found.base))
        dummy = shares(rule, p, b, (a, b))  # a text that says what an empty one does
        assert (dummy.text, dummy.interaction) == pytest.approx((0, 0))
        assert dummy.image == pytest.approx(rule(p, b) - rule(a, b))


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    card = tmp_path_factory.mktemp("card") / "harmful.toml"
    card.write_text(CARD.format(rule="noisy_or"))
    return Engine(
        card,
        image=visxai.Engine("efficientnet_lite0", device="cpu", precision="fp32"),
        text=visxai.text.Engine("toxicity", device="cpu"),
    )


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    draw = np.random.default_rng(1)
    cells = draw.integers(0, 256, (6, 8, 3), dtype=np.uint8)
    path = tmp_path_factory.mktemp("photo") / "photo.png"
    Image.fromarray(cells).resize((320, 240), Image.Resampling.BICUBIC).save(path)
    return path


def explained(engine: Engine, photo: Path, text: str = "You are an idiot") -> PairExplanation:
    (found,) = engine.explain([(str(photo), text)])
    return found


def test_a_pair_has_one_score_and_two_maps(engine: Engine, photo: Path) -> None:
    found = explained(engine, photo)
    p, q = found.image.score, found.text.score
    assert found.score == pytest.approx(1 - (1 - p) * (1 - q))
    assert found.total == pytest.approx(found.score, abs=1e-6)
    assert found.values[1] > 0.5 > found.values[0]
    assert engine.score([(str(photo), "You are an idiot")]) == pytest.approx([found.score])
    assert engine.blank == pytest.approx(
        (
            engine.image.score([np.full((224, 224, 3), 127, np.uint8)], "any=413,764")[0],
            engine.text.score("", "class=toxic")[0],
        )
    )
    silent = explained(engine, photo, "")
    assert silent.values[1] == 0 == silent.interaction  # an empty text adds nothing
    assert "the text +0.000" in silent.describe()
    assert engine.explain([]) == []


def test_a_record_is_read_back_and_keeps_its_schema(engine: Engine, photo: Path) -> None:
    found = explained(engine, photo)
    told = json.loads(json.dumps(found.to_dict()))
    jsonschema.Draft202012Validator(schema("pair")).validate(told)
    jsonschema.Draft202012Validator(schema("image")).validate(told["image"])
    jsonschema.Draft202012Validator(schema("text")).validate(told["text"])
    again = Explanation.from_dict(told)
    assert isinstance(again, PairExplanation)
    assert again.values.tolist() == found.values.tolist()
    assert again.input == found.input
    assert again.text.top(2) == found.text.top(2)
    assert again.interaction == found.interaction
    published = json.loads((SCHEMAS / "pair-explanation-3.json").read_text("utf-8"))
    assert schema("pair") == published


@pytest.mark.parametrize(
    "damage",
    [
        {"image": {}},
        {"text": {"kind": "image"}},
        {"source_sha256": "0" * 64},
        {"rule": None},
    ],
)
def test_a_damaged_record_is_one_sentence(
    engine: Engine, photo: Path, damage: dict[str, Any]
) -> None:
    told = explained(engine, photo).to_dict() | damage
    with pytest.raises(ArgumentError, match="damaged"):
        Explanation.from_dict(told)


def test_parts_of_another_kind_are_refused(engine: Engine, photo: Path) -> None:
    found = explained(engine, photo)
    with pytest.raises(ArgumentError, match="an explanation of the text, got ImageExplanation"):
        replace(found, text=found.image)
    with pytest.raises(ArgumentError, match="a value for the image"):
        replace(found, values=np.zeros(3, np.float32))


def test_both_parts_are_redacted(engine: Engine, photo: Path) -> None:
    found = explained(engine, photo, "You are an idiot, dear.")
    hidden = engine.redact(found, share=0.5)
    assert hidden.text.text == "You are an █████, dear."
    assert hidden.text.words == ("idiot",)
    assert hidden.text.after < 0.5 < hidden.text.before
    assert hidden.image.image.size == (320, 240)
    p, q = hidden.image.after, hidden.text.after
    assert hidden.after == pytest.approx(1 - (1 - p) * (1 - q))
    assert hidden.text_alone == pytest.approx(1 - (1 - found.image.score) * (1 - q))
    assert str(hidden).startswith("with ")
    assert "1 word hidden, harmful falls from" in str(hidden)
    flat = replace(found.text, values=np.full(len(found.text.values), -1, np.float32))
    assert engine.text.redact(flat).text == flat.text  # nothing speaks for the label
    for share in (0.0, 2.0):
        with pytest.raises(ArgumentError, match="share between 0 and 1"):
            engine.text.redact(found.text, share=share)


def test_a_record_is_reproduced(engine: Engine, photo: Path) -> None:
    told = explained(engine, photo).to_dict()
    assert all(one.agrees and one.same_image for one in engine.reproduce(told))
    other = Engine(replace(engine.card, rule=Rule("max")), image=engine.image, text=engine.text)
    with pytest.raises(ArgumentError, match="use the card that made the record"):
        other.reproduce(told)


def test_the_page_shows_both_and_any_text_stays_text(engine: Engine, photo: Path) -> None:
    hostile = "<script>alert(1)</script> idiot \u202e"
    drawn = explained(engine, photo, hostile).render()
    page = drawn.data.decode()
    assert drawn.media_type == "text/html"
    assert "<script" not in page
    assert page.count("data:image/jpeg;base64,") == 1
    assert "harmful" in page
    assert "\u202e" not in page


def test_wrong_pairs_and_cards_are_one_sentence(engine: Engine, tmp_path: Path) -> None:
    wrongs: list[Any] = [[(None, "a")], [("a.jpg", 3)], [("a.jpg",)]]
    for wrong in wrongs:
        with pytest.raises(ArgumentError, match="an image with a text"):
            engine.explain(wrong)
    with pytest.raises(ArgumentError, match="a path for each of 1 pairs, got 0"):
        engine.explain([("a.jpg", "a")], paths=[])
    with pytest.raises(ImageError):
        engine.explain([(str(tmp_path / "none.jpg"), "a")])
    card = tmp_path / "card.toml"
    for text, what in (
        (CARD.format(rule="sum"), "rule"),
        (CARD.format(rule="max") + "weight = 0.5", "text.weight"),
        ("label = 3", "label"),
        ("[", "Invalid"),
    ):
        card.write_text(text)
        with pytest.raises(ModelError, match=what):
            Card.read(card)
    several = replace(engine.card, text=replace(engine.card.text, target="top1"))
    with pytest.raises(ArgumentError, match="one class or a set from the text model"):
        Engine(several, image=engine.image, text=engine.text)


@pytest.fixture
def table(tmp_path: Path, photo: Path) -> Path:
    path = tmp_path / "posts.csv"
    (tmp_path / "a.png").write_bytes(photo.read_bytes())
    rows = ["a.png,You are an idiot", "a.png,thanks", ",no image", "gone.png,x", "a.png,"]
    path.write_text("\n".join(["image,text", *rows]) + "\n")
    return path


def test_a_stopped_run_over_a_table_goes_on(engine: Engine, table: Path, tmp_path: Path) -> None:
    whole = run.explain([table], tmp_path / "whole", engine, chunk_size=2)
    assert whole.complete
    assert whole.counts == {"images": 5, "finished": 5, "maps": 3, "failures": 2}
    calls: list[int] = []

    def stop() -> bool:
        calls.append(1)
        return len(calls) > 1

    out = tmp_path / "out"
    assert not run.explain([table], out, engine, chunk_size=2, stop=stop).complete
    assert run.explain([table], out, engine, chunk_size=2).complete
    first, second = (
        [one.values.tolist() for one in results.read(tmp_path / name)] for name in ("whole", "out")
    )
    assert first == second
    reasons = [one.reason for one in results.failures(out)]
    assert "a row without an image" in reasons[0]
    assert "no such file" in reasons[1]
    page = build(out).path.read_text("utf-8")
    assert page.count("<section>") == 3
    assert "<script" not in page
    rows = (export(out, "csv").path / "explanations.csv").read_text("utf-8").splitlines()
    assert "interaction" in rows[0]
    other = Engine(replace(engine.card, rule=Rule("max")), image=engine.image, text=engine.text)
    with pytest.raises(StoreError, match="settings"):
        run.explain([table], out, other, chunk_size=2)


def test_the_command_line(table: Path, tmp_path: Path) -> None:
    card = tmp_path / "harmful.toml"
    card.write_text(CARD.format(rule="noisy_or"))
    words = ["explain", str(table), "--model", str(card), "--device", "cpu"]
    words += ["--out", str(tmp_path / "out")]
    done = CliRunner().invoke(app, words)
    assert "2 failures" in done.output
    assert "Pair" in done.output
    assert "harmful" in done.output
    assert not (tmp_path / "out" / "overlays").exists()
    refused = CliRunner().invoke(app, [*words, "--method", "lime"])
    assert isinstance(refused.exception, ArgumentError)
    assert "--method" in str(refused.exception)
