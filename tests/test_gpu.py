"""The contracts on any device: a GPU is held to them where there is one, the CPU always.

On a CPU a repeated map is the same bit for bit. On a GPU it isn't promised: kernels differ with the
batch. There maps agree to 1e-3 of their largest value, in another batch and with the CPU's.
"""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import zoo

import visxai
from visxai.models.budget import RowBudget
from visxai.models.pytorch.model import TorchModel
from visxai.models.rows import Rows
from visxai.target import Target

DEVICES = [
    "cpu",
    pytest.param(
        "cuda",
        marks=[
            pytest.mark.gpu,
            pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
        ],
    ),
]
SPECS = (
    "grad_cam",
    "saliency",
    "occlusion(window=16, stride=16)",
    "integrated_gradients(steps=16)",
)
KINDS = ("conv", "vit")
over = pytest.mark.parametrize("device", DEVICES)
pytestmark = [over, pytest.mark.parametrize("kind", KINDS)]


def made(kind: str, device: str, precision: str = "fp32") -> visxai.Engine:
    module = copy.deepcopy(zoo.module(kind)).to(device)
    return visxai.Engine(module, device=device, precision=precision, accelerate="off")


def off(found: torch.Tensor, expected: torch.Tensor) -> float:
    found, expected = found.cpu(), expected.cpu()
    return float((found - expected).abs().max() / expected.abs().max().clamp_min(1e-12))


@pytest.mark.parametrize("spec", SPECS)
def test_maps_are_the_cpus(kind: str, spec: str, device: str) -> None:
    x, engine = zoo.inputs(3), made(kind, device)
    found = engine.attribute(x.to(device), spec, 2)
    assert found.device.type == device
    assert off(found, made(kind, "cpu").attribute(x, spec, 2)) <= 1e-3


@pytest.mark.parametrize("spec", SPECS)
def test_an_image_is_explained_alone_as_among_others(kind: str, spec: str, device: str) -> None:
    x, engine = zoo.inputs(4).to(device), made(kind, device)
    together = engine.attribute(x, spec, 2)
    for index in range(4):
        assert off(engine.attribute(x[index : index + 1], spec, 2)[0], together[index]) <= 1e-3


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_points_the_same_way(kind: str, precision: str, device: str) -> None:
    x = zoo.inputs(3).to(device)
    exact = made(kind, device).attribute(x, "grad_cam", 2).flatten(1)
    half = made(kind, device, precision).attribute(x, "grad_cam", 2).flatten(1)
    assert float(torch.nn.functional.cosine_similarity(half, exact).min()) >= 0.98


def test_nothing_of_the_module_changes(kind: str, device: str) -> None:
    module = copy.deepcopy(zoo.module(kind)).to(device)
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    engine = visxai.Engine(module, device=device, precision="bf16", accelerate="off")
    switches = torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()
    for spec in SPECS:
        engine.attribute(zoo.inputs(2).to(device), spec, 2)
    assert switches == (torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision())
    assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items())
    assert all(part._forward_hooks == {} for part in module.modules())
    assert all(parameter.grad is None for parameter in module.parameters())


def test_memory_that_runs_out_halves_the_rows(
    kind: str, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = TorchModel(copy.deepcopy(zoo.module(kind)).to(device))
    model.budget, plain = RowBudget(8), model._plain
    x, sizes = zoo.inputs(8).to(device), []
    expected = model.scores(x)

    def scarce(part: torch.Tensor) -> torch.Tensor:
        sizes.append(len(part))
        if len(part) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return plain(part)

    monkeypatch.setattr(model, "_plain", scarce)
    assert off(model.scores(x), expected) <= 1e-3
    assert sizes == [8, 4, 2, 2, 2, 2]


def test_grad_cam_costs_one_forward(
    kind: str, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, x, rows = made(kind, device), zoo.inputs(3).to(device), []
    engine.attribute(x, "grad_cam", 2)
    plain = TorchModel.forward

    def forward(self: TorchModel, part: torch.Tensor, *rest: object) -> torch.Tensor:
        rows.append(len(part))
        return plain(self, part, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(TorchModel, "forward", forward)
    engine.attribute(x, "grad_cam", 2)
    assert rows == [3]


def test_rows_lie_on_the_models_device(kind: str, device: str) -> None:
    model, x = TorchModel(copy.deepcopy(zoo.module(kind)).to(device)), zoo.inputs(2).to(device)
    aim = Target.of("top2").aim(scores := model.scores(x), scores.softmax(1))
    found = model.values(Rows(2, 3, tuple(x.shape[1:]), lambda image, turn: x[image]), aim)
    assert found.device == model.device
    assert found.shape == (4, 3)


def test_batches_that_overlap_are_as_batches_alone(kind: str, device: str) -> None:
    engine = visxai.Engine(
        copy.deepcopy(zoo.module(kind)).to(device),
        preprocess=zoo.PREPROCESS,
        device=device,
        precision="fp32",
        accelerate="off",
        batch_size=3,
    )
    assert engine.ahead == (device == "cuda")
    pixels = [*np.random.default_rng(0).integers(0, 255, (10, 64, 64, 3), dtype=np.uint8)]
    together = engine.explain(pixels, ["grad_cam", "saliency"], 2)
    alone = [one for image in pixels for one in engine.explain(image, ["grad_cam", "saliency"], 2)]
    for one, other in zip(together, alone, strict=True):
        assert off(torch.tensor(one.values), torch.tensor(other.values)) <= 1e-3
        assert one.score == pytest.approx(other.score, abs=1e-4)
