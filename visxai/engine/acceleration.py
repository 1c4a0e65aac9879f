"""The choice of a precision and of what computes in it, made together for the runs of an engine.

The plain float32 form needs no preparation; half precision and other runtimes take seconds, which a
short run never earns back. A form is considered once the rows that a run will send through the
network are worth it: known forms by what was measured of them on this machine (`measuring.py`),
others when half of the time they might save is more than what measuring them usually takes. Chosen
is the pair of precision and runtime in which all rows take the least time, preparation included.
Rows of methods whose maps don't bear half precision are counted in float32, which every runtime but
none in half precision alone serves.

A run of fewer than `_FEW` rows takes the plain form at once, one of fewer than `_FEWEST` may take
what was measured before. Once a form is prepared it stays, so that all records of a run are
computed the same way.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from visxai.engine import measuring
from visxai.engine.decision import Decision
from visxai.engine.measuring import PLAIN, Form, Timing
from visxai.errors import ArgumentError
from visxai.methods.base import Method
from visxai.models import weights
from visxai.models.budget import is_out_of_memory
from visxai.models.devices import pick_precision
from visxai.models.interface import Model
from visxai.models.pytorch.accelerate import KINDS, MANY_IMAGES, PRECISIONS, Acceleration
from visxai.models.pytorch.model import TorchModel

CHOICES = ("auto", "off", *KINDS)
WORTHWHILE = 2.0  # a saving must be this many times its cost: estimates are rough
GRAPHS = "; maps by graphs"  # what a decision's reason ends with where they serve
_FEW = 8  # rows below which nothing is looked up
_FEWEST = 64  # rows below which nothing is measured
# What measuring a form usually takes: so many plain rows for a copy in half precision, so many
# seconds to export a network, or to compile it, or to load what was exported already.
_ROWS, _SECONDS, _LOADING = 40, {"openvino": 12.0, "onnx": 12.0, "compile": 60.0}, 2.0
# The share of the best known time that a form might save: compiled code seldom saves more.
_SAVED = {"off": 0.5, "openvino": 0.5, "onnx": 0.5, "compile": 0.3}


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
        self._graphs: bool | None = None  # of maps; None is left to the length of a run
        self._rows = 0  # that half precision may compute
        self._exact = 0  # that float32 must compute
        self._plain: float | None = None  # seconds of a row in the plain form
        self._timings: dict[Form, Timing] = {}
        self._made: dict[str, Acceleration] = {}
        self._lock = threading.Lock()
        self.decision = Decision("off", "run too short")
        self._precision_open, self._kind_open = self.free, False
        cpu = model.device.type == "cpu"
        if wish == "off":
            self._leave_off("asked for")
        elif not isinstance(model, TorchModel) or model.runtime is not None:
            self._leave_off("the model brings its own runtime")
        elif wish in ("onnx", "openvino") and not cpu:
            raise ArgumentError(
                f"expected accelerate={wish!r} with a model on the CPU, got {model.device}: "
                "use accelerate='compile'"
            )
        elif wish in KINDS:
            self._prepare(wish, "asked for")
        elif model.dtype != torch.float32 or (cpu and self.precision == "fp16"):
            self._leave_off("only in float32 and bf16")
        elif not measuring.runtimes(self.precision, model.device.type):
            extra = "openvino" if self.precision == "bf16" else "onnx or openvino"
            self._leave_off(f"the extra {extra} isn't installed" if cpu else "nothing serves it")
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

    def consider(
        self, methods: Sequence[Method], x: Tensor, images: int, pictures: Callable[[], Tensor]
    ) -> None:
        """Add a run to the expected work, and prepare a faster form if that now pays.

        Args:
            methods: The methods of the run; those that the model can't serve count nothing.
            x: A batch of the run's shape, (b, 3, h, w) in model space.
            images: The number of images of the run.
            pictures: Returns inputs (b, 3, h, w) like the run's, on which forms are checked and
                timed; called only where some are.
        """
        if not self.open or not isinstance(self._model, TorchModel):
            return
        with self._lock, torch.inference_mode(False), torch.no_grad():
            one = x[:1].clone()
            for method in methods:
                if not method.needs & ~self._model.offers:
                    rows = images * method.cost(self._model, one).forwards
                    if method.bears_half or not self.free:
                        self._rows += rows
                    else:
                        self._exact += rows
            if self.open and self._rows + self._exact >= _FEW:
                self._choose(self._model, one, pictures)

    def expect(self, images: int) -> None:
        """Announce a run of `images` images: a long one takes graphs of maps, and so do later ones.

        What an earlier run decided stays (see `settle`).
        """
        if self._graphs is None and images >= MANY_IMAGES:
            self._graphs = True
        self._allow_graphs()

    def _allow_graphs(self) -> None:
        if isinstance(self._model, TorchModel) and self._model.acceleration is not None:
            made = self._model.acceleration
            made.graphs = bool(self._graphs) and made.kind == "openvino"

    @property
    def reason(self) -> str:
        """Why the acceleration in force was chosen, and whether graphs of maps serve."""
        graphs = self._graphs and self.decision.kind == "openvino"
        return self.decision.reason + (GRAPHS if graphs else "")

    def _choose(self, model: TorchModel, one: Tensor, pictures: Callable[[], Tensor]) -> None:
        """Learn of the forms that may pay for the rows so far, and choose the fastest."""
        kinds, precisions = [self.decision.kind], [self.precision]
        if self._kind_open:
            kinds += measuring.runtimes(self.precision, model.device.type)
        if self._precision_open and self._rows:
            half = pick_precision("auto", model.device, model.precisions)
            precisions += [half] if half != "fp32" else []
        pairs = [(precision, kind) for kind in kinds for precision in precisions]
        for form in dict.fromkeys(form for pair in pairs for form, _ in self._work(*pair)):
            if form != PLAIN and form not in self._timings:
                self._learn(model, form, one, pictures)
        precision, kind = min(pairs, key=lambda pair: self._seconds(*pair))
        if precision != self.precision:
            self.precision, self._precision_open = precision, False
        if self._kind_open and kind != "off":
            self._prepare(kind, "run long enough")
        elif self._kind_open:
            self._leave_what_is_no_faster(kinds[1:])
        if not self.open:
            self._made.clear()

    def _work(self, precision: str, kind: str) -> list[tuple[Form, int]]:
        """Return what computes the rows so far where a pair is chosen, and how many rows."""
        parts = []
        for own, rows in (
            (precision, self._rows),
            ("fp32" if self.free else precision, self._exact),
        ):
            served = kind == "off" or own in PRECISIONS[kind]
            parts += [(Form(own, kind if served else "off"), rows)] if rows else []
        return parts

    def _seconds(self, precision: str, kind: str) -> float:
        """Estimate the seconds of all rows so far where a pair is chosen, with its preparation."""
        spent = 0.0
        for form, rows in self._work(precision, kind):
            timing = Timing(1, 1) if form == PLAIN else self._timings.get(form, Timing())
            spent += rows * timing.share * (self._plain or 0) + WORTHWHILE * timing.prepare
        return spent

    def _learn(
        self, model: TorchModel, form: Form, one: Tensor, pictures: Callable[[], Tensor]
    ) -> None:
        """Look up what was measured of a form, or measure it where that may pay."""
        found = measuring.known(model, form, one)
        rows = self._rows + self._exact
        if found is None and rows >= _FEWEST:
            if self._plain is None:
                self._plain = measuring.plain(model, one)
            best = min([1.0, *(timing.share for timing in self._timings.values())])
            saved = _SAVED[form.kind] * best * rows * self._plain
            fast = self._acceleration(form.kind)
            if saved >= WORTHWHILE * self._cost(form, fast, one):
                try:
                    found = measuring.measure(model, form, pictures(), fast)
                except (RuntimeError, MemoryError) as error:
                    if not is_out_of_memory(error):  # which says nothing about the form
                        raise
        if found is not None:
            self._timings[form] = found
            self._plain = found.plain if found.plain < math.inf else self._plain

    def _cost(self, form: Form, fast: Acceleration | None, one: Tensor) -> float:
        """Return the seconds that measuring a form usually takes."""
        if fast is None:
            return _ROWS * (self._plain or 0)
        known = fast.known("whole", tuple(one.shape[1:]))
        return _LOADING if known else _SECONDS[form.kind]

    def _leave_what_is_no_faster(self, kinds: Sequence[str]) -> None:
        """Settle for PyTorch where all else was measured, and nothing is faster."""
        forms = {kind: dict(self._work(self.precision, kind)) for kind in ("off", *kinds)}
        if not all(
            form == PLAIN or form in self._timings for own in forms.values() for form in own
        ):
            return
        share = {
            kind: sum(n * (1 if f == PLAIN else self._timings[f].share) for f, n in own.items())
            for kind, own in forms.items()
        }
        if min(share.values()) == share["off"]:
            told = [
                f"{form}: {self._timings[form].refused}"
                if self._timings[form].refused
                else f"{form} is no faster here"
                for kind in kinds
                for form in forms[kind]
                if form.kind == kind
            ]
            self._leave_off("; ".join(told))

    def settle(self, decision: Decision | None, precision: str | None) -> None:
        """Adopt an earlier run's choices, so that its rest is computed the same way.

        Args:
            decision: Its acceleration; None leaves that open.
            precision: Its precision; None, or one that the model doesn't serve, leaves that open.
        """
        if self._precision_open and precision in self._model.precisions:
            self.precision, self._precision_open = precision, False
        if decision is not None:
            self._graphs = decision.reason.endswith(GRAPHS)
            self._allow_graphs()
        if self._kind_open and decision is not None:
            if decision.kind in KINDS:
                self._prepare(decision.kind, decision.reason.removesuffix(GRAPHS))
            else:
                self._leave_off(decision.reason)

    def _leave_off(self, reason: str) -> None:
        self.decision, self._kind_open = Decision("off", reason), False

    def _acceleration(self, kind: str) -> Acceleration | None:
        """Return what prepares forms of a kind, one for all of them; None for PyTorch alone."""
        assert isinstance(self._model, TorchModel)
        if kind == "off":
            return None
        if kind == self.decision.kind and self._model.acceleration is not None:
            return self._model.acceleration
        if kind not in self._made:
            self._made[kind] = Acceleration(kind, self._model.weights, weights.cache_folder())
        return self._made[kind]

    def _prepare(self, kind: str, reason: str) -> None:
        assert isinstance(self._model, TorchModel)
        self._model.acceleration = self._acceleration(kind)
        self._allow_graphs()
        self.decision, self._kind_open = Decision(kind, reason), False
