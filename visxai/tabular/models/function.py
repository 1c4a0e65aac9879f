"""Any callable, and ONNX files: models of which only the scores are known."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from visxai.errors import ModelError, require
from visxai.tabular.features import Features, Matrix
from visxai.tabular.models.interface import TableModel, Vector


class FunctionModel(TableModel):
    """A function of rows.

    Rows come as float64 (rows, features), or as a pandas DataFrame where features have categories
    or the function wants one.
    """

    def __init__(
        self,
        function: Callable[[Any], Any],
        features: Features,
        name: str | None = None,
        sha256: str | None = None,
        *,
        scale: str = "response",
        framed: bool = False,
    ) -> None:
        """Take a function.

        Args:
            function: Gives one number a row, or P(class 0) and P(class 1).
            features: The columns that it takes.
            name: Its name in records, by default its own.
            sha256: The hash of what it computes with; by default of its name and its bytecode,
                which doesn't tell two closures apart.
            scale: "probability", "log-odds" or "response".
            framed: Whether it always gets a DataFrame.
        """
        self.function, self.features, self.scale = function, features, scale
        self.name = name or str(getattr(function, "__name__", type(function).__name__))
        self.sha256 = sha256 or _digest(function)
        self._framed = framed or any(one.levels for one in features.items)
        self.kind = "logistic" if scale == "log-odds" else "identity"

    def logits(self, x: Matrix) -> Vector:
        """Call the function.

        Raises:
            ModelError: It doesn't give one finite number a row.
        """
        found = np.asarray(self.function(self.features.frame(x) if self._framed else x), np.float64)
        if found.ndim == 2 and found.shape[1] in (1, 2):
            found = found[:, -1]
        if found.shape != (len(x),) or not np.isfinite(found).all():
            raise ModelError(
                f"expected one finite number for each of {len(x)} rows, got shape {found.shape}"
                f"{'' if found.shape != (len(x),) else ' with numbers that are not finite'}: "
                "let the function return the score alone"
            )
        return found


def onnx(
    path: str | os.PathLike[str], features: Features, name: str | None = None
) -> FunctionModel:
    """Open an ONNX file with one input of float32 (rows, features).

    The explained score is its last output with one number, or P(class 0) and P(class 1), a row.

    Raises:
        ModelError: The file can't be opened, or takes something else.
    """
    runtime = require("onnxruntime", "onnx", "an ONNX model")
    content = Path(path).read_bytes()
    try:
        session = runtime.InferenceSession(content, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime's errors share no class
        reason = str(error).splitlines()[0]
        raise ModelError(f"expected an ONNX model, got {path} ({reason}): check the file") from None
    inputs = session.get_inputs()
    if len(inputs) != 1:
        raise ModelError(f"expected a model with one input (rows, features), got {len(inputs)}")

    def run(x: Matrix) -> Any:
        return session.run([session.get_outputs()[-1].name], {inputs[0].name: x.astype("f4")})[0]

    digest = hashlib.sha256(content).hexdigest()
    return FunctionModel(run, features, name or Path(path).stem, digest, scale="probability")


def _digest(function: Callable[[Any], Any]) -> str:
    code = getattr(getattr(function, "__func__", function), "__code__", None)
    said = f"{getattr(function, '__module__', '')}.{getattr(function, '__qualname__', function)}"
    if code is not None:
        said += code.co_code.hex() + repr(code.co_consts)
    return hashlib.sha256(said.encode()).hexdigest()
