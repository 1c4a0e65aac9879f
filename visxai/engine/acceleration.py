"""The decision whether to prepare half precision or an accelerated form of a model.

Preparing a faster form costs seconds, which a short run never earns back. The decision weighs the
number of rows that a run will send through the network, their time as measured on four rows, and
the time of preparation (about 1.5 s where the forms are on disk already). The runtime is OpenVINO
where it is installed, else ONNX Runtime, which computes in float32 alone; what was prepared is
timed on the same four rows, and left again where it is no faster. Where it was faster, that time of
a row is kept on disk beside the forms: on the same machine, later runs measure nothing. Once made
for a model, the decision stays, so that all records of a run are computed the same way.

Half precision that was left to choose takes a copy, checks and a measurement, which cost what some
forty rows cost in float32. So a run of fewer rows takes float32 as it is.
"""

from __future__ import annotations

import importlib.util
import threading
import time
from collections.abc import Sequence

import torch
from torch import Tensor

from visxai.engine.decision import Decision
from visxai.errors import ArgumentError
from visxai.methods.base import Method
from visxai.models import weights
from visxai.models.devices import pick_precision
from visxai.models.interface import Model
from visxai.models.pytorch.accelerate import KINDS, PRECISIONS, Acceleration
from visxai.models.pytorch.model import TorchModel

CHOICES = ("auto", "off", *KINDS)
PREPARING = 12.0  # seconds to export the whole network and a trunk, typically, on a busy machine
LOADING = 1.5  # seconds to load them from disk
WORTHWHILE = 2.0  # the saving must be this many times the cost: estimates are rough
_FEWEST = 64  # rows below which nothing is prepared, nor the time of a row measured


def usual_runtime(precision: str) -> str | None:
    """Return the runtime that "auto" prepares on a CPU in a precision; None where none serves."""
    for kind, packages in (("openvino", ("openvino", "onnx")), ("onnx", ("onnxruntime", "onnx"))):
        if precision in PRECISIONS[kind] and all(map(importlib.util.find_spec, packages)):
            return kind
    return None


class Plan:
    """The requested precision and acceleration of a model, and what was decided of them.

    Args:
        model: The model, whose precision is set: to float32 where "auto" may choose.
        wish: The acceleration, one of CHOICES: "auto", "off", "onnx", "openvino" or "compile".
        precision: The precision, "auto" or one that the model serves.

    Attributes:
        decision: The acceleration in force, and why.
        precision: The precision in force.
        free: Whether the precision was left to choose.

    Raises:
        ArgumentError: If a wish has no such choice, or the acceleration is "onnx" or "openvino"
            with a model that isn't on a CPU.
    """

    def __init__(self, model: Model, wish: str, precision: str) -> None:
        if wish not in CHOICES:
            raise ArgumentError(
                f"expected accelerate to be {', '.join(CHOICES)}, got {wish!r}: try 'auto'"
            )
        self.free = precision == "auto" and "fp32" in model.precisions[:-1]
        if self.free:
            model.precision = "fp32"
        else:
            model.precision = pick_precision(precision, model.device, model.precisions)
        self.precision = model.precision
        self._model = model
        self._rows = 0
        self._halvable = 0  # the rows among them of methods that bear half precision
        self._seconds: float | None = None
        self._lock = threading.Lock()
        self.decision = Decision("off", "run too short")
        self._precision_open, self._kind_open = self.free, False
        if wish == "off":
            self._leave_off("asked for")
        elif not isinstance(model, TorchModel) or model.runtime is not None:
            self._leave_off("the model brings its own runtime")
        elif wish in ("onnx", "openvino") and model.device.type != "cpu":
            raise ArgumentError(
                f"expected accelerate={wish!r} with a model on the CPU, got {model.device}: "
                "use accelerate='compile'"
            )
        elif wish in KINDS:
            self._prepare(wish, "asked for")
        elif model.device.type != "cpu":
            self._leave_off("automatic only on a CPU")
        elif model.dtype != torch.float32 or model.precision == "fp16":
            self._leave_off("only in float32 and bf16")
        elif usual_runtime(model.precision) is None:
            extra = "openvino" if model.precision == "bf16" else "onnx or openvino"
            self._leave_off(f"the extra {extra} isn't installed")
        else:
            self._kind_open = True

    @property
    def open(self) -> bool:
        """Whether "auto" may still decide for half precision or for an acceleration."""
        return self._precision_open or self._kind_open

    @property
    def prepared(self) -> float:
        """Return the seconds that preparing faster forms has taken so far."""
        made = self._model.acceleration if isinstance(self._model, TorchModel) else None
        return 0.0 if made is None else made.seconds

    def described(self, what: str) -> str:
        """Describe what ran and why, for a record."""
        return what if what.startswith("onnxruntime") else str(Decision(what, self.decision.reason))

    def consider(self, methods: Sequence[Method], x: Tensor, images: int) -> None:
        """Add a run to the expected work, and prepare a faster form if that now pays.

        Args:
            methods: The methods of the run; those that the model can't serve count nothing.
            x: A batch like the run's, (b, 3, h, w) in model space; only its first row is used.
            images: The number of images of the run.
        """
        if not self.open:
            return
        with self._lock, torch.inference_mode(False), torch.no_grad():
            one = x[:1].clone()
            for method in methods:
                if not method.needs & ~self._model.offers:
                    rows = images * method.cost(self._model, one).forwards
                    self._rows += rows
                    self._halvable += rows * method.bears_half
            if self._precision_open and self._halvable >= _FEWEST:
                self._choose_precision()
            if self._kind_open and self._rows >= _FEWEST:
                self._choose_kind(one)

    def _choose_precision(self) -> None:
        """Choose half precision where it is faster on this machine."""
        model = self._model
        self.precision = pick_precision("auto", model.device, model.precisions)
        self._precision_open = False

    def _choose_kind(self, one: Tensor) -> None:
        """Prepare a faster form for rows like `one` (1, 3, h, w) if that now pays."""
        assert isinstance(self._model, TorchModel)
        kind = usual_runtime(self.precision)
        if kind is None:
            return
        shape, model = tuple(one.shape[1:]), self._model.in_precision(self.precision)
        few = one.expand(4, *shape).contiguous()
        found = self._acceleration(kind)
        known = found.known("whole", shape)
        proven = found.slower(shape, self.precision) if known else None
        if self._seconds is None:
            self._seconds = self._timed(model, few) if proven is None else proven
        # The prepared form takes less than half the time (performance of ONNX Runtime here).
        saving = 0.5 * self._rows * self._seconds
        if saving >= WORTHWHILE * (LOADING if known else PREPARING):
            self._prepare(kind, "run long enough", found)
            if proven is not None:
                return
            model.acceleration = found
            if self._timed(model, few) < self._seconds:
                found.keep_slower(shape, self.precision, self._seconds)
            else:
                self._model.acceleration = None
                self._leave_off(f"{kind} is no faster here")

    def _timed(self, model: Model, few: Tensor) -> float:
        """Measure the seconds of a row's forward, on four rows (4, 3, h, w)."""
        model.scores(few)
        best = float("inf")
        for _ in range(2):
            began = time.perf_counter()
            model.scores(few)
            best = min(best, time.perf_counter() - began)
        return best / 4

    def settle(self, decision: Decision | None, precision: str | None) -> None:
        """Adopt an earlier run's choices, so that its rest is computed the same way.

        Args:
            decision: Its acceleration; None leaves that open.
            precision: Its precision; None, or one that the model doesn't serve, leaves that open.
        """
        if self._precision_open and precision in self._model.precisions:
            self.precision, self._precision_open = precision, False
        if self._kind_open and decision is not None:
            if decision.kind in KINDS:
                self._prepare(decision.kind, decision.reason)
            else:
                self._leave_off(decision.reason)

    def _leave_off(self, reason: str) -> None:
        self.decision, self._kind_open = Decision("off", reason), False

    def _acceleration(self, kind: str) -> Acceleration:
        assert isinstance(self._model, TorchModel)
        return Acceleration(kind, self._model.weights, weights.cache_folder())

    def _prepare(self, kind: str, reason: str, found: Acceleration | None = None) -> None:
        assert isinstance(self._model, TorchModel)
        self._model.acceleration = found or self._acceleration(kind)
        self.decision, self._kind_open = Decision(kind, reason), False
