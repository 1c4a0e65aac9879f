"""The joint choice of a precision and of what computes in it, by what was measured here."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
import zoo
from torch import Tensor

import visxai
from visxai.cli import catalogue
from visxai.engine import measuring
from visxai.engine.measuring import Form, Timing
from visxai.models import speed
from visxai.models.pytorch.accelerate import PRECISIONS, Acceleration
from visxai.models.pytorch.model import TorchModel

OCCLUSION = "occlusion(window=32, stride=32)"
BF16, OPENVINO, OPENVINO_BF16, ONNX = (
    Form(*pair)
    for pair in (("bf16", "off"), ("fp32", "openvino"), ("bf16", "openvino"), ("fp32", "onnx"))
)


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VISXAI_CACHE", str(tmp_path))
    monkeypatch.setattr(speed, "gain", lambda: 9.0)


def engine(monkeypatch: pytest.MonkeyPatch, shares: dict[Form, float | str]) -> visxai.Engine:
    """An engine that chooses, where forms take these shares of the plain forward's 0.1 s.

    A form that isn't named takes as long as the plain one; a text says why a form is refused.
    """

    def measure(_model: object, form: Form, *_: object) -> Timing:
        share = shares.get(form, 1.0)
        if isinstance(share, str):
            return Timing(refused=share)
        return Timing(0.1 * share, 0.1, 1.0)

    def runtimes(precision: str, _device: str = "cpu") -> tuple[str, ...]:
        return tuple(kind for kind in ("openvino", "onnx") if precision in PRECISIONS[kind])

    monkeypatch.setattr(measuring, "plain", lambda *_: 0.1)
    monkeypatch.setattr(measuring, "measure", measure)
    monkeypatch.setattr(measuring, "runtimes", runtimes)
    return visxai.Engine(zoo.module("conv"), preprocess=zoo.PREPROCESS, device="cpu")


@pytest.mark.parametrize(
    ("methods", "shares", "chosen"),
    [
        ("grad_cam", {BF16: 0.5, OPENVINO: 0.6, OPENVINO_BF16: 0.2}, ("bf16", "openvino")),
        ("grad_cam", {BF16: 0.3, OPENVINO: 0.6, OPENVINO_BF16: 0.4}, ("bf16", "off")),
        ("grad_cam", {BF16: "differs", OPENVINO_BF16: "differs", ONNX: 0.5}, ("fp32", "onnx")),
        ("grad_cam", {BF16: 0.5, OPENVINO: "differs", OPENVINO_BF16: "differs"}, ("bf16", "off")),
        # Scores alone are compared in float32, whatever half precision would gain.
        (OCCLUSION, {OPENVINO_BF16: 0.1, OPENVINO: 0.6, ONNX: 0.5}, ("fp32", "onnx")),
        # Each part of the work has the precision that is faster for it.
        (f"grad_cam,{OCCLUSION}", {BF16: 0.3, OPENVINO: 0.7, ONNX: 0.4}, ("bf16", "onnx")),
        ("grad_cam", {}, ("fp32", "off")),
    ],
)
def test_the_fastest_pair_is_chosen(
    methods: str,
    shares: dict[Form, float | str],
    chosen: tuple[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = engine(monkeypatch, shares)
    assert made.plan(methods, 7) == "run too short"  # fewer rows than anything pays for
    made.plan(methods, 10_000)
    assert (made.precision, made.accelerate) == chosen


def test_what_is_refused_or_no_faster_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    shares: dict[Form, float | str] = {
        BF16: "scores turn by a cosine of 0.9000",
        OPENVINO_BF16: "too far",
        OPENVINO: "whole: differs by 1.0e-03",
    }
    made = engine(monkeypatch, shares)
    told = made.plan("grad_cam", 10_000)
    assert "fp32 by OpenVINO: whole: differs by 1.0e-03" in told
    assert "fp32 by ONNX Runtime is no faster here" in told
    (found,) = made.explain(torch.zeros(1, 3, 70, 70, dtype=torch.uint8), "grad_cam", 2)
    assert found.precision == "fp32"
    assert "differs by 1.0e-03" in found.accelerate


def test_preparation_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    made = engine(monkeypatch, {BF16: 0.5, OPENVINO_BF16: 0.2})
    made._plan._timings = {  # as an earlier process measured them
        BF16: Timing(0.05, 0.1, 0.1),
        OPENVINO_BF16: Timing(0.02, 0.1, 5.0),
    }
    made._plan._plain = 0.1
    made.plan("grad_cam", 20)  # the copy saves 1 s, OpenVINO would save 1.6 s and takes 5
    assert (made.precision, made.accelerate) == ("bf16", "off")
    made.plan("grad_cam", 1000)
    assert (made.precision, made.accelerate) == ("bf16", "openvino")


def model(module: torch.nn.Module | None = None) -> TorchModel:
    return TorchModel(module or zoo.module("conv"), name="conv", preprocess=zoo.PREPROCESS)


def test_a_form_is_measured_once_and_kept(tmp_path: Path) -> None:
    x = zoo.inputs(3)
    assert measuring.known(model(), BF16, x) is None
    found = measuring.measure(model(), BF16, x, None)
    assert math.isfinite(found.share)
    assert found == measuring.known(model(), BF16, x)
    assert measuring.known(model(), BF16, zoo.inputs(3, 32)) is None
    assert measuring.known(model(zoo.randomise(zoo.Conv(), seed=5)), BF16, x) is None
    told = catalogue._measured()
    assert "conv at 3x64x64: " in told
    assert "bf16 by PyTorch" in told
    (file,) = (tmp_path / "measured").glob("form-*.json")
    kept = json.loads(file.read_text("utf-8"))
    for wrong in (-1.0, "x", math.nan):
        file.write_text(json.dumps(kept | {"figures": kept["figures"] | {"row": wrong}}), "utf-8")
        assert measuring.known(model(), BF16, x) is None
    assert catalogue._measured().startswith("nothing yet")


class Fine(zoo.Conv):
    """Depends on more digits than bfloat16 has."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(torch.nn.functional.conv2d(x, torch.ones(3, 3, 1, 1)) * 1e3 % 1)


def test_a_form_that_disagrees_is_refused_once() -> None:
    module, x = zoo.randomise(Fine()), zoo.inputs(3)
    assert "scores" in measuring.measure(model(module), BF16, x, None).refused
    again = measuring.known(model(module), BF16, x)
    assert again is not None
    assert again.share == math.inf
    assert again.refused


def test_a_runtimes_form_is_measured_beside_the_plain_one(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="needs the extra onnx")
    made = model()
    found = measuring.measure(
        made, ONNX, zoo.inputs(3), Acceleration("onnx", made.weights, tmp_path)
    )
    assert math.isfinite(found.share)
    assert found.prepare > 0
    assert made.acceleration is None
