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
from visxai import methods, pipeline, results
from visxai.engine import measuring
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
    good = json.loads(file.read_text("utf-8"))
    damaged = ["", "{}", "[]", json.dumps(good | {"subject": ["another"]})]
    damaged += [json.dumps(good | {"figures": {"times": wrong}}) for wrong in (0, "x", None)]
    for content in damaged:
        file.write_text(content, "utf-8")
        speed._gain.cache_clear()
        assert speed.gain() > 0
        assert json.loads(file.read_text("utf-8"))["figures"]["times"] > 0


class Fine(zoo.Conv):
    """Depends on more digits than bfloat16 has."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(torch.nn.functional.conv2d(x, torch.ones(3, 3, 1, 1)) * 1e3 % 1)


def gains(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let half precision be measured twice as fast, whatever this machine's CPU."""
    monkeypatch.setattr(speed, "gain", lambda: 9.0)
    monkeypatch.setattr(measuring, "plain", lambda *_: 0.1)
    monkeypatch.setattr(measuring, "measure", lambda *_: measuring.Timing(0.05, 0.1, 0.1))


def engine(module: torch.nn.Module, precision: str = "auto") -> visxai.Engine:
    return visxai.Engine(
        module, preprocess=zoo.PREPROCESS, precision=precision, accelerate="off", device="cpu"
    )


def pictures() -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    return [generator.integers(0, 255, (70, 70, 3), dtype=np.uint8) for _ in range(2)]


def test_a_short_run_prepares_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gains(monkeypatch)
    calls: list[int] = []
    module = zoo.module("conv")
    with pytest.MonkeyPatch.context() as patch:
        plain = type(module).forward
        patch.setattr(type(module), "forward", lambda s, x: calls.append(len(x)) or plain(s, x))
        free = engine(module)
        (found,) = free.explain(pictures()[:1], "layer_cam", 2)
        few = list(calls)
        calls.clear()
        engine(module, "fp32").explain(pictures()[:1], "layer_cam", 2)
    assert (free.precision, found.precision) == ("fp32", "fp32")
    assert not (tmp_path / "measured").exists()
    assert few == calls


def test_many_short_runs_are_a_long_one(monkeypatch: pytest.MonkeyPatch) -> None:
    gains(monkeypatch)
    free, ran = engine(zoo.module("conv")), []
    for _ in range(4):
        ran += [one.precision for one in free.explain(pictures() * 30, "grad_cam", 2)]
    assert ran == sorted(ran, reverse=True)  # float32 first
    assert set(ran) == {"fp32", "bf16"}


def test_what_was_computed_before_decides_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from PIL import Image

    gains(monkeypatch)
    folder = tmp_path / "in"
    folder.mkdir()

    def add(number: int) -> None:
        Image.fromarray(pictures()[number]).save(folder / f"{number}.png")

    def run(out: str, images: int) -> set[str]:
        made = engine(zoo.module("conv"))
        if images:
            made.plan("grad_cam", images)
        pipeline.explain([folder], tmp_path / out, made, style=None, workers=0)
        return {one.precision for one in results.read(tmp_path / out)}

    add(0)
    assert (run("short", 0), run("long", 1000)) == ({"fp32"}, {"bf16"})
    add(1)
    assert (run("short", 0), run("long", 0)) == ({"fp32"}, {"bf16"})
    with pytest.raises(visxai.errors.StoreError, match="precision"):
        run("short", 1000)


def test_a_record_is_reproduced_in_its_own_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    gains(monkeypatch)
    for images in (0, 1000):
        made = engine(zoo.module("conv"))
        made.plan("grad_cam", images)
        (record,) = made.explain(pictures()[0], "grad_cam", 2)
        again = engine(zoo.module("conv"))
        again.plan("grad_cam", 1000 - images)
        found = again.reproduce(record, pictures()[0])
        assert found.explanation.precision == record.precision
        assert (found.map_difference, found.score_difference) == (0, 0)


def test_gradients_at_the_input_stay_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    gains(monkeypatch)
    free, exact = engine(zoo.module("conv")), engine(zoo.module("conv"), "fp32")
    free.plan("grad_cam", 1000)
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
    gains(monkeypatch)
    module = zoo.randomise(Fine())
    free, exact = engine(module), engine(module, "fp32")
    free.plan("grad_cam", 1000)
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
    assert "grad_cam_plus_plus" not in bearing


def _bears(name: str) -> bool:
    return name != "captum" and methods.load(name).bears_half
