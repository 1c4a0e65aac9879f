"""Copies prepared for half precision: what really runs for each family, and how close it is."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import zoo
from torch import Tensor, nn
from torch.nn import functional as F

import visxai
from visxai.models.interface import Need
from visxai.models.pytorch import narrow
from visxai.models.pytorch.model import TorchModel
from visxai.models.pytorch.narrow import Narrow, Seconds, disagreement


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VISXAI_CACHE", str(tmp_path))


@pytest.fixture
def pays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Copies that are faster than autocast, whatever this machine's CPU."""
    monkeypatch.setattr(narrow, "measured", lambda *_: Seconds(1.0, 2.0, 3.0))


def half(module: nn.Module, precision: str = "bf16") -> TorchModel:
    return TorchModel(module, precision=precision, preprocess=zoo.PREPROCESS)


@pytest.mark.parametrize("kind", zoo.KINDS)
@pytest.mark.usefixtures("pays")
def test_every_family_runs_in_its_copy(kind: str) -> None:
    model, exact, x = half(zoo.module(kind)), zoo.model(kind), zoo.inputs(3)
    scores, expected = model.scores(x), exact.scores(x)
    made = model._narrow(x)
    assert isinstance(made, Narrow), model._narrows
    assert model.accelerated(Need.SCORES) == "off; bf16 by prepared copy"
    assert scores.dtype == torch.float32
    # Random weights are harsher than trained ones: of some families autocast loses as much.
    centred, exactly = (s - s.mean(1, keepdim=True) for s in (scores, expected))
    assert float(F.cosine_similarity(centred, exactly).min()) > 0.99
    types = {p.dtype for p in made.module.parameters()}
    assert types == {torch.bfloat16, torch.float32}  # the scores' layer, and norms left alone
    asking = {name for name, p in made.module.named_parameters() if p.requires_grad}
    assert all(name.endswith("in_proj_weight") for name in asking)  # see `_fold_products`


@pytest.mark.parametrize("kind", zoo.KINDS)
@pytest.mark.usefixtures("pays")
def test_grad_cam_in_the_copy_points_as_float32_does(kind: str) -> None:
    x = zoo.inputs(3)
    maps = [
        visxai.Engine(
            zoo.module(kind), preprocess=zoo.PREPROCESS, precision=precision, accelerate="off"
        ).attribute(x, "grad_cam(relu=False)", 2)
        for precision in ("fp32", "bf16")
    ]
    assert float(F.cosine_similarity(*(m.flatten(1) for m in maps)).min()) > 0.98


@pytest.mark.parametrize("spec", ["legrad", "chefer", "attention_rollout"])
@pytest.mark.usefixtures("pays")
def test_attention_is_read_in_the_copy(spec: str) -> None:
    x, engine = (
        zoo.inputs(2),
        visxai.Engine(
            zoo.module("vit"), preprocess=zoo.PREPROCESS, precision="bf16", accelerate="off"
        ),
    )
    exact = visxai.Engine(
        zoo.module("vit"), preprocess=zoo.PREPROCESS, precision="fp32", accelerate="off"
    )
    found, expected = (e.attribute(x, spec, 2).flatten(1) for e in (engine, exact))
    assert float(F.cosine_similarity(found, expected).min()) > 0.98
    assert engine.model.accelerated(Need.ATTENTION) == "off; bf16 by prepared copy"


@pytest.mark.usefixtures("pays")
def test_a_layer_whose_norm_was_folded_is_read_in_the_module() -> None:
    model, x = half(zoo.module("resnet18")), zoo.inputs(2)
    made = model._narrow(x)
    assert made is not None
    assert "layer4.0.conv2" in made.folded
    target = visxai.target.Target.of("class=2")
    for name in ("layer4.0.conv2", "layer4.0.bn2", "layer4"):
        exact = zoo.model("resnet18").at_layers(x, target, (name,)).layers[0].activation
        found = model.at_layers(x, target, (name,)).layers[0].activation
        assert float(F.cosine_similarity(found.flatten(1), exact.flatten(1)).min()) > 0.99


class Mixing(zoo.Conv):
    """Makes a tensor of float32 by itself, which weights in half precision don't go with."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.float() + torch.zeros((), dtype=torch.float32))


class Fine(zoo.Conv):
    """Depends on more digits than bfloat16 has."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward((x + 1e3) - 1e3)


@pytest.mark.usefixtures("pays")
@pytest.mark.parametrize(("kind", "why"), [(Mixing, "RuntimeError"), (Fine, "scores")])
def test_what_cannot_run_narrow_runs_by_autocast(kind: Callable[[], nn.Module], why: str) -> None:
    model, x = half(zoo.randomise(kind())), zoo.inputs(2)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        expected = model.module(x)
    assert torch.allclose(model.scores(x), expected.float(), rtol=2e-2, atol=2e-2)
    assert model._narrow(x) is None
    assert why in model.accelerated(Need.SCORES)
    assert "autocast" in model.accelerated(Need.SCORES)


def test_a_copy_that_is_slower_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(narrow, "measured", lambda *_: Seconds(2.0, 1.0, 3.0))
    model, x = half(zoo.module("conv")), zoo.inputs(2)
    model.scores(x)
    assert "slower here" in model.accelerated(Need.SCORES)


def test_what_was_measured_is_kept(tmp_path: Path) -> None:
    half(zoo.module("conv")).scores(zoo.inputs(2))
    (file,) = (tmp_path / "measured").iterdir()
    kept = json.loads(file.read_text("utf-8"))
    assert set(kept["figures"]) == {"narrow", "autocast", "fp32"}
    kept["figures"] |= {"narrow": 2.0, "autocast": 1.0}
    file.write_text(json.dumps(kept), "utf-8")
    again = half(zoo.module("conv"))
    again.scores(zoo.inputs(2))
    assert "slower here" in again.accelerated(Need.SCORES)


@pytest.mark.usefixtures("pays")
def test_other_weights_make_another_copy() -> None:
    model, x = half(zoo.randomise(zoo.Conv())), zoo.inputs(2)
    before = model.scores(x)
    with torch.no_grad():
        model.module.head.weight.neg_()  # type: ignore[union-attr, operator]
        model.module.head.bias.neg_()  # type: ignore[union-attr, operator]
    assert torch.allclose(model.scores(x), -before)


@pytest.mark.usefixtures("pays")
def test_the_module_itself_is_not_changed() -> None:
    module, x = zoo.randomise(zoo.Conv()), zoo.inputs(2)
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    half(module).scores(x)
    assert all(torch.equal(before[name], t) for name, t in module.state_dict().items())
    assert {p.dtype for p in module.parameters()} == {torch.float32}


def test_scores_that_differ_are_seen() -> None:
    scores = torch.tensor([[4.0, 1.0, 0.0], [0.0, 3.0, 1.0]])
    assert disagreement(scores + 1e-3, scores) == ""
    assert "finite" in disagreement(scores * float("nan"), scores)
    assert "cosine" in disagreement(scores.flip(1), scores)
    assert "probabilities" in disagreement(scores * 1.2, scores)
    close = torch.tensor([[0.2, 0.2, 0.0]])
    assert disagreement(close + torch.tensor([[0.0, 1e-4, 0.0]]), close) == ""


def test_the_compiled_copy_serves_trunk_and_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(narrow, "measured", lambda *_: Seconds(1.0, 2.0, 3.0))
    pytest.importorskip("torch._inductor")
    x, module = zoo.inputs(3), zoo.module("conv")
    how = {"preprocess": zoo.PREPROCESS, "precision": "bf16"}
    fast = visxai.Engine(module, accelerate="compile", **how)  # type: ignore[arg-type]
    plain = visxai.Engine(module, accelerate="off", **how)  # type: ignore[arg-type]
    for spec in ("grad_cam", "occlusion(window=32, stride=32)"):
        found, expected = (e.attribute(x, spec, 2).flatten(1) for e in (fast, plain))
        assert float(F.cosine_similarity(found, expected).min()) > 0.98
    made = fast.model.acceleration._forms  # type: ignore[attr-defined]
    assert {place for (place, _), form in made.items() if form is not None} == {
        "whole in bf16",
        f"below {fast.model.split('last', x).at} in bf16",  # type: ignore[attr-defined]
    }
    assert fast.model.accelerated(Need.SCORES) == "compile; bf16 by prepared copy"
