"""A computation exported to ONNX, kept in a file that ends with its sha256, and run from it."""

from __future__ import annotations

import contextlib
import hashlib
import os
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from visxai.errors import require
from visxai.models.pytorch.tracing import Traceable, silent_exporter, traced
from visxai.quiet import warnings_of

F = TypeVar("F")


def exported(export: Callable[[], None], path: Path, load: Callable[[Path], F]) -> F:
    """Load an exported form from a file, which is written where it isn't there or is damaged.

    Args:
        export: writes the file.
        path: the file that keeps it.
        load: loads the file into a runtime.
    """
    if not path.is_file():
        export()
    try:
        return load(path)
    except Exception:
        # A damaged or altered file in the cache is made anew, once.
        path.unlink(missing_ok=True)
        export()
        return load(path)


class OnnxForm:
    """An exported form in an ONNX Runtime session; several threads may call it."""

    def __init__(self, path: Path) -> None:
        ort = require("onnxruntime", "onnx", "accelerate='onnx'")
        options = ort.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = torch.get_num_threads()
        # Idle threads of the pool would spin against torch's own.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        content = unsealed(path)
        self._session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])

    def __call__(self, x: Tensor) -> Tensor:
        """Run the session on inputs x (b, 3, h, w); MemoryError where memory runs out."""
        try:
            (out,) = self._session.run(None, {"x": x.detach().float().contiguous().numpy()})
        except Exception as error:
            if "llocate" in str(error):
                raise MemoryError(str(error)) from None
            raise
        return torch.from_numpy(out)


def export(plain: Traceable, x: Tensor, path: Path) -> None:
    """Write `plain` as ONNX with a free batch axis; see `sealed`."""

    def write(name: str) -> None:
        write_onnx(plain, x, name, ["x"], ["out"])

    sealed(path, write)


def sealed(path: Path, write: Callable[[str], None]) -> None:
    """Let `write` write a temporary file, append its sha256 and give it its name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not mkstemp, whose files only their owner may read: a cache may be a team's.
    name = str(path.with_name(f".{uuid.uuid4().hex}.partial"))
    try:
        write(name)
        with open(name, "r+b") as file:
            seal = _seal(file.read())
            file.write(seal)
        os.replace(name, path)
    finally:
        Path(name).unlink(missing_ok=True)


def _seal(content: bytes) -> bytes:
    """Return the sha256 of an ONNX file's bytes as a metadata entry, to append to them."""
    onnx = require("onnx", "onnx", "accelerate='onnx'")
    digest = hashlib.sha256(content).hexdigest()
    entry = onnx.StringStringEntryProto(key="visxai_sha256", value=digest)
    seal: bytes = onnx.ModelProto(metadata_props=[entry]).SerializeToString()
    return seal


def unsealed(path: Path) -> bytes:
    """Read a file that `_export` wrote.

    Raises:
        ValueError: its bytes aren't those that were written.
    """
    content = path.read_bytes()
    length = len(_seal(b""))
    if content[-length:] != _seal(content[:-length]):
        raise ValueError(f"expected {path.name} as it was written, but it was damaged or altered")
    return content


def write_onnx(
    plain: Traceable,
    x: Tensor,
    name: str,
    inputs: Sequence[str],
    outputs: Sequence[str],
    axis: int = 0,
    opset: int | None = None,
) -> None:
    """Export `plain` to the file `name` by the TorchScript exporter, with a free batch axis.

    Args:
        plain: the computation.
        x: inputs (2 or more, ...) of the size to export for.
        name: the file.
        inputs: the name of its input.
        outputs: the names of its outputs.
        axis: the outputs' axis of images.
        opset: the version of ONNX's operators; the exporter's own by default.
    """

    def write(form: Traceable) -> None:
        with warnings_of(), torch.no_grad(), silent_exporter():
            torch.onnx.export(
                form,
                (x,),
                name,
                dynamo=False,
                opset_version=opset,
                input_names=inputs,
                output_names=outputs,
                dynamic_axes={one: {0: "batch"} for one in inputs}
                | {one: {axis: "batch"} for one in outputs},
            )

    write(plain)
    if _computes_padding(name):
        with contextlib.suppress(Exception):  # what can't be traced stays as it is
            sized = traced(plain, x)
            write(Traceable(lambda rows: sized(rows), plain.module))


def _computes_padding(name: str) -> bool:
    """Return whether an exported file computes a convolution's padding from its input's size.

    "same" padding does: the runtime can't merge such a padding into the convolution, which costs a
    third of the time. When torch.export traces the module first, sizes are numbers.
    """
    onnx = require("onnx", "onnx", "accelerate='onnx'")
    nodes = onnx.load(name, load_external_data=False).graph.node
    made_by = {output: node for node in nodes for output in node.output}
    sources = [made_by.get(node.input[0]) for node in nodes if node.op_type == "Conv"]
    waiting = [n.input[1] for n in sources if n is not None and n.op_type == "Pad" and n.input[1:]]
    seen = set(waiting)
    while waiting:
        node = made_by.get(waiting.pop())
        if node is not None:
            if node.op_type == "Shape":
                return True
            waiting += set(node.input) - seen
            seen.update(node.input)
    return False
