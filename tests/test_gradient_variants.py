"""Relatives of the gradient and perturbation methods: formulas, identities, peers that agree."""

from __future__ import annotations

import copy

import pytest
import torch
import zoo
from test_cams import run
from test_contracts import close, count_rows
from torch import Tensor, nn
from torch.nn import functional as F

from visxai import methods
from visxai.errors import ArgumentError, ModelError
from visxai.methods.forgrad import low_passed
from visxai.methods.full_grad import decomposed
from visxai.methods.mc_rise import McRise
from visxai.models.pytorch.model import TorchModel
from visxai.target import Target


class Linear(nn.Module):
    """A network whose scores are linear in the pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, 4, 4, stride=4)
        self.head = nn.Linear(4 * 256, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x).flatten(1))


class Functional(nn.Module):
    """A network whose ReLUs are functions, of which no hook knows."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, 4, 4, stride=4)
        self.head = nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.body(x)).mean((2, 3)))


class Pooled(nn.Module):
    """Convolutions, a maximum with a shared ReLU, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 6, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.second = nn.Conv2d(6, 8, 3, padding=1)
        self.tanh = nn.Tanh()
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.second(self.pool(self.relu(self.first(x)))))
        return self.head(self.tanh(x).mean((2, 3)))


@pytest.fixture(scope="module")
def linear() -> TorchModel:
    return TorchModel(zoo.randomise(Linear()), name="linear")


@pytest.fixture(scope="module")
def pooled() -> TorchModel:
    return TorchModel(zoo.randomise(Pooled()), name="pooled")


@pytest.mark.parametrize(
    ("spec", "peer"),
    [("guided_backprop", "GuidedBackprop"), ("deconvolution", "Deconvolution")],
)
@pytest.mark.parametrize("kind", ["conv", "resnet18"])
@pytest.mark.filterwarnings("ignore")
def test_captum_agrees_on_rectifiers(spec: str, peer: str, kind: str) -> None:
    from captum import attr

    module, x = copy.deepcopy(zoo.module(kind)), zoo.inputs(2)
    for part in module.modules():
        if isinstance(part, nn.ReLU):
            part.inplace = False
    if kind == "resnet18":
        # Its blocks use a ReLU twice, of which captum's hooks are said to take one: compare with
        # modules of their own.
        for block in module.modules():
            if type(block).__name__ == "BasicBlock":
                block.forward = _separate(block)  # type: ignore[assignment]
    theirs = getattr(attr, peer)(module).attribute(x.clone(), target=3).sum(1).detach()
    assert close(run(zoo.model(kind), spec, x), theirs, 1e-4)
    largest = getattr(attr, peer)(module).attribute(x.clone(), target=3).abs().amax(1).detach()
    assert close(run(zoo.model(kind), f"{spec}(signed=False)", x), largest, 1e-4)


def _separate(block: nn.Module) -> object:
    """The forward of a residual block with two ReLU modules instead of one run twice."""
    block.other = nn.ReLU()

    def forward(x: Tensor) -> Tensor:
        out = block.bn2(block.conv2(block.relu(block.bn1(block.conv1(x)))))
        return block.other(out + (x if block.downsample is None else block.downsample(x)))

    return forward


def test_guided_backprop_clips_by_hand() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.relu = nn.ReLU()
            self.stem = nn.Conv2d(3, 3, 1)

        def forward(self, x: Tensor) -> Tensor:
            z = self.relu(x)
            return torch.stack([z[:, 0].sum((1, 2)) - z[:, 1].sum((1, 2)), z.sum((1, 2, 3))], 1)

    model = TorchModel(Two(), name="two")
    x = torch.ones(1, 3, 4, 4)
    x[:, :, 0] = -1
    guided = run(model, "guided_backprop", x, 0)
    assert torch.equal(guided[0, 0], torch.zeros(4))  # the ReLU is off there
    assert torch.equal(guided[0, 1], torch.ones(4))  # channel 1 speaks against: left out
    deconvolved = run(model, "deconvolution", x, 0)
    assert torch.equal(deconvolved, torch.ones(1, 4, 4))  # wherever the signal was


@pytest.mark.parametrize("spec", ["guided_backprop", "deconvolution", "guided_grad_cam"])
def test_a_network_without_rectifier_modules_is_refused(spec: str) -> None:
    model = TorchModel(zoo.randomise(Functional()), name="functional")
    with pytest.raises(ModelError, match="functional has none"):
        run(model, spec, zoo.inputs(1))


def test_guided_grad_cam_is_the_product() -> None:
    model, x = zoo.model("conv"), zoo.inputs(2)
    cam = F.interpolate(run(model, "grad_cam", x)[:, None], x.shape[2:], mode="bilinear")[:, 0]
    assert close(run(model, "guided_grad_cam", x), cam * run(model, "guided_backprop", x), 1e-6)


@pytest.mark.parametrize("kind", ["conv", "resnet18"])
def test_full_grad_leaves_nothing_of_the_score_out(kind: str) -> None:
    model, x = zoo.model(kind), zoo.inputs(2)
    aim = model.aim(x, Target.of(3))
    parts = model.through(
        x,
        aim,
        lambda net, inputs, which: torch.stack(
            [part.flatten(1).sum(1) for part in decomposed(net, inputs, which)], 1
        ),
    )
    assert close(parts.sum(1), model.scores(x)[:, 3], 1e-3)
    assert parts.shape[1] > 3


def test_full_grad_of_a_linear_model_is_gradient_times_input(linear: TorchModel) -> None:
    x = zoo.inputs(1)
    weight = linear.module.head.weight[3].detach().reshape(4, 16, 16)
    gradient = F.conv_transpose2d(weight[None], linear.module.body.weight.detach(), stride=4)
    bias = linear.module.body.bias.detach()[:, None, None] * weight

    def psi(part: Tensor) -> Tensor:
        part = part.abs()
        part = (part - part.min()) / (part.max() - part.min())
        return F.interpolate(part.sum(0)[None, None], x.shape[2:], mode="bilinear")[0, 0]

    assert close(run(linear, "full_grad", x)[0], psi((x * gradient)[0]) + psi(bias), 1e-4)


@pytest.mark.parametrize("baseline", [0.0, "mean"])
def test_deep_lift_adds_up_and_follows_shared_modules(pooled: TorchModel, baseline: object) -> None:
    x = zoo.inputs(3)
    maps = run(pooled, f"deep_lift(baseline={baseline!r})", x)
    start = torch.zeros_like(x) if baseline == 0.0 else x.mean((2, 3), keepdim=True).expand_as(x)
    change = pooled.scores(x)[:, 3] - pooled.scores(start.contiguous())[:, 3]
    assert close(maps.sum((1, 2)), change, 1e-3)


def test_deep_lift_of_a_linear_model_is_gradient_times_change(linear: TorchModel) -> None:
    x = zoo.inputs(2)
    expected = run(linear, "input_x_gradient", x)
    assert close(run(linear, "deep_lift", x), expected, 1e-5)


@pytest.mark.filterwarnings("ignore")
def test_captums_deep_lift_agrees() -> None:
    from captum.attr import DeepLift

    module, x = copy.deepcopy(zoo.module("conv")), zoo.inputs(2)
    theirs = DeepLift(module).attribute(x, target=3).sum(1).detach()
    assert close(run(zoo.model("conv"), "deep_lift", x), theirs, 1e-4)


def test_deep_lift_refuses_what_it_cannot_follow() -> None:
    with pytest.raises(ModelError, match="use integrated_gradients"):
        run(zoo.model("vit"), "deep_lift", zoo.inputs(1))


def test_deep_lift_shap_is_the_mean_over_baselines(pooled: TorchModel) -> None:
    x = zoo.inputs(2)
    bank = torch.randn(2, 3, 1, 1, generator=torch.Generator().manual_seed(3))
    method = methods.find("deep_lift_shap")(samples=2, baselines=bank)  # type: ignore[call-arg]
    found = method(pooled, x, Target.of(3)).values
    each = [
        methods.find("deep_lift")(baseline=one[None])(pooled, x, Target.of(3)).values  # type: ignore[call-arg]
        for one in bank
    ]
    assert close(found, (each[0] + each[1]) / 2, 1e-5)
    with pytest.raises(ArgumentError, match="pink or colours"):
        methods.load("deep_lift_shap(baselines='grey')")


def test_gradient_shap_of_a_linear_model_is_exact(linear: TorchModel) -> None:
    x = zoo.inputs(1)
    bank = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(3))
    method = methods.find("gradient_shap")(samples=3, sigma=0.0, baselines=bank)  # type: ignore[call-arg]
    found = method(linear, x, Target.of(3)).values
    change = linear.scores(x)[:, 3] - linear.scores(bank)[:, 3]
    assert close(found.sum((1, 2)), change, 1e-4)


def test_gradient_shap_with_one_baseline_tends_to_integrated_gradients() -> None:
    model, x = zoo.model("conv"), zoo.inputs(1)
    method = methods.find("gradient_shap")(  # type: ignore[call-arg]
        samples=200, sigma=0.0, baselines=torch.zeros(1, 3, 1, 1)
    )
    found = method(model, x, Target.of(3)).values
    expected = run(model, "integrated_gradients(steps=64, baseline=0.0)", x)
    assert F.cosine_similarity(found.flatten(1), expected.flatten(1)).min() > 0.98


def test_var_grad_is_the_variance(linear: TorchModel) -> None:
    model, x = zoo.model("conv"), zoo.inputs(2)
    from visxai.methods.smooth_grad import Noise

    noise, image = Noise.of(x, 4, 0.2, 0), torch.arange(2)
    each = torch.stack(
        [_gradient(model, x + noise(image, torch.full_like(image, copy)), 3) for copy in range(4)]
    )
    expected = each.var(0, correction=0).amax(1)
    assert close(run(model, "var_grad(copies=4, sigma=0.2)", x), expected, 1e-4)
    scale = run(linear, "square_grad(copies=2)", x).max()
    assert run(linear, "var_grad(copies=4)", x).max() < 1e-9 * scale


def _gradient(model: TorchModel, x: Tensor, index: int) -> Tensor:
    leaf = x.clone().requires_grad_()
    with torch.enable_grad():
        (gradient,) = torch.autograd.grad(model.module(leaf)[:, index].sum(), leaf)
    return gradient


def test_square_grad_is_smooth_grad_squared(linear: TorchModel) -> None:
    x = zoo.inputs(2)
    model = zoo.model("conv")
    squared = "smooth_grad(copies=3, sigma=0.15, squared=True)"
    assert torch.equal(run(model, "square_grad(copies=3)", x), run(model, squared, x))
    assert close(run(linear, "square_grad(copies=1)", x), run(linear, "saliency", x).square(), 1e-5)


def test_forgrad_keeps_low_frequencies_alone() -> None:
    across = torch.arange(32) * 2 * torch.pi / 32
    low, high = torch.sin(3 * across), torch.sin(9 * across)
    gradient = (low + high).expand(1, 1, 32, 32)
    assert close(low_passed(gradient, 5), low.expand(1, 1, 32, 32), 1e-5)
    assert close(low_passed(gradient, 50), gradient, 1e-5)


def test_forgrad_filters_any_gradient_method(linear: TorchModel) -> None:
    model, x = zoo.model("conv"), zoo.inputs(2)
    for inner in ("saliency", "saliency(signed=True)", "integrated_gradients(steps=4)"):
        whole = run(model, f"forgrad(method={inner!r}, cutoff=64)", x)
        assert close(whole, run(model, inner, x), 1e-4)
    signed = run(model, "saliency(signed=True)", x)
    found = run(model, "forgrad(method='saliency(signed=True)', cutoff=6)", x)
    assert close(found, low_passed(signed[:, None], 6)[:, 0], 1e-4)
    # Filtered before the largest channel is taken, which no filter of a map can do afterwards.
    plain = run(model, "forgrad(method='saliency', cutoff=6)", x)
    assert not close(plain, low_passed(run(model, "saliency", x)[:, None], 6)[:, 0], 1e-2)
    with pytest.raises(ArgumentError, match="gradients at the input"):
        methods.load("forgrad(method='grad_cam')")


def test_mc_rise_with_one_colour_is_rise_in_that_colour() -> None:
    model, x = zoo.model("conv"), zoo.inputs(1)
    x = x.clamp(-1, 1)
    x[:, :, 0, 0], x[:, :, 0, 1] = -1, 1
    expected = run(model, "rise(masks=30, baseline=-1.0)", x)
    assert close(run(model, "mc_rise(masks=30, colours=1)", x), expected, 1e-4)
    paints = McRise(colours=8).paints(x)
    assert paints.shape == (1, 8, 3, 1, 1)
    assert len({tuple(one.flatten().tolist()) for one in paints[0]}) == 8
    assert torch.equal(paints[0, :2].flatten(1), torch.tensor([[-1.0] * 3, [1.0] * 3]))


def test_rows_of_the_through_methods_are_counted() -> None:
    model, x = zoo.model("conv"), zoo.inputs(1)
    for spec in ("deep_lift", "guided_backprop", "full_grad", "shapley_cam"):
        said = methods.load(spec).cost(model, x)
        counted = count_rows(model, lambda spec=spec: run(model, spec, x))  # type: ignore[misc]
        assert (counted["forwards"], counted["backwards"]) == (said.forwards, said.backwards)
