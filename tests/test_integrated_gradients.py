"""Integrated gradients: completeness, exact cases, bisection where it is needed, the fast tier."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path as FilePath
from types import SimpleNamespace

import pytest
import torch
import zoo
from captum.attr import IntegratedGradients as Captum
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook

from visxai import methods
from visxai.engine.batch import compute
from visxai.errors import ArgumentError, ModelError
from visxai.methods import _mean_slopes
from visxai.methods._maps import gaussian_blur
from visxai.methods.base import Maps
from visxai.methods.integrated_gradients import (
    ACCURATE,
    IntegratedGradients,
    Path,
    Samples,
    first_grid,
)
from visxai.models.probe import Probe
from visxai.models.pytorch.model import TorchModel
from visxai.models.pytorch.modules import adapt
from visxai.models.pytorch.network import Scalars
from visxai.target import Target

SCHEDULES = [
    "steps=20",
    "steps=20, schedule='adaptive'",
    "steps=20, schedule='gauss_legendre'",
    "tolerance=0.05",
]


class Function(nn.Module):
    """A model whose one score is a given function of x (b, c, h, w)."""

    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x).unsqueeze(1)


def run(model, spec: str, x: Tensor, target=0) -> Maps:
    if not isinstance(model, TorchModel):
        model = TorchModel(Function(model))
    method = methods.load(f"integrated_gradients({spec})")
    return compute(method, Probe(model, x), x, Target.of(target))


def linear(x: Tensor) -> Tensor:
    weights = torch.linspace(-1, 1, x[0].numel()).reshape(x.shape[1:])
    return (weights * x).sum((1, 2, 3))


def kink(x: Tensor) -> Tensor:
    """Rises only while the path's alpha is from 0.5 to 0.55, for an image of ones."""
    mean = x.mean((1, 2, 3))
    return 20 * ((mean - 0.5).relu() - (mean - 0.55).relu())


@pytest.mark.parametrize("spec", ["steps=2", "steps=1, schedule='gauss_legendre'", "tolerance=0.1"])
def test_a_linear_model_is_exact(spec: str) -> None:
    x = zoo.inputs(2, 8)
    expected = (torch.linspace(-1, 1, x[0].numel()).reshape(x.shape[1:]) * x).sum(1)
    found = run(linear, spec, x)
    torch.testing.assert_close(found.values, expected, rtol=1e-5, atol=1e-6)
    assert found.quality["completeness"].max() < 1e-4


@pytest.mark.parametrize("spec", ["steps=2", "steps=1, schedule='gauss_legendre'"])
def test_a_quadratic_model_is_exact(spec: str) -> None:
    # y = sum x^2 / 2: the integral of a x from 0 to 1, times x, is x^2 / 2.
    x = zoo.inputs(2, 8)
    found = run(lambda x: x.square().sum((1, 2, 3)) / 2, spec, x)
    torch.testing.assert_close(found.values, x.square().sum(1) / 2)


def test_a_cube_by_hand() -> None:
    # y = x^3 at x = 1: dy/dx = 3 a^2. Trapezoid on 0 and 1: (0 + 3) / 2. Its completeness error is
    # 1/2, and the expected squared error 1 * 3^2 / 12 over the map's norm 1.5 gives sqrt(1/3).
    found = run(lambda x: x.pow(3).sum((1, 2, 3)), "steps=2", torch.ones(1, 1, 1, 1))
    assert found.values.item() == pytest.approx(1.5)
    assert found.quality["completeness"].item() == pytest.approx(0.5)
    assert found.quality["map_error"].item() == pytest.approx(3**-0.5)
    # Two points of Gauss-Legendre are exact up to cubic gradients.
    spec = "steps=2, schedule='gauss_legendre'"
    exact = run(lambda x: x.pow(3).sum((1, 2, 3)), spec, torch.ones(1, 1, 1, 1))
    assert exact.values.item() == pytest.approx(1.0)


@pytest.mark.parametrize("spec", SCHEDULES)
@pytest.mark.parametrize("kind", ["conv", "vit"])
def test_the_sum_is_the_change_of_the_score(kind: str, spec: str) -> None:
    model, x = zoo.model(kind), zoo.inputs()
    found = run(model, spec, x, target=3)
    change = model.scores(x)[:, 3] - model.scores(torch.zeros_like(x))[:, 3]
    gap = (found.values.sum((1, 2)) - change).abs() / change.abs().clamp_min(0.01)
    torch.testing.assert_close(found.quality["completeness"], gap, rtol=1e-3, atol=1e-4)
    if "tolerance" in spec:
        assert found.quality["converged"].all()
        assert gap.max() <= 0.05


@pytest.mark.parametrize("kind", ["conv", "convnext", "vit"])
def test_gauss_legendre_equals_captum(kind: str) -> None:
    model, x = zoo.model(kind), zoo.inputs(2)

    def scores(x: Tensor) -> Tensor:
        return adapt(model.module(x))

    expected = Captum(scores).attribute(x, target=3, n_steps=50, method="gausslegendre").sum(1)
    found = run(model, "steps=50, schedule='gauss_legendre'", x, target=3).values
    assert (found - expected).abs().max() <= 1e-4 * expected.abs().max()


def test_mean_slopes_of_one_layer_are_exact_at_any_number_of_points() -> None:
    torch.manual_seed(3)
    module = nn.Sequential(nn.Flatten(), nn.Linear(48, 20), nn.ReLU(inplace=True), nn.Linear(20, 3))
    x = zoo.inputs(2, 4)
    baseline = torch.full_like(x, -0.3)
    found = run(TorchModel(module), "steps=2, schedule='mean_slopes', baseline=-0.3", x, target=1)
    z, z0 = (module[1](given.flatten(1)) for given in (x, baseline))
    slopes = (z.relu() - z0.relu()) / (z - z0)
    gradient = (slopes * module[3].weight[1]) @ module[1].weight
    expected = ((x - baseline) * gradient.reshape(x.shape)).sum(1).detach()
    torch.testing.assert_close(found.values, expected, rtol=1e-4, atol=1e-5)
    assert found.quality["completeness"].max() < 1e-4
    assert found.quality["evaluations"].tolist() == [2, 2]


@pytest.mark.parametrize("kind", ["conv", "resnet18"])
def test_mean_slopes_come_nearer_and_cost_what_is_said(kind: str) -> None:
    model, x, rows = zoo.model(kind), zoo.inputs(2), []
    fine = run(model, "steps=300, schedule='gauss_legendre'", x, target=3).values
    spec = "steps=8, schedule='mean_slopes'"
    maps = run(model, spec, x, target=3).values
    chosen = run(model, "steps=8", x, target=3)
    assert torch.equal(chosen.values, maps)
    assert chosen.quality["mean_slopes"].all()
    first = next(part for part in model.module.modules() if isinstance(part, nn.Conv2d))

    def count(part: nn.Module, _given: object, output: Tensor) -> None:
        if getattr(part, "weight", None) is first.weight:
            rows.append(len(output))

    handle = register_module_forward_hook(count)
    alone = run(model, spec, x[:1], target=3).values
    handle.remove()
    assert (alone - maps[:1]).abs().max() <= 1e-5 * maps.abs().max()
    assert sum(rows) == methods.load(f"integrated_gradients({spec})").cost(model, x).forwards
    path = Path(x, torch.zeros_like(x), model.aim(x, Target.of(3)).each())
    plain = path.sample(model, first_grid(path, 7)).trapezoid()  # at the same points
    errors = [(one - fine).flatten(1).norm(dim=1) for one in (maps, plain)]
    assert (errors[0] < 0.7 * errors[1]).all()


@pytest.mark.parametrize("kind", ["vit", "convnext", "mobilenet_v3"])
def test_other_networks_take_points(kind: str) -> None:
    model, x = zoo.model(kind), zoo.inputs(1)
    found = run(model, "steps=6", x, target=3)
    assert not found.quality["mean_slopes"].any()
    assert torch.equal(found.values, run(model, "steps=6, schedule='adaptive'", x, target=3).values)
    with pytest.raises(ModelError, match="use schedule='adaptive'"):
        run(model, "schedule='mean_slopes'", x)


def test_what_is_no_module_and_what_is_not_linear_in_the_scores_take_points() -> None:
    with pytest.raises(ModelError, match="no activation module: use schedule='adaptive'"):
        run(kink, "schedule='mean_slopes'", torch.ones(1, 3, 4, 4))
    model, x = zoo.model("conv"), zoo.inputs(1)
    for target, sloped in (("any=1,2", False), ("diff=1,2", True), ("top2", True)):
        assert run(model, "steps=4", x, target).quality["mean_slopes"].all() == sloped
    half = model.in_precision("bf16")
    assert not run(half, "steps=4", x).quality["mean_slopes"].any()


class Bends(nn.Module):
    """A network whose activations are of several kinds, before and after a maximum."""

    def __init__(self, *kinds: nn.Module) -> None:
        super().__init__()
        torch.manual_seed(1)
        layers: list[nn.Module] = [nn.Conv2d(3, 6, 3, padding=1)]
        for kind in kinds:
            layers += [kind, nn.BatchNorm2d(6), nn.Conv2d(6, 6, 3, padding=1)]
        layers.insert(3, nn.MaxPool2d(3, stride=1, padding=1))
        self.layers = nn.Sequential(*layers, nn.AvgPool2d(2), nn.Flatten(), nn.Linear(96, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


@pytest.mark.parametrize("count", [2, 5])
def test_mean_slopes_add_up_at_any_number_of_points(count: int) -> None:
    kinds = (
        nn.ReLU(inplace=True),
        nn.GELU(),
        nn.ReLU6(),
        nn.SiLU(),
        nn.PReLU(6),
        nn.Hardswish(),
    )
    model, x = TorchModel(Bends(*kinds)), zoo.inputs(2, 8)
    found = run(model, f"steps={count}, schedule='mean_slopes', baseline=-1", x, target=1)
    assert found.quality["completeness"].max() < 1e-3
    double = TorchModel(Bends(*kinds).double())
    exact = run(double, f"steps={count}, schedule='mean_slopes', baseline=-1", x.double(), target=1)
    assert exact.quality["completeness"].max() < 1e-6
    torch.testing.assert_close(found.values, exact.values.float(), rtol=1e-3, atol=1e-5)


class Layers(nn.Module):
    """A convolution, a step between, and a head; `between` is given the network and z."""

    def __init__(self, between, act: nn.Module | None = None) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.stem, self.body = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.act, self.between = act or nn.ReLU(), between
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.between(self, self.stem(x)).mean((2, 3)))


class CReLU(nn.Module):
    def forward(self, z: Tensor) -> Tensor:
        return torch.cat([z.relu(), (-z).relu()], 1)[:, ::2]


class UnitReLU(nn.Module):
    def forward(self, z: Tensor) -> Tensor:
        return z / z.norm(dim=1, keepdim=True)


class PaddedMaximum(nn.MaxPool2d):
    def forward(self, z: Tensor) -> Tensor:
        return super().forward(nn.functional.pad(z, (0, 1, 0, 1), value=-9))


def permuted(z: Tensor) -> Tensor:
    return z.gather(1, z.argsort(1))


WITHOUT_GRADIENT = {
    "gate": lambda z: z * (z > 0),
    "sort": permuted,
    "index": lambda z: z[torch.arange(len(z)), z.mean((2, 3)).argmax(1)].unsqueeze(1).expand_as(z),
    "norm": lambda z: z / z.detach().norm(),
    "straight through": lambda z: z + (z.round() - z).detach(),
    "floor": lambda z: torch.div(z, 0.3, rounding_mode="floor") + z,
}
UNSUITED = {
    **{name: Layers(lambda net, z, f=f: f(net.act(z))) for name, f in WITHOUT_GRADIENT.items()},
    "overwritten skip": Layers(lambda net, z: net.body(net.act(z)) + z, nn.ReLU(inplace=True)),
    "two outputs": Layers(lambda net, z: net.act(z), CReLU()),
    "a leaf over channels": Layers(lambda net, z: net.body(net.act(z)), UnitReLU()),
    "a keyword": Layers(lambda net, z: net.act(input=z)),
    "a maximum of its own": Layers(lambda net, z: net.pool(net.act(z))),
    "half": Layers(lambda net, z: net.act(z)).to(torch.bfloat16),
}
UNSUITED["a maximum of its own"].pool = PaddedMaximum(2)


@pytest.mark.parametrize("name", UNSUITED)
def test_a_network_whose_slopes_can_not_be_trusted_takes_points(name: str) -> None:
    model, x = TorchModel(UNSUITED[name]), zoo.inputs(2, 8)
    found = run(model, "steps=6", x, target=1)
    assert not found.quality["mean_slopes"].any()
    plain = run(model, "steps=6, schedule='adaptive'", x, target=1)
    assert torch.equal(found.values, plain.values)
    with pytest.raises(ModelError, match="use schedule='adaptive'"):
        run(model, "schedule='mean_slopes'", x, target=1)


def test_a_callable_target_takes_points() -> None:
    def strongest(scores: Tensor) -> Tensor:
        return scores.gather(1, scores.argmax(1, keepdim=True))[:, 0]

    found = run(zoo.model("conv"), "steps=6", zoo.inputs(1), strongest)
    assert not found.quality["mean_slopes"].any()


def test_a_map_that_does_not_add_up_is_made_anew_alone() -> None:
    # Noise never makes the mean as large as the second image makes it.
    bright = Layers(lambda net, z: net.act(z) * (1 + 3 * (z.abs().mean((1, 2, 3), True) > 9)))
    model, x = TorchModel(bright), zoo.inputs(2, 8)
    x[1] = 400
    found = run(model, "steps=6", x, target=1)
    assert found.quality["mean_slopes"].tolist() == [True, False]
    for at, schedule in enumerate(("mean_slopes", "adaptive")):
        alone = run(model, f"steps=6, schedule='{schedule}'", x[at : at + 1], target=1)
        torch.testing.assert_close(found.values[at], alone.values[0], rtol=1e-4, atol=1e-5)
        assert found.quality["completeness"][at] == pytest.approx(
            alone.quality["completeness"].item(), rel=1e-2, abs=1e-4
        )


def test_an_error_at_the_images_leaves_the_choice_to_points(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, x = TorchModel(Layers(lambda net, z: net.act(z))), zoo.inputs(1, 8)
    expected = run(model, "steps=6, schedule='adaptive'", x, target=1).values
    assert run(model, "steps=6", x, target=1).quality["mean_slopes"].all()

    def fail(*_given: object) -> None:
        raise IndexError

    monkeypatch.setattr(_mean_slopes, "_sum", fail)
    assert torch.equal(run(model, "steps=6", x, target=1).values, expected)
    with pytest.raises(ModelError, match=r"an error of its own \(IndexError\): use schedule='ad"):
        run(model, "steps=6, schedule='mean_slopes'", x, target=1)


@pytest.mark.parametrize("name", ["NativeBatchNorm", "CudnnBatchNorm", "MiopenBatchNorm"])
def test_a_batch_norm_is_linear_by_kept_statistics_on_every_device(name: str) -> None:
    leaf = torch.ones(1, requires_grad=True)
    inner = ((leaf.view(1).grad_fn, 0),)
    for training, expected in ((False, ""), (True, name)):
        node = SimpleNamespace(
            name=lambda: f"{name}Backward0", next_functions=inner, _saved_training=training
        )
        node = type("Node", (), {**vars(node), "name": lambda _: f"{name}Backward0"})()
        assert _mean_slopes.bent(SimpleNamespace(grad_fn=node)) == expected


def test_a_plain_benchmark_run_keeps_the_figures_of_both_baselines(
    monkeypatch: pytest.MonkeyPatch, tmp_path: FilePath
) -> None:
    file = FilePath(__file__).parents[1] / "benchmarks" / "quality" / "integrated_gradients.py"
    monkeypatch.setattr(sys, "path", [*sys.path])
    spec = importlib.util.spec_from_file_location("quality_integrated_gradients", file)
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    kept, saved = {"grey": {"points": 192}}, {}
    (tmp_path / "integrated_gradients.json").write_text(json.dumps({"baselines": kept}), "utf-8")
    monkeypatch.setattr(benchmark.measure, "RESULTS", tmp_path)
    monkeypatch.setattr(
        benchmark.measure, "save", lambda _name, results, _command: saved.update(results)
    )
    monkeypatch.setattr(benchmark.measure, "table", str)
    monkeypatch.setattr(benchmark, "photographs", lambda *_given: [])
    monkeypatch.setattr(benchmark, "figures", lambda *_given: {})
    monkeypatch.setattr(benchmark.visxai, "Engine", lambda **_given: None)
    monkeypatch.setattr(sys, "argv", ["benchmark", str(tmp_path), "--rounds", "0"])
    benchmark.main()
    assert saved["baselines"] == kept


def test_a_unit_that_does_not_move_has_its_own_slope() -> None:
    # ReLU(x1 + x2 + 3) from 0 to (1, -1): its input is 3 all the way.
    line = nn.Conv2d(1, 1, (1, 2))
    line.weight.data.fill_(1)
    line.bias.data.fill_(3)
    model = TorchModel(nn.Sequential(line, nn.ReLU(), nn.Flatten()))
    for steps in (2, 5):
        x = torch.tensor([[[[1.0, -1.0]]]])
        found = run(model, f"steps={steps}, schedule='mean_slopes'", x)
        torch.testing.assert_close(found.values, x[0])


def test_a_maximum_shares_its_gradient_by_the_way_that_either_leads() -> None:
    # The larger of 1 - a and 2 a: the first place until a = 1/3, the second from there.
    class Largest(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rise, self.pool = nn.ReLU(), nn.MaxPool2d((1, 2))

        def forward(self, x: Tensor) -> Tensor:
            return self.pool(self.rise(x)).flatten(1)

    x, baseline = torch.tensor([[[[0.0, 2.0]]]]), torch.tensor([[[[1.0, 0.0]]]])
    method = IntegratedGradients(2, "mean_slopes", baseline)
    model = TorchModel(Largest())
    found = compute(method, Probe(model, x), x, Target.of(0))
    assert found.values.flatten().tolist() == pytest.approx([-1 / 3, 4 / 3])


def test_a_path_that_finds_no_memory_is_halved(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = TorchModel(zoo.module("conv")), zoo.inputs(1)
    expected = run(model, "steps=9", x, target=1).values
    own, sizes = Scalars.forward, []

    def short(self: Scalars, given: Tensor, which: Tensor) -> Tensor:
        sizes.append(len(given))
        if len(given) > 4:
            raise MemoryError
        return own(self, given, which)

    monkeypatch.setattr(Scalars, "forward", short)
    found = run(model, "steps=9", x, target=1).values
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
    assert sizes == [9, 5, 3, 3, 5, 3, 3]


@pytest.mark.parametrize("kind", ["conv", "vit"])
def test_more_steps_come_closer_and_the_error_is_foreseen(kind: str) -> None:
    model, x = zoo.model(kind), zoo.inputs(2)
    fine = run(model, "steps=200, schedule='gauss_legendre'", x, target=3).values
    errors = []
    for steps in (8, 32):
        found = run(model, f"steps={steps}, schedule='adaptive'", x, target=3)
        error = (found.values - fine).flatten(1).norm(dim=1) / fine.flatten(1).norm(dim=1)
        # An upper estimate where the integrand is smooth, close where it is rough.
        assert (error <= 2 * found.quality["map_error"]).all()
        errors.append(error)
    assert (errors[1] < 0.5 * errors[0]).all()


def test_points_go_where_the_score_moves() -> None:
    x = torch.ones(1, 3, 4, 4)
    found = run(kink, "steps=24", x)
    even = run(kink, "steps=24, schedule='gauss_legendre'", x)
    assert found.values.sum().item() == pytest.approx(1.0, abs=0.05)
    assert found.quality["completeness"].item() < even.quality["completeness"].item() / 4
    # Two steep intervals of one path are both split; one that is steep and well known is not.
    samples = Samples(
        torch.tensor([[0.0, 0.25, 0.5, 1.0]]),
        torch.tensor([[0.0, 0.25, 0.5, 1.0]]),
        torch.tensor([[1.0, 1.0, 1.0, 3.0]]).reshape(1, 4, 1, 1),
    )
    first = samples.midpoints(ACCURATE, 1)
    assert first.tolist() == [[0.75]]


def test_the_fast_tier_lets_each_image_leave_by_itself() -> None:
    # The second image's score is a straight line along its path, the first one's is not.
    x = torch.stack([torch.ones(3, 4, 4), torch.full((3, 4, 4), 0.4)])
    found = run(lambda x: kink(x) + x.mean((1, 2, 3)), "tolerance=0.02", x)
    hard, easy = found.quality["evaluations"].tolist()
    assert easy == 11  # the first grid and one round to be sure
    assert hard > easy
    assert found.quality["converged"].tolist() == [True, True]
    assert found.quality["completeness"].max() <= 0.02
    alone = run(lambda x: kink(x) + x.mean((1, 2, 3)), "tolerance=0.02", x[:1])
    torch.testing.assert_close(alone.values[0], found.values[0])


def test_the_fast_tier_says_when_it_gives_up() -> None:
    found = run(kink, "tolerance=1e-9, max_steps=30", torch.ones(2, 3, 4, 4))
    assert found.quality["evaluations"].tolist() == [30, 30]
    assert found.quality["converged"].tolist() == [False, False]


@pytest.mark.parametrize(
    "spec",
    ["tolerance=1e-9, max_steps=20"]
    + [f"steps={steps}, schedule='adaptive'" for steps in (12, 13, 2)],
)
def test_cost_is_exact_for_a_fixed_number_and_an_upper_bound_for_the_fast_tier(spec: str) -> None:
    model, x, rows = TorchModel(zoo.module("conv")), zoo.inputs(1), []
    handle = model.module.stem.register_forward_hook(lambda _m, _a, out: rows.append(len(out)))
    run(model, spec, x)
    handle.remove()
    method = methods.load(f"integrated_gradients({spec})")
    assert sum(rows) == method.cost(model, x).forwards
    assert method.cost(model, x).backwards == sum(rows) - 1


@pytest.mark.parametrize("kind", ["mean", "blur", "number", "tensor"])
def test_baselines(kind: str) -> None:
    x = zoo.inputs(2, 8)
    given, baseline = {
        "mean": ("mean", x.mean((2, 3), keepdim=True)),
        "blur": ("blur", gaussian_blur(x, 0.8)),
        "number": (0.5, torch.full_like(x, 0.5)),
        "tensor": (x.flip(0), x.flip(0)),
    }[kind]
    model = TorchModel(Function(linear))
    method = IntegratedGradients(steps=2, baseline=given)
    found = compute(method, Probe(model, x), x, Target.of(0))
    weights = torch.linspace(-1, 1, x[0].numel()).reshape(x.shape[1:])
    torch.testing.assert_close(
        found.values, (weights * (x - baseline)).sum(1), rtol=1e-4, atol=1e-5
    )


def test_a_map_of_the_baseline_itself_is_zero() -> None:
    for spec in SCHEDULES:
        found = run(zoo.model("conv"), spec, torch.zeros(1, 3, zoo.SIZE, zoo.SIZE))
        assert found.values.abs().max() == 0
        assert found.quality["completeness"].item() == 0


def test_specs() -> None:
    assert repr(IntegratedGradients()) == ("integrated_gradients(schedule='auto', baseline=0.0)")
    fast = methods.load("integrated_gradients(tolerance=0.1)")
    assert repr(fast) == "integrated_gradients(tolerance=0.1, max_steps=256, baseline=0.0)"
    assert methods.load(repr(fast)) == fast


@pytest.mark.parametrize(
    "spec",
    [
        "steps=1",
        "steps=0, schedule='gauss_legendre'",
        "schedule='even'",
        "max_steps=99",
        "tolerance=0",
        "tolerance=0.1, max_steps=8",
        "tolerance=0.1, schedule='gauss_legendre'",
        "tolerance=0.1, schedule='mean_slopes'",
    ],
)
def test_wrong_options_are_named(spec: str) -> None:
    with pytest.raises(ArgumentError, match="expected integrated_gradients"):
        methods.load(f"integrated_gradients({spec})")
