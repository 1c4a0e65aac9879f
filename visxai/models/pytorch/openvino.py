"""An exported computation run by OpenVINO on the CPU, in float32 or with bfloat16 inside.

OpenVINO reads the ONNX file that ONNX Runtime reads. In bfloat16 it fuses a whole block of
convolutions, norms and activations, and what it returns is float32. A graph whose number of rows is
fixed takes 4 to 17 percent less time than one that serves any number, so a number of rows that
comes again and again gets a graph of its own, where that changes no bit of what is computed.
"""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from visxai.errors import require
from visxai.models.pytorch.exporting import unsealed

_HINTS = {"fp32": "f32", "bf16": "bf16"}
# A graph of a fixed number of rows takes as long to compile as a few calls of it, and memory; few
# rows gain little.
_CALLS, _LEAST = 16, 8
_SIZES = 2  # numbers of rows with such a graph: each holds the weights in a layout of its own


class OpenVinoForm:
    """An exported form in OpenVINO; several threads may call it.

    Args:
        path: the exported file.
        precision: "fp32" or "bf16", what it computes in.

    Raises:
        ValueError: the file's bytes aren't those that were written.
    """

    def __init__(self, path: Path, precision: str) -> None:
        openvino = require("openvino", "openvino", "accelerate='openvino'")
        self._core = openvino.Core()
        self._path = path
        self._settings = {
            "INFERENCE_PRECISION_HINT": _HINTS[precision],
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "PERFORMANCE_HINT": "LATENCY",
            # Processes beside this one would be bound to the same cores.
            "ENABLE_CPU_PINNING": False,
        }
        # Compiled graphs by their number of rows; that of 0 serves any number.
        self._compiled = {0: self._compile(0)}
        self._rows = Counter[int]()  # that came in calls of each number of rows
        self._differing: set[int] = set()  # numbers of rows whose own graph computes other bits
        self._lock = threading.Lock()
        self._own = threading.local()  # a request serves one thread at a time

    def __call__(self, x: Tensor) -> Tensor:
        """Run it on inputs x (b, 3, h, w); MemoryError where memory runs out."""
        return self.all(x)[0]

    def all(self, *given: Tensor) -> list[Tensor]:
        """Compute all outputs of the graph from all its inputs, whose first axis is the batch's.

        Raises:
            MemoryError: memory runs out.
        """
        inputs = {i: one.detach().contiguous().numpy() for i, one in enumerate(_wide(given))}
        rows = len(given[0])
        try:
            found = self._run(rows, inputs)
        except RuntimeError as error:
            if "llocate" in str(error) or "bad_alloc" in str(error):
                raise MemoryError(str(error)) from None
            raise
        with self._lock:
            self._rows[rows] += rows
            often = rows >= _LEAST and self._rows[rows] % (rows * _CALLS) == 0
            if often and rows not in self._compiled:
                self._add(rows, inputs, found)
        return [torch.from_numpy(one) for one in found]

    def _run(self, rows: int, inputs: dict[int, Any]) -> list[Any]:
        """Compute all outputs by the graph that serves a number of rows fastest."""
        with self._lock:
            known = dict(self._compiled)
        mine: dict[int, tuple[Any, Any]] = self._own.__dict__.setdefault("requests", {})
        for other in mine.keys() - known.keys():
            del mine[other]
        key = rows if rows in known else 0
        if mine.get(key, (None,))[0] is not known[key]:
            mine[key] = known[key], known[key].create_infer_request()
        found = mine[key][1].infer(inputs, share_inputs=True)
        return [found[i] for i in range(len(found))]

    def _add(self, rows: int, inputs: dict[int, Any], expected: list[Any]) -> None:
        """Compile the graph for a number of rows, and keep it where it changes no bit.

        Where that fails the other graph goes on.

        Args:
            rows: the number of rows.
            inputs: inputs with as many rows.
            expected: what the graph for any number of rows computed of them.
        """
        sized = sorted((key for key in self._compiled if key), key=self._rows.__getitem__)
        least = sized[0] if len(sized) == _SIZES else None
        if rows in self._differing or (
            # Else both would replace each other again and again.
            least is not None and self._rows[rows] < 2 * self._rows[least]
        ):
            return
        with contextlib.suppress(OSError, ValueError, RuntimeError, MemoryError):
            made = self._compile(rows)
            found = made.create_infer_request().infer(inputs, share_inputs=True)
            if not all(np.array_equal(found[i], one) for i, one in enumerate(expected)):
                self._differing.add(rows)
                return
            self._compiled[rows] = made
            if least is not None:
                del self._compiled[least]

    def _compile(self, rows: int) -> Any:
        """Compile the graph for a number of rows; 0 is any number."""
        model = self._core.read_model(unsealed(self._path), b"")
        if rows:
            shapes = {one.any_name: one.partial_shape for one in model.inputs}
            model.reshape({name: [rows, *list(shape)[1:]] for name, shape in shapes.items()})
        return self._core.compile_model(model, "CPU", self._settings)


def _wide(given: Sequence[Tensor]) -> list[Tensor]:
    """Convert floating-point inputs to float32, which graphs take."""
    return [one.float() if one.is_floating_point() else one for one in given]
