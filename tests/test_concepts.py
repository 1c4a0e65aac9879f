"""Concepts of a network whose channels are colours, so that every answer is known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import visxai
from visxai import concepts
from visxai.concepts.directions import exchanged, separator
from visxai.concepts.nmf import coefficients, factors
from visxai.drawing.concepts import PALETTE
from visxai.errors import ArgumentError, TargetError

SIDE = 32
WHOLE = visxai.Preprocess((SIDE, SIDE), SIDE, mean=(0.0,) * 3, std=(1.0,) * 3)
PLACES = {0: (0, 0), 1: (16, 0), 2: (0, 16)}  # left and top of the red, green and blue square
WEIGHTS = ((2.0, 1.0, 0.0), (0.0, 0.0, 1.0))  # of red, green and blue in both classes' scores


class Colours(nn.Module):
    """Scores (n, 2) from how much of each colour a picture holds, read from an 8 x 8 layer."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = nn.AvgPool2d(4)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(3, 2, bias=False)
        with torch.no_grad():
            self.head.weight.copy_(torch.tensor(WEIGHTS))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.pool(self.seen(x)).flatten(1))


def picture(*colours: int, value: int = 255) -> np.ndarray[Any, Any]:
    """A black picture with a square of each colour at the colour's own place."""
    found = np.zeros((SIDE, SIDE, 3), np.uint8)
    for colour in colours:
        left, top = PLACES[colour]
        found[top : top + 16, left : left + 16, colour] = value
    return found


ALL = [picture(0, 1), picture(0, 2), picture(0, 1, 2), picture(0, value=200)]


@pytest.fixture(scope="module")
def engine() -> visxai.Engine:
    return visxai.Engine(
        Colours().eval(),
        preprocess=WHOLE,
        labels=["warm", "cold"],
        layer="seen",
        accelerate="off",
        precision="fp32",
    )


def share_at(map_: np.ndarray[Any, Any], colour: int) -> float:
    left, top = (side // 4 for side in PLACES[colour])
    return float(map_[top : top + 4, left : left + 4].sum() / map_.sum())


def test_factors_recover_parts_that_are_apart() -> None:
    generator = torch.Generator().manual_seed(0)
    w = torch.zeros(3, 9)
    for part in range(3):
        w[part, 3 * part : 3 * part + 3] = torch.rand(3, generator=generator) + 0.1
    # Rows of one part alone leave no other answer.
    u = torch.cat([2 * torch.eye(3), torch.rand(40, 3, generator=generator)])
    values = u @ w
    found_u, found_w = factors(values, 3)
    assert torch.allclose(found_u @ found_w, values, atol=1e-3)
    order = found_w.argmax(1).div(3, rounding_mode="floor").argsort()
    assert torch.allclose(found_w[order], w / w.norm(dim=1, keepdim=True), atol=2e-2)
    assert torch.allclose(coefficients(values, found_w), found_u, atol=1e-2)


def test_factors_come_as_near_as_scikit_learn() -> None:
    decomposition = pytest.importorskip("sklearn.decomposition")
    values = torch.rand(60, 12, generator=torch.Generator().manual_seed(1))
    u, w = factors(values, 4)
    theirs = decomposition.NMF(4, init="nndsvda", max_iter=400, tol=1e-5).fit(values.numpy())
    assert (u >= 0).all()
    assert (w >= 0).all()
    assert float((values - u @ w).norm()) <= 1.01 * theirs.reconstruction_err_


def test_factorization_finds_each_colour_at_its_place(engine: visxai.Engine) -> None:
    found = concepts.deep_feature_factorization(engine, ALL, count=3)
    colours = found.bank.argmax(1).tolist()
    assert colours[0] == 0  # red is in every picture
    assert sorted(colours) == [0, 1, 2]
    assert np.allclose(found.bank.max(1), 1, atol=1e-3)
    for number, colour in enumerate(colours):
        assert share_at(found.maps[2, number], colour) > 0.99
    assert found.explained > 0.999
    assert found.importance.sum() == pytest.approx(1, abs=1e-5)
    named = dict(zip(colours, found.names, strict=True))
    assert named == {0: "like “warm”", 1: "like “warm”", 2: "like “cold”"}
    # A concept that a picture doesn't show is not there, whatever the others hold.
    assert found.maps[3, colours.index(2)].max() < 1e-3


def test_craft_orders_by_what_the_score_depends_on(engine: visxai.Engine) -> None:
    images = [picture(0, 1, 2)] * 3
    found = concepts.craft(engine, images, target="warm", count=3, crops=3, share=0.5, samples=256)
    assert found.bank.argmax(1).tolist() == [0, 1, 2]
    # A linear score of independent m: the variances are as the squares of the weights.
    assert found.importance == pytest.approx([4 / 5, 1 / 5, 0], abs=0.02)
    for number in range(3):
        assert share_at(found.maps[0, number], number) > 0.99
        best = found.examples[number][0]
        assert best.box[:2] == PLACES[number]
        assert np.asarray(found.crop(best)).reshape(-1, 3).argmax(1).max() == number


def test_craft_asks_for_one_class(engine: visxai.Engine) -> None:
    images = [picture(0), picture(2)]
    with pytest.raises(TargetError, match="one class for all images"):
        concepts.craft(engine, images, target="top1", count=1)
    assert concepts.craft(engine, [*images, picture(0)], count=2, crops=2).label == "warm"
    with pytest.raises(ArgumentError, match="1 to 3 concepts"):
        concepts.craft(engine, images, count=9)


def test_the_picture_has_a_colour_for_each_concept(engine: visxai.Engine) -> None:
    found = concepts.deep_feature_factorization(engine, ALL, count=3)
    drawn = np.asarray(found.overlay(2)).astype(int)
    for number, colour in enumerate(found.bank.argmax(1).tolist()):
        left, top = PLACES[colour]
        base = np.zeros(3)
        base[colour] = 255
        expected = 0.8 * np.array(PALETTE[number]) + 0.2 * base
        assert np.abs(drawn[top + 8, left + 8] - expected).max() <= 2
    assert (drawn[24:, 24:] == 0).all()
    alone = np.asarray(found.overlay(2, only=1))
    left, top = PLACES[int(found.bank[0].argmax())]
    assert (alone[top + 8, left + 8] == ALL[2][top + 8, left + 8]).all()
    sheet = found.picture()
    assert {PALETTE[number] for number in range(3)} <= set(sheet.get_flattened_data())
    assert len(found.legend) == 3
    assert found.describe().startswith("Colours has 3 concepts in the activations of seen")
    with pytest.raises(ArgumentError, match="number of an image below 4"):
        found.overlay(4)
    with pytest.raises(ArgumentError, match="craft"):
        found.examples_sheet()


def test_what_was_found_can_be_written(engine: visxai.Engine) -> None:
    import json

    found = concepts.craft(engine, ALL, target=0, count=2, crops=2)
    written = json.loads(json.dumps(found.to_dict()))
    assert written["label"] == "warm"
    assert [one["name"] for one in written["concepts"]] == list(found.names)
    assert sum(written["concepts"][0]["share_by_image"]) == pytest.approx(1)
    assert found.examples_sheet().width > 150


def speckled(count: int, seed: int, *colours: int) -> list[np.ndarray[Any, Any]]:
    """Pictures of dark noise, with a square of each colour."""
    generator = np.random.default_rng(seed)
    return [
        np.maximum(generator.integers(0, 90, (SIDE, SIDE, 3), np.uint8), picture(*colours))
        for _ in range(count)
    ]


def test_a_concept_that_raises_the_score_is_told_from_chance(engine: visxai.Engine) -> None:
    images, others = speckled(4, 0, 0), speckled(24, 1)
    red = concepts.tcav(engine, images, speckled(12, 2, 0), others, target="warm", runs=12)
    assert red.score == 1
    assert red.accuracy > 0.95
    assert red.significant
    assert "rises with it" in red.describe()
    blue = concepts.tcav(engine, images, speckled(12, 3, 2), others, target="warm", runs=12)
    assert blue.score < red.score or not blue.significant
    none = concepts.tcav(engine, images, speckled(12, 4), others, target="warm", runs=12)
    assert none.accuracy < 0.8
    assert not none.significant


def test_a_separator_finds_the_axis_that_tells_two_sets_apart() -> None:
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(2, 30, 4, generator=generator) * torch.tensor([0.01, 1, 1, 1])
    shift = torch.tensor([1.0, 0, 0, 0])
    normal, offset = separator(noise[0] + shift, noise[1])
    assert float(normal[0]) > 0.95
    assert float(normal.norm()) == pytest.approx(1)
    assert ((noise[0] + shift) @ normal > offset).all()


def test_exchanges_know_equal_and_different_lists() -> None:
    generator = torch.Generator().manual_seed(0)
    assert exchanged([1.0] * 10, [0.0] * 10, generator) == pytest.approx(1e-4, abs=2e-4)
    assert exchanged([0.5] * 10, [0.5] * 10, generator) == 1
