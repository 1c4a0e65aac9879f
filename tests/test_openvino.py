"""Forms in OpenVINO: the same maps, in float32 and in bfloat16, of every family of models."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
import zoo
from torch.nn import functional as F

import visxai
from visxai.engine import acceleration
from visxai.errors import ArgumentError
from visxai.models.interface import Need
from visxai.models.pytorch import narrow, openvino
from visxai.models.pytorch.openvino import OpenVinoForm

pytest.importorskip("openvino", reason="needs the extra openvino")
pytest.importorskip("onnx", reason="needs the extra openvino")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VISXAI_CACHE", str(tmp_path / "cache"))


def engine(kind: str, how: str = "openvino", precision: str = "fp32") -> visxai.Engine:
    return visxai.Engine(
        zoo.module(kind), preprocess=zoo.PREPROCESS, accelerate=how, precision=precision
    )


@pytest.mark.parametrize("kind", zoo.KINDS)
def test_every_family_runs_in_openvino_with_the_same_maps(kind: str) -> None:
    fast, plain, x = engine(kind), engine(kind, "off"), zoo.inputs(3)
    found, expected = (one.attribute(x, "grad_cam(relu=False)", 2) for one in (fast, plain))
    assert float((found - expected).abs().max() / expected.abs().max()) < 1e-3
    found, expected = (one.model.scores(x) for one in (fast, plain))
    assert float((found - expected).abs().max() / expected.abs().max()) < 1e-4
    assert fast.model.accelerated(Need.SCORES) == "openvino"
    assert fast.model.accelerated(Need.LAYER_GRADIENT) == "openvino below the layer"


@pytest.mark.parametrize("kind", ["resnet18", "vit"])  # bf16 suits their random weights, too
def test_forms_in_bf16(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(narrow, "measured", lambda *_: narrow.Seconds(1.0, 2.0, 3.0))
    fast, plain, x = engine(kind, precision="bf16"), engine(kind, "off"), zoo.inputs(3)
    maps = [one.attribute(x, "grad_cam(relu=False)", 2).flatten(1) for one in (fast, plain)]
    assert float(F.cosine_similarity(*maps).min()) > 0.98
    scores, expected = (one.model.scores(x) for one in (fast, plain))
    assert float((scores - expected).norm() / expected.norm()) < 0.03
    told = fast.model.accelerated(Need.LAYER_GRADIENT)
    assert told == "openvino below the layer; bf16 by prepared copy"
    forms = fast.model.acceleration._forms  # type: ignore[attr-defined]
    assert [type(form) for form in forms.values()] == [OpenVinoForm] * 2
    assert all("in bf16" in place for place, _ in forms)


def test_threads_share_a_form() -> None:
    fast, plain, x = engine("conv"), engine("conv", "off"), zoo.inputs(8)
    fast.model.scores(x)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda i: fast.model.scores(x[i % 8 :]), range(32)))
    for number, scores in enumerate(found):
        torch.testing.assert_close(scores, plain.model.scores(x[number % 8 :]))


def test_a_size_of_batch_that_comes_again_gets_a_graph_of_its_own() -> None:
    fast, x = engine("resnet18"), zoo.inputs(6)
    first = fast.model.scores(x[:4])
    (made,) = fast.model.acceleration._forms.values()  # type: ignore[attr-defined]
    assert set(made._compiled) == {0}
    for size in (4, 5, 6):
        for _ in range(openvino._CALLS):
            again = fast.model.scores(x[:size])
        assert size in made._compiled
        assert len(made._compiled) <= 1 + openvino._SIZES
        assert torch.equal(again[:4], first)
    assert torch.equal(fast.model.scores(x[:1]), first[:1])
    assert set(made._compiled) == {0, 5, 6}
    made._path.unlink()
    for _ in range(openvino._CALLS):
        torch.testing.assert_close(fast.model.scores(x[:2]), first[:2])
    assert set(made._compiled) == {0, 5, 6}  # the file is gone, and the first graph goes on


def test_memory_that_runs_out_says_nothing_about_the_form(monkeypatch: pytest.MonkeyPatch) -> None:
    honest, tries = OpenVinoForm.__init__, []

    def scarce(self: OpenVinoForm, *given: Any) -> None:
        tries.append(1)
        if len(tries) <= 2:  # the file that seems damaged is made anew, once
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        honest(self, *given)

    monkeypatch.setattr(OpenVinoForm, "__init__", scarce)
    fast = engine("conv")
    fast.model.scores(zoo.inputs(1))
    assert "no memory left" in fast.model.accelerated(Need.SCORES)
    fast.model.scores(zoo.inputs(1))
    assert fast.model.accelerated(Need.SCORES) == "openvino"


def test_only_a_cpu_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    model = zoo.model("conv").with_output(lambda scores: scores)
    model.device = torch.device("meta")
    with pytest.raises(ArgumentError, match="accelerate='openvino' with a model on the CPU"):
        acceleration.Plan(model, "openvino", "fp32")


def test_nothing_opens_the_network(tmp_path: Path) -> None:
    code = """
import sys
network = ("socket.connect", "socket.getaddrinfo")
sys.addaudithook(lambda event, _: event in network and exit(event))
import torch, visxai
from torch import nn
module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
engine = visxai.Engine(module.eval(), precision="fp32", accelerate="openvino")
engine.model.scores(torch.zeros(2, 3, 16, 16))
from visxai.models.interface import Need
print(engine.model.accelerated(Need.SCORES))
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (ran.returncode, ran.stdout.strip()) == (0, "openvino"), ran.stderr
