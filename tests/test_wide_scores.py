"""Scores in half precision: the layer that makes them computes in float32."""

from __future__ import annotations

import copy

import pytest
import torch
import zoo
from torch import Tensor, nn
from torch.nn import functional as F

import visxai
from visxai.models.prompts import PromptClassifier
from visxai.models.pytorch.classifier import InWeightsType
from visxai.models.pytorch.model import TorchModel


def loud() -> nn.Module:
    """A network whose logits lie between 8 and 16, where bfloat16's steps are 0.0625."""
    module = zoo.randomise(zoo.Conv())
    with torch.no_grad():
        module.head.bias += 12  # type: ignore[union-attr, operator]
    return module


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_scores_are_what_float32_makes_of_the_features(precision: str) -> None:
    module, x = loud(), zoo.inputs(4)
    model = TorchModel(module, precision=precision)
    kind = torch.bfloat16 if precision == "bf16" else torch.float16
    with torch.no_grad(), torch.autocast("cpu", kind):
        plain = copy.deepcopy(module)
        features: list[Tensor] = []
        plain.head.register_forward_pre_hook(lambda _, args: features.append(args[0]))  # type: ignore[union-attr, operator]
        rounded = plain(x)
    found = model.scores(x)
    with torch.no_grad():
        expected = plain.head(features[0].float())  # type: ignore[operator]
    assert rounded.dtype == kind  # what autocast alone gives
    assert found.dtype == torch.float32
    assert torch.equal(found, expected)
    assert not torch.equal(found, found.to(kind).float())


def test_the_drops_of_occlusion_are_not_steps() -> None:
    x, spec = zoo.inputs(2), "occlusion(window=16, stride=8)"
    exact = visxai.Engine(loud(), precision="fp32", accelerate="off").attribute(x, spec, 3)
    half = visxai.Engine(loud(), precision="bf16", accelerate="off").attribute(x, spec, 3)
    assert F.cosine_similarity(exact.flatten(), half.flatten(), dim=0) > 0.99
    assert len((half * 2**12).round().unique()) > 10


def test_the_callers_module_stays_as_it_is() -> None:
    module = loud()
    engine = visxai.Engine(module, precision="bf16", accelerate="off")
    before = engine.model.ref.weights_sha256
    engine.attribute(zoo.inputs(2), "grad_cam", 3)
    assert type(module.head) is nn.Linear
    assert engine.model.ref.weights_sha256 == before
    assert isinstance(engine.model.module.head, InWeightsType)  # type: ignore[attr-defined]
    assert isinstance(engine.model.module.head, nn.Linear)  # type: ignore[attr-defined]


def test_float32_computes_what_it_did() -> None:
    module, x = loud(), zoo.inputs(3)
    with torch.no_grad():
        expected = copy.deepcopy(module)(x)
    half = TorchModel(module, precision="bf16")
    half.scores(x)  # from now on the module has its wide layer
    assert torch.equal(half.in_precision("fp32").scores(x), expected)


class Averaged(zoo.Conv):
    """Two heads whose scores are averaged."""

    def __init__(self) -> None:
        super().__init__()
        self.other = nn.Linear(self.head.in_features, zoo.CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.last(self.body(self.act(self.stem(x))))).flatten(1)
        return (self.head(x) + self.other(x)) / 2


class Convolved(zoo.Conv):
    """Scores that a convolution makes at every position and that are averaged after it."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Conv2d(self.head.in_features, zoo.CLASSES, 1)  # type: ignore[assignment]

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(self.head(self.last(self.body(self.act(self.stem(x)))))).flatten(1)


@pytest.mark.parametrize(
    ("module", "names"), [(Averaged(), ["other", "head"]), (Convolved(), ["head"])]
)
def test_every_layer_that_makes_scores_is_wide(module: nn.Module, names: list[str]) -> None:
    model, x = TorchModel(zoo.randomise(module), precision="bf16"), zoo.inputs(2)
    scores = model.scores(x)
    wide = [name for name, part in model.module.named_modules() if isinstance(part, InWeightsType)]
    assert sorted(wide) == sorted(names)
    assert not torch.equal(scores, scores.bfloat16().float())


def test_a_split_made_before_is_made_anew() -> None:
    model, x = TorchModel(loud()), zoo.inputs(2)
    assert not isinstance(model.split("body", x).head.module.head, InWeightsType)
    half = model.in_precision("bf16")
    half.scores(x)
    assert isinstance(half.split("body", x).head.module.head, InWeightsType)


class Embedder(nn.Module):
    """The image tower of a model that compares images with texts."""

    def get_image_features(self, pixel_values: Tensor) -> Tensor:
        return pixel_values.mean((2, 3)) @ torch.eye(3)


def test_a_cosine_times_a_hundred_is_not_rounded() -> None:
    text = F.normalize(torch.randn(5, 3, generator=torch.Generator().manual_seed(0)), dim=1)
    module = PromptClassifier(Embedder(), text, torch.tensor(100.0), torch.tensor(0.0))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        found = module(zoo.inputs(3))
    assert found.dtype == torch.float32
    assert not torch.equal(found, found.bfloat16().float())
