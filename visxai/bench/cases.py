"""Measurement of what explaining costs with a given model and machine, beside its plain forward.

    report = visxai.bench.run(visxai.bench.Setup("timm:resnet18", ("grad_cam",)))

Inputs are random; the time of a method that stops when its map is accurate (`tolerance=`) depends
on them. Every method is run in turn with the plain eager forward of the same batch, plain and
accelerated; the report holds both the seconds and the ratios.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
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
from visxai.engine.acceleration import CHOICES, usual_runtime
from visxai.engine.engine import Engine
from visxai.errors import ArgumentError
from visxai.images.preprocess import Preprocess
from visxai.methods import load
from visxai.models import cards
from visxai.models.devices import pick_device

FORMAT = 1
METHODS = (
    "grad_cam",
    "integrated_gradients",
    "occlusion",
    "legrad",
)  # by default, as far as the model serves them
_SIDE = 224  # pixels a side of the input, where the model doesn't define it
_ROUNDS = 50  # the most rounds of a contest


@dataclass(frozen=True)
class Setup:
    """The settings of a measurement.

    Attributes:
        model: The name of the model.
        methods: Specs of the methods; () for the usual methods.
        batches: Batch sizes.
        accelerate: Kinds of acceleration; () for "off", and on a CPU what "auto" would prepare.
        precision: The precision, as of `Engine`.
        device: The device, as of `Engine`.
        checkpoint: A checkpoint of the model, as of `Engine`.
        layer: The layer for methods that read a layer, as of `Engine`.
        seconds: Seconds of timing for each method and batch size; the first calls and at least
            three rounds are run however long they take.
        memory: Whether to measure peaks of memory, on a CPU by starting a process for each.
        preprocess: The preprocessing, as of `Engine`.

    Raises:
        ArgumentError: A batch size, a kind of acceleration or the seconds are not allowed.
    """

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
        """Create an engine with these settings and a kind of acceleration.

        Its batch size is the largest of those measured, so that each of them is one block of rows
        where memory allows, and never less than an engine's own.
        """
        usual = 64 if pick_device(self.device).type == "cuda" else 16
        return Engine(
            self.model,
            batch_size=max(*self.batches, usual),
            checkpoint=self.checkpoint,
            layer=self.layer,
            preprocess=self.preprocess,
            device=self.device,
            precision=self.precision,
            accelerate=accelerate,
        )


def run(setup: Setup, progress: Callable[[str], None] = lambda _: None) -> dict[str, Any]:
    """Measure the methods, and return a report that can be written as JSON.

    Args:
        setup: The settings.
        progress: A function that is called with a description of each step.

    Raises:
        ArgumentError: A spec is wrong, or the model can't serve a method that `setup` names.
    """
    # Wrong specs raise before a model is loaded.
    specs = tuple(repr(load(spec)) for spec in setup.methods or METHODS)
    progress(f"loading {setup.model}")
    plain = setup.engine("off")
    kinds = setup.accelerate or _usual(plain)
    engines = {kind: plain if kind == "off" else setup.engine(kind) for kind in kinds}
    served, left_out = _served(plain, specs, bool(setup.methods))
    cases: list[dict[str, Any]] = []
    contests = len(served) * len(setup.batches)
    progress(f"{contests} measurements of about {setup.seconds:g} s: {_estimate(setup, contests)}")
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


def _estimate(setup: Setup, contests: int) -> str:
    """Say how long the measurements will take, and how to take less."""
    minutes = contests * setup.seconds / 60
    most = f"up to {minutes:.0f} min" if minutes >= 1.5 else f"up to {60 * minutes:.0f} s"
    more = ", and a process for each peak of memory (--no-memory leaves them out)"
    return most + (more if setup.memory and pick_device(setup.device).type == "cpu" else "")


def work(engine: Engine, spec: str, batch: int) -> Work:
    """Build a call that explains `batch` random inputs; "forward" runs their plain forward."""
    x = _inputs(engine, batch)
    if spec == "forward":
        return lambda: engine.model.scores(x)
    method = load(spec)
    return lambda: engine.attribute(x, method)


def _usual(engine: Engine) -> tuple[str, ...]:
    kind = usual_runtime(engine.precision) if engine.device.type == "cpu" else None
    return ("off",) if kind is None else ("off", kind)


def _served(
    engine: Engine, specs: tuple[str, ...], asked: bool
) -> tuple[list[str], dict[str, str]]:
    """List the methods that the model can serve, and why the others are left out.

    Args:
        engine: The engine.
        specs: The methods.
        asked: Whether to raise ArgumentError for a method that the model can't serve.
    """
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
    """Measure a method at a batch size; return its cases, and the seconds of the plain forward."""
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
    """Load the model and build the call of `work`, in a process that measures its memory."""
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
