"""Captum's attributions as methods: specs, parity, refusals and what they leave behind."""

from __future__ import annotations

import warnings

import captum.attr
import numpy as np
import pytest
import torch
import zoo
from torch import Tensor, nn

from visxai import methods
from visxai.engine.batch import compute
from visxai.errors import ArgumentError, ModelError, UnknownName
from visxai.methods._masked import cells
from visxai.models.pytorch.model import TorchModel
from visxai.target import Target


def explained(spec: str, model: TorchModel, x: Tensor, target: object = 3) -> Tensor:
    return compute(methods.load(spec), model, x, Target.of(target)).values


def plain() -> nn.Module:
    """The small CNN without in-place activations, as captum alone wants it."""
    module = zoo.randomise(zoo.Conv())
    for part in module.modules():
        if isinstance(part, nn.ReLU):
            part.inplace = False
    return module


@pytest.mark.parametrize(
    "spec",
    [
        "captum:DeepLift",
        "captum:GradientShap(n_samples=8)",
        "captum:FeatureAblation(grid=4, baseline=0.5)",
        "captum:Occlusion(sliding_window_shapes=(3, 16, 16), strides=(3, 8, 8))",
        "captum:KernelShap(seed=4)",
        " captum : Saliency(abs=False)",
    ],
)
def test_a_spec_round_trips(spec: str) -> None:
    method = methods.load(spec)
    assert methods.load(repr(method)) == method
    assert repr(method).startswith("captum:")
    assert methods.find(repr(method).partition("(")[0]) is type(method)


def test_a_spec_names_the_defaults_that_change_numbers() -> None:
    assert repr(methods.load("captum:GradientShap")) == (
        "captum:GradientShap(baseline=0.0, seed=0, multiply_by_inputs=True, n_samples=5, "
        "stdevs=0.0)"
    )


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("captum", "choose a NAME of Deconvolution, DeepLift"),
        ("captum:DeepLyft", "did you mean DeepLift"),
        ("captum:LRP", "left out"),
        ("captum:LayerLRP", "left out"),
        ("captum:FeaturePermutation", "depend on its batch"),
        ("captum:DeepLift(n_samples=3)", "unknown option of captum:DeepLift"),
        ("captum:DeepLift(target=3)", "unknown option of captum:DeepLift"),
        ("captum:DeepLift(seed=3)", "no use for"),
        ("captum:Occlusion", "with sliding_window_shapes"),
        ("grad_cam:DeepLift", "without a member"),
    ],
)
def test_what_cannot_be_is_refused(spec: str, says: str) -> None:
    with pytest.raises(ArgumentError, match=says):
        methods.load(spec)


def test_an_unknown_family_lists_the_methods() -> None:
    with pytest.raises(UnknownName, match="ablation_cam"):
        methods.load("alibi:DeepLift")


@pytest.mark.parametrize("name", ["DeepLift", "GuidedBackprop", "Saliency", "InputXGradient"])
def test_equals_captum_itself(name: str) -> None:
    module, x = plain(), zoo.inputs()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = getattr(captum.attr, name)(module).attribute(x.clone(), target=3).sum(1)
    # The same, from a module with in-place activations that captum alone would stumble over.
    found = explained(f"captum:{name}", zoo.model("conv"), x)
    assert torch.allclose(found, expected.detach(), atol=1e-6)


def test_feature_ablation_equals_occlusion_by_cells() -> None:
    x = zoo.inputs()
    found = explained("captum:FeatureAblation(grid=4)", zoo.model("conv"), x)
    expected = explained("occlusion(window=16, stride=16)", zoo.model("conv"), x)
    assert torch.allclose(found, expected, atol=1e-5)


def test_deep_lift_is_complete() -> None:
    model, x = zoo.model("conv"), zoo.inputs()
    maps = compute(methods.load("captum:DeepLift"), model, x, Target.of("diff=1,2"))
    scores = model.scores(x) - model.scores(0 * x)
    assert torch.allclose(maps.values.sum((1, 2)), scores[:, 1] - scores[:, 2], atol=1e-5)
    assert maps.quality["completeness"].max() < 1e-3


def test_kernel_shap_and_shapley_sampling_tend_to_our_exact_values() -> None:
    model, x = zoo.model("conv"), zoo.inputs(1)
    exact = explained("kernel_shap(segments=(2, 2))", model, x)[0]
    labels = cells((zoo.SIZE, zoo.SIZE), (2, 2))[0]
    for spec in ("KernelShap(grid=2, n_samples=300)", "ShapleyValueSampling(grid=2, n_samples=60)"):
        found = explained(f"captum:{spec}", model, x)[0]
        means = torch.stack([found[labels == cell].mean() for cell in range(4)]).reshape(2, 2)
        # KernelShap draws 300 of 14 coalitions, so it fits with its sampling's weights.
        assert (means - exact).abs().max() < 0.1 * exact.abs().max(), spec


def test_lime_recovers_a_linear_models_weights() -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 2))
    zoo.randomise(module)
    x = zoo.inputs(1, 8)
    found = explained("captum:Lime(grid=2, n_samples=400)", TorchModel(module), x, 0)
    parts = (module[1].weight[0].detach().reshape(3, 8, 8) * x[0]).sum(0)
    expected = nn.functional.avg_pool2d(parts[None], 4)[0] * 16
    # alpha = 1 shrinks the weights of some 400 weighted samples a little.
    assert torch.allclose(found[0, ::4, ::4], expected, atol=0.05 * float(expected.abs().max()))


@pytest.mark.parametrize(
    ("kind", "name", "says"),
    [
        ("resnet18", "DeepLift", "required for DeepLift"),
        ("vit", "DeepLift", "activations that captum can't follow"),
        ("vit", "GuidedBackprop", "torch.nn.ReLU modules"),
        ("vit", "Deconvolution", "torch.nn.ReLU modules"),
    ],
)
def test_a_model_that_captum_gets_wrong_is_an_error(kind: str, name: str, says: str) -> None:
    with pytest.raises(ModelError, match=says):
        explained(f"captum:{name}", zoo.model(kind), zoo.inputs(1))


@pytest.mark.parametrize(
    "name",
    ["GradientShap(n_samples=3)", "Lime(grid=2)", "ShapleyValueSampling(grid=2, n_samples=2)"],
)
def test_draws_are_seeded_and_global_generators_left_alone(name: str) -> None:
    model, x, spec = zoo.model("conv"), zoo.inputs(2), f"captum:{name}"
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    filters = list(warnings.filters)
    maps = explained(spec, model, x)
    assert torch.equal(before[0], torch.get_rng_state())
    assert np.array_equal(before[1], np.random.get_state()[1])  # noqa: NPY002
    assert warnings.filters == filters
    assert torch.equal(maps, explained(spec, model, x))
    assert not torch.equal(maps, explained(f"{spec[:-1]}, seed=1)", model, x))
