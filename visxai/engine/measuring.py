"""The time of a model's forward in each form that may serve, measured once on this machine.

A form is a precision and what computes in it: PyTorch as it is ("off"), ONNX Runtime, OpenVINO, or
code that inductor compiled. It is timed beside the plain float32 forward, in turn, on four rows;
what is measured on a CPU is the time that this process's threads computed, which other processes
don't lengthen. Before that its scores are checked against the plain ones (`narrow.disagreement`:
cosine, class, probabilities); a form that fails is refused, and why is told. What was measured is
kept in the cache folder by weights, input, versions, processor and threads.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import math
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from visxai.models import measured
from visxai.models.pytorch.accelerate import NO_ROOM, PRECISIONS, Acceleration
from visxai.models.pytorch.agreement import three_rows
from visxai.models.pytorch.model import TorchModel
from visxai.models.pytorch.narrow import disagreement
from visxai.models.speed import machine
from visxai.models.weights import cache_folder

_PACKAGES = {"openvino": ("openvino", "onnx"), "onnx": ("onnxruntime", "onnx"), "compile": ()}
_NAMES = {"off": "PyTorch", "openvino": "OpenVINO", "onnx": "ONNX Runtime", "compile": "inductor"}
_FIGURES = ("row", "plain", "prepare")
_ROUNDS = 4


class Form(NamedTuple):
    """A precision, "fp32", "bf16" or "fp16", and what computes in it, "off" or one of KINDS."""

    precision: str
    kind: str

    def __str__(self) -> str:
        return f"{self.precision} by {_NAMES[self.kind]}"


PLAIN = Form("fp32", "off")


@dataclass(frozen=True)
class Timing:
    """What was measured of a form.

    Attributes:
        row: The seconds of a row's forward in it.
        plain: The same of the plain float32 forward, measured in turn with it.
        prepare: The seconds that a later process takes to prepare it.
        refused: Why it can't stand for the plain form, "" where it can.
    """

    row: float = math.inf
    plain: float = math.inf
    prepare: float = 0.0
    refused: str = ""

    @property
    def share(self) -> float:
        """The share of the plain forward's time, infinite for a form that was refused."""
        return self.row / self.plain if math.isfinite(self.row) else math.inf


def runtimes(precision: str, device: str = "cpu") -> tuple[str, ...]:
    """List what is installed and can compute in a precision on a device, the fastest first."""
    cpu = device == "cpu"
    return tuple(
        kind
        for kind in (("openvino", "onnx", "compile") if cpu else ("compile",))
        if precision in PRECISIONS[kind]
        and all(map(importlib.util.find_spec, _PACKAGES[kind]))
        and not (kind == "compile" and cpu and not _compiler())
    )


def _compiler() -> bool:
    """Return whether inductor finds a C++ compiler, which it needs on a CPU."""
    names = (os.environ.get("CXX"), "g++", "clang++")
    return any(name and shutil.which(name) for name in names)


def known(model: TorchModel, form: Form, x: Tensor) -> Timing | None:
    """Return what was measured of a form on this machine before; None where nothing was."""
    subject = _subject(model, form, x)
    if measured.read(cache_folder(), "refused", subject, ("times",)):
        return Timing(refused="its scores didn't agree with float32's when it was measured")
    found = measured.read(cache_folder(), "form", subject, _FIGURES)
    return Timing(found["row"], found["plain"], found["prepare"]) if found else None


def plain(model: TorchModel, x: Tensor) -> float:
    """Measure the seconds of a row's plain float32 forward, on inputs like x (b, c, h, w)."""
    exact, few = _in_form(model, "fp32", None), x[:1].repeat(4, 1, 1, 1)
    exact.scores(few)
    start = _clock(model)
    exact.scores(few)
    return max(_clock(model) - start, 1e-9) / len(few)


def measure(model: TorchModel, form: Form, x: Tensor, fast: Acceleration | None) -> Timing:
    """Prepare a form, check it and time it, and keep what was found.

    Args:
        model: The model; its own precision and acceleration don't matter.
        form: The form.
        x: Inputs (b, c, h, w) like the run's, of which three at most are used.
        fast: The acceleration that prepares the form, None for "off".
    """
    exact, made = _in_form(model, "fp32", None), _in_form(model, form.precision, fast)
    rows, subject = three_rows(x), _subject(model, form, x)
    few = torch.cat([rows, rows[:1]])
    # A compiler works in processes of its own, whose time is seen by the clock alone.
    clock = time.perf_counter if form.kind == "compile" else partial(_clock, model)
    began, exported = clock(), 0.0 if fast is None else fast.exporting
    refused = disagreement(made.scores(rows), exact.scores(rows))
    if fast is not None:
        reasons = {why for place, why in fast.why.items() if place.startswith("whole")}
        refused = refused or "; ".join(sorted(reasons))
        exported = fast.exporting - exported
    if refused:
        if NO_ROOM not in refused:
            measured.keep(cache_folder(), "refused", subject, {"times": 1.0})
        return Timing(refused=refused)
    prepare = max(clock() - began - exported, 1e-9)
    seconds: dict[TorchModel, list[float]] = {exact: [], made: []}
    for number in range(_ROUNDS + 1):
        for one, spent in seconds.items():
            start = _clock(model)
            one.scores(few)
            if number:  # the first round warms up
                spent.append(_clock(model) - start)
    usual, row = (max(min(spent), 1e-9) / len(few) for spent in seconds.values())
    found = {"row": row, "plain": usual, "prepare": prepare}
    measured.keep(cache_folder(), "form", subject, found)
    return Timing(row, usual, prepare)


def on_this_machine() -> Iterator[tuple[str, str, float]]:
    """Yield what was measured here with these versions: model and input, form, times as fast."""
    here = machine()
    for subject, figures in measured.kept(cache_folder(), "form"):
        name, _, size, form, versions, *rest = subject
        kind = next((kind for kind, told in _NAMES.items() if form.endswith(f"by {told}")), "off")
        if (
            tuple(rest[1:]) == here
            and versions == _versions(kind)
            and set(_FIGURES) <= set(figures)
        ):
            yield f"{name} at {size}", form, figures["plain"] / figures["row"]


def _in_form(model: TorchModel, precision: str, fast: Acceleration | None) -> TorchModel:
    """Return the same model computing in a form."""
    made = model.in_precision(precision)
    made.acceleration = fast
    return made


def _subject(model: TorchModel, form: Form, x: Tensor) -> measured.Subject:
    """Return all that the time of a form depends on."""
    name, weights, size, told, *rest = model.subject(x, str(form))
    return (name, weights, size, told, _versions(form.kind), *rest)


def _versions(kind: str) -> str:
    """Return the versions of the packages that a kind needs besides PyTorch."""
    return ", ".join(f"{name} {_version(name)}" for name in _PACKAGES.get(kind, ()))


def _version(name: str) -> str:
    """Return a package's version, under whichever name of its builds it was installed."""
    for own in (name, f"{name}-gpu", f"{name}-openvino"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            return importlib.metadata.version(own)
    return "of its own"


def _clock(model: TorchModel) -> float:
    """Return the seconds of this process's threads, or the clock's after all that a GPU does."""
    if model.device.type == "cpu":
        return time.process_time()
    if model.device.type == "cuda":
        torch.cuda.synchronize(model.device)
    return time.perf_counter()
