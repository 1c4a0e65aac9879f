"""Many threads, engines and methods on one module give what a single thread gives.

Every round makes engines anew on one module and starts eight threads at once, so the first
surveys, splits, exports and copies of all of them fall together. A few rounds run with the suite;

    VISXAI_STRESS_SECONDS=600 python -m pytest tests/test_threads.py -s

goes on for ten minutes and says how many maps it compared.
"""

from __future__ import annotations

import copy
import os
import random
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
import torch
import zoo
from torch import Tensor, nn

import visxai
from visxai.models.pytorch.capture import capture

THREADS = 8
SECONDS = float(os.environ.get("VISXAI_STRESS_SECONDS", "4"))
PATIENCE = 300  # seconds for a round that takes one or two: more is a deadlock


def _vit(heads: int) -> nn.Module:
    from torchvision.models import VisionTransformer

    return VisionTransformer(zoo.SIZE, 32, 2, heads, 24, 48, num_classes=zoo.CLASSES)


class Normed(nn.Module):
    """A small CNN with batch norms, which are folded, and a residual around its last layers."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 8, 3, 4), nn.Conv2d(8, 8, 3, padding=1)
        self.a, self.b = nn.BatchNorm2d(8), nn.BatchNorm2d(8)
        self.act, self.head = nn.ReLU(inplace=True), nn.Linear(8, zoo.CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        first = torch.tanh(self.a(self.one(x)))
        return self.head(self.act(self.b(self.two(first)) + first).mean((2, 3)))


KINDS: dict[str, Callable[[], nn.Module]] = {
    "conv": zoo.Conv,
    "normed": Normed,
    "vit": lambda: _vit(3),
    "even vit": lambda: _vit(4),  # whose attention has a native kernel
}
METHODS = (
    "grad_cam",
    "ablation_cam",
    "score_cam(top=4)",
    "hires_cam",
    "saliency",
    "integrated_gradients(steps=4)",
    "occlusion(window=32, stride=32)",
)
ATTENTION = ("attention_rollout", "chefer", "token_drop")
# captum follows activations only where each is a module that runs once.
MORE = {"conv": ("captum:DeepLift",), "vit": ATTENTION, "even vit": ATTENTION}
SIZES = (1, 2, 3, 5)


@dataclass(frozen=True)
class Job:
    """A call of `attribute`: by which of a round's engines, with which method, on what."""

    engine: int
    method: str
    count: int
    seed: int


def _engine(module: nn.Module, how: str, batch_size: int) -> visxai.Engine:
    return visxai.Engine(
        module,
        preprocess=zoo.PREPROCESS,
        precision="fp32",
        accelerate=how,
        batch_size=batch_size,
    )


@cache
def _module(kind: str) -> nn.Module:
    return zoo.randomise(KINDS[kind]())


@cache
def _alone(kind: str) -> visxai.Engine:
    """What only the main thread uses, on a module of its own."""
    return _engine(copy.deepcopy(_module(kind)), "off", 16)


@cache
def _expected(kind: str, method: str, count: int, seed: int) -> Tensor:
    return _alone(kind).attribute(zoo.inputs(count, seed=seed), method, 3)


def _jobs(kind: str, engines: int, draw: random.Random) -> list[Job]:
    methods = METHODS + MORE.get(kind, ())
    chosen = [draw.choice(methods) for _ in range(3 * THREADS)]
    return [
        Job(draw.randrange(engines), method, draw.choice(SIZES), draw.randrange(3))
        for method in chosen
    ]


def _round(kind: str, draw: random.Random) -> int:
    """One round on new engines over one module; the number of jobs."""
    first = _engine(_module(kind), "off", 16)
    engines = [
        first,
        visxai.Engine(first.model, precision="fp32", accelerate="off", batch_size=2),
        _engine(_module(kind), "onnx", 4),
        visxai.Engine(first.model, precision="fp32", accelerate="onnx", batch_size=3),
    ]
    jobs = _jobs(kind, len(engines), draw)
    for job in jobs:
        _expected(kind, job.method, job.count, job.seed)
    start = threading.Barrier(THREADS)

    def work(mine: list[Job]) -> list[str]:
        start.wait(PATIENCE)
        return [wrong for job in mine if (wrong := _wrong(kind, engines[job.engine], job))]

    with ThreadPoolExecutor(THREADS) as pool:
        parts = [jobs[number::THREADS] for number in range(THREADS)]
        found = list(pool.map(work, parts, timeout=PATIENCE))
    assert found == [[]] * THREADS
    for one in engines:
        prepared = one.model.acceleration
        assert prepared is None or prepared.why == {}
        module = one.model.module
        assert not any(part._forward_hooks or part._forward_pre_hooks for part in module.modules())
    return len(jobs)


def _wrong(kind: str, engine: visxai.Engine, job: Job) -> str:
    """How far a job's maps are from those of a single thread, or "" where they are the same."""
    found = engine.attribute(zoo.inputs(job.count, seed=job.seed), job.method, 3)
    expected = _expected(kind, job.method, job.count, job.seed)
    # Prepared forms, and attention by another kernel while others record it, round differently.
    # Kinks that folded weights shift may change single pixels of a gradient.
    if found.shape != expected.shape:
        return f"{job}: shape {tuple(found.shape)}"
    apart = float((found - expected).norm() / expected.norm().clamp_min(1e-30))
    return "" if apart <= (1e-5 if engine.accelerate == "off" else 2e-2) else f"{job}: {apart:.1e}"


@pytest.fixture(autouse=True)
def one_torch_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> object:
    monkeypatch.setenv("VISXAI_CACHE", str(tmp_path))
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("kind", KINDS)
def test_threads_give_the_maps_of_one(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime", reason="needs the extra onnx")
    pytest.importorskip("captum", reason="needs the extra captum")
    draw, rounds, jobs = random.Random(kind), 0, 0
    until = time.monotonic() + SECONDS / len(KINDS)
    while rounds == 0 or time.monotonic() < until:
        if rounds % 2 == 0:  # every other round finds the exported forms of the one before
            monkeypatch.setenv("VISXAI_CACHE", str(tmp_path / str(rounds)))
        jobs += _round(kind, draw)
        rounds += 1
    sys.stdout.write(f"{kind}: {rounds} rounds, {jobs} calls compared\n")


def test_specs_are_parsed_in_many_threads() -> None:
    spec = f"occlusion(window={'+'.join('1' * 200)})"  # deep: long enough to be interrupted
    interval = sys.getswitchinterval()
    # From when all have started: threads that a tracer follows can be lost while they start.
    start = threading.Barrier(THREADS, action=lambda: sys.setswitchinterval(1e-6))

    def parse(_: int) -> int:
        start.wait(PATIENCE)
        for _ in range(50):
            with pytest.raises(visxai.errors.ArgumentError):
                visxai.spec.parse(spec, "method", "grad_cam")
        return 50

    try:
        with ThreadPoolExecutor(THREADS) as pool:
            assert list(pool.map(parse, range(THREADS))) == [50] * THREADS
    finally:
        sys.setswitchinterval(interval)


def test_a_split_made_while_another_thread_captures_keeps_none_of_its_hooks() -> None:
    method, x = "ablation_cam(layer='two')", zoo.inputs(2)
    expected = _alone("normed").attribute(x, method, 3)
    engine = _engine(_module("normed"), "off", 16)
    captures, split = threading.Event(), threading.Event()

    def other() -> Tensor:
        with capture(engine.model.module, "two", "a", cut=True) as seen:
            engine.model.forward(x)
            captures.set()
            assert split.wait(PATIENCE)
        assert len(seen) == 2
        # A hook of this thread's that had been copied would fire from here on.
        return engine.attribute(x, method, 3)

    with ThreadPoolExecutor(1) as pool:
        later = pool.submit(other)
        assert captures.wait(PATIENCE)
        found = engine.attribute(x, method, 3)
        split.set()
        assert torch.allclose(found, expected, atol=1e-6)
        assert torch.allclose(later.result(PATIENCE), expected, atol=1e-6)
