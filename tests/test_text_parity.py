"""Methods for texts against published implementations and hand-computed values."""

from __future__ import annotations

import itertools
import math
import warnings

import numpy as np
import pytest
import texts as zoo
import torch
from texts import TEXTS

from visxai import text as visxai_text
from visxai.text.methods.lime import rank_correlation


def engine(kind: str) -> visxai_text.Engine:
    return visxai_text.Engine(zoo.model(kind))


def rows(text: str) -> tuple[torch.Tensor, torch.Tensor]:
    """The pieces of a text with its marks, and the padding in their place."""
    ids = torch.tensor([zoo.tokenizer()(text)["input_ids"]])
    base = torch.full_like(ids, zoo.tokenizer().pad_token_id)
    base[0, 0], base[0, -1] = ids[0, 0], ids[0, -1]
    return ids, base


def by_word(text: str, pieces: np.ndarray, found: visxai_text.Engine) -> np.ndarray:
    (encoded,) = found.model.encode([text])
    return encoded.windows[0].sums(pieces)


@pytest.mark.parametrize("text", TEXTS)
def test_integrated_gradients_are_captums(text: str) -> None:
    from captum.attr import LayerIntegratedGradients

    module = zoo.bert()
    ids, base = rows(text)
    captums = LayerIntegratedGradients(
        lambda given: module(input_ids=given).logits, module.get_input_embeddings()
    ).attribute(ids, base, target=1, n_steps=20, method="gausslegendre")
    wanted = by_word(text, captums.sum(2)[0, 1:-1].detach().numpy(), engine("bert"))
    (ours,) = engine("bert").explain(text, "integrated_gradients(steps=20)", target=1)
    assert ours.values == pytest.approx(wanted, abs=1e-4 * float(np.abs(wanted).max()))


@pytest.mark.parametrize("text", TEXTS)
def test_input_x_gradient_is_captums(text: str) -> None:
    from captum.attr import LayerGradientXActivation

    module = zoo.bert()
    captums = LayerGradientXActivation(
        lambda given: module(input_ids=given).logits, module.get_input_embeddings()
    ).attribute(rows(text)[0], target=1)
    wanted = by_word(text, captums.sum(2)[0, 1:-1].detach().numpy(), engine("bert"))
    (ours,) = engine("bert").explain(text, "input_x_gradient", target=1)
    assert ours.values == pytest.approx(wanted, abs=1e-4 * float(np.abs(wanted).max()))


@pytest.mark.parametrize("kind", ["toxicity", "bert", "bag"])
@pytest.mark.parametrize("baseline", ["pad", "mask", "zero"])
def test_integrated_gradients_are_complete(kind: str, baseline: str) -> None:
    method = f"integrated_gradients(steps=64, baseline='{baseline}')"
    for found in engine(kind).explain(TEXTS, method, target=1):
        assert found.quality["completeness"] < (0.02 if kind == "toxicity" else 1e-3)


def test_the_gradient_of_a_bag_is_known() -> None:
    """Of the mean of n embeddings through tanh: the same slope / n at every word."""
    bag = zoo.model("bag")._module
    ids, _ = rows("not good")
    e = bag.words(ids)[0]
    mean = e.mean(0)
    slope = (1 - torch.tanh(bag.hidden(mean)) ** 2) * bag.head.weight[1] @ bag.hidden.weight / 4
    (ours,) = engine("bag").explain("not good", "input_x_gradient", target=1)
    assert ours.values == pytest.approx((e[1:3] @ slope).detach().numpy(), abs=1e-5)
    (norms,) = engine("bag").explain("not good", "gradient_norm", target=1)
    assert norms.values == pytest.approx([float(slope.detach().norm())] * 2, rel=1e-4)


# ---- hiding words ------------------------------------------------------------------------------


def test_leave_one_out_by_hand() -> None:
    function = visxai_text.Engine(zoo.model("function"))
    (found,) = function.explain("not good good", "leave_one_out", target="class=bad")
    assert found.values.tolist() == [2.0, 0.0, 0.0]  # one "good" still stands behind the "not"
    (found,) = function.explain("not good at all", "leave_one_out", target="class=bad")
    assert found.values.tolist() == [2.0, 2.0, 0.0, 0.0]
    (found,) = function.explain("a bad idea", "leave_one_out(replacement='mask')", target=0)
    assert found.values.tolist() == [0.0, 1.0, 0.0]


def test_hidden_pieces_are_those_of_the_word_alone() -> None:
    (encoded,) = zoo.model("bert").encode(["unlovely phone"])
    window = encoded.windows[0]
    keep = np.array([[False, True], [True, False], [True, True]])
    deleted = zoo.model("bert").altered(window, keep, "delete")
    pieces = window.owner == 0
    assert pieces.sum() > 1
    assert deleted[0].tolist() == window.ids[~pieces].tolist()
    masked = zoo.model("bert").altered(window, keep, "mask")
    assert masked[0].tolist() == [zoo.tokenizer().mask_token_id] * pieces.sum() + [
        *window.ids[~pieces].tolist()
    ]
    assert masked[2].tolist() == deleted[2].tolist() == window.ids.tolist()


def shapley(value, count: int) -> list[float]:
    """The Shapley values of a game, from their definition."""
    found = []
    for player in range(count):
        others = [one for one in range(count) if one != player]
        total = 0.0
        for size in range(count):
            for coalition in itertools.combinations(others, size):
                weight = (
                    math.factorial(size) * math.factorial(count - size - 1) / math.factorial(count)
                )
                total += weight * (value({*coalition, player}) - value(set(coalition)))
        found.append(total)
    return found


@pytest.mark.parametrize("kind", ["bert", "function", "toxicity"])
def test_kernel_shap_of_few_words_is_exact(kind: str) -> None:
    text = "the camera is not good"
    model = zoo.model(kind)
    (encoded,) = model.encode([text])
    window = encoded.windows[0]
    count = len(window)

    def value(coalition: set[int]) -> float:
        keep = np.array([[i in coalition for i in range(count)]])
        return float(model.score(model.altered(window, keep, "delete"))[0, 0])

    (found,) = engine(kind).explain(text, "kernel_shap", target=0)
    values = found.values[window.words]
    assert values == pytest.approx(shapley(value, count), abs=1e-4)


def test_partition_shap_is_shaps() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its own imports
        shap = pytest.importorskip("shap")
    model = zoo.model("bert")
    text = "the camera is not good at all !"
    (encoded,) = model.encode([text])
    window = encoded.windows[0]
    count = len(window)

    # (left, right, distance, size) of each pair of words, then of each pair of pairs.
    halves = [[0, 1, 0.1, 2], [2, 3, 0.1, 2], [4, 5, 0.1, 2], [6, 7, 0.1, 2]]
    halves += [[8, 9, 0.5, 4], [10, 11, 0.5, 4], [12, 13, 1.0, 8]]

    def scores(keep: np.ndarray) -> np.ndarray:
        rows = model.altered(window, keep.astype(bool), "delete")
        return model.score(rows)[:, 1].double().numpy()

    masker = shap.maskers.Independent(np.zeros((1, count)), max_samples=1)
    masker.clustering = np.array(halves, float)
    masker.shape = (1, count)
    explainer = shap.explainers.Partition(scores, masker)
    wanted = explainer(np.ones((1, count)), max_evals=2000, silent=True).values[0]
    (found,) = engine("bert").explain(text, "partition_shap(max_evaluations=5000)", target=1)
    assert found.values == pytest.approx(wanted, abs=1e-4)
    change = scores(np.ones((1, count)))[0] - scores(np.zeros((1, count)))[0]
    assert found.values.sum() == pytest.approx(change, abs=1e-4)


def test_lime_finds_the_weights_of_a_linear_function() -> None:
    def linear(texts: list[str]) -> np.ndarray:
        weights = {"good": 3.0, "bad": -2.0, "the": 0.5}
        return np.array([[sum(weights.get(word, 0) for word in one.split())] for one in texts])

    text = "the good and the bad camera"
    (found,) = visxai_text.Engine(linear).explain(text, "lime(ridge=0.0)", target=0)
    assert found.values == pytest.approx([0.5, 3, 0, 0.5, -2, 0], abs=1e-4)
    assert found.quality["r2"] == pytest.approx(1.0)
    assert found.quality["stability"] > 0.7


def test_lime_is_the_ridge_of_scikit_learn() -> None:
    from sklearn.linear_model import Ridge

    from visxai.text import methods

    method = methods.load("lime(samples=60)")
    generator = np.random.default_rng(3)
    keep = generator.random((60, 5)) > 0.5
    keep[0] = True
    scores = keep @ np.array([1.0, -2, 0, 3, 0.5]) + generator.normal(size=60)
    distance = 100 * (1 - np.sqrt(keep.mean(1)))
    weight = np.sqrt(np.exp(-(distance**2) / 25**2))
    weight = weight / weight.sum() * 60
    wanted = Ridge(alpha=1.0).fit(keep, scores, sample_weight=weight).coef_
    assert method._fit(keep, scores)[0] == pytest.approx(wanted, abs=1e-6)


def test_rank_correlation() -> None:
    assert rank_correlation(np.array([1, 2, 3]), np.array([10, 20, 30])) == pytest.approx(1)
    assert rank_correlation(np.array([1, 2, 3]), np.array([3, 2, 1])) == pytest.approx(-1)
    assert np.isnan(rank_correlation(np.array([1, 2]), np.array([2, 1])))


# ---- attention ---------------------------------------------------------------------------------


def attention(text: str, target: int | None = None):
    module = zoo.bert()
    module.set_attn_implementation("eager")
    ids, _ = rows(text)
    output = module(input_ids=ids, output_attentions=True)
    slopes = ()
    if target is not None:
        slopes = torch.autograd.grad(output.logits[0, target], output.attentions)
    return [one[0].detach() for one in output.attentions], [one[0] for one in slopes]


@pytest.mark.parametrize("text", TEXTS[:2])
def test_attention_methods_by_their_definition(text: str) -> None:
    found = engine("bert")
    layers, slopes = attention(text, 2)
    raw = layers[-1].mean(0)[0, 1:-1]
    eye = torch.eye(len(layers[0][0]))
    rolled, relevance = eye, eye
    for layer, slope in zip(layers, slopes, strict=True):
        step = layer.mean(0) + eye
        rolled = step / step.sum(1, keepdim=True) @ rolled
        relevance = relevance + (slope * layer).relu().mean(0) @ relevance
    for name, wanted in (
        ("attention", raw),
        ("attention_rollout", rolled[0, 1:-1]),
        ("chefer", relevance[0, 1:-1]),
    ):
        (ours,) = found.explain(text, name, target=2)
        assert ours.values == pytest.approx(by_word(text, wanted.numpy(), found), abs=1e-5)
        assert not ours.two_sided
