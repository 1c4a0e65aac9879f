"""Modules that keep something between the calls of a forward are explained like any other."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import zoo
from torch import Tensor, nn

import visxai
from visxai.models.pytorch.model import TorchModel


class Plain(nn.Module):
    """Two stages; the second adds what the first one made, handed on by a variable."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Conv2d(3, 8, 3, stride=4, padding=1)
        self.middle = nn.Conv2d(8, 8, 3, padding=1)
        self.up = nn.Conv2d(8, 8, 3, padding=1)
        self.head = nn.Linear(8, zoo.CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        skip = torch.relu(self.down(x))
        x = torch.relu(self.up(torch.relu(self.middle(skip)) + skip))
        return self.head(x.mean((2, 3)))


class Attribute(Plain):
    """The same, handed on by an attribute of the module."""

    skip: Any = None

    def forward(self, x: Tensor) -> Tensor:
        self.skip = torch.relu(self.down(x))
        x = torch.relu(self.up(torch.relu(self.middle(self.skip)) + self.skip))
        return self.head(x.mean((2, 3)))


class Stage(nn.Module):
    """Half of `Parts`: reads and writes a list that both halves hold."""

    def __init__(self, convolution: nn.Module, kept: list[Tensor], first: bool) -> None:
        super().__init__()
        self.convolution, self.kept, self.first = convolution, kept, first

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.convolution(x))
        if self.first:
            self.kept[:] = [x]
            return x
        return x + self.kept[0]


class Parts(Plain):
    """The same, handed on by a list inside its parts: the head's own part never writes it."""

    def __init__(self) -> None:
        super().__init__()
        kept: list[Tensor] = []
        self.below = Stage(self.down, kept, True)
        self.above = Stage(self.middle, kept, False)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.up(self.above(self.below(x))))
        return self.head(x.mean((2, 3)))


KINDS = {"attribute": Attribute, "parts": Parts}
METHODS = (
    "grad_cam(layer='{}')",
    "ablation_cam(layer='{}')",
    "score_cam(layer='{}', top=4)",
    "saliency",
    "occlusion(window=32, stride=32)",
)


def _built(kind: type[Plain], *, run_before: bool = False) -> nn.Module:
    module = kind()
    plain = zoo.randomise(Plain())
    module.load_state_dict(plain.state_dict(), strict=False)
    if run_before:  # and left with what a stranger's picture gave
        with torch.no_grad():
            module(zoo.inputs(2, seed=11))
    return module.eval()


def _engine(module: nn.Module, how: str = "off") -> visxai.Engine:
    return visxai.Engine(module, preprocess=zoo.PREPROCESS, accelerate=how, precision="fp32")


@pytest.mark.parametrize("run_before", [False, True])
@pytest.mark.parametrize("layer", ["down", "middle", "up"])
@pytest.mark.parametrize("kind", KINDS)
def test_trunk_and_head_are_the_model(kind: str, layer: str, run_before: bool) -> None:
    module = _built(KINDS[kind], run_before=run_before)
    model = TorchModel(module)
    for batch in (3, 1, 4):  # none of them the pictures that the split was made on
        x = zoo.inputs(batch, seed=batch)
        found = model.split(layer, x)
        with torch.no_grad():
            scores = model.forward(x, lambda inside, at=found: at.head(at.trunk(inside)))
        assert torch.allclose(scores, model.scores(x), atol=1e-5)


@pytest.mark.parametrize("layer", ["middle", "up"])
@pytest.mark.parametrize("kind", KINDS)
def test_maps_are_those_of_a_module_without_state(kind: str, layer: str) -> None:
    kept, plain = _engine(_built(KINDS[kind])), _engine(_built(Plain))
    for method in (form.format(layer) for form in METHODS):
        for batch in (2, 3):  # the second after the first has left its state
            x = zoo.inputs(batch, seed=batch)
            found, expected = kept.attribute(x, method, 3), plain.attribute(x, method, 3)
            assert torch.allclose(found, expected, atol=1e-5 * float(expected.abs().max())), method


def test_prepared_forms_of_a_module_with_state(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime", reason="needs the extra onnx")
    monkeypatch.setenv("VISXAI_CACHE", str(tmp_path))
    fast, plain = _engine(_built(Attribute), "onnx"), _engine(_built(Plain))
    for method in (METHODS[0].format("up"), METHODS[-1]):
        for batch in (2, 3):
            x = zoo.inputs(batch, seed=batch)
            found, expected = fast.attribute(x, method, 3), plain.attribute(x, method, 3)
            assert torch.allclose(found, expected, atol=1e-4 * float(expected.abs().max())), method
    assert fast.model.acceleration.why == {}
