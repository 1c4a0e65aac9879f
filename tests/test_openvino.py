"""Forms in OpenVINO: the same maps, in float32 and in bfloat16, of every family of models."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zoo
from torch.nn import functional as F

import visxai
from visxai.engine import acceleration
from visxai.engine.decision import Decision
from visxai.errors import ArgumentError, TargetError
from visxai.models.interface import Need
from visxai.models.pytorch import accelerate, narrow, openvino
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
    fast, x = engine("resnet18"), zoo.inputs(10)
    first = fast.model.scores(x[:8])
    (made,) = fast.model.acceleration._forms.values()  # type: ignore[attr-defined]
    assert set(made._compiled) == {0}
    for size, kept in ((8, {8}), (9, {8, 9}), (10, {8, 9}), (10, {9, 10})):
        for _ in range(openvino._CALLS):
            again = fast.model.scores(x[:size])
        assert set(made._compiled) == {0, *kept}
        assert torch.equal(again[:8], first)
    assert torch.equal(fast.model.scores(x[:1]), first[:1])
    for _ in range(9 * openvino._CALLS):  # a few rows gain too little
        fast.model.scores(x[:7])
    assert set(made._compiled) == {0, 9, 10}
    made._path.unlink()
    for _ in range(6 * openvino._CALLS):
        torch.testing.assert_close(fast.model.scores(x[:8]), first)
    assert set(made._compiled) == {0, 9, 10}  # the file is gone, and the first graph goes on


def announced(kind: str, images: int = accelerate.MANY_IMAGES) -> visxai.Engine:
    """An engine in bf16 that was told of a long run."""
    made = engine(kind, precision="bf16")
    made.plan("grad_cam", images)
    return made


@pytest.mark.parametrize("kind", ["resnet18", "vit"])
def test_a_long_run_gets_its_maps_from_the_graph(kind: str) -> None:
    pytest.importorskip("onnxscript", reason="needs the extra onnx")
    long, short, x = announced(kind), announced(kind, 8), zoo.inputs(5)
    exact = engine(kind, "off")
    for spec in ("grad_cam(relu=False)", "layer_cam"):
        usual, maps, wanted = (one.attribute(x, spec, 1).flatten(1) for one in (short, long, exact))
        assert float(F.cosine_similarity(usual, wanted).min()) > 0.98
        assert float(F.cosine_similarity(maps, wanted).min()) > 0.98
    graphs = [place for place, _ in long.model.acceleration._graphs]  # type: ignore[attr-defined]
    assert [re.sub(r" at .*", "", place) for place in sorted(graphs)] == [
        "maps of grad_cam(relu=False)",
        "maps of layer_cam(relu=True)",
    ]
    assert not short.model.acceleration._graphs  # type: ignore[attr-defined]


def test_records_name_the_graph_that_made_their_map() -> None:
    pytest.importorskip("onnxscript", reason="needs the extra onnx")
    long, images = announced("resnet18"), [np.full((48, 48, 3), 90, np.uint8)]
    told = {
        target: long.explain(images, method="grad_cam", target=target)[0].accelerate
        for target in ("top1", "diff=1,2")
    }
    assert told["top1"] == "openvino, maps of grad_cam(relu=True) at layer4 (asked for)"
    assert told["diff=1,2"].startswith("openvino below the layer; bf16 by")
    assert long.plan("grad_cam", 1) == "asked for; maps by graphs"
    later = engine("resnet18", precision="bf16")
    later.settle(Decision.of("openvino (asked for)"))  # a run that began without them
    assert later.plan("grad_cam", accelerate.MANY_IMAGES) == "asked for"
    check = engine("resnet18", precision="bf16")
    assert check.plan("grad_cam", accelerate.MANY_IMAGES, of_check=True) == "asked for"


def test_threads_that_prepare_a_graph_and_other_forms_don_t_wait_for_each_other() -> None:
    pytest.importorskip("onnxscript", reason="needs the extra onnx")
    announced("resnet18").attribute(zoo.inputs(2), "grad_cam", 1)  # the cache holds the graph now
    for delay in (0.0, 0.02, 0.05, 0.1):
        long, x = announced("resnet18"), zoo.inputs(2)
        threads = [
            threading.Thread(target=long.attribute, args=(x, spec, 1), daemon=True)
            for spec in ("grad_cam", "occlusion(window=32, stride=32)")
        ]
        for thread in threads:
            thread.start()
            time.sleep(delay)
        for thread in threads:
            thread.join(60)
        assert not any(thread.is_alive() for thread in threads)


def test_graphs_of_maps_serve_one_class_of_each_image_in_blocks_of_any_size() -> None:
    pytest.importorskip("onnxscript", reason="needs the extra onnx")
    long, x = announced("resnet18"), zoo.inputs(5)
    spec = "grad_cam(relu=False)"
    every = torch.stack([long.attribute(x, spec, k) for k in range(10)])
    best = long.model.scores(x).argmax(1)
    assert len(set(best.tolist())) > 1
    where = torch.arange(5)
    torch.testing.assert_close(
        long.attribute(x, spec, [2, 1, 0, 1, 2]), every[[2, 1, 0, 1, 2], where]
    )
    torch.testing.assert_close(long.attribute(x, spec, "top1"), every[best, where])
    whole = long.attribute(x, spec, 1)
    long.model.budget.limit = 2  # rows at once
    torch.testing.assert_close(long.attribute(x, spec, 1), whole)
    two = long.attribute(x, spec, "top2")  # PyTorch's head, which takes any target
    assert len(two) == 10
    with pytest.raises(TargetError, match="expected a class from 0 to"):
        long.attribute(x, spec, 99)


def test_a_graph_of_maps_that_differs_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxscript", reason="needs the extra onnx")
    honest = OpenVinoForm.all

    def bent(self: OpenVinoForm, *given: torch.Tensor) -> list[torch.Tensor]:
        found = honest(self, *given)
        return found if len(found) == 1 else [found[0], found[1].flip(0, 1)]

    monkeypatch.setattr(OpenVinoForm, "all", bent)
    long, short, x = announced("resnet18"), announced("resnet18", 1), zoo.inputs(3)
    maps = [one.attribute(x, "grad_cam", 1) for one in (long, short)]
    assert torch.equal(*maps)
    told = long.model.accelerated(Need.LAYER_GRADIENT)
    assert re.search(r"below the layer \(plain: maps of grad_cam.*: differs by", told)


def test_values_that_a_graph_loses_are_computed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxscript", reason="needs the extra onnx")
    long, x = announced("resnet18"), zoo.inputs(3)
    maps = long.attribute(x, "grad_cam", 1)
    honest = OpenVinoForm.all

    def lossy(self: OpenVinoForm, *given: torch.Tensor) -> list[torch.Tensor]:
        found = honest(self, *given)
        if len(found) == 2:
            found[1][1] = float("nan")
        return found

    monkeypatch.setattr(OpenVinoForm, "all", lossy)
    again = long.attribute(x, "grad_cam", 1)
    torch.testing.assert_close(again[[0, 2]], maps[[0, 2]])
    exact = engine("resnet18", "off").attribute(x, "grad_cam", 1)
    torch.testing.assert_close(again[1], exact[1], rtol=1e-3, atol=1e-4 * float(exact.abs().max()))


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
