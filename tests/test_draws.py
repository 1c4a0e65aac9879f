"""Draws that batches share: made once, told apart by all they depend on, and never many."""

from __future__ import annotations

import pytest
import torch
import zoo
from torch import Tensor

from visxai import methods
from visxai.engine.batch import compute
from visxai.methods import _draws
from visxai.models.pytorch.model import TorchModel
from visxai.target import Target


@pytest.fixture(autouse=True)
def _empty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_draws, "_kept", _draws.OrderedDict())


@pytest.mark.parametrize(
    "spec",
    [
        "smooth_grad(copies=3, seed={})",
        "gradient_shap(samples=3, seed={})",
        "expected_gradients(samples=3, seed={})",
        "ss_cam(samples=2, seed={}, top=2)",
    ],
)
def test_the_next_batch_draws_nothing_large(spec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, drawn = TorchModel(zoo.module("conv")), []
    plain, xs = torch.randn, {images: zoo.inputs(images) for images in (1, 2)}

    def randn(*size: object, **how: object) -> Tensor:
        drawn.append(size)
        return plain(*size, **how)

    def run(seed: int, images: int) -> Tensor:
        method = methods.load(spec.format(seed))
        return compute(method, model, xs[images], Target.of(2)).values

    monkeypatch.setattr(torch, "randn", randn)
    with torch.inference_mode():
        run(0, 1)
    first, drawn[:] = run(0, 2), []
    assert torch.equal(run(0, 2), first)
    assert drawn == []
    assert not torch.equal(run(1, 2), first)
    assert drawn


def test_few_draws_are_kept_and_no_large_one(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def draw(number: int, dtype: torch.dtype = torch.float32) -> Tensor:
        def make() -> Tensor:
            calls.append(number)
            return torch.full((4,), float(number))

        return _draws.shared((number,), torch.empty(0, dtype=dtype), make)

    for number in (0, 1, 0, 2, 3, 4, 0):
        assert draw(number).tolist() == [number] * 4
    assert calls == [0, 1, 2, 3, 4]  # 1 had to go, as it wasn't used for the longest time
    assert draw(0, torch.float64).dtype == torch.float64
    assert calls[-1] == 0
    monkeypatch.setattr(_draws, "_LARGEST", 8)
    calls.clear()
    draw(9)
    draw(9)
    assert calls == [9, 9]
