"""Keras models: the same scores as Keras gives, maps by hand, copies that share weights."""

from __future__ import annotations

import copy
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zoo

import visxai
from visxai import models
from visxai.errors import ModelError
from visxai.models.pytorch.modules import structural_copy

os.environ["KERAS_BACKEND"] = "torch"
keras = pytest.importorskip("keras")
# Keras saves by a call that numpy has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")

SIDE, CLASSES = 32, 4
WHOLE = visxai.Preprocess((SIDE, SIDE), SIDE, mean=(0.0,) * 3, std=(1.0,) * 3)


def network(last: str | None = "softmax", *, first: bool = False) -> Any:
    """A functional model with a model inside it; all weights are drawn from a seed."""
    keras.utils.set_random_seed(0)
    form = "channels_first" if first else "channels_last"
    shape = (3, SIDE, SIDE) if first else (SIDE, SIDE, 3)
    at = keras.Input(shape)
    inner = keras.Sequential(
        [
            keras.Input(shape),
            keras.layers.Conv2D(6, 3, strides=2, data_format=form, name="stem"),
            keras.layers.BatchNormalization(axis=1 if first else -1, name="norm"),
            keras.layers.ReLU(name="act"),
        ],
        name="features",
    )
    x = keras.layers.Conv2D(8, 3, data_format=form, activation="relu", name="last")(inner(at))
    x = keras.layers.GlobalAveragePooling2D(data_format=form, name="pool")(x)
    return keras.Model(at, keras.layers.Dense(CLASSES, activation=last, name="top")(x))


def turned(x: torch.Tensor) -> torch.Tensor:
    return x.permute(0, 2, 3, 1)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("keras") / "model.keras"
    network().save(path)
    return path


@pytest.fixture(scope="module")
def engine(saved: Path) -> visxai.Engine:
    return visxai.Engine(
        f"keras:{saved}", preprocess=WHOLE, device="cpu", precision="fp32", accelerate="off"
    )


X = zoo.inputs(3, SIDE)


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("last", ["softmax", "sigmoid", None])
def test_scores_are_the_logits_of_keras(last: str | None, first: bool, tmp_path: Path) -> None:
    model = network(last, first=first)
    model.save(tmp_path / "model.keras")
    found = models.load(f"keras:{tmp_path / 'model.keras'}")
    assert found.activation == (last or "none")
    with torch.no_grad():
        expected = model(X if first else turned(X))
    assert torch.allclose(found.probabilities(found.scores(X)), expected, atol=1e-6)


def test_layers_have_keras_names_and_places(engine: visxai.Engine) -> None:
    model: Any = engine.model
    names = {name for name, _ in model.module.named_modules()}
    assert {"features", "features.stem", "last", "top"} <= names
    assert model.layer(X) == "last"
    (at,) = model.at_layers(X, visxai.target.Target.of(0), ["last"]).layers
    assert at.activation.shape == (3, 8, 13, 13)


def test_grad_cam_is_cam_by_hand(engine: visxai.Engine) -> None:
    model: Any = engine.model
    (layer,) = model.activations(X, visxai.target.Target.of(0), ["last"]).layers
    weight = model.module.top.kernel.value.detach()[:, 1]
    expected = (layer * weight[:, None, None]).sum(1) / layer[0, 0].numel()
    found = engine.attribute(X, "grad_cam(relu=False)", target=1)
    small = visxai.methods.load("grad_cam(relu=False)")(model, X, visxai.target.Target.of(1)).values
    assert torch.allclose(small, expected, atol=1e-6)
    assert found.shape == (3, SIDE, SIDE)


def test_integrated_gradients_sum_to_the_change_of_the_score(engine: visxai.Engine) -> None:
    maps = engine.attribute(X, "integrated_gradients(steps=64)", target=2)
    scores = engine.model.scores(torch.cat([X, torch.zeros_like(X[:1])]))[:, 2]
    change = scores[:3] - scores[3]
    assert torch.allclose(maps.sum((1, 2)), change, atol=0.02 * float(change.abs().max()))


def test_a_model_in_memory_stays_as_it_is_and_shares_its_weights() -> None:
    model = network()
    before = model(turned(X)).detach()
    engine = visxai.Engine(
        model, preprocess=WHOLE, device="cpu", precision="fp32", accelerate="off"
    )
    assert engine.model.activation == "softmax"
    assert torch.equal(model(turned(X)).detach(), before)
    assert model.layers[-1].activation is keras.activations.softmax
    scores = engine.model.scores(X)
    assert torch.allclose(scores.softmax(1), before, atol=1e-6)
    with torch.no_grad():
        model.get_layer("top").kernel.value.mul_(2)
        bias = model.get_layer("top").bias.value
    assert torch.allclose(engine.model.scores(X) - bias, 2 * (scores - bias), atol=1e-5)


def test_copies_share_weights_or_own_them(saved: Path) -> None:
    module: Any = models.load(f"keras:{saved}").module  # type: ignore[attr-defined]
    shared, own = structural_copy(module), copy.deepcopy(module)
    for part, like, other in zip(
        module.parameters(), shared.parameters(), own.parameters(), strict=True
    ):
        assert part is like
        assert part is not other
    assert torch.equal(shared(X), module(X))
    assert torch.equal(own(X), module(X))
    assert shared.last is not module.last


def test_records_of_a_picture(engine: visxai.Engine) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    (found,) = engine.explain([picture], "layer_cam(layer='features.act')").explained
    assert found.model.name == "keras:model.keras"
    assert found.values.shape == (15, 15)


def test_what_cannot_be_loaded_safely_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"expected a \.keras file"):
        models.load(f"keras:{tmp_path}/none.keras")
    (tmp_path / "model.h5").write_bytes(b"hdf")
    with pytest.raises(ModelError, match="older formats can hold code"):
        models.load(f"keras:{tmp_path}/model.h5")
    with zipfile.ZipFile(tmp_path / "broken.keras", "w") as file:
        file.writestr("config.json", "{}")
    with pytest.raises(ModelError, match="can't be loaded safely"):
        models.load(f"keras:{tmp_path}/broken.keras")
    ran: list[int] = []
    at = keras.Input((SIDE, SIDE, 3))
    hidden = keras.layers.Lambda(lambda x: x + len(ran))(at)
    keras.Model(at, keras.layers.GlobalAveragePooling2D()(hidden)).save(tmp_path / "lambda.keras")
    with pytest.raises(ModelError, match="without Lambda layers"):
        models.load(f"keras:{tmp_path}/lambda.keras")
    flat = keras.Sequential([keras.Input((8,)), keras.layers.Dense(2)])
    flat.save(tmp_path / "flat.keras")
    with pytest.raises(ModelError, match="one image with one output"):
        models.load(f"keras:{tmp_path}/flat.keras")
