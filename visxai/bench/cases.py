"""What explaining costs with a model of one's own on one's own machine, beside its plain forward.

    report = visxai.bench.run(visxai.bench.Setup("timm:resnet18", ("grad_cam",)))

Inputs are random; the time of a method that stops when it is done (`tolerance=`) depends on them.
Every method is run in turn with the plain eager forward of the same batch, plain and accelerated;
the report holds both the seconds and the ratios.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import Any

import torch

from visxai.bench.measure import (
    Work,
    allocator_peak,
    contest,
    environment,
    peak_increase,
    percentile,
    ratio,
    spread,
    timed,
)
from visxai.engine.acceleration import CHOICES
from visxai.engine.engine import Engine
from visxai.errors import ArgumentError
from visxai.images.preprocess import Preprocess
from visxai.methods import load
from visxai.models import cards

FORMAT = 1
METHODS = ("grad_cam", "integrated_gradients", "occlusion", "legrad")  # those the model serves
_SIDE = 224  # pixels, where the model doesn't say
_ROUNDS = 50  # at most


@dataclass(frozen=True)
class Setup:
    """What is measured. methods: specs, () for the usual ones. accelerate: () for "off", and
    "onnx" where it can be. seconds: of timing for each method and batch size; the first calls and
    at least three rounds come whatever they take. memory: whether peaks are measured, on a CPU
    by starting a process for each."""

    model: str = cards.DEFAULT
    methods: tuple[str, ...] = ()
    batches: tuple[int, ...] = (1, 8)
    accelerate: tuple[str, ...] = ()
    precision: str = "auto"
    device: str = "auto"
    checkpoint: str | None = None
    layer: str | None = None
    seconds: float = 20.0
    memory: bool = True
    preprocess: Preprocess | None = None

    def __post_init__(self) -> None:
        if not self.batches or min(self.batches) < 1:
            raise ArgumentError(f"expected batch sizes of at least 1, got {self.batches}")
        unknown = [kind for kind in self.accelerate if kind not in CHOICES]
        if unknown:
            raise ArgumentError(
                f"expected acceleration by {', '.join(CHOICES)}, got {unknown[0]!r}"
            )
        if self.seconds <= 0:
            raise ArgumentError(f"expected more than 0 seconds, got {self.seconds}")

    def engine(self, accelerate: str) -> Engine:
        return Engine(
            self.model,
            checkpoint=self.checkpoint,
            layer=self.layer,
            preprocess=self.preprocess,
            device=self.device,
            precision=self.precision,
            accelerate=accelerate,
        )


def run(setup: Setup, progress: Callable[[str], None] = lambda _: None) -> dict[str, Any]:
    """Measure, and return a report that can be written as JSON; `progress` is told each step."""
    # Mistakes in the specs show before a model is loaded.
    specs = tuple(repr(load(spec)) for spec in setup.methods or METHODS)
    progress(f"loading {setup.model}")
    plain = setup.engine("off")
    kinds = setup.accelerate or _usual(plain)
    engines = {kind: plain if kind == "off" else setup.engine(kind) for kind in kinds}
    served, left_out = _served(plain, specs, bool(setup.methods))
    cases: list[dict[str, Any]] = []
    for batch in setup.batches:
        forwards: list[float] = []
        for spec in served:
            progress(f"{spec}, batch {batch}")
            found, seconds = _measured(setup, plain, engines, spec, batch)
            cases += found
            forwards += seconds
        if forwards:
            own = _case("forward", batch, "off", plain.precision, forwards)
            cases.append(own | {"ran": "off", "of_forward": spread([1.0]), "peak_mib": None})
    return {
        "visxai_bench": FORMAT,
        "environment": environment(plain.device),
        "model": plain.model.ref.name,
        "weights_sha256": plain.model.ref.weights_sha256,
        "device": str(plain.device),
        "precision": plain.precision,
        "input": list(_inputs(plain, 1).shape[1:]),
        "left_out": left_out,
        "cases": cases,
    }


def work(engine: Engine, spec: str, batch: int) -> Work:
    """A call that explains `batch` random inputs; "forward" is the plain forward of them."""
    x = _inputs(engine, batch)
    if spec == "forward":
        return lambda: engine.model.scores(x)
    method = load(spec)
    return lambda: engine.attribute(x, method)


def _usual(engine: Engine) -> tuple[str, ...]:
    able = engine.device.type == "cpu" and engine.precision == "fp32"
    return ("off", "onnx") if able and find_spec("onnxruntime") and find_spec("onnx") else ("off",)


def _served(
    engine: Engine, specs: tuple[str, ...], asked: bool
) -> tuple[list[str], dict[str, str]]:
    """The methods the model can serve, and why not the others; raises for those asked for."""
    served, left_out = [], {}
    for spec in specs:
        try:
            engine.check(load(spec))
        except ArgumentError as error:
            if asked:
                raise
            left_out[spec] = str(error)
        else:
            served.append(spec)
    return served, left_out


def _measured(
    setup: Setup, plain: Engine, engines: dict[str, Engine], spec: str, batch: int
) -> tuple[list[dict[str, Any]], list[float]]:
    """The cases of one method at one batch size, and the forward's seconds beside them."""
    works = {kind: work(engine, spec, batch) for kind, engine in engines.items()}
    first = {kind: timed(one, plain.device) for kind, one in works.items()}
    forward = work(plain, "forward", batch)
    forward()
    seconds = contest(
        {"forward": forward, **works}, _ROUNDS, 0, limit=setup.seconds, device=plain.device
    )
    cases = []
    for kind, engine in engines.items():
        case = _case(spec, batch, kind, engine.precision, seconds[kind])
        case["ran"] = engine.model.accelerated(load(spec).needs)
        case["first_seconds"] = round(first[kind], 3)
        case["of_forward"] = ratio(seconds, kind, "forward")
        case["peak_mib"] = None
        if setup.memory and plain.device.type == "cuda":
            case["peak_mib"] = round(allocator_peak(works[kind]), 1)
        elif setup.memory and plain.device.type == "cpu":
            peak = peak_increase(partial(_loaded, setup, kind, spec, batch))
            case["peak_mib"] = None if peak is None else round(peak, 1)
        cases.append(case)
    return cases, seconds["forward"]


def _loaded(setup: Setup, kind: str, spec: str, batch: int) -> Work:
    """The same call in a process of its own, its model loaded and its inputs made."""
    return work(setup.engine(kind), spec, batch)


def _case(
    method: str, batch: int, accelerate: str, precision: str, seconds: list[float]
) -> dict[str, Any]:
    spreads = spread(seconds, 6)
    return {
        "method": method,
        "batch": batch,
        "accelerate": accelerate,
        "precision": precision,
        "rounds": len(seconds),
        "seconds": spreads,
        "p50": spreads["median"],
        "p95": round(percentile(seconds, 0.95), 6),
        "images_per_second": round(batch / spreads["median"], 2),
    }


def _inputs(engine: Engine, batch: int) -> torch.Tensor:
    preprocess = engine.model.preprocess
    size = preprocess.size if isinstance(preprocess, Preprocess) else (_SIDE, _SIDE)
    x = torch.randn(batch, 3, *size, generator=torch.Generator().manual_seed(0))
    return x.to(engine.device)
