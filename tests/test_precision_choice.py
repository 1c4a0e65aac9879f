"""What an engine chooses of the precisions by itself, and what it leaves in float32."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import zoo
from torch import Tensor

import visxai
from visxai import methods
from visxai.models import speed
from visxai.models.devices import pick_precision

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VISXAI_CACHE", str(tmp_path))


@pytest.mark.parametrize(("gain", "chosen"), [(3.0, "bf16"), (1.5, "bf16"), (1.4, "fp32")])
def test_a_cpu_computes_in_what_was_measured_faster(
    gain: float, chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(speed, "gain", lambda: gain)
    assert pick_precision("auto", CPU) == chosen
    assert pick_precision("fp32", CPU) == "fp32"
    assert pick_precision("auto", CPU, ("fp32",)) == "fp32"


def test_the_measurement_is_made_once_and_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[int] = []
    plain = speed._measured
    monkeypatch.setattr(speed, "_measured", lambda: made.append(1) or plain())
    found = speed.gain()
    assert found > 0
    assert speed.gain() == found
    speed._gain.cache_clear()  # another process
    assert speed.gain() == found
    assert len(made) == 1
    (file,) = (tmp_path / "measured").iterdir()
    for damaged in ("", "{}", "[]", '{"bf16_gain": 0}', '{"bf16_gain": "x"}'):
        file.write_text(damaged, "utf-8")
        speed._gain.cache_clear()
        assert speed.gain() > 0
        assert json.loads(file.read_text("utf-8"))["bf16_gain"] > 0


class Fine(zoo.Conv):
    """Depends on more digits than bfloat16 has."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(torch.nn.functional.conv2d(x, torch.ones(3, 3, 1, 1)) * 1e3 % 1)


def engine(module: torch.nn.Module, precision: str = "auto") -> visxai.Engine:
    return visxai.Engine(
        module, preprocess=zoo.PREPROCESS, precision=precision, accelerate="off", device="cpu"
    )


def pictures() -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    return [generator.integers(0, 255, (70, 70, 3), dtype=np.uint8) for _ in range(2)]


def test_gradients_at_the_input_stay_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "gain", lambda: 9.0)
    free, exact = engine(zoo.module("conv")), engine(zoo.module("conv"), "fp32")
    assert free.precision == "bf16"
    found = free.explain(pictures(), ["grad_cam", "saliency"], 2)
    assert [(one.method.partition("(")[0], one.precision) for one in found] == [
        ("grad_cam", "bf16"),
        ("saliency", "fp32"),
    ] * 2
    for one, other in zip(found[1::2], exact.explain(pictures(), "saliency", 2), strict=True):
        assert np.array_equal(one.values, other.values)
        assert (one.score, one.logit) == (other.score, other.logit)
    x = zoo.inputs(2)
    assert torch.equal(free.attribute(x, "saliency", 2), exact.attribute(x, "saliency", 2))
    (asked, _) = engine(zoo.module("conv"), "bf16").explain(pictures(), "saliency", 2)
    assert asked.precision == "bf16"


def test_a_network_whose_scores_change_stays_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "gain", lambda: 9.0)
    module = zoo.randomise(Fine())
    free, exact = engine(module), engine(module, "fp32")
    found, expected = (e.explain(pictures(), "grad_cam", 2) for e in (free, exact))
    for one, other in zip(found, expected, strict=True):
        assert one.precision.startswith("fp32 (not bf16: ")
        assert np.array_equal(one.values, other.values)
        assert one.score == other.score


def test_methods_say_whether_they_bear_half_precision() -> None:
    bearing = {name for name in methods.names() if methods.find(name).needs and _bears(name)}
    assert {"grad_cam", "eigen_cam", "legrad", "score_cam"} <= bearing
    assert not {"integrated_gradients", "saliency", "smooth_grad", "guided_ig"} & bearing
    assert not {"occlusion", "rise", "lime", "kernel_shap", "sobol"} & bearing


def _bears(name: str) -> bool:
    return name != "captum" and methods.load(name).bears_half
