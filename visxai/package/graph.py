"""The packed model: one ONNX file with two outputs, the model's scores and their maps.

    write(engine, "explainable.onnx", method="grad_cam")

    images (batch, c, h, w), float32, preprocessed     the model's own input
    class  (batch,), int64, where it was wanted        the class to explain, -1 the strongest
    scores (batch, k), float32                         logits
    maps   (batch, u, v), float32                      at native resolution, unscaled

The file is written only when its maps agree with the engine's on photographs, at several batch
sizes. What a reader must know is in its metadata under keys that begin with "visxai.".
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from visxai import files, methods
from visxai._version import __version__
from visxai.engine import Engine
from visxai.errors import ArgumentError, ModelError, StoreError, require
from visxai.images.preprocess import Preprocess
from visxai.methods.base import Cam, Method
from visxai.methods.legrad import Legrad
from visxai.models.pytorch.joined import joined
from visxai.models.pytorch.model import TorchModel
from visxai.package.check import Agreement, agreement, photographs
from visxai.package.head import trace
from visxai.target import Target

_MOST_BYTES = 2**31 - 1  # of a protocol buffer
LIMIT = 1e-4  # of a map's or a row of scores' largest magnitude


def write(
    engine: Engine,
    out: str | os.PathLike[str],
    *,
    method: str | Method = "grad_cam",
    target: Any = "top1",
    images: Sequence[Any] | None = None,
) -> Agreement:
    """Write a model and one of its methods as an ONNX file.

    Args:
        engine: The model.
        out: The file to write.
        method: A class activation map, such as "grad_cam" or "layer_cam(layer='layer3')", or
            "legrad" for a transformer.
        target: "top1", a class ("class=tabby"), or "input", with which the file takes the class of
            each image as a second input.
        images: Photographs to check the file on; None takes those that scikit-image brings along.

    Returns:
        How closely the file agreed with the engine.

    Raises:
        ArgumentError: The method can't be packed, or the target isn't one of these.
        ModelError: The model can't be traced, or the packed one doesn't agree with it.
        MissingExtra: A package isn't installed.
        StoreError: The file can't be written.
    """
    content, found = packed(engine, method, target, images)
    path = Path(out)
    with files.one_sentence(f"to write {path}", "choose another place for it"):
        files.write(path, content)
    return found


def packed(
    engine: Engine, method: str | Method, target: Any, images: Sequence[Any] | None
) -> tuple[bytes, Agreement]:
    """Make and check the file's content; see `write`."""
    for module in ("onnx", "onnxruntime", "onnxscript"):
        require(module, "onnx", "packing a model")
    cam = _method(method)
    given = target == "input"
    index = None if given else _class(Target.of(target, engine.model.labels))
    if not isinstance(engine.model, TorchModel) or not isinstance(
        engine.model.preprocess, Preprocess
    ):
        raise ModelError(
            f"expected a model of PyTorch's whose preprocessing is known, but "
            f"{engine.model.ref.name} offers {engine.model.offers}: give its nn.Module and "
            "preprocess=Preprocess(...)"
        )
    plain = Engine(engine.model, precision="fp32", accelerate="off")
    engine.check(cam)
    pixels = photographs(plain, images)
    x = plain.tensor(pixels[:2])
    model: Any = plain.model
    proto = _exported(model, cam, x, index, given)
    facts = _facts(plain, cam, x, "input" if given else str(target))
    for key, value in facts.items():
        proto.metadata_props.add(key=f"visxai.{key}", value=value)
    if proto.ByteSize() > _MOST_BYTES:
        raise StoreError(
            f"expected a model below 2 GB, which is the most that one ONNX file holds, got "
            f"{proto.ByteSize() / 1e9:.1f} GB: pack a smaller model"
        )
    content: bytes = proto.SerializeToString()
    found = agreement(plain, cam, index, given, content, pixels)
    if not found.worst <= LIMIT:
        raise ModelError(
            f"expected the packed {model.ref.name} to agree with the engine to {LIMIT:g}, but its "
            f"scores differ by {found.scores:.2g} and its maps by {found.maps:.2g}: choose another "
            "layer, or explain with the engine"
        )
    return content, found


def _method(method: str | Method) -> Cam | Legrad:
    """Return the method, where it is one that a graph can hold."""
    loaded = methods.load(method) if isinstance(method, str) else method
    if isinstance(loaded, Legrad) and loaded.outliers is not None:
        raise ArgumentError(
            expected="legrad without outliers, since ONNX has no median",
            got=repr(loaded),
            remedy="pack legrad",
            field="method",
        )
    if not isinstance(loaded, (Cam, Legrad)):
        raise ArgumentError(
            expected="legrad, or a class activation map, made of a layer's activation and gradient",
            got=loaded.name(),
            remedy="pack grad_cam, hires_cam, layer_cam, grad_cam_plus_plus, xgrad_cam, "
            "grad_cam_elementwise or, for a transformer, legrad; other methods run the model many "
            "times, or differentiate all of it",
            field="method",
        )
    return loaded


def _class(target: Target) -> int | None:
    """Return the class of a target, None for the strongest."""
    if target.kind == "top" and target.value == 1:
        return None
    if target.kind == "class":
        return target.classes[0]
    raise ArgumentError(
        expected="the target top1, class=NAME or input",
        got=target.text,
        remedy="use input to give the class of each image with it",
        field="target",
    )


def _exported(
    model: TorchModel, cam: Cam | Legrad, x: Tensor, target: int | None, given: bool
) -> Any:
    """Return the ONNX graph of a model with a map."""
    try:
        return joined(trace(model, cam, x, target, given), x, given)
    except Exception as error:
        # Whatever a tracer or an exporter fails at: an operator without a form in ONNX, mostly.
        raise ModelError(
            f"expected {model.ref.name} and {cam.name()} to be made of operators that ONNX has, "
            f"but tracing them failed ({_reason(error)}): choose another method or layer"
        ) from error


def _reason(error: Exception) -> str:
    """Return why an export failed: the operator that ONNX lacks, or the error's first line."""
    missing = re.search(r"No ONNX function found for <OpOverload\(op='([\w.]+)'", str(error))
    if missing:
        return f"it has no {missing[1]}"
    return f"{type(error).__name__}: {next(iter(str(error).strip().splitlines()), '')[:200]}"


def _facts(engine: Engine, cam: Cam | Legrad, x: Tensor, target: str) -> dict[str, str]:
    """Return what a reader of the file must know, each as text or JSON."""
    model = engine.model
    facts: dict[str, Any] = {
        "version": __version__,
        "torch": torch.__version__,
        "model": model.ref.name,
        "weights_sha256": model.ref.weights_sha256,
        "method": repr(cam),
        "layer": cam.layer_of(model, x),
        "target": target,
        "two_sided": cam.two_sided,
        "activation": model.activation,
        "labels": None if model.labels is None else list(model.labels),
        "preprocess": asdict(model.preprocess)
        if isinstance(model.preprocess, Preprocess)
        else None,
        "preprocess_text": model.ref.preprocess,
    }
    return {
        key: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        for key, value in facts.items()
    }
