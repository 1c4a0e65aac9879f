"""What half precision loses: the lost rows alone run again in float32, and records say of which."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import numpy as np
import pytest
import torch
import zoo
from torch import Tensor

import visxai
from visxai import methods
from visxai.engine.batch import compute
from visxai.engine.explained import Explained
from visxai.metrics.base import Case
from visxai.models.interface import Model, Need
from visxai.models.probe import Probe
from visxai.models.pytorch.model import TorchModel
from visxai.models.rows import Rows
from visxai.target import Target

TARGET = Target.of("class=2")
BLACK, BRIGHT = -9.0, 9.0


def batch(count: int, lost: dict[int, float]) -> Tensor:
    x = zoo.inputs(count)
    for index, level in lost.items():
        x[index] = level
    return x


@contextmanager
def exact_rows(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The rows of every float32 forward."""
    counted: list[int] = []
    plain = TorchModel.forward

    def forward(self: TorchModel, x: Tensor, *rest: object) -> Tensor:
        if self.precision == "fp32":
            counted.append(len(x))
        return plain(self, x, *rest)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(TorchModel, "forward", forward)
        yield counted


@pytest.mark.parametrize(
    ("kind", "spec", "target", "rows"),
    [
        ("conv", "saliency", "class=2", 1),
        ("conv", "saliency", "top3", 1),  # three backwards, over one forward
        ("conv", "grad_cam", "class=2", 1),
        ("conv", "grad_cam", "top3", 1),
        ("conv", "captum:GuidedBackprop()", "class=2", 1),
        ("conv", "integrated_gradients(steps=6)", "class=2", None),
        ("vit", "chefer", "class=2", 1),
        ("vit", "legrad", "class=2", 1),
    ],
)
def test_one_dead_image_of_eight_runs_again_alone(
    kind: str, spec: str, target: str, rows: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, x = zoo.fragile(kind).in_precision("bf16"), batch(8, {3: BLACK})
    method = methods.load(spec)
    compute(method, Probe(model, x), x, TARGET)  # what is learned of a model once isn't counted
    probe = Probe(model, x)
    with exact_rows(monkeypatch) as counted:
        compute(method, probe, x, Target.of(target))
    assert probe.reran.tolist() == [index == 3 for index in range(8)]
    if rows is not None:
        assert sum(counted) == rows
    else:
        assert 1 <= sum(counted) <= 6


def test_a_score_that_fp16_cannot_hold_is_float32s() -> None:
    x = batch(4, {2: BRIGHT})
    plain = zoo.fragile("conv")
    model = plain.in_precision("fp16")
    assert not model.scores(x)[2].isfinite().all()
    probe = Probe(model, x)
    expected = plain.scores(x)
    assert torch.allclose(probe.scores(x)[2], expected[2], rtol=1e-5)
    assert torch.equal(probe.scores(x)[[0, 1, 3]], model.scores(x)[[0, 1, 3]])
    assert torch.equal(probe.aim(x, Target.of("top1")).classes, expected.argmax(1))
    assert probe.reran.tolist() == [False, False, True, False]


def test_values_that_fp16_cannot_hold_are_float32s() -> None:
    x = batch(3, {1: BRIGHT})
    plain = zoo.fragile("conv")
    probe = Probe(plain.in_precision("fp16"), x)
    rows = Rows(3, 2, tuple(x.shape[1:]), lambda image, turn: x[image])
    aim = probe.aim(x, Target.of("top2"))
    found = probe.values(rows, aim)
    assert found.isfinite().all()
    assert torch.allclose(found[2:4], plain.values(rows, aim)[2:4], rtol=1e-5)


@pytest.mark.parametrize("name", ["eigen_cam", "ablation_cam", "score_cam"])
def test_activations_that_fp16_cannot_hold_are_float32s(name: str) -> None:
    plain, x = zoo.model("conv"), zoo.inputs(3)
    x[1] *= 1e5
    probe = Probe(plain.in_precision("fp16"), x)
    method = methods.load(f"{name}(relu=False)" if name != "eigen_cam" else name)
    maps = compute(method, probe, x, TARGET).values
    assert maps.isfinite().all()
    assert probe.reran.tolist() == [False, True, False]
    exact = compute(method, plain, x, TARGET).values
    assert torch.allclose(maps[1], exact[1], rtol=1e-3, atol=float(1e-3 * exact[1].abs().max()))


def test_a_rerun_keeps_the_class_that_was_settled() -> None:
    x = batch(4, {1: BLACK})
    probe = Probe(zoo.fragile("conv").in_precision("bf16"), x)
    scores = probe.scores(x).clone()
    at = probe.at_layers(x, Target.of("top2"))
    assert torch.equal(at.scores, scores)
    assert at.aim.rows.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]


def test_images_with_any_number_of_maps_keep_their_places() -> None:
    x = batch(5, {1: BRIGHT, 3: BRIGHT})
    plain = zoo.fragile("conv")
    target = Target.of("above=0.12")
    exact = plain.at_layers(x, target)
    found = Probe(plain.in_precision("fp16"), x).at_layers(x, target)
    assert found.aim.rows.tolist() == exact.aim.rows.tolist()
    assert exact.aim.rows.bincount(minlength=5).unique().numel() > 1
    for index, row in enumerate(exact.aim.rows.tolist()):
        tolerance = 1e-5 if row in (1, 3) else 1e-1
        one, other = found.layers[0].gradient[index], exact.layers[0].gradient[index]
        assert (one - other).abs().max() <= tolerance * other.abs().max()


def test_small_gradients_at_a_layer_survive_fp16() -> None:
    module = zoo.randomise(zoo.Conv())
    with torch.no_grad():
        module.head.weight *= 1e-5  # type: ignore[union-attr, operator]
    model, x = TorchModel(module), zoo.inputs()
    half = model.in_precision("fp16").at_layers(x, TARGET, ["last"]).layers[0].gradient
    exact = model.at_layers(x, TARGET, ["last"]).layers[0].gradient
    assert half.dtype == torch.float32
    assert (half - exact).abs().max() <= 0.02 * exact.abs().max()


def engine(precision: str) -> visxai.Engine:
    preprocess = visxai.Preprocess((zoo.SIZE, zoo.SIZE), zoo.SIZE, mean=(0.5,) * 3, std=(0.05,) * 3)
    return visxai.Engine(
        zoo.Fragile(zoo.module("conv")), preprocess=preprocess, precision=precision
    )


def pictures() -> list[np.ndarray]:
    draw = np.random.default_rng(0).integers(100, 156, (3, zoo.SIZE, zoo.SIZE, 3))
    draw[1] = 0  # black
    return [picture.astype(np.uint8) for picture in draw]


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.enable_grad])
def test_records_say_which_image_ran_again_and_for_which_method(
    mode: Callable[[], AbstractContextManager[None]],
) -> None:
    with mode():
        records = engine("bf16").explain(pictures(), ["saliency", "rise(masks=4)"], target=2)
    said = [(record.method.partition("(")[0], record.precision) for record in records]
    again = "bf16 (rerun in fp32)"
    assert said == [
        ("saliency", "bf16"),
        ("rise", "bf16"),
        ("saliency", again),
        ("rise", "bf16"),
        ("saliency", "bf16"),
        ("rise", "bf16"),
    ]


def test_what_a_check_runs_again_is_not_the_maps() -> None:
    ran: list[list[bool]] = []

    class Dark:
        """A check that asks for the gradients of black images."""

        def quality(self, case: Case) -> dict[str, Tensor]:
            dark, probe = torch.full_like(case.x, BLACK), case.probe
            rows = Rows(len(dark), 1, tuple(dark.shape[1:]), lambda image, turn: dark[image])
            list(probe.gradients(rows, probe.aim(case.x, case.target)))
            ran.append(probe.reran.tolist())
            return {}

    made = engine("bf16")
    given = [made.prepare(pictures()[0])], (methods.load("saliency"),), TARGET
    (found,) = made.explain_prepared(*given, None, Dark())
    assert ran == [[True]]
    assert isinstance(found, Explained)
    assert [one.precision for one in found.explanations] == ["bf16"]


def test_a_score_that_came_again_is_told_with_every_method() -> None:
    bright = [255 - picture for picture in pictures()]
    with torch.inference_mode():
        found = engine("fp16").explain(bright, ["saliency", "rise(masks=4)"], target=2)
    assert [record.precision for record in found] == [
        *["fp16"] * 2,
        *["fp16 (rerun in fp32)"] * 2,
        *["fp16"] * 2,
    ]
    assert all(np.isfinite(record.score) for record in found)
    predicted = engine("fp16").predict(bright)
    exact = engine("fp32").predict(bright)
    assert predicted[1].class_index == exact[1].class_index


def test_a_probe_hands_on_every_question() -> None:
    """All but what follows from a probe's own answers is answered by its model."""
    own = {"aim", "clean"}
    asked = {name for name, part in vars(Model).items() if inspect.isfunction(part)}
    missing = {name for name in asked if name[0] != "_"} - set(vars(Probe)) - own
    assert not missing
    model = zoo.model("conv")
    probe = Probe(model, zoo.inputs())
    for name in Model.__annotations__:
        assert getattr(probe, name) == getattr(model, name)


def test_a_probe_can_change_precision_and_knows_remedies() -> None:
    class Lacking(TorchModel):
        def remedy(self, missing: Need) -> str:
            return f"add {missing}"

        def accelerated(self, needs: Need, graph: str = "") -> str:
            return "by magic"

    x = zoo.inputs()
    probe = Probe(Lacking(zoo.module("conv")), x)
    assert probe.remedy(Need.TOKENS) == "add tokens"
    assert probe.accelerated(Need.SCORES) == "by magic"
    half = probe.in_precision("bf16")
    assert (half.precision, probe.precision) == ("bf16", "fp32")
    assert torch.equal(half.scores(x), probe._model.in_precision("bf16").scores(x))
