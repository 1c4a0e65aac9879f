"""Similarity of two pictures: what both show carries the maps, at its own place in each."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import visxai
from visxai import similarity

SIDE = 64
WHOLE = visxai.Preprocess((SIDE, SIDE), SIDE, mean=(0.0,) * 3, std=(1.0,) * 3)
RED, GREEN, BLUE = (250, 0, 0), (0, 250, 0), (0, 0, 250)
ONE, OTHER = (8, 8), (40, 32)  # the red square's left and top in the first and the second picture
WINDOWS = "occlusion(window=8, stride=8)"


class Colours(nn.Module):
    """An embedding of how much of each colour a picture holds, wherever it lies."""

    def __init__(self) -> None:
        super().__init__()
        self.colour = nn.Conv2d(3, 3, 1, bias=False)
        with torch.no_grad():
            self.colour.weight.copy_(torch.eye(3).reshape(3, 3, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(self.colour(x), 8).flatten(2).mean(2)


def picture(red: tuple[int, int], other: tuple[int, int, int]) -> np.ndarray[Any, Any]:
    """A black picture with a red square, and a smaller one of another colour."""
    found = np.zeros((SIDE, SIDE, 3), np.uint8)
    left, top = red
    found[top : top + 16, left : left + 16] = RED
    found[48:60, 8:20] = other
    return found


FIRST, SECOND = picture(ONE, GREEN), picture(OTHER, BLUE)


def inside(heat: Any, place: tuple[int, int]) -> float:
    """The share of the positive evidence on the red square."""
    positive, (left, top) = np.clip(heat, 0, None), place
    return float(positive[top : top + 16, left : left + 16].sum() / positive.sum())


@pytest.fixture(scope="module")
def engine() -> visxai.Engine:
    return visxai.Engine(Colours().eval(), preprocess=WHOLE, activation="none", accelerate="off")


@pytest.mark.parametrize("method", [WINDOWS, "input_x_gradient", "grad_cam(layer='colour')"])
def test_what_both_pictures_show_carries_both_maps(engine: visxai.Engine, method: str) -> None:
    one, other = similarity.explain(engine, FIRST, SECOND, method).explained
    assert inside(one.heatmap(), ONE) >= 0.9
    assert inside(other.heatmap(), OTHER) >= 0.9
    # What only one of them shows speaks against the match, and is never evidence for it.
    assert one.heatmap()[53, 13] <= 0
    assert other.heatmap()[53, 13] <= 0


def test_the_score_is_the_cosine_from_either_side(engine: visxai.Engine) -> None:
    one, other = similarity.explain(engine, FIRST, SECOND, WINDOWS).explained
    red, rest = 16 * 16, 12 * 12
    assert one.score == pytest.approx(red**2 / (red**2 + rest**2), abs=1e-5)
    assert other.score == pytest.approx(one.score, abs=1e-6)
    assert "finds a similarity of 0.760 with the second picture" in one.describe()
    assert one.overlay().size == (SIDE, SIDE)


def test_a_picture_matches_itself(engine: visxai.Engine) -> None:
    one, other = similarity.explain(engine, FIRST, FIRST, "saliency").explained
    assert one.score == pytest.approx(1)
    assert np.array_equal(one.values, other.values)
    assert np.abs(one.values).max() < 1e-4  # at its maximum the cosine has no slope


def test_a_function_is_explained_as_a_black_box() -> None:
    rows = 0

    def embed(pixels: Tensor) -> Any:
        nonlocal rows
        rows += len(pixels)
        return pixels.mean((2, 3)).numpy()

    box = visxai.Engine(embed, preprocess=WHOLE, activation="none")
    found = similarity.explain(box, FIRST, SECOND, f"{WINDOWS},rise(masks=40)")
    assert [one.method.partition("(")[0] for one in found.explained] == [
        "occlusion",
        "occlusion",
        "rise",
        "rise",
    ]
    assert rows == 2 + 2 * (1 + 8 * 8 + 40)
    assert inside(found.explained[0].heatmap(), ONE) >= 0.9


def test_an_embedding_serves_any_call_as_target(engine: visxai.Engine) -> None:
    stored = torch.tensor([1.0, 0.0, 0.0])
    target = similarity.match(stored, "a stored embedding")
    (found,) = engine.explain([FIRST], WINDOWS, target).explained
    assert found.score == pytest.approx(16 * 16 / np.hypot(16 * 16, 12 * 12), abs=1e-5)
