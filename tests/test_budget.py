"""Memory that runs out: how runtimes say it, and that nothing is concluded from it of a model."""

from __future__ import annotations

import pytest
import torch
import zoo
from torch import Tensor

from visxai.errors import OutOfMemory
from visxai.models.budget import is_out_of_memory
from visxai.models.interface import Need
from visxai.models.pytorch.model import TorchModel


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
