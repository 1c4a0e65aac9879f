"""Memory that runs out: how runtimes say it, and that nothing is concluded from it of a model."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import pytest
import torch
import zoo
from torch import Tensor

import visxai
from visxai.errors import OutOfMemory
from visxai.methods.base import Maps
from visxai.methods.saliency import Saliency
from visxai.models.budget import RowBudget, is_out_of_memory
from visxai.models.interface import Model, Need
from visxai.models.pytorch.model import TorchModel
from visxai.models.rows import Rows
from visxai.target import Target


@pytest.mark.parametrize(
    "said",
    [
        "CUDA out of memory. Tried to allocate 2.00 GiB",
        "CUDA error: out of memory",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
        "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
        "CUSOLVER_STATUS_ALLOC_FAILED",
        "GET was unable to find an engine to execute this computation",
        "Unable to find a valid cuDNN algorithm to run convolution",
        "[enforce fail at alloc_cpu.cpp:118] . DefaultCPUAllocator: can't allocate memory: you "
        "tried to allocate 1 bytes. Error code 12 (Cannot allocate memory)",
        "Failed to allocate memory for requested buffer of size 1",
    ],
)
def test_every_runtime_is_understood(said: str) -> None:
    assert is_out_of_memory(RuntimeError(said))
    assert not is_out_of_memory(ValueError(said))


@pytest.mark.parametrize(
    "said", ["CUBLAS_STATUS_EXECUTION_FAILED", "CUDNN_STATUS_BAD_PARAM", "CUDA error: misaligned"]
)
def test_other_failures_are_no_lack_of_memory(said: str) -> None:
    assert not is_out_of_memory(RuntimeError(said))


@pytest.mark.parametrize("message", ["CUDA out of memory", "CUBLAS_STATUS_ALLOC_FAILED"])
@pytest.mark.parametrize("failing", [1, 2, 3, 4])
def test_running_out_while_a_model_is_looked_at_is_no_answer(
    message: str, failing: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, calls = TorchModel(zoo.module("vit"), preprocess=zoo.PREPROCESS), []
    plain = TorchModel.forward

    def forward(self: TorchModel, x: Tensor, *rest: object) -> Tensor:
        calls.append(1)
        if len(calls) == failing:
            raise RuntimeError(message)
        return plain(self, x, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(TorchModel, "forward", forward)
    with pytest.raises(OutOfMemory, match="to fit in memory while VisionTransformer was looked at"):
        _ = model.offers
    calls[:] = [1] * 9
    assert Need.ATTENTION | Need.TOKENS in model.offers
    assert model.tokens(zoo.inputs()) == zoo.model("vit").tokens(zoo.inputs())


def short_of_memory(monkeypatch: pytest.MonkeyPatch, failing: int) -> list[int]:
    """Let one forward of any model run out of memory; the calls that there were."""
    calls: list[int] = []
    plain = TorchModel.forward

    def forward(self: TorchModel, x: Tensor, *rest: object) -> Tensor:
        calls.append(len(x))
        if len(calls) == failing:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return plain(self, x, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(TorchModel, "forward", forward)
    return calls


@pytest.mark.parametrize("failing", [1, 2])
def test_running_out_while_a_model_is_split_is_no_answer(
    failing: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, x = TorchModel(zoo.module("conv")), zoo.inputs()
    layer = model.layer(x)
    calls = short_of_memory(monkeypatch, failing)
    with pytest.raises(OutOfMemory):
        model.split(layer, x)
    calls[:] = [1] * 9
    assert model.split(layer, x).at.module == layer


def test_a_split_is_checked_on_pairs_where_three_images_dont_fit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, x = TorchModel(zoo.module("conv")), zoo.inputs()
    layer = model.layer(x)
    calls = short_of_memory(monkeypatch, 3)
    assert model.split(layer, x).at.module == layer
    assert calls[2:5] == [3, 2, 1]


def test_fewer_rows_grow_back_when_blocks_fit_again() -> None:
    budget, key = RowBudget(16), ("scores", 3)
    budget.shrink(key, 16)
    budget.shrink(key, 8)
    assert budget.get(key) == 4
    sizes = []
    while budget.get(key) < 16:
        budget.fits(key, 3)  # a block that wasn't full says nothing of a fuller one
        budget.fits(key, budget.get(key))
        sizes.append(budget.get(key))
    assert sizes == sorted(sizes)
    assert sorted(set(sizes)) == [4, 8, 16]
    assert len(sizes) <= 256


def test_what_fails_again_is_tried_ever_more_rarely() -> None:
    budget, key, tries = RowBudget(16), ("scores", 3), []
    budget.shrink(key, 16)
    for block in range(1000):
        budget.fits(key, budget.get(key))
        if budget.get(key) > 8:
            tries.append(block)
            budget.shrink(key, 16)
    gaps = [later - earlier for earlier, later in itertools.pairwise(tries)]
    assert gaps == sorted(gaps)
    assert len(tries) <= 5


def test_rows_grow_beyond_a_batch_while_memory_allows() -> None:
    model, x, sizes = TorchModel(zoo.module("conv")), zoo.inputs(1), []
    rows = Rows(1, 100, tuple(x.shape[1:]), lambda image, turn: x[image] * turn.view(-1, 1, 1, 1))
    aim = Target.of(2).aim(model.scores(x), model.scores(x))
    expected, plain = model.values(rows, aim), model._plain

    def scores(part: Tensor) -> Tensor:
        sizes.append(len(part))
        if len(part) > 32:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return plain(part)

    model._plain = scores  # type: ignore[method-assign]
    model.budget = RowBudget(4, 64)
    assert torch.allclose(model.values(rows, aim), expected, atol=1e-5)
    assert sizes == [4, 8, 16, 32, 40, 20, 20]  # the last 40 rows are fewer than 64, and too many
    sizes.clear()
    model.values(rows, aim)
    assert sizes == [20] * 5
    assert visxai.Engine(zoo.module("conv")).model.budget.most == 16


def test_a_model_takes_whole_blocks_again_after_memory_was_short() -> None:
    model, x, rows, short = TorchModel(zoo.module("conv")), zoo.inputs(8), [], [True]
    plain = model._plain

    def scores(part: Tensor) -> Tensor:
        rows.append(len(part))
        if short[0] and len(part) > 2:
            raise RuntimeError("CUDA out of memory")
        return plain(part)

    model._plain = scores  # type: ignore[method-assign]
    model.budget = RowBudget(8)
    expected = model.scores(x)
    assert rows == [8, 4, 2, 2, 2, 2]
    short[0] = False
    for _ in range(64):
        assert torch.allclose(model.scores(x), expected, atol=1e-6)
    assert rows[-1] == 8


@dataclass(frozen=True, repr=False)
class Hungry(Saliency):
    """A method that needs memory for its whole batch, besides the rows of a block."""

    def __call__(self, model: Model, x: Tensor, target: Target) -> Maps:
        if len(x) > 2:
            raise RuntimeError("CUDA out of memory")
        return super().__call__(model, x, target)


def test_a_batch_that_does_not_fit_is_halved() -> None:
    engine = visxai.Engine(zoo.module("conv"), preprocess=zoo.PREPROCESS, accelerate="off")
    x, classes = zoo.inputs(5), torch.tensor([0, 1, 2, 3, 4])
    expected = engine.attribute(x, "saliency", classes)
    assert torch.allclose(engine.attribute(x, Hungry(), classes), expected, rtol=1e-4, atol=1e-7)
    pictures = [np.full((70, 70, 3), shade, np.uint8) for shade in (9, 60, 120, 200, 250)]
    few, many = (engine.explain(pictures, one, classes) for one in (Hungry(), "saliency"))
    for one, other in zip(few, many, strict=True):
        assert np.allclose(one.values, other.values, rtol=1e-4, atol=1e-7)
        assert one.class_index == other.class_index


def test_an_image_that_does_not_fit_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = visxai.Engine(zoo.module("conv"), preprocess=zoo.PREPROCESS, accelerate="off")

    def full(*_: object) -> Tensor:
        raise MemoryError

    monkeypatch.setattr("visxai.engine.batch.BatchExplainer.tensor", full)
    with pytest.raises(OutOfMemory, match="free the device's memory"):
        engine.explain([np.zeros((70, 70, 3), np.uint8)] * 2)
