"""Forwards that write into their inputs, and networks that mix the images of a batch."""

from __future__ import annotations

import pytest
import torch
import zoo
from torch import Tensor, nn

import visxai
from visxai.errors import ModelError
from visxai.models.pytorch.model import TorchModel
from visxai.models.rows import Rows


def test_a_forward_in_place_leaves_the_callers_tensor_alone() -> None:
    engine = visxai.Engine(zoo.Overwriting(zoo.module("conv")), accelerate="off")
    plain = visxai.Engine(zoo.module("conv"), accelerate="off")
    x = zoo.inputs()
    pixels = x.clone()
    for method in ("occlusion(window=16, stride=16)", "grad_cam", "saliency"):
        maps = engine.attribute(x, method, 2)
        assert torch.equal(x, pixels)
        assert torch.allclose(maps, plain.attribute(x, method, 2), atol=1e-5)
    with torch.inference_mode():  # whose tensors may not be written into later
        assert torch.equal(engine.attribute(x.clone(), "saliency", 2), maps)


def test_gradients_reach_through_a_write_in_place() -> None:
    class First(nn.Sequential):
        """An in-place activation on the pixels themselves."""

    module = zoo.randomise(First(nn.ReLU(inplace=True), zoo.Conv()))
    x = zoo.inputs()
    maps = visxai.Engine(module).attribute(x, "saliency", 2)
    assert maps.abs().max() > 0
    assert (x < 0).any()


def test_a_forward_that_leaves_its_input_alone_gets_no_copies() -> None:
    seen: list[int] = []

    class Watching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = zoo.module("conv")

        def forward(self, x: Tensor) -> Tensor:
            seen.append(x.data_ptr())
            return self.network(x)

    model, x = TorchModel(Watching()), zoo.inputs()
    for _ in range(3):
        model.scores(x)
    assert seen[0] != x.data_ptr()  # the first forward shows what the network does
    assert seen[1:] == [x.data_ptr()] * 2


def test_a_forward_that_writes_only_now_and_then_is_told() -> None:
    class Sometimes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = zoo.module("conv")

        def forward(self, x: Tensor) -> Tensor:
            return self.network(x.div_(255) if x.max() > 50 else x)

    model, x = TorchModel(Sometimes(), name="sometimes"), zoo.inputs()
    model.scores(x)
    with pytest.raises(ModelError, match=r"wrote into the batch: let its forward begin with x = x"):
        model.scores(x * 100)
    large = x * 100
    expected = zoo.model("conv").scores(large / 255)
    assert torch.allclose(model.scores(large), expected, atol=1e-6)
    assert torch.equal(large, x * 100)
    fresh = TorchModel(Sometimes())
    fresh.scores(x)
    # Rows that are made for the forward alone may be written into.
    rows = Rows(3, 2, tuple(x.shape[1:]), lambda image, turn: large[image])
    aim = fresh.aim(x, visxai.target.Target.of("class=2"))
    assert torch.allclose(fresh.values(rows, aim)[:, 0], expected[:, 2], atol=1e-6)


@pytest.mark.parametrize("sync", [False, True])
def test_a_batch_norm_without_statistics_is_refused(sync: bool) -> None:
    norm = nn.BatchNorm2d(8, track_running_stats=False)
    module = nn.Sequential(nn.Conv2d(3, 8, 3), norm, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    if sync:
        module = nn.SyncBatchNorm.convert_sync_batchnorm(module)
    with pytest.raises(
        ModelError, match=r"running statistics in every batch norm of Sequential, but 1"
    ):
        visxai.Engine(module)


def test_an_instance_norm_needs_no_statistics() -> None:
    module = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.InstanceNorm2d(8, affine=True), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    assert visxai.Engine(module).attribute(zoo.inputs(), "saliency", 2).isfinite().all()
