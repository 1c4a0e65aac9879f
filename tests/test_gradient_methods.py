"""Gradient methods: known answers on linear and quadratic models, identities, parity, cost."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
import zoo
from torch import Tensor, nn

from visxai import methods
from visxai.engine.batch import compute
from visxai.errors import ArgumentError
from visxai.methods.augmented import Augmented
from visxai.methods.base import Maps, Method
from visxai.methods.blur_ig import Blur
from visxai.methods.expected_gradients import ExpectedGradients, colours, pink
from visxai.methods.guided_ig import GuidedIg
from visxai.methods.xrai import grow, over_segment
from visxai.models.interface import Model
from visxai.models.probe import Probe
from visxai.models.pytorch.model import TorchModel
from visxai.target import Target

GRADIENT = (
    "saliency",
    "saliency(signed=True)",
    "input_x_gradient",
    "smooth_grad(copies=4)",
    "idgi(steps=6)",
    "expected_gradients(samples=6)",
    "guided_ig(steps=6)",
    "blur_ig(steps=6)",
)
PATHS = ("idgi", "guided_ig", "blur_ig")


def maps(model: Model, spec: str | Method, x: Tensor, target: Any = 0) -> Maps:
    return compute(methods.load(spec), Probe(model, x), x, Target.of(target))


def values(model: Model, spec: str | Method, x: Tensor, target: Any = 0) -> Tensor:
    return maps(model, spec, x, target).values


def error(found: Tensor, expected: Tensor) -> float:
    """max|a - b| / max|b|."""
    return float((found - expected).abs().max() / expected.abs().max())


class Linear(nn.Module):
    """y_k = w_k . x + 1"""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(3)))

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("bchw,kchw->bk", x, self.w) + 1


class Quadratic(nn.Module):
    """y_0 = x' A x and y_1 = -y_0, A symmetric: dy_0/dx = 2 A x."""

    def __init__(self) -> None:
        super().__init__()
        half = torch.randn(192, 192, generator=torch.Generator().manual_seed(4)) / 192**0.5
        self.a = nn.Parameter((half + half.T) / 2)

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(1)
        y = ((flat @ self.a) * flat).sum(1)
        return torch.stack([y, -y], 1)


class Mirror(nn.Module):
    """Scores that don't change when the image is mirrored."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x) + self.body(x.flip(-1))


LINEAR = TorchModel(Linear(), activation="none")
QUADRATIC = TorchModel(Quadratic(), activation="none")
X = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(5))
W = LINEAR.module.w.detach()
A = QUADRATIC.module.a.detach()


def gradient_of(x: Tensor) -> Tensor:
    """dy_0/dx of the quadratic model."""
    return (2 * x.flatten(1) @ A).reshape(x.shape)


def test_saliency_of_a_linear_model_is_its_weights() -> None:
    assert torch.equal(values(LINEAR, "saliency", X)[1], W[0].abs().amax(0))
    assert torch.equal(values(LINEAR, "saliency(signed=True)", X)[1], W[0].sum(0))


@pytest.mark.parametrize(
    "spec", ["input_x_gradient", "guided_ig(steps=1)", "guided_ig(steps=7)", "idgi(steps=3)"]
)
def test_linear_models_are_attributed_exactly(spec: str) -> None:
    found = values(LINEAR, spec, X)
    each = (X * W[0]).sum(1)
    if spec.startswith("idgi"):
        power = W[0].square().sum(0)
        each = each.sum((1, 2), keepdim=True) * power / power.sum()
    assert error(found, each) < 1e-5


def test_smooth_grad_of_a_linear_model_is_its_weights() -> None:
    assert error(values(LINEAR, "smooth_grad(sigma=1.0)", X)[0], W[0].abs().amax(0)) < 1e-5
    squared = values(LINEAR, "smooth_grad(squared=True)", X)[0]
    assert error(squared, W[0].square().amax(0)) < 1e-5


@pytest.mark.parametrize("signed", [True, False])
def test_smooth_grad_without_noise_is_saliency(signed: bool) -> None:
    model, x = zoo.model("conv"), zoo.inputs()
    found = values(model, f"smooth_grad(copies=1, sigma=0, signed={signed})", x)
    assert torch.equal(found, values(model, f"saliency(signed={signed})", x))


def test_smooth_grad_scales_its_noise_by_the_range_of_each_image() -> None:
    x = torch.cat([X[:1], 10 * X[1:]])
    draws = torch.randn((3, 3, 8, 8), generator=torch.Generator().manual_seed(7))
    spread = (x.amax((1, 2, 3)) - x.amin((1, 2, 3))).reshape(-1, 1, 1, 1)
    mean = gradient_of(x + 0.2 * spread * draws.mean(0))  # the gradient is linear in x
    found = values(QUADRATIC, "smooth_grad(copies=3, sigma=0.2, signed=True, seed=7)", x)
    assert error(found, mean.sum(1)) < 1e-4


def test_quadratic_model_by_hand() -> None:
    g = gradient_of(X)
    assert error(values(QUADRATIC, "saliency(signed=True)", X), g.sum(1)) < 1e-5
    assert error(values(QUADRATIC, "input_x_gradient", X), (X * g).sum(1)) < 1e-5
    # Along the straight path from 0 the gradient grows evenly: half of it at the mean.
    straight = values(QUADRATIC, "guided_ig(steps=40, max_dist=0)", X)
    assert error(straight, (X * g).sum(1) / 2) < 1e-4


def test_idgi_by_hand() -> None:
    steps, x = 5, X[:1]
    y = torch.tensor([(j / steps) ** 2 for j in range(steps + 1)]) * QUADRATIC.scores(x)[0, 0]
    expected = torch.zeros(8, 8)
    for j in range(1, steps):  # the first gradient, at 0, is zero
        power = gradient_of(x * j / steps)[0].square().sum(0)
        expected += (y[j + 1] - y[j]) * power / power.sum()
    assert error(values(QUADRATIC, f"idgi(steps={steps})", x)[0], expected) < 1e-4


def test_idgi_is_the_same_however_its_rows_are_cut() -> None:
    x, method = zoo.inputs(2), "idgi(steps=9)"
    whole = values(zoo.model("conv"), method, x, "top2")
    model = TorchModel(zoo.module("conv"))
    model.budget.limit = 4
    assert error(values(model, method, x, "top2"), whole) < 1e-5


def reference_advance(
    progress: np.ndarray,
    steepness: np.ndarray,
    length: np.ndarray,
    goal: float,
    method: GuidedIg,
) -> np.ndarray:
    """One path's step in a plain loop: group after group of the flattest values that can move."""
    progress = np.maximum(progress, max(goal - method.max_dist, 0))
    high = min(goal + method.max_dist, 1)
    size = int(np.ceil(method.fraction * progress.size))
    while (need := ((goal - progress) * length).sum()) > 1e-12:
        movable = np.flatnonzero((high - progress) * length > 0)
        group = movable[np.argsort(steepness[movable], kind="stable")][:size]
        room = ((high - progress[group]) * length[group]).sum()
        part = min(1.0, need / room)
        progress[group] = high if part == 1 else progress[group] + part * (high - progress[group])
    return progress


@pytest.mark.parametrize(("fraction", "max_dist"), [(0.25, 0.1), (0.1, 1.0), (0.01, 0.3)])
def test_guided_path_equals_a_plain_loop(fraction: float, max_dist: float) -> None:
    method = GuidedIg(steps=10, fraction=fraction, max_dist=max_dist)
    generator = torch.Generator().manual_seed(1)
    length = torch.rand((2, 3, 8, 8), generator=generator, dtype=torch.float64)
    progress = torch.zeros_like(length)
    expected = progress.flatten(1).numpy().copy()
    for step in range(1, 11):
        steepness = torch.rand(length.shape, generator=generator, dtype=torch.float64)
        progress = method.advance(progress, steepness, length, step / 10)
        for row in range(2):
            expected[row] = reference_advance(
                expected[row],
                steepness[row].flatten().numpy(),
                length[row].flatten().numpy(),
                step / 10,
                method,
            )
        np.testing.assert_allclose(progress.flatten(1).numpy(), expected, atol=1e-9)
        covered = (progress * length).sum((1, 2, 3)) / length.sum((1, 2, 3))
        assert torch.allclose(covered, torch.full_like(covered, step / 10))
    assert torch.equal(progress, torch.ones_like(progress))


def test_guided_path_avoids_what_is_steep() -> None:
    method = GuidedIg(max_dist=1.0, fraction=0.5)
    steepness = torch.tensor([3.0, 1.0, 4.0, 2.0]).reshape(1, 1, 2, 2)
    moved = method.advance(torch.zeros(1, 1, 2, 2), steepness, torch.ones(1, 1, 2, 2), 0.5)
    assert moved.flatten().tolist() == [0, 1, 0, 1]


@pytest.mark.parametrize("kind", ["conv", "vit"])
@pytest.mark.parametrize("name", PATHS)
def test_completeness(name: str, kind: str) -> None:
    model, x = zoo.model(kind), zoo.inputs(2)
    found = maps(model, f"{name}(steps={40})", x, 3)
    clean = model.scores(x)[:, 3]
    start = Blur.of(x)(torch.arange(2), torch.tensor([50.0, 50.0])) if name == "blur_ig" else 0 * x
    change = clean - model.scores(start)[:, 3]
    off = (found.values.sum((1, 2)) - change).abs() / change.abs().clamp_min(0.01)
    assert torch.allclose(found.quality["completeness"], off, atol=1e-4)
    assert off.max() < (1e-4 if name == "idgi" else 0.1)


def test_blur_is_the_gaussian_and_keeps_the_mean() -> None:
    from scipy.ndimage import gaussian_filter

    x = zoo.inputs(2)
    blurred = Blur.of(x)(torch.tensor([0, 1, 1]), torch.tensor([2.0, 3.0, 0.0]))
    for row, image, sigma in ((0, 0, 2.0), (1, 1, 3.0)):
        expected = gaussian_filter(x[image].numpy(), (0, sigma, sigma), mode="reflect", truncate=8)
        np.testing.assert_allclose(blurred[row].numpy(), expected, atol=2e-4)
    assert torch.allclose(blurred[2], x[1], atol=1e-5)
    assert torch.allclose(blurred.mean((2, 3)), x[[0, 1, 1]].mean((2, 3)), atol=1e-5)


def test_one_baseline_and_many_samples_tend_to_integrated_gradients() -> None:
    model, x = zoo.model("conv"), zoo.inputs(2)
    baseline = torch.full((1, 3, 1, 1), 0.3)
    fine = values(model, "integrated_gradients(steps=300, baseline=0.3)", x)
    errors = [
        float((values(model, ExpectedGradients(n, baseline), x) - fine).norm() / fine.norm())
        for n in (4, 32, 256)
    ]
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 0.03


def test_expected_gradients_of_a_linear_model_average_its_baselines() -> None:
    bank = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(2))
    found = values(LINEAR, ExpectedGradients(6, bank), X)
    assert error(found, ((X - bank.mean(0)) * W[0]).sum(1)) < 1e-5


@pytest.mark.parametrize("draw", [colours, pink])
@pytest.mark.parametrize("shape", [(3, 32, 48), (3, 33, 25), (1, 16, 16)])
def test_default_baselines_have_the_statistics_they_promise(
    draw: Any, shape: tuple[int, ...]
) -> None:
    bank = draw(4000, shape, torch.Generator().manual_seed(0)).flatten(2)
    assert abs(float(bank.mean())) < 0.05
    assert abs(float(bank.var()) - 1) < 0.06
    if shape[0] == 3:
        assert abs(float((bank[:, 0] * bank[:, 1]).mean()) - 0.9) < 0.06


def picture() -> np.ndarray:
    """A grey field (64, 64) with a red square at rows 20 to 43, columns 8 to 31."""
    image = np.full((64, 64, 3), 0.5)
    image[20:44, 8:32] = (0.9, 0.1, 0.1)
    return image


def test_xrai_finds_the_obvious_region() -> None:
    square = np.zeros((64, 64), bool)
    square[20:44, 8:32] = True
    noise = np.random.default_rng(0).normal(0, 0.3, (64, 64))
    found = grow(square + noise, over_segment(picture(), 0))
    assert found[square].min() > 0.8
    assert found[~square].max() < 0.2


def test_xrai_widens_segments() -> None:
    plain, wide = over_segment(picture(), 0), over_segment(picture(), 5)
    assert wide.sum() > plain.sum()
    assert plain.max() == wide.max() == 1
    assert (plain.sum(1) >= 1).all()
    found = grow(np.ones((64, 64)), wide)
    assert (found == 1).all()


def test_xrai_takes_regions_by_density() -> None:
    from scipy.sparse import csr_matrix

    attribution = np.array([[4.0, 2.0, -1.0, 0.0]])
    # {0,1} has mean 3; then of {1,2} only -1 is new, and {2,3} has mean -0.5.
    segments = csr_matrix(np.array([[1, 0, 0], [1, 1, 0], [0, 1, 1], [0, 0, 1]], float))
    assert grow(attribution, segments).tolist() == [[3, 3, -0.5, -0.5]]


def test_xrai_of_a_model_that_looks_at_the_square() -> None:
    class Red(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            y = x[:, 0, 20:44, 8:32].mean((1, 2))
            return torch.stack([y, -y], 1)

    x = torch.from_numpy(picture()).permute(2, 0, 1).unsqueeze(0).float()
    model = TorchModel(Red(), preprocess=zoo.PREPROCESS)
    for target, inside in ((0, 1), (1, -1)):
        found = values(model, "xrai(steps=8, dilation=0)", x, target)[0]
        # From black it rose by 0.9, from white it fell by 0.1.
        assert torch.allclose(found[20:44, 8:32], torch.tensor(inside * 0.4 / 576), atol=1e-6)
        assert found[:16].abs().max() == 0


@pytest.mark.parametrize("spec", [*GRADIENT, "xrai(steps=8)"])
def test_map_of_a_mirrored_image_is_the_mirrored_map(spec: str) -> None:
    if spec.startswith(("smooth_grad", "expected_gradients", "xrai")):
        pytest.skip("draws and segmentations aren't mirrored with the image")
    model, x = TorchModel(Mirror(copy.deepcopy(zoo.module("conv")))), zoo.inputs(2)
    mirrored, plain = values(model, spec, x.flip(-1)).flip(-1), values(model, spec, x)
    # In the norm: of values with equal gradients, a guided path may move another one first.
    assert (mirrored - plain).norm() / plain.norm() < (0.05 if "guided" in spec else 1e-4)


@pytest.mark.parametrize(
    "inner", ["grad_cam(relu=False)", "saliency", "occlusion", "guided_ig(steps=4)"]
)
@pytest.mark.parametrize("options", ["flip=True", "flip=True, noise=0.1, copies=2"])
def test_augmented_is_flip_equivariant_for_any_network(inner: str, options: str) -> None:
    model, x = zoo.model("resnet18"), zoo.inputs(2)
    spec = f"augmented(method={inner!r}, {options})"
    assert error(values(model, spec, x.flip(-1)).flip(-1), values(model, spec, x)) < 1e-5


def test_augmented_by_nothing_is_the_method() -> None:
    model, x = zoo.model("conv"), zoo.inputs(2)
    found = values(model, "augmented(method='grad_cam', flip=False)", x, "top2")
    assert torch.equal(found, values(model, "grad_cam", x, "top2"))


def test_augmented_by_noise_is_smooth_grad() -> None:
    model, x = zoo.model("conv"), zoo.inputs(2)
    inner = "saliency(signed=True)"
    found = values(
        model, f"augmented(method={inner!r}, flip=False, noise=0.2, copies=5)", x, "top1"
    )
    smooth = values(model, "smooth_grad(copies=5, sigma=0.2, signed=True)", x, "top1")
    assert error(found, smooth) < 1e-5


def test_scaled_maps_come_back_to_the_plain_frame() -> None:
    """The score looks at each pixel for itself, so every variant's map shows the same object."""

    class Bright(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.stack([x.square().sum((1, 2, 3)), -x.sum((1, 2, 3))], 1)

    x = torch.zeros(1, 3, 64, 64)
    x[:, :, 20:36, 30:46] = 1
    for scale in (0.5, 0.75, 1.0):
        found = values(
            TorchModel(Bright()), f"augmented(method='saliency', flip=False, scales=({scale},))", x
        )[0]
        assert torch.allclose(found[23:33, 33:43], torch.tensor(2.0), atol=1e-4)
        assert found[:16].abs().max() == 0
        assert found[:, 50:].abs().max() == 0
    closer = values(
        TorchModel(Bright()), "augmented(method='saliency', flip=False, scales=(1.0, 1.5))", x
    )[0]
    assert torch.allclose(closer[22:34, 32:44], torch.tensor(2.0), atol=1e-4)
    assert closer[:18].abs().max() == 0


def test_augmented_explains_the_class_of_the_clean_image() -> None:
    model = zoo.model("conv")
    x = zoo.inputs(8)
    probe = Probe(model, x)
    spec = "augmented(method='grad_cam', scales=(1.0, 0.6))"
    tops = probe.scores(x).argmax(1)
    assert (model.scores(x.flip(-1)).argmax(1) != tops).any()
    assert error(values(model, spec, x, "top1"), values(model, spec, x, tops)) < 1e-5
    several = values(model, spec, x, "top2")
    assert error(several[::2], values(model, spec, x, tops)) < 1e-5


def test_augmented_survives_a_small_memory() -> None:
    model = TorchModel(zoo.module("conv"))
    model.budget.limit = 2
    x = zoo.inputs(5)
    for inner in ("grad_cam", "occlusion"):
        spec = f"augmented(method={inner!r}, scales=(1.0, 0.8))"
        assert (
            error(values(model, spec, x, "top2"), values(zoo.model("conv"), spec, x, "top2")) < 1e-4
        )


def test_augmented_states_what_its_method_needs_and_shows() -> None:
    model, x = zoo.model("conv"), zoo.inputs(1)
    for inner in ("occlusion", "saliency", "grad_cam"):
        method = methods.load(f"augmented(method={inner!r})")
        assert method.needs == methods.find(inner).needs
        assert method.layer_of(model, x) == methods.load(inner).layer_of(model, x)
    assert methods.find("augmented").needs == methods.find("grad_cam").needs


def test_augmented_spec_names_every_option_and_comes_back() -> None:
    method = Augmented("occlusion(window=9, stride=3)", scales=(1, 0.5), noise=0.1, copies=2)
    assert repr(method) == (
        "augmented(method='occlusion(window=9, stride=3, baseline=0.0)', flip=True, "
        "scales=(1.0, 0.5), noise=0.1, copies=2, seed=0)"
    )
    assert repr(methods.load(repr(method))) == repr(method)
    assert repr(Augmented(method.inner)).startswith("augmented(method='occlusion(window=9")


@pytest.mark.parametrize(
    "spec",
    [
        *GRADIENT,
        "xrai(steps=8)",
        "augmented(method='grad_cam')",
        "augmented(method='occlusion', scales=(0.8,), flip=False)",
        "augmented(method='saliency', noise=0.1, copies=3, scales=(1.0, 1.25))",
        "augmented(method='idgi(steps=3)', scales=(1.0, 1.25))",
    ],
)
def test_counts_equal_the_cost(spec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, x, method = TorchModel(zoo.module("conv")), zoo.inputs(1), methods.load(spec)
    model.layer(x)
    counts = {"forwards": 0, "backwards": 0}
    forward, differentiate = model.forward, model.differentiate

    def counted_forward(x: Tensor, *rest: Any) -> Tensor:
        counts["forwards"] += len(x)
        return forward(x, *rest)

    def counted_differentiate(value: Tensor, *rest: Any) -> list[Tensor]:
        counts["backwards"] += len(value)
        return differentiate(value, *rest)

    said = method.cost(model, x)
    monkeypatch.setattr(model, "forward", counted_forward)
    monkeypatch.setattr(model, "differentiate", counted_differentiate)
    values(model, method, x, "top1")
    assert counts == {"forwards": said.forwards, "backwards": said.backwards}


@pytest.mark.parametrize("spec", [*GRADIENT, "augmented(method='saliency', scales=(1.0, 1.25))"])
def test_float32_agrees_with_float64(spec: str) -> None:
    x = zoo.inputs(2)
    if spec.startswith("guided_ig"):
        spec = "guided_ig(steps=6, max_dist=0)"  # a tie broken otherwise makes another path
    double = TorchModel(copy.deepcopy(zoo.module("conv")).double())
    expected = values(double, spec, x.double(), 3)
    assert error(values(zoo.model("conv"), spec, x, 3).double(), expected.double()) < 1e-4


@pytest.mark.parametrize("spec", [*GRADIENT, "xrai(steps=8)", "augmented(scales=(1.0, 1.25))"])
def test_no_map_where_no_class_is_above_the_threshold(spec: str) -> None:
    assert len(values(zoo.model("conv"), spec, zoo.inputs(2), "above=0.9999")) == 0


@pytest.mark.parametrize("spec", [s for s in GRADIENT if s != "saliency" and "smooth" not in s])
def test_a_contrast_is_antisymmetric(spec: str) -> None:
    model, x = zoo.model("conv"), zoo.inputs(2)
    assert error(values(model, spec, x, "diff=1,2"), -values(model, spec, x, "diff=2,1")) < 1e-4


@pytest.mark.parametrize(
    ("spec", "part"),
    [
        ("smooth_grad(copies=0)", "at least 1 copy"),
        ("smooth_grad(signed=True, squared=True)", "not both"),
        ("guided_ig(fraction=0)", "fraction"),
        ("guided_ig(max_dist=2)", "max_dist"),
        ("blur_ig(sigma=0)", "sigma"),
        ("idgi(steps=0)", "at least 1 step"),
        ("expected_gradients(baselines='white')", "pink or colours"),
        ("xrai(dilation=-1)", "dilation"),
        ("augmented(scales=(1.5,))", "at most 1"),
        ("augmented(copies=3)", "no noise"),
        ("augmented(method='grad_kam')", "grad_cam"),
    ],
)
def test_wrong_options_say_what_is_right(spec: str, part: str) -> None:
    with pytest.raises(ArgumentError, match=part):
        methods.load(spec)


def test_saliency_and_input_x_gradient_equal_captums() -> None:
    from captum.attr import InputXGradient, Saliency

    module, x = zoo.module("resnet18"), zoo.inputs(2)
    model = zoo.model("resnet18")
    theirs = Saliency(module).attribute(x.clone().requires_grad_(), 3).amax(1)
    assert error(values(model, "saliency", x, 3), theirs) < 1e-4
    theirs = InputXGradient(module).attribute(x.clone().requires_grad_(), 3).sum(1).detach()
    assert error(values(model, "input_x_gradient", x, 3), theirs) < 1e-4


def test_smooth_grad_equals_captums_saliency_under_the_same_noise() -> None:
    """captum's NoiseTunnel draws from the global generator; the mean it takes is done here."""
    from captum.attr import Saliency

    module, x = zoo.module("resnet18"), zoo.inputs(2)
    draws = torch.randn((4, *x.shape[1:]), generator=torch.Generator().manual_seed(0))
    spread = 0.15 * (x.amax((1, 2, 3)) - x.amin((1, 2, 3))).reshape(-1, 1, 1, 1)
    noisy = [(x + spread * draw).requires_grad_() for draw in draws]
    theirs = sum(Saliency(module).attribute(copy, 3, abs=False) for copy in noisy) / 4
    assert (
        error(values(zoo.model("resnet18"), "smooth_grad(copies=4)", x, 3), theirs.abs().amax(1))
        < 1e-4
    )
