"""Grad-CAM, integrated gradients and occlusion equal captum's, on every kind of model.

Small family members run in the matrix, one full-size model of each kind beside them. Tolerance
1e-4 of the largest magnitude.
"""

from __future__ import annotations

import copy
from functools import cache

import pytest
import zoo
from captum.attr import IntegratedGradients, LayerGradCam, Occlusion
from torch import Tensor, nn

import visxai
from visxai import methods
from visxai.engine.batch import compute
from visxai.models.probe import Probe
from visxai.models.pytorch.model import TorchModel
from visxai.models.pytorch.modules import adapt
from visxai.target import Target


class Scores(nn.Module):
    """What captum is given: a module that returns plain scores."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        return adapt(self.module(x))


class Positions(nn.Module):
    """The layer, followed by a permutation to (b, c, h, w) and back, for captum to look between."""

    def __init__(self, layer: nn.Module, layout) -> None:
        super().__init__()
        self.layer, self.layout, self.maps = layer, layout, nn.Identity()

    def forward(self, *args, **kwargs):
        out = self.layer(*args, **kwargs)
        return self.layout.unmaps(self.maps(self.layout.maps(out).contiguous()), out)


def close(a: Tensor, b: Tensor) -> bool:
    return bool((a - b).abs().max() <= 1e-4 * b.abs().max())


def run(model: TorchModel, spec: str, x: Tensor) -> Tensor:
    return compute(methods.load(spec), Probe(model, x), x, Target.of(3)).values


def check_grad_cam(model: TorchModel, x: Tensor) -> None:
    name = model.layer(x)
    module = copy.deepcopy(model.module)
    parent = module.get_submodule(name.rpartition(".")[0])
    positions = Positions(module.get_submodule(name), model.layout(name, x))
    setattr(parent, name.rpartition(".")[2], positions)
    theirs = LayerGradCam(Scores(module), positions.maps).attribute(x, target=3)
    assert close(run(model, "grad_cam(relu=False)", x), theirs[:, 0].detach())


def check_integrated_gradients(model: TorchModel, x: Tensor, steps: int) -> None:
    theirs = IntegratedGradients(Scores(model.module)).attribute(x, target=3, n_steps=steps)
    ours = run(model, f"integrated_gradients(steps={steps}, schedule='gauss_legendre')", x)
    assert close(ours, theirs.sum(1).detach())


def check_occlusion(model: TorchModel, x: Tensor, window: int, stride: int) -> None:
    theirs = Occlusion(Scores(model.module)).attribute(
        x,
        sliding_window_shapes=(3, window, window),
        strides=(3, stride, stride),
        target=3,
        perturbations_per_eval=4,
    )
    ours = run(model, f"occlusion(window={window}, stride={stride})", x)
    assert close(ours, theirs[:, 0].detach())


@pytest.mark.parametrize("kind", zoo.KINDS)
def test_grad_cam(kind: str) -> None:
    check_grad_cam(zoo.model(kind), zoo.inputs())


@pytest.mark.parametrize("kind", zoo.KINDS)
def test_integrated_gradients(kind: str) -> None:
    check_integrated_gradients(zoo.model(kind), zoo.inputs(), 8)


@pytest.mark.parametrize("kind", zoo.KINDS)
@pytest.mark.parametrize(("window", "stride"), [(16, 16), (24, 11)])
def test_occlusion(kind: str, window: int, stride: int) -> None:
    check_occlusion(zoo.model(kind), zoo.inputs(), window, stride)


def _hugging_face() -> nn.Module:
    from transformers import ViTConfig, ViTForImageClassification

    return ViTForImageClassification(ViTConfig(num_hidden_layers=4, num_labels=10))


def _timm_registers() -> nn.Module:
    import timm

    return timm.create_model("vit_small_patch16_dinov3", num_classes=10, depth=4)


FULL = {
    "resnet18": lambda: _torchvision("resnet18"),
    "mobilenet_v3_large": lambda: _torchvision("mobilenet_v3_large"),
    "convnext_tiny": lambda: _torchvision("convnext_tiny"),
    "vit_b_32": lambda: _torchvision("vit_b_32"),
    "swin_t": lambda: _torchvision("swin_t"),
    "timm_registers": _timm_registers,
    "hf_vit": _hugging_face,
}


def _torchvision(name: str) -> nn.Module:
    from torchvision.models import get_model

    return get_model(name, weights=None, num_classes=10)


@pytest.mark.parametrize("kind", FULL)
def test_full_size(kind: str) -> None:
    module = FULL[kind]().eval()
    model = TorchModel(zoo.randomise(module, size=224))
    x = zoo.inputs(1, 224)
    check_grad_cam(model, x)
    check_integrated_gradients(model, x, 3)
    check_occlusion(model, x, 112, 112)


@cache
def photograph() -> Tensor:
    data = pytest.importorskip("skimage.data", reason="photographs come with the extra demo")
    engine = visxai.Engine(device="cpu", precision="fp32")
    prepared = engine.prepare(data.coffee())
    return engine.tensor([prepared.pixels])


def test_the_default_model(engine: visxai.Engine) -> None:
    x = photograph()
    check_grad_cam(engine.model, x)
    check_integrated_gradients(engine.model, x, 6)
    check_occlusion(engine.model, x, 96, 64)
