"""The engine for texts: known answers, identities, records, and texts of every sort."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import numpy as np
import pytest
import texts as zoo
import torch
from jsonschema import Draft202012Validator
from texts import CLASSES, KINDS, TEXTS

from visxai import text as visxai_text
from visxai.errors import ArgumentError, TargetError, UnknownName
from visxai.record import Explanation, TextExplanation, schema
from visxai.record.columns import SCHEMA_VERSION
from visxai.text import methods
from visxai.text.model import Need
from visxai.text.network import TorchText

ROOT = Path(__file__).parents[1]
# Smaller budgets where defaults are made for accuracy.
BUDGETS = {
    "integrated_gradients": "integrated_gradients(steps=8)",
    "kernel_shap": "kernel_shap(samples=40)",
    "lime": "lime(samples=40)",
    "partition_shap": "partition_shap(max_evaluations=30)",
}


def engine(kind: str) -> visxai_text.Engine:
    return visxai_text.Engine(zoo.model(kind))


def serves(kind: str, name: str) -> bool:
    return methods.find(name).needs in zoo.model(kind).offers


PAIRS = [(kind, name) for kind in KINDS for name in methods.names() if serves(kind, name)]


def explained(kind: str, name: str, texts: list[str]) -> list[TextExplanation]:
    return engine(kind).explain(texts, BUDGETS.get(name, name), target=0)


# ---- the packaged model ------------------------------------------------------------------------


def test_the_toxicity_model_gives_the_scores_that_its_package_states() -> None:
    (found,) = engine("toxicity").predict("You are so dumb and stupid!")
    stated = [0.98894, 0.07257, 0.62043, 0.01935, 0.86641, 0.04073]
    assert found.probabilities == pytest.approx(stated, abs=3e-4)
    assert found.labels is not None
    assert found.labels[:3] == ("toxic", "severe_toxic", "obscene")
    means = engine("toxicity").predict(["This is wonderful news.", "You're disgusting!"])
    assert [one.probabilities.mean() for one in means] == pytest.approx([0.0013, 0.3110], abs=2e-4)


def test_a_known_failure_is_explained_by_the_word_that_causes_it() -> None:
    (found,) = engine("toxicity").explain("You are not stupid at all", target="class=toxic")
    assert found.score > 0.9
    assert found.top(1)[0][0] == "stupid"
    assert found.words == ("You", "are", "not", "stupid", "at", "all")


def test_cards_that_are_damaged_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from visxai.errors import ModelError
    from visxai.text import loading

    folder = tmp_path / "text"
    folder.mkdir()
    for name in ("toxicity.toml", "toxicity.json"):
        (folder / name).write_bytes((ROOT / "models" / "text" / name).read_bytes())
    (folder / "toxicity.safetensors").write_bytes(b"something else")
    monkeypatch.setattr(loading, "folder", lambda: tmp_path)
    with pytest.raises(ModelError, match="sha256"):
        loading.load("toxicity")
    with pytest.raises(UnknownName, match="toxicity"):
        loading.load("toxicty")


# ---- contracts over every method and kind of model ----------------------------------------------


@pytest.mark.parametrize(("kind", "name"), PAIRS)
def test_a_batch_equals_its_texts(kind: str, name: str) -> None:
    together = explained(kind, name, TEXTS)
    for text, one in zip(TEXTS, together, strict=True):
        (alone,) = explained(kind, name, [text])
        assert one.text == text
        assert one.words == alone.words
        assert one.score == pytest.approx(alone.score, abs=1e-6)
        scale = max(1e-3, float(np.abs(alone.values).max()))
        assert one.values == pytest.approx(alone.values, abs=2e-5 * scale)


@pytest.mark.parametrize(("kind", "name"), PAIRS)
def test_explaining_changes_nothing_of_the_module(kind: str, name: str) -> None:
    model = zoo.model(kind)
    modules = [zoo.bert()] if kind == "bert" else []
    modules += [model._module] if isinstance(model, TorchText) else []
    states = [[(p.clone(), p.requires_grad, p.grad) for p in one.parameters()] for one in modules]
    hooks = [sum(len(part._forward_hooks) for part in one.modules()) for one in modules]
    before = torch.get_rng_state()
    drawn = np.random.get_state()[1].copy()  # noqa: NPY002
    explained(kind, name, TEXTS[:2])
    with pytest.raises(RuntimeError, match="in the middle"):
        engine(kind).explain(TEXTS[:2], BUDGETS.get(name, name), target=_stopping())
    assert torch.equal(before, torch.get_rng_state())
    assert np.array_equal(drawn, np.random.get_state()[1])  # noqa: NPY002
    for one, state in zip(modules, states, strict=True):
        for p, (value, needs, grad) in zip(one.parameters(), state, strict=True):
            assert torch.equal(p, value)
            assert p.requires_grad == needs
            assert p.grad is grad
    assert hooks == [sum(len(part._forward_hooks) for part in one.modules()) for one in modules]
    if isinstance(model, TorchText):
        assert getattr(model._swapped, "value", None) is None


def _stopping():
    """A target that fails at its second call: after the scores are known, within the method."""
    calls: list[int] = []

    def target(scores):
        calls.append(1)
        if len(calls) > 1:
            raise RuntimeError("in the middle")
        return scores[:, 0]

    return target


@pytest.mark.parametrize(("kind", "name"), PAIRS)
def test_any_grad_mode_gives_the_same_map(kind: str, name: str) -> None:
    plain = explained(kind, name, TEXTS[:1])[0].values
    with torch.no_grad():
        assert explained(kind, name, TEXTS[:1])[0].values == pytest.approx(plain, abs=1e-6)
    with torch.inference_mode():
        assert explained(kind, name, TEXTS[:1])[0].values == pytest.approx(plain, abs=1e-6)


@pytest.mark.parametrize("kind", ["toxicity", "bert"])
def test_threads_share_an_engine(kind: str) -> None:
    shared = engine(kind)
    names = [name for name in methods.names() if serves(kind, name)]
    wanted = {name: explained(kind, name, TEXTS)[-1].values for name in names}
    wrong: list[str] = []

    def work(name: str) -> None:
        for _ in range(3):
            found = shared.explain(TEXTS, BUDGETS.get(name, name), target=0)[-1].values
            if not np.allclose(found, wanted[name], rtol=1e-4, atol=1e-5):
                wrong.append(name)

    threads = [threading.Thread(target=work, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.parametrize("name", [n for n in methods.names() if serves("bert", n)])
def test_a_method_costs_the_rows_it_states(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[int] = []
    forward = TorchText._forward
    monkeypatch.setattr(
        TorchText,
        "_forward",
        lambda self, module, block, **more: (
            ran.append(len(block.rows)) or forward(self, module, block, **more)
        ),
    )
    method = methods.load(BUDGETS.get(name, name))
    text = TEXTS[0]
    (found,) = engine("bert").explain(text, method, target=0)
    # One more row scores the text itself; equal copies run once, so there may be fewer.
    assert 1 < sum(ran) <= 1 + method.cost(len(found.words))


# ---- texts of every sort -----------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "name"), PAIRS)
@pytest.mark.parametrize(
    "text", ["", "   \n", "great", "👩‍🚀👍🏽", "zzzq", "\x00\ud800\u202e", "!!! ..."]
)
def test_odd_texts_have_a_result(kind: str, name: str, text: str) -> None:
    (found,) = explained(kind, name, [text])
    assert len(found.values) == len(found.words)
    assert np.isfinite(found.values).all()
    assert (
        found.degenerate == (float(np.abs(found.values).max(initial=0)) == 0)
        or len(found.words) > 1
    )
    assert TextExplanation.from_dict(json.loads(json.dumps(found.to_dict()))).words == found.words


def test_a_megabyte_on_one_line_has_a_result() -> None:
    text = "<script>alert('stupid')</script> " * 31_000
    assert len(text) > 1_000_000
    for kind in ("toxicity", "bag"):
        (found,) = engine(kind).explain(text, "input_x_gradient", target=0)
        assert np.isfinite(found.values).all()
        assert "<script" not in found.html()


@pytest.mark.parametrize("kind", KINDS)
def test_ten_thousand_words_are_read_in_windows(kind: str) -> None:
    text = " ".join(["the camera is good"] * 2499 + ["you are not a bad idiot"])
    name = "leave_one_out(parts=20)" if kind == "function" else "input_x_gradient"
    (found,) = engine(kind).explain(text, name, target=0)
    assert len(found.words) == 2499 * 4 + 6
    assert found.values[-5:].any()
    windows = {"toxicity": 101, "bert": 162, "bag": 162}
    assert found.quality.get("windows") == windows.get(kind)
    if kind == "toxicity":  # the insult's window speaks
        assert found.quality["window"] == 100
        assert not found.values[: 2499 * 4 - 100].any()


def test_windows_average_where_classes_exclude_each_other() -> None:
    """Two windows whose texts are known: the long text's map is half of each."""
    parts = ["the camera is good " * 15 + "great i", "love this phone " * 20]
    parts = [" ".join(one.split()) for one in parts]
    single = [engine("bert").explain(one, "input_x_gradient", target=0)[0] for one in parts]
    assert [len(one.words) for one in single] == [62, 60]
    (whole,) = engine("bert").explain(" ".join(parts), "input_x_gradient", target=0)
    assert whole.quality["windows"] == 2
    assert whole.logit == pytest.approx(np.mean([one.logit for one in single]), abs=1e-5)
    halves = np.concatenate([one.values for one in single]) / 2
    assert whole.values == pytest.approx(halves, abs=1e-5)


# ---- arguments, targets and records -------------------------------------------------------------


def test_targets_and_gates() -> None:
    toxic = engine("toxicity")
    texts = ["you idiot", "thank you for the help"]
    assert [one.label for one in toxic.explain(texts, target="top2")][:2] == ["toxic", "obscene"]
    over = toxic.explain(texts, "input_x_gradient", "above=0.5")
    assert {one.text for one in over} == {"you idiot"}
    gated = toxic.explain(texts, "input_x_gradient", "class=toxic", only="class=toxic>0.5")
    assert [one.text for one in gated] == ["you idiot"]
    each = toxic.explain(texts, "input_x_gradient", ["insult", "threat"])
    assert [one.label for one in each] == ["insult", "threat"]
    (pair,) = toxic.explain(texts[0], "input_x_gradient", "diff=toxic,threat")
    both = toxic.explain([texts[0]] * 2, "input_x_gradient", ["toxic", "threat"])
    assert pair.values == pytest.approx(both[0].values - both[1].values, abs=1e-4)
    with pytest.raises(TargetError, match="one target per image"):
        toxic.explain(texts, target=[0])


def test_wrong_arguments_are_one_sentence() -> None:
    with pytest.raises(ArgumentError, match="use one of kernel_shap, leave_one_out, lime"):
        engine("function").explain("good", "integrated_gradients")
    with pytest.raises(UnknownName, match="did you mean leave_one_out"):
        engine("bert").explain("good", "leave_one_in")
    with pytest.raises(ArgumentError, match="got int at place 1"):
        engine("bert").explain(["good", 3])  # type: ignore[list-item]
    with pytest.raises(ArgumentError, match="a tokenizer with a module"):
        visxai_text.Engine(zoo.bert())
    with pytest.raises(ArgumentError, match="a path for each of 1 texts"):
        engine("bert").explain("good", paths=[])
    with pytest.raises(ArgumentError, match="a layer of the model's 2"):
        engine("bert").explain("good", "attention(layer=2)")


def test_records_fit_their_schema_and_come_back() -> None:
    (found,) = engine("bert").explain(TEXTS[0], target="top1", paths=["reviews.csv#row=3"])
    plain = json.loads(json.dumps(found.to_dict()))
    Draft202012Validator.check_schema(schema("text"))
    Draft202012Validator(
        schema("text"), format_checker=Draft202012Validator.FORMAT_CHECKER
    ).validate(plain)
    back = Explanation.from_dict(plain)
    assert isinstance(back, TextExplanation)
    assert back.kind == "text"
    assert back.input == found.input
    assert back.input.path == "reviews.csv#row=3"
    peak = float(np.abs(found.values).max())
    assert back.values == pytest.approx(found.values, abs=1e-3 * peak)
    assert engine("bert").reproduce(plain).agrees
    with pytest.raises(ArgumentError, match="use the engine that made the record"):
        engine("bag").reproduce(plain)


@pytest.mark.parametrize(
    "wrong",
    [
        {"spans": [0, 3, 2, 5]},
        {"spans": [0, 300]},
        {"spans": [0]},
        {"spans": [0, 3]},
        {"text": 5},
        {"map_shape": [2, 2]},
        {"kind": "image"},
    ],
)
def test_damaged_records_are_refused(wrong: dict) -> None:
    (found,) = engine("function").explain("not good", "leave_one_out", target=0)
    with pytest.raises(ArgumentError):
        Explanation.from_dict({**found.to_dict(), **wrong})


def test_the_published_schema_is_that_of_the_code() -> None:
    published = ROOT / "schemas" / f"text-explanation-{SCHEMA_VERSION}.json"
    assert json.loads(published.read_text("utf-8")) == schema("text")


@pytest.mark.parametrize("name", methods.names())
def test_every_method_documents_itself(name: str) -> None:
    method = methods.find(name)
    assert method.about("").endswith(".")
    assert method.about("Cost")
    assert method.about("Source")
    assert repr(methods.load(repr(methods.load(name)))) == repr(methods.load(name))


def test_names_of_other_libraries() -> None:
    assert repr(methods.load("LayerIntegratedGradients")).startswith("integrated_gradients(")
    assert repr(methods.load("KernelShap")).startswith("kernel_shap(")
    assert methods.find("occlusion").needs is Need.SCORES


def test_predictions_and_scores() -> None:
    found = engine("bert").predict(TEXTS)
    assert [one.label for one in found] == [CLASSES[one.class_index] for one in found]
    assert engine("bert").score(TEXTS, 0) == pytest.approx([p.probabilities[0] for p in found])
    assert engine("bert").predict([]) == []
    assert engine("bert").explain([]) == []
