"""Extremal perturbation on functions whose best masks are known."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from visxai import methods
from visxai.engine.batch import compute
from visxai.errors import ArgumentError
from visxai.methods._maps import upsample
from visxai.methods.base import Maps
from visxai.methods.extremal_perturbation import smooth_maximum
from visxai.models.pytorch.model import TorchModel
from visxai.target import Target

# Bumps of a single cell: each cell of the mask is free.
FREE = "grid=4, radius=0.05, baseline=0.0"


class Linear(nn.Module):
    """Scores (n, 2): the weighted sum of the cells of a 4 x 4 grid, and its opposite."""

    def __init__(self, weights: Tensor) -> None:
        super().__init__()
        self.register_buffer("weights", weights)

    def forward(self, x: Tensor) -> Tensor:
        means = nn.functional.adaptive_avg_pool2d(x.mean(1), 4).flatten(1)
        score = means @ self.weights
        return torch.stack([score, -score], 1)


class Planted(nn.Module):
    """Scores (n, 2) that read one box of the picture, rows 24 to 40 and columns 8 to 24."""

    def forward(self, x: Tensor) -> Tensor:
        seen = x[:, :, 24:40, 8:24].mean((1, 2, 3))
        return torch.stack([seen.square(), -seen], 1)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def run(module: nn.Module, spec: str, x: Tensor) -> Maps:
    return compute(methods.load(spec), TorchModel(module, activation="none"), x, Target.of(0))


def test_a_linear_score_keeps_the_cells_that_raise_it_most() -> None:
    weights = torch.linspace(1, 2, 16)[torch.randperm(16, generator=seeded(3))]
    x = torch.ones(1, 3, 8, 8)
    found = run(Linear(weights), f"extremal_perturbation(areas=(0.25,), steps=40, {FREE})", x)
    # A cell is enlarged bilinearly, so it shows some of the cells beside it, too.
    alone = upsample(torch.eye(16).reshape(16, 4, 4), (8, 8)).unsqueeze(1).expand(-1, 3, -1, -1)
    effect = Linear(weights)(alone)[:, 0]
    best = torch.zeros(16).index_fill(0, effect.topk(4).indices, 1.0)
    assert torch.allclose(found.values[0].flatten(), best, atol=0.02)
    kept = effect.topk(4).values.sum() / weights.sum()
    assert found.quality["preserved"].item() == pytest.approx(kept.item(), abs=0.02)
    assert found.quality["area_error"].item() < 0.01


def test_the_map_is_the_mean_over_the_areas() -> None:
    weights = torch.linspace(-1, 2, 16)
    x = torch.rand(2, 3, 8, 8, generator=seeded()) + 0.5
    both, small, large = (
        run(Linear(weights), f"extremal_perturbation(areas={areas}, steps=20, {FREE})", x).values
        for areas in ((0.125, 0.5), (0.125,), (0.5,))
    )
    assert torch.allclose(both, (small + large) / 2, atol=1e-5)
    assert (both >= 0).all()
    assert (both <= 1).all()


def test_a_planted_object_is_what_the_mask_shows() -> None:
    x = torch.rand(2, 3, 64, 64, generator=seeded()) + 0.5
    spec = "extremal_perturbation(areas=0.04, steps=40, grid=16, radius=0.03, baseline=0.0)"
    found = run(Planted(), spec, x)
    inside = found.values[:, 6:10, 2:6].sum((1, 2)) / found.values.sum((1, 2))
    assert (inside >= 0.9).all()
    assert (found.quality["area_error"] < 0.02).all()


def test_smooth_maximum_lies_below_the_maximum_and_shows_the_bump() -> None:
    heights = torch.rand(2, 1, 5, 5, generator=seeded())
    assert torch.equal(smooth_maximum(heights, torch.ones(1, 1)), heights[:, 0])
    bump = torch.tensor([[0.1, 0.4, 0.1], [0.4, 1.0, 0.4], [0.1, 0.4, 0.1]])
    single = torch.zeros(1, 1, 5, 5)
    single[0, 0, 2, 2] = 1
    assert torch.allclose(smooth_maximum(single, bump)[0, 1:4, 1:4], bump, atol=0.06)
    full = nn.functional.max_pool2d(heights, 3, 1, 1)[:, 0]
    assert (smooth_maximum(heights, bump) <= full).all()


def test_wrong_areas_are_refused() -> None:
    with pytest.raises(ArgumentError, match="areas between 0 and 1"):
        methods.load("extremal_perturbation(areas=(0.1, 1.5))")
