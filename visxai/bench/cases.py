"""Measurement of what explaining costs with a given model and machine, beside its plain forward.

    report = visxai.bench.run(visxai.bench.Setup("timm:resnet18", ("grad_cam",)))

Inputs are random; the time of a method that stops when its map is accurate (`tolerance=`) depends
on them. Every method is run in turn with the plain eager forward of the same batch, in each
precision, plain and accelerated; the report holds both the seconds and the ratios. How long it will
take is told before it starts, and what would take longer than `longest` a call is left out by name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
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
from visxai.engine.acceleration import CHOICES
from visxai.engine.engine import Engine
from visxai.engine.measuring import runtimes
from visxai.errors import ArgumentError
from visxai.images.preprocess import Preprocess
from visxai.methods import load
from visxai.models import cards, loading
from visxai.models.devices import PRECISIONS, pick_device, pick_precision
from visxai.models.interface import Model
from visxai.models.pytorch.accelerate import PRECISIONS as FORMS
from visxai.models.pytorch.model import TorchModel

FORMAT = 1
_TEXTS = ("model", "weights_sha256", "precision")  # what several models' reports join
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
        model: The name of the model, or several with commas between them.
        methods: Specs of the methods; () for the usual methods.
        batches: Batch sizes.
        accelerate: Kinds of acceleration; () for "off", and on a CPU what "auto" would prepare.
        precision: The precision, as of `Engine`, or several with commas between them. The plain
            forward that all is compared with computes in the first.
        device: The device, as of `Engine`.
        checkpoint: A checkpoint of the model, as of `Engine`.
        layer: The layer for methods that read a layer, as of `Engine`.
        seconds: Seconds of timing for each method and batch size; the first calls and `rounds`
            rounds are run however long they take.
        memory: Whether to measure peaks of memory, on a CPU by starting a process for each.
        preprocess: The preprocessing, as of `Engine`.
        rounds: The fewest rounds of timing; quartiles need three.
        longest: Seconds that one call may take; what would take longer is left out by name.
        weights: Whether to load the model's weights; False draws them, the same every time, since
            the time doesn't depend on them. Models that visxai names itself keep theirs.

    Raises:
        ArgumentError: A batch size, a kind of acceleration, the seconds or rounds are not allowed.
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
    rounds: int = 3
    longest: float = 180.0
    weights: bool = True

    def __post_init__(self) -> None:
        if not self.batches or min(self.batches) < 1:
            got = ", ".join(map(str, self.batches)) or "none"
            raise ArgumentError(f"expected batch sizes of at least 1, got {got}: try 1,8")
        unknown = [kind for kind in self.accelerate if kind not in CHOICES]
        if unknown:
            raise ArgumentError(
                f"expected acceleration by {', '.join(CHOICES)}, got {unknown[0]!r}: take one of "
                "these, or several with commas between them"
            )
        strange = [one for one in self.precisions if one not in PRECISIONS]
        if strange:
            raise ArgumentError(
                f"expected precisions of {', '.join(PRECISIONS)}, got {strange[0]!r}: take one of "
                "these, or several with commas between them"
            )
        if self.seconds <= 0:
            raise ArgumentError(f"expected more than 0 seconds, got {self.seconds}: try 20")
        if self.longest <= 0:
            raise ArgumentError(
                f"expected calls longer than 0 seconds, got {self.longest}: try 180"
            )
        if self.rounds < 1:
            raise ArgumentError(f"expected at least 1 round, got {self.rounds}: try 3")

    @property
    def models(self) -> tuple[str, ...]:
        """The names of the models."""
        return tuple(name.strip() for name in self.model.split(","))

    @property
    def precisions(self) -> tuple[str, ...]:
        """The precisions."""
        return tuple(name.strip() for name in self.precision.split(","))

    def engine(self, accelerate: str, precision: str) -> Engine:
        """Create an engine with these settings, a kind of acceleration and a precision.

        Its batch size is the largest of those measured, so that each of them is one block of rows
        where memory allows, and never less than an engine's own.
        """
        usual = 64 if pick_device(self.device).type == "cuda" else 16
        made = Engine(
            self.model if self.weights else _drawn(self.model, self.device),
            batch_size=max(*self.batches, usual),
            checkpoint=self.checkpoint,
            layer=self.layer,
            preprocess=self.preprocess,
            device=self.device,
            precision=precision,
            accelerate=accelerate,
        )
        # Calls are timed as in a run that is long enough for half precision.
        made.settle(precision=pick_precision("auto", made.device, made.model.precisions))
        return made


def _drawn(name: str, device: str) -> Model:
    """Load a model with weights that are drawn, the same every time."""
    with torch.random.fork_rng():
        torch.manual_seed(0)  # so that prepared forms, which are kept by weights, are found again
        model = loading.load(name, weights=False, device=pick_device(device))
        for part in model.module.modules() if isinstance(model, TorchModel) else ():
            # A last layer of zeros has no gradient, and what is lost is computed twice.
            if isinstance(part, torch.nn.Linear) and not part.weight.any():
                torch.nn.init.normal_(part.weight, std=0.02)
    return model


def run(setup: Setup, progress: Callable[[str], None] = lambda _: None) -> dict[str, Any]:
    """Measure the methods, and return a report that can be written as JSON.

    Args:
        setup: The settings.
        progress: A function that is called with a description of each step.

    Raises:
        ArgumentError: A spec is wrong, or no model can serve a method that `setup` names.
    """
    # Wrong specs raise before a model is loaded.
    specs = tuple(repr(load(spec)) for spec in setup.methods or METHODS)
    if len(setup.models) == 1:
        return _of_model(setup, specs, progress)
    each = [replace(setup, model=name) for name in setup.models]
    _check(each, specs, progress)
    reports = [_of_model(one, specs, progress, several=True) for one in each]
    joined = {name: ", ".join(dict.fromkeys(one[name] for one in reports)) for name in _TEXTS}
    return {
        **reports[0],
        **joined,
        "left_out": {
            f"{one['model']}: {what}": why
            for one in reports
            for what, why in one["left_out"].items()
        },
        "cases": [{"model": one["model"], **case} for one in reports for case in one["cases"]],
    }


def _check(
    setups: Sequence[Setup], specs: tuple[str, ...], progress: Callable[[str], None]
) -> None:
    """Raise what would end the measurement of the last model only after those before it."""
    unserved: dict[str, ArgumentError] = {}
    served: set[str] = set()
    for setup in setups:
        progress(f"looking at {setup.model}")
        engine = setup.engine("off", setup.precisions[0])
        for spec in specs:
            try:
                engine.check(load(spec))
                served.add(spec)
            except ArgumentError as error:
                unserved[spec] = error
    for spec, why in unserved.items():
        if setups[0].methods and spec not in served:
            raise why


def _of_model(
    setup: Setup,
    specs: tuple[str, ...],
    progress: Callable[[str], None],
    several: bool = False,
) -> dict[str, Any]:
    """Measure methods on one model, which is one of `several` or must serve all; see `run`."""
    progress(f"loading {setup.model}")
    plain = setup.engine("off", setup.precisions[0])
    served, left_out = _served(plain, specs, bool(setup.methods) and not several)
    engines = _engines(setup, plain, left_out)
    cells, expected = _affordable(setup, plain, served, len(engines), left_out)
    more = ", and a process for each peak of memory (--no-memory leaves them out)"
    more = more if setup.memory and plain.device.type == "cpu" else ""
    count = len(cells) * len(engines)
    noun = "measurement" if count == 1 else "measurements"
    progress(f"{count} {noun}: about {_spoken(expected)}{more}")
    cases: list[dict[str, Any]] = []
    for batch in setup.batches:
        forwards: list[float] = []
        for spec in (spec for spec, own in cells if own == batch):
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
        "precision": ", ".join(dict.fromkeys(precision for _, precision in engines)),
        "input": list(_inputs(plain, 1).shape[1:]),
        "left_out": left_out,
        "cases": cases,
    }


def _engines(
    setup: Setup, plain: Engine, left_out: dict[str, str]
) -> dict[tuple[str, str], Engine]:
    """Create the engines by acceleration and precision; note in `left_out` which can't be."""
    made: dict[tuple[str, str], Engine] = {}
    for precision in setup.precisions:
        first = precision == setup.precisions[0]
        own = plain if first else setup.engine("off", precision)
        for kind in setup.accelerate or _usual(own):
            computes = FORMS.get(kind, (own.precision,))
            if own.precision not in computes:
                left_out[f"{kind} in {own.precision}"] = f"computes in {', '.join(computes)} alone"
                continue
            made[kind, own.precision] = own if kind == "off" else setup.engine(kind, precision)
    if not made:
        why = "; ".join(f"{form} {reason}" for form, reason in left_out.items())
        raise ArgumentError(
            f"expected an acceleration that serves the precision, got none ({why}): add off to the "
            "accelerations, or another precision"
        )
    return made


def _affordable(
    setup: Setup, plain: Engine, served: list[str], engines: int, left_out: dict[str, str]
) -> tuple[list[tuple[str, int]], float]:
    """List the methods and batch sizes whose calls aren't too long, and estimate the seconds.

    A call is taken to cost its rows times the plain forward of one, a backward twice as much.

    Returns:
        The cells (method, batch), and the seconds of measuring them all; what is too long is
        noted in `left_out`.
    """
    forward, one = work(plain, "forward", 1), _inputs(plain, 1)
    forward()
    row = timed(forward, plain.device)
    cells, expected = [], 0.0
    for batch in setup.batches:
        for spec in served:
            cost = load(spec).cost(plain.model, one)
            seconds = batch * row * (cost.forwards + 2 * cost.backwards)
            if seconds > setup.longest:
                why = f"a call would take about {_spoken(seconds)}"
                left_out[f"{spec}, batch {batch}"] = why
                continue
            cells.append((spec, batch))
            calls = engines * seconds + batch * row  # a round, beside the forward
            expected += calls + max(min(setup.seconds, _ROUNDS * calls), setup.rounds * calls)
    return cells, expected


def _spoken(seconds: float) -> str:
    if seconds < 1.5:
        return "a second"
    return f"{seconds:.0f} seconds" if seconds < 100 else f"{seconds / 60:.0f} minutes"


def work(engine: Engine, spec: str, batch: int) -> Work:
    """Build a call that explains `batch` random inputs; "forward" runs their plain forward."""
    x = _inputs(engine, batch)
    if spec == "forward":
        return lambda: engine.probe(x).scores(x)
    method = load(spec)
    return lambda: engine.attribute(x, method)


def _usual(engine: Engine) -> tuple[str, ...]:
    kinds = runtimes(engine.precision) if engine.device.type == "cpu" else ()
    return ("off", *[kind for kind in kinds if kind != "compile"][:1])


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
            missing = load(spec).needs & ~engine.model.offers
            left_out[spec] = f"needs {missing}" if missing else str(error)
        else:
            served.append(spec)
    return served, left_out


def _measured(
    setup: Setup,
    plain: Engine,
    engines: dict[tuple[str, str], Engine],
    spec: str,
    batch: int,
) -> tuple[list[dict[str, Any]], list[float]]:
    """Measure a method at a batch size; return its cases, and the seconds of the plain forward."""
    works = {" in ".join(form): work(engine, spec, batch) for form, engine in engines.items()}
    first = {name: timed(one, plain.device) for name, one in works.items()}
    forward = work(plain, "forward", batch)
    forward()
    seconds = contest(
        {"forward": forward, **works},
        _ROUNDS,
        0,
        limit=setup.seconds,
        fewest=setup.rounds,
        device=plain.device,
    )
    cases = []
    for (kind, precision), engine in engines.items():
        name = f"{kind} in {precision}"
        case = _case(spec, batch, kind, precision, seconds[name])
        case["ran"] = engine.model.accelerated(load(spec).needs)
        case["first_seconds"] = round(first[name], 3)
        case["of_forward"] = ratio(seconds, name, "forward")
        case["peak_mib"] = None
        if setup.memory and plain.device.type == "cuda":
            case["peak_mib"] = round(allocator_peak(works[name]), 1)
        elif setup.memory and plain.device.type == "cpu":
            peak = peak_increase(partial(_loaded, setup, kind, precision, spec, batch))
            case["peak_mib"] = None if peak is None else round(peak, 1)
        cases.append(case)
    return cases, seconds["forward"]


def _loaded(setup: Setup, kind: str, precision: str, spec: str, batch: int) -> Work:
    """Load the model and build the call of `work`, in a process that measures its memory."""
    return work(setup.engine(kind, precision), spec, batch)


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
