"""Faster forms of computations without a graph, and of the graph where gradients are needed.

    onnx      exported once and run by ONNX Runtime on the CPU, in float32
    openvino  exported once and run by OpenVINO on the CPU, in float32 or bfloat16
    compile   traced once and compiled by inductor, frozen, on the CPU or CUDA

Two parts of a model are prepared, each on its first use: the whole (plain forwards), and the trunk
below a layer (which a CAM runs without a graph; the head stays in autograd). For gradients at the
input the module itself runs, in a copy with channels-last weights and batch norms folded into the
convolutions before them.

Every prepared form is checked against the plain form on the first rows it is used for, a row alone
and three at once; where it can't be made or doesn't agree, the plain form runs and `why` states the
reason. Later it must still return as many rows as it gets. What is traced is a copy of the module
that nothing else runs, and while it is traced no other forward runs (`tracing.py`).

A graph that makes a layer's maps beside the scores (`mapped.py`) takes longer to export than many
runs last, so it serves runs of many images alone: their maps differ by roundings from other runs'.

Exported forms are kept in the cache folder by weights, place, input shape and versions, so a second
run starts fast. Each ends with its sha256: a file that was damaged or altered is made again. When
the weights are written to (see `modules.Weights`), all forms are prepared again.
"""

from __future__ import annotations

import contextlib
import hashlib
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from visxai.errors import ArgumentError, require
from visxai.models.budget import is_out_of_memory
from visxai.models.interface import Need
from visxai.models.pytorch.agreement import AGREEMENT, Form, refusal, three_rows
from visxai.models.pytorch.folding import streamlined
from visxai.models.pytorch.modules import Weights
from visxai.models.pytorch.sdpa import off_the_fast_path
from visxai.models.pytorch.tracing import Traceable, alone

if TYPE_CHECKING:
    from visxai.models.pytorch.openvino import OpenVinoForm

Fresh = Callable[[], tuple[Form, nn.Module]]
Key = tuple[str, tuple[int, ...]]
KINDS = ("onnx", "openvino", "compile")
PRECISIONS = {
    "onnx": ("fp32",),
    "openvino": ("fp32", "bf16"),
    "compile": ("fp32", "bf16", "fp16"),
}

# A lack of memory says nothing about a form, so it is tried again, a few times in all.
NO_ROOM = "no memory left to prepare it"
_TRIES = 3
# Images of a run for which a graph of maps is worth its export, which takes 5 to 40 seconds.
MANY_IMAGES = 4096
_UNSTEADY = "its weights change while it runs"


class Acceleration:
    """The prepared forms of a model.

    Args:
        kind: "onnx", "openvino" or "compile".
        weights: the model's weights, whose changes discard the forms.
        folder: visxai's cache folder.

    Attributes:
        why: for each place that runs its plain form, the reason.
        seconds: the time that the preparation of forms took so far.
        exporting: the processor's time for writing files, which a later process finds on disk.
        graphs: whether graphs that make maps beside the scores may be prepared and used.

    Raises:
        ArgumentError: there is no such kind.
        MissingExtra: the kind's packages aren't installed.
    """

    def __init__(self, kind: str, weights: Weights, folder: Path) -> None:
        if kind not in KINDS:
            raise ArgumentError(f"expected acceleration by {' or '.join(KINDS)}, got {kind!r}")
        for package in {"onnx": ("onnxruntime", "onnx"), "openvino": ("openvino", "onnx")}.get(
            kind, ()
        ):
            require(package, kind, f"accelerate={kind!r}")
        self.kind = kind
        self.why: dict[str, str] = {}
        self.seconds = 0.0  # that preparing took
        self.exporting = 0.0
        self.graphs = False
        self._weights = weights
        self._mark = weights.mark()
        self._unsteady = False  # then only plain forms run, and there is nothing to discard
        self._folder = folder
        self._forms: dict[Key, Form | None] = {}
        self._graphs: dict[Key, OpenVinoForm | None] = {}
        self._modules: dict[tuple[int, ...], nn.Module | None] = {}
        self._tries = Counter[tuple[str, tuple[int, ...]]]()
        self._lock = threading.RLock()

    @property
    def precisions(self) -> tuple[str, ...]:
        """The precisions that forms of this kind compute in."""
        return PRECISIONS[self.kind]

    @property
    def exports(self) -> bool:
        """Whether forms are exported in float32, whatever they compute in."""
        return self.kind != "compile"

    def form(
        self,
        place: str,
        plain: Form,
        fresh: Fresh,
        x: Tensor,
        axis: int = 0,
        limit: float | Callable[[Tensor], float] = AGREEMENT,
        difference: Callable[[Tensor, Tensor], float] | None = None,
        precision: str = "fp32",
        exact: Form | None = None,
    ) -> Form:
        """Return the prepared form of a computation for inputs like x, or its plain form.

        Args:
            place: the part of the model: "whole", or a name such as "below layer4".
            plain: the computation in plain PyTorch.
            fresh: makes the same computation on a module that nothing else runs, for tracers; it
                returns the computation and the module.
            x: the first rows (b, ...) that the form will run on; they check it.
            axis: the axis of the images in what the form returns.
            limit: how much the forms may differ (see `refusal`), or what computes it of rows.
            difference: how that is measured (see `refusal`).
            precision: what the form computes in.
            exact: the computation that checks the form; `plain` by default.
        """
        from visxai.models.pytorch import exporting, openvino  # which most runs do without

        exported_as, check = place, exact or plain
        place = place if precision == "fp32" else f"{place} in {precision}"
        key = (place, tuple(x.shape[1:]))

        def load(path: Path) -> Form:
            if self.kind == "onnx":
                return exporting.OnnxForm(path)
            return openvino.OpenVinoForm(path, precision)

        with self._lock:
            self._forget_other_weights()
            if key not in self._forms:
                with alone(), self._preparing():
                    path = self._path(exported_as, key[1]) if self.exports else None
                    made = self._made(place, fresh, three_rows(x), path, load)
                    found = self._agreeing(place, made, check, three_rows(x), limit, difference)
                if self._unsteady:
                    found, self.why[place] = None, _UNSTEADY
                if found is None and self._may_fit_later(place, key):
                    return plain
                self._forms[key] = found
            made = self._forms[key]
        return plain if made is None else lambda rows: self._run(key, made, plain, rows, axis)

    def _run(self, key: Key, made: Form, plain: Form, rows: Tensor, axis: int) -> Tensor:
        """Run a prepared form, or once it returned a wrong number of rows, the plain form."""
        found = made(rows)
        if found.shape[axis] == len(rows):
            return found
        with self._lock:
            self.why[key[0]] = f"gave {found.shape[axis]} rows for {len(rows)} images"
            self._forms[key] = None
        return plain(rows)

    def _forget_other_weights(self) -> None:
        """Discard all forms if the weights were written to since they were made."""
        mark = self._weights.mark()
        if mark != self._mark and not self._unsteady:
            self._forms.clear()
            self._graphs.clear()
            self._modules.clear()
            self._tries.clear()
            self.why.clear()
            self._mark = mark

    def describe(self, needs: Need, graph: str = "") -> str:
        """Describe what methods with `needs` run on, for the record of a whole run.

        Args:
            needs: what the method needs.
            graph: the graph that made the maps, "" where none did.
        """
        if Need.INPUT_GRADIENT in needs:
            text = f"{self.kind}; gradients channels-last, batch norms folded"
        elif graph:
            text = f"{self.kind}, {graph}"
        elif Need.LAYER_GRADIENT in needs:
            text = f"{self.kind} below the layer"
        else:
            text = self.kind
        if not self.why:
            return text
        return f"{text} (plain: {'; '.join(f'{k}: {v}' for k, v in sorted(self.why.items()))})"

    def graph(
        self,
        place: str,
        write: Callable[[str], None],
        refusal: Callable[[OpenVinoForm], str],
        shape: tuple[int, ...],
        precision: str,
    ) -> OpenVinoForm | None:
        """Return a graph that makes maps beside the scores; None where there is none.

        Args:
            place: what it computes, for instance "maps of grad_cam() at layer4".
            write: writes it as ONNX to the file of a given name.
            refusal: returns why a graph can't be used, "" where it can.
            shape: an input's shape.
            precision: what it computes in.
        """
        key = (place, shape)
        with self._lock:
            self._forget_other_weights()
            if key not in self._graphs:
                path = self._path(place, shape)
                with alone(), self._preparing():
                    found = self._written(place, write, refusal, path, precision)
                if self._unsteady:
                    found, self.why[place] = None, _UNSTEADY
                if found is None and self._may_fit_later(place, key):
                    return None
                self._graphs[key] = found
            return self._graphs[key]

    def _written(
        self,
        place: str,
        write: Callable[[str], None],
        refusal: Callable[[OpenVinoForm], str],
        path: Path,
        precision: str,
    ) -> OpenVinoForm | None:
        """Write and load a graph; return None, with the reason in `why`, where it can't be used."""
        from visxai.models.pytorch import exporting, openvino

        try:
            made = exporting.exported(
                lambda: exporting.sealed(path, write),
                path,
                lambda file: openvino.OpenVinoForm(file, precision),
            )
            refused = refusal(made)
        except Exception as error:  # whatever a tracer, an exporter or the runtime raises
            refused = _reason(error)
        if refused:
            self.why[place] = refused
            return None
        self._fits(place)
        return made

    def gradient_module(
        self, module: nn.Module, run: Callable[[nn.Module, Tensor], Tensor], x: Tensor
    ) -> nn.Module | None:
        """Return the module for gradients at the input, or None for the plain module.

        Args:
            module: the model's module, which is only copied (see `streamlined`).
            run: run(module, x) computes the scores.
            x: the first rows (b, 3, h, w) that it will run on; they check it.
        """
        shape = tuple(x.shape[1:])
        with self._lock:
            self._forget_other_weights()
            if shape not in self._modules:
                try:
                    with self._preparing():
                        made = streamlined(module, run, x)
                except Exception as error:  # what can't be copied or folded runs as it is
                    made = _reason(error)
                if self._unsteady:
                    made = _UNSTEADY
                if isinstance(made, str):
                    self.why["gradients"] = made
                    if self._may_fit_later("gradients", ("gradients", shape)):
                        return None
                else:
                    self._fits("gradients")
                self._modules[shape] = None if isinstance(made, str) else made
            return self._modules[shape]

    def _may_fit_later(self, place: str, key: tuple[str, tuple[int, ...]]) -> bool:
        """Return whether `place` failed for lack of memory alone and is worth another try."""
        self._tries[key] += 1
        return self.why[place] == NO_ROOM and self._tries[key] < _TRIES

    def _fits(self, place: str) -> None:
        """Forget that `place` once failed for lack of memory."""
        if self.why.get(place) == NO_ROOM:
            del self.why[place]

    @contextlib.contextmanager
    def _preparing(self) -> Iterator[None]:
        """Count the seconds, and note whether the module's forward writes into its own weights."""
        began, before = time.perf_counter(), self._weights.mark()
        try:
            yield
        finally:
            self.seconds += time.perf_counter() - began
            if self._weights.mark() != before:
                self._unsteady = True

    def known(self, place: str, shape: tuple[int, ...]) -> bool:
        """Return whether a form is on disk already, so that preparing it costs next to nothing."""
        return self.exports and self._path(place, shape).is_file()

    def _made(
        self, place: str, fresh: Fresh, x: Tensor, path: Path | None, load: Callable[[Path], Form]
    ) -> Form | None:
        """Prepare a form of three rows x; return None, with the reason in `why`, where that fails.

        Args:
            place: the part of the model.
            fresh: see `form`.
            x: three rows.
            path: the file of an exported form; None compiles.
            load: loads such a file into its runtime.
        """
        from visxai.models.pytorch import exporting, inductor

        try:
            form, module = fresh()
            off_the_fast_path(module)  # no exporter knows the native kernels
            computed = Traceable(form, module)
            two = x[:2]  # traced with two rows, unlike any check: a single row is often special
            if path is not None:
                began = time.process_time()
                if not path.is_file():
                    exporting.export(computed, two, path)
                    self.exporting += time.process_time() - began
                return exporting.exported(lambda: exporting.export(computed, two, path), path, load)
            inductor.keep_private(self._folder)
            return inductor.compile_frozen(computed, two)
        except Exception as error:  # whatever a tracer or a runtime raises: the plain form runs
            self.why[place] = _reason(error)
            return None

    def _agreeing(
        self,
        place: str,
        made: Form | None,
        check: Form,
        x: Tensor,
        limit: float | Callable[[Tensor], float],
        difference: Callable[[Tensor, Tensor], float] | None,
    ) -> Form | None:
        """Return a form if it agrees on three rows x; else None, with the reason in `why`."""
        if made is None:
            return None
        try:
            most = limit(x) if callable(limit) else limit
            refused = refusal(made, check, x, most, difference)
        except Exception as error:
            refused = _reason(error)
        if refused:
            self.why[place] = refused
            return None
        self._fits(place)
        return made

    def _path(self, place: str, shape: tuple[int, ...]) -> Path:
        """Return where the cache keeps a form, by weights, place, input shape and versions."""
        exporter = require("onnx", self.kind, f"accelerate={self.kind!r}").__version__
        weights = self._weights.sha256()
        text = f"{weights} {place} {shape} {torch.__version__} {exporter} 6"
        name = hashlib.sha256(text.encode()).hexdigest()[:32]
        return self._folder / "accelerated" / f"{name}.onnx"


def _reason(error: Exception) -> str:
    """Return why a form couldn't be made, in a line."""
    if is_out_of_memory(error):
        return NO_ROOM
    line = next((text for text in str(error).splitlines() if text.strip()), "")
    return f"{type(error).__name__}: {line.strip()[:120]}"
