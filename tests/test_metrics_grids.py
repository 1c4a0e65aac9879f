"""Grids: how they are composed, chance, the disconnected grid's exact zeros, any size of input."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest
import torch
import zoo
from torch import Tensor, nn

from visxai import methods, metrics
from visxai.errors import ArgumentError, ModelError
from visxai.methods import base
from visxai.metrics import controls
from visxai.metrics._grids import cut, fitted, joined
from visxai.metrics.base import Case, explained
from visxai.metrics.difull import disconnected
from visxai.metrics.grid_pointing import GridPointing
from visxai.models.probe import Probe
from visxai.models.pytorch.model import TorchModel
from visxai.target import Target


class Colours(nn.Module):
    """Logit c is the sum of channel c: whose pixels speak for a class is known."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(3))

    def forward(self, x: Tensor) -> Tensor:
        return (x * self.gain[:, None, None]).flatten(2).sum(2)


class Patches(nn.Module):
    """The same with a fourth class, so that four cells differ; positions before the sum."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 1)
        with torch.no_grad():
            self.stem.weight.copy_(
                torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [-1, -1, -1]])[:, :, None, None]
            )
            self.stem.bias.zero_()  # type: ignore[union-attr]

    def forward(self, x: Tensor) -> Tensor:
        return self.stem(x).relu().flatten(2).sum(2)


@cache
def patches() -> TorchModel:
    return TorchModel(Patches(), name="patches", layer="stem")


def pool() -> Tensor:
    """Images whose pixels are zero but for a blot of one class's colour, two images a class."""
    x = torch.zeros(8, 3, 8, 8)
    for index in range(8):
        rows = slice(2, 6) if index < 4 else slice(0, 4)
        if index % 4 == 3:
            x[index, :, rows, 3:7] = -1
        else:
            x[index, index % 4, rows, 3:7] = 1 + index / 10
    return x


def grid_values(name: str, method: str, model: TorchModel, x: Tensor, **options: object) -> Tensor:
    metric = metrics.load(f"{name}(sure=0.5, grids=12)")
    metric = replace(metric, **options)
    return metric(Case(model, x, Target.of("top1"), method=methods.load(method))).values


def test_cutting_undoes_joining() -> None:
    cells = torch.randn(12, 3, 5, 4)
    grids = joined(cells, 2)
    assert grids.shape == (3, 3, 10, 8)
    assert torch.equal(grids[0, :, 5:, :4], cells[2])
    assert torch.equal(cut(grids, 2), cells)


def test_grids_have_distinct_sure_classes_and_every_cell_in_turn() -> None:
    grids = GridPointing(sure=0.5, grids=8).arrange(patches(), pool())
    classes = grids.classes[grids.members]
    assert all(len(row.unique()) == 4 for row in classes)
    assert grids.cell.tolist() == [0, 1, 2, 3] * 2
    assert grids.wanted.tolist() == [
        int(row[c]) for row, c in zip(classes, grids.cell, strict=True)
    ]
    x, inside = grids.pixels(1, 3), grids.inside(1, 3)
    assert x.shape == (2, 3, 16, 16)
    assert torch.equal(x[0, :, :8, 8:], pool()[grids.members[1, 1]])
    assert inside[0, :8, 8:].all()
    assert inside.sum((1, 2)).tolist() == [64, 64]


def test_grids_dont_depend_on_the_pools_order() -> None:
    order = torch.tensor([5, 2, 7, 0, 1, 6, 3, 4])
    metric = GridPointing(sure=0.5, grids=8)
    a, b = metric.arrange(patches(), pool()), metric.arrange(patches(), pool()[order])
    assert torch.equal(a.pixels(0, 8), b.pixels(0, 8))
    other = replace(metric, seed=1).arrange(patches(), pool())
    assert not torch.equal(a.members, other.members)


def test_too_few_classes_says_how_many() -> None:
    with pytest.raises(ArgumentError, match=r"expected images of 4 classes.*got 2 of 2 images"):
        GridPointing(sure=0.1).arrange(patches(), pool()[:2])


@pytest.mark.parametrize("name", ["grid_pointing", "difull"])
def test_the_true_map_is_perfect_and_its_negation_worst(name: str) -> None:
    """Gradient times input of a model that adds up its class's colour lies on its blot alone."""
    assert torch.allclose(grid_values(name, "input_x_gradient", patches(), pool()), torch.ones(12))

    @cache
    def negated() -> type[base.Method]:
        plain = methods.find("input_x_gradient")

        class Negated(plain):  # type: ignore[misc, valid-type]
            def __call__(self, model: object, x: Tensor, target: Target) -> base.Maps:
                found = super().__call__(model, x, target)
                return replace(found, values=-found.values)

        return Negated

    metric = metrics.load(f"{name}(sure=0.5, grids=4)")
    case = Case(patches(), pool(), Target.of("top1"), method=negated()())
    assert metric(case).values.tolist() == [0] * 4


@pytest.mark.parametrize("name", ["grid_pointing", "difull"])
def test_controls_sit_at_chance(name: str) -> None:
    metric = replace(metrics.load(f"{name}(sure=0.5)"), grids=100)
    for control, error in (("random_map(grid=8)", 0.02), ("centred_gaussian", 1e-6)):
        case = Case(patches(), pool(), Target.of("top1"), method=controls.load(control))
        assert metric(case).values.mean().item() == pytest.approx(0.25, abs=error)


@pytest.mark.parametrize("kind", ["conv", "resnet18", "mobilenet_v3", "convnext", "vit"])
@pytest.mark.parametrize(
    "method", ["saliency", "input_x_gradient", "layer_cam", "hires_cam", "grad_cam(relu=False)"]
)
def test_outside_a_disconnected_cell_is_nothing(kind: str, method: str) -> None:
    plain, loaded = zoo.model(kind), methods.load(method)
    cells = zoo.inputs(8)
    model, loaded = disconnected(plain, loaded, cells, 2)
    x = joined(cells, 2)
    scores = model.scores(x)
    alone = plain.scores(cells)
    assert torch.allclose(scores, alone.reshape(2, -1), atol=1e-5)
    target = Target.of([zoo.CLASSES * 1 + 3, zoo.CLASSES * 2 + 3])
    maps = explained(loaded, Probe(model, x), x, target)
    parts = cut(maps.unsqueeze(1), 2).reshape(2, 4, -1)
    inside = torch.tensor([1, 2])
    outside = parts.clone()
    outside[torch.arange(2), inside] = 0
    assert parts[torch.arange(2), inside].abs().amax() > 0
    if method.startswith("grad_cam"):  # its weights are pooled over all cells
        assert outside.abs().amax() > 0
        return
    assert outside.abs().amax() == 0
    # Inside it is the map of the image alone.
    single = explained(methods.load(method), plain, cells[[1, 6]], Target.of(3))
    found = parts[torch.arange(2), inside]
    assert torch.allclose(found, single.flatten(1), atol=1e-4 * float(single.abs().amax()))


def test_difull_looks_at_the_layer_that_was_asked_for() -> None:
    plain, x = zoo.model("resnet18"), zoo.inputs(4)
    model, method = disconnected(plain, methods.load("layer_cam(layer='layer2')"), x, 2)
    maps = explained(method, Probe(model, joined(x, 2)), joined(x, 2), Target.of(3))
    assert maps.shape == (1, 16, 16)
    assert maps[:, :8, 8:].abs().amax() == 0
    assert not any(part._forward_hooks for part in plain.module.modules())


def test_difull_scores_are_each_cells_own() -> None:
    plain, x = zoo.model("resnet18"), zoo.inputs(4)
    model, _ = disconnected(plain, methods.load("grad_cam"), x, 2)
    expected = plain.scores(x).reshape(1, -1)
    assert torch.allclose(model.scores(joined(x, 2)), expected, atol=1e-5)
    with torch.no_grad():  # with the layers joined, as gradients see them
        assert torch.allclose(model.forward(joined(x, 2)), expected, atol=1e-5)


def test_difull_refuses_what_reads_attention() -> None:
    with pytest.raises(ArgumentError, match="use grid_pointing"):
        disconnected(zoo.model("vit"), methods.load("attention_rollout"), zoo.inputs(1), 2)


@pytest.mark.parametrize("kind", list(zoo.KINDS))
def test_models_take_grids(kind: str) -> None:
    plain, x = zoo.model(kind), zoo.inputs(1)
    before = plain.scores(x)
    model = fitted(plain, x, 2)
    larger = zoo.inputs(1, 2 * zoo.SIZE)
    assert model.scores(larger).shape == (1, zoo.CLASSES)
    maps = explained(methods.load("grad_cam"), model, larger, Target.of(3))
    own = explained(methods.load("grad_cam"), plain, x, Target.of(3))
    assert maps.shape[1] == 2 * own.shape[1]
    assert torch.equal(plain.scores(x), before)


def test_a_model_of_one_size_says_so() -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 4))
    with pytest.raises(ModelError, match="to take grids of 16x16 pixels"):
        fitted(TorchModel(module, name="flat"), torch.zeros(1, 3, 8, 8), 2)


@pytest.mark.parametrize("kind", ["conv", "resnet18"])
def test_difull_runs_again_from_its_layer(kind: str) -> None:
    """Ablation's weights are those of the image alone: other cells can't move its score."""
    plain, cells = zoo.model(kind), zoo.inputs(4)
    ablation = methods.load("ablation_cam(relu=False)")
    model, method = disconnected(plain, ablation, cells, 2)
    x = joined(cells, 2)
    maps = explained(method, Probe(model, x), x, Target.of(zoo.CLASSES * 2 + 3))
    found = cut(maps.unsqueeze(1), 2)[2]
    single = explained(ablation, plain, cells[2:3], Target.of(3))
    assert torch.allclose(found, single, atol=1e-3 * float(single.abs().amax()))


def test_difull_gives_layer_cam_its_perfect_score() -> None:
    """Its outside is exactly zero at the layer, and stays so at the pixels."""
    module = zoo.randomise(zoo.Conv(), seed=5)
    x = zoo.inputs(6)
    with torch.no_grad():
        module.head.bias -= module(x).mean(0)  # type: ignore[union-attr, operator]
    model = TorchModel(module, preprocess=zoo.PREPROCESS)
    found = {
        name: metrics.load("difull(sure=0.0, grids=4)")(
            Case(model, x, Target.of("top1"), method=methods.load(name))
        ).values
        for name in ("layer_cam", "grad_cam")
    }
    assert torch.allclose(found["layer_cam"], torch.ones(4))
    assert (found["grad_cam"] < 1).any()
