"""A packed model as a model repository, which Triton and KServe's Triton runtime serve as it is.

OUT/NAME/config.pbtxt          inputs, outputs and batching
OUT/NAME/labels.txt            the classes' names, where the model has them
OUT/NAME/1/model.onnx          the packed model
OUT/kserve.yaml                an InferenceService that names the repository
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from visxai import files
from visxai.engine import Engine
from visxai.errors import ArgumentError, require
from visxai.methods.base import Method
from visxai.package.check import Agreement
from visxai.package.graph import packed

MARK = ".visxai-package"
_TYPES = {1: "TYPE_FP32", 7: "TYPE_INT64"}  # ONNX's numbers of element types
_KSERVE = """\
# Copy this folder to storage that your cluster reads, and put its address at storageUri.
apiVersion: serving.kserve.io/v1beta1
kind: InferenceService
metadata:
  name: {service}
spec:
  predictor:
    model:
      modelFormat:
        name: triton
      storageUri: pvc://models/{name}
"""


def repository(
    engine: Engine,
    out: str | os.PathLike[str],
    *,
    name: str = "explainable",
    method: str | Method = "grad_cam",
    target: Any = "top1",
    images: Sequence[Any] | None = None,
    batch_size: int = 32,
) -> Agreement:
    """Write a model and one of its methods as a model repository.

    Args:
        engine: The model.
        out: The folder to write.
        name: The model's name in the repository: letters, digits, - and _.
        method: See `visxai.package.write`, as for the next two.
        target: "top1", a class or "input".
        images: Photographs to check the model on.
        batch_size: The most images that the server puts into one forward.

    Returns:
        How closely the packed model agreed with the engine.

    Raises:
        ArgumentError: The name has other characters, or the method or target can't be packed.
        ModelError: The model can't be packed.
        StoreError: The folder can't be written, or holds other files.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name):
        raise ArgumentError(
            expected="a name of letters, digits, - and _",
            got=repr(name),
            remedy="use a name such as explainable",
            field="name",
        )
    content, found = packed(engine, method, target, images)
    with (
        files.one_sentence(f"to write {out}", "choose another place for it"),
        files.replacing_folder(Path(out), MARK) as folder,
    ):
        fill(folder, name, content, engine.model.labels, batch_size)
    return found


def fill(
    folder: Path, name: str, content: bytes, labels: Sequence[str] | None, batch_size: int
) -> None:
    """Write a packed model into an empty folder as a model repository.

    Args:
        folder: The folder.
        name: The model's name.
        content: The packed model.
        labels: The classes' names.
        batch_size: The most images of a forward.
    """
    onnx: Any = require("onnx", "onnx", "packing a model")
    config = _config(name, onnx.load_from_string(content).graph, batch_size, labels is not None)
    (folder / name / "1").mkdir(parents=True)
    files.write(folder / name / "1" / "model.onnx", content, durable=False)
    files.write(folder / name / "config.pbtxt", config, durable=False)
    if labels is not None:
        lines = "".join(" ".join(label.split()) + "\n" for label in labels)
        files.write(folder / name / "labels.txt", lines, durable=False)
    manifest = _KSERVE.format(name=name, service=name.lower().replace("_", "-"))
    files.write(folder / "kserve.yaml", manifest, durable=False)


def _config(name: str, graph: Any, batch_size: int, labelled: bool) -> str:
    """Return the model's configuration for Triton, in the text form of its protocol buffer."""
    lines = [f'name: "{name}"', 'backend: "onnxruntime"', f"max_batch_size: {batch_size}"]
    for kind, values in (("input", graph.input), ("output", graph.output)):
        lines.append(f"{kind} [")
        for value in values:
            shape = value.type.tensor_type.shape.dim[1:]
            # A class is a single number an image: Triton wants a shape of its own for that.
            sides = ", ".join(str(one.dim_value) for one in shape)
            named = kind == "output" and value.name == "scores" and labelled
            label = ' label_filename: "labels.txt"' if named else ""
            reshape = "" if shape else " reshape: { shape: [ ] }"
            lines.append(
                f'  {{ name: "{value.name}" data_type: {_TYPES[value.type.tensor_type.elem_type]} '
                f"dims: [ {sides or 1} ]{reshape}{label} }},"
            )
        lines[-1] = lines[-1].rstrip(",")
        lines.append("]")
    lines.append("dynamic_batching { max_queue_delay_microseconds: 1000 }")
    return "\n".join(lines) + "\n"
