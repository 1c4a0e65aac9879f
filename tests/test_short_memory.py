"""Memory that runs out once, anywhere: nothing is concluded from it, and all works afterwards."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zoo

import visxai
from visxai.errors import OutOfMemory
from visxai.models import speed
from visxai.models.pytorch import narrow


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VISXAI_CACHE", str(tmp_path))
    monkeypatch.setattr(speed, "gain", lambda: 9.0)
    # A copy's time isn't what this is about: it counts as the fastest.
    monkeypatch.setattr(narrow, "measured", lambda *_: narrow.Seconds(1.0, 2.0, 3.0))


def pictures(count: int = 3) -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    return [generator.integers(0, 255, (70, 70, 3), dtype=np.uint8) for _ in range(count)]


def engine(kind: str, how: dict[str, Any]) -> visxai.Engine:
    given = {"precision": "fp32", "accelerate": "off", **how}
    return visxai.Engine(zoo.module(kind), preprocess=zoo.PREPROCESS, device="cpu", **given)


HALF, ONNX = {"precision": "bf16"}, {"accelerate": "onnx"}
# Where memory runs out, on which kind of network, with what method and engine.
PLACES: list[tuple[str, str, str, dict[str, Any]]] = [
    ("visxai.images.preprocess.Preprocess.normalise", "conv", "grad_cam", {}),
    ("visxai.engine.transfer.Streams.up", "conv", "grad_cam", {}),
    ("visxai.engine.transfer.Streams.down", "conv", "grad_cam", {}),
    ("visxai.engine.transfer.Streams.buffer", "conv", "grad_cam", {}),
    ("visxai.engine.batch.reported", "conv", "grad_cam", {}),
    ("visxai.engine.batch.tidy", "conv", "grad_cam", {}),
    ("visxai.models.pytorch.network.survey", "conv", "grad_cam", {}),
    ("visxai.models.pytorch.model.choose_layer", "conv", "grad_cam", {}),
    ("visxai.models.pytorch.model.find_tokens", "vit", "legrad", {}),
    ("visxai.models.pytorch.attention.attend", "vit", "legrad", {}),
    ("visxai.models.pytorch.forms.split", "conv", "ablation_cam", {}),
    ("visxai.methods.occlusion._coverage", "conv", "occlusion(window=32, stride=32)", {}),
    ("visxai.methods.smooth_grad.gradient_sum", "conv", "smooth_grad(copies=2)", {}),
    ("visxai.models.pytorch.narrow.narrowed", "conv", "grad_cam", HALF),
    ("visxai.models.pytorch.narrow.disagreement", "conv", "grad_cam", HALF),
    ("visxai.models.pytorch.narrow.measured", "conv", "grad_cam", HALF),
    ("visxai.models.pytorch.network.classifiers", "conv", "grad_cam", HALF),
    ("visxai.models.pytorch.accelerate.streamlined", "conv", "saliency", ONNX),
    ("visxai.models.pytorch.exporting.export", "conv", "occlusion(window=32, stride=32)", ONNX),
    ("visxai.models.pytorch.exporting.exported", "conv", "occlusion(window=32, stride=32)", ONNX),
    ("visxai.models.pytorch.accelerate.refusal", "conv", "grad_cam", ONNX),
    ("visxai.engine.measuring.plain", "conv", "grad_cam", {"precision": "auto"}),
    ("visxai.engine.measuring.measure", "conv", "grad_cam", {"precision": "auto"}),
]


def once(place: str, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let the next call of a function run out of memory; how often it was called."""
    owner, _, name = place.rpartition(".")
    holder: Any = _resolve(owner)
    plain: Callable[..., Any] = getattr(holder, name)
    calls: list[int] = []

    def scarce(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        if len(calls) == 1:
            raise torch.OutOfMemoryError("CUDA out of memory (pretended)")
        return plain(*args, **kwargs)

    monkeypatch.setattr(holder, name, scarce)
    return calls


def _resolve(dotted: str) -> Any:
    parts = dotted.split(".")
    for end in range(len(parts), 0, -1):
        try:
            found: Any = importlib.import_module(".".join(parts[:end]))
        except ModuleNotFoundError:
            continue
        for name in parts[end:]:
            found = getattr(found, name)
        return found
    raise AssertionError(dotted)


@pytest.mark.parametrize(("place", "kind", "spec", "how"), PLACES, ids=lambda one: str(one)[-40:])
def test_memory_that_runs_out_once_leaves_no_trace(
    place: str,
    kind: str,
    spec: str,
    how: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if how == ONNX:
        pytest.importorskip("onnxruntime", reason="needs the extra onnx")
    images, plain = pictures(), engine(kind, how)
    auto = how.get("precision") == "auto"

    def run(made: visxai.Engine) -> list[Any]:
        if auto:
            made.plan(spec, 10_000)
        return list(made.explain(images, spec, 2))

    expected = run(plain)
    monkeypatch.setenv("VISXAI_CACHE", str(tmp_path / "empty"))  # all is prepared anew
    short = engine(kind, how)
    with monkeypatch.context() as patched:
        calls = once(place, patched)
        first = []
        with contextlib.suppress(OutOfMemory):  # where nothing smaller is left to try
            first = run(short)
        assert calls, f"{place} is never called: the test shows nothing"
    for one, other in zip(first, expected, strict=False):
        assert np.allclose(one.values, other.values, rtol=2e-2, atol=1e-3)
    if auto:
        made = engine(kind, how)  # as a later process: nothing was kept of the failure
        assert made.plan(spec, 10_000) == plain.plan(spec, 1)
        assert run(made)[0].precision.partition(" ")[0] in ("fp32", "bf16")
        assert not list((tmp_path / "empty").rglob("refused*"))
        return
    for one, other in zip(run(short), expected, strict=True):
        assert np.allclose(one.values, other.values, rtol=1e-3, atol=1e-5)
        assert (one.precision, one.accelerate) == (other.precision, other.accelerate)
        assert one.layer == other.layer
