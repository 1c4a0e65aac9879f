"""Detectors by name: Hugging Face's, and YOLO's exports to ONNX.

    load("hf:PekingU/rtdetr_r18vd")      a DETR-like model of Hugging Face; also a local folder
    load("onnx:yolo11n.onnx")            a file that ultralytics exported, run by ONNX Runtime

torchvision's are loaded by `visxai.models.loading`, as classifiers are.
"""

from __future__ import annotations

import ast
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from visxai.errors import ModelError, require
from visxai.foreign import shown
from visxai.images.preprocess import Preprocess
from visxai.models import hubs
from visxai.models.objects import Found, read_yolo

_USUAL = 640  # the side of YOLO's input in pixels, where a file doesn't say
_INTERPOLATION = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box"}
Known = dict[str, Any]


def load(name: str) -> tuple[nn.Module | Callable[[Tensor], list[Found]], Known] | None:
    """Load a detector by a name that begins with hf: or onnx:.

    Args:
        name: The name.

    Returns:
        A module or a function from pixels to detections, and its preprocessing and labels; None for
        any other name.

    Raises:
        ModelError: It can't be fetched or opened, or isn't a detector.
        MissingExtra: transformers or ONNX Runtime isn't installed.
    """
    prefix, _, rest = name.partition(":")
    loaders: dict[str, Callable[[str], tuple[Any, Known]]] = {"hf": hugging_face, "onnx": yolo}
    return loaders[prefix](rest) if prefix in loaders else None


def hugging_face(name: str) -> tuple[nn.Module, Known]:
    """Load a DETR-like detector of Hugging Face by name or folder."""
    transformers = require("transformers", "hf", f"the detector hf:{name}")
    place, revision = hubs.pinned(name)
    options: dict[str, Any] = {"trust_remote_code": False}
    if revision is not None:
        options["revision"] = revision
    with hubs.fetching(f"hf:{name}", "name a local folder (hf:FOLDER)"):
        hubs.reach(None if os.path.isdir(place) else place)
        try:
            module = transformers.AutoModelForObjectDetection.from_pretrained(place, **options)
        except ValueError as error:
            raise ModelError(
                f"expected a detector of Hugging Face, got {shown(name)}, which is none: explain a "
                "classifier by visxai explain"
            ) from error
        processor = transformers.AutoImageProcessor.from_pretrained(place, **options)
    labels = hubs.hugging_face_labels(module.config).get("labels")
    return module.eval(), {"preprocess": whole(processor), "labels": labels}


def whole(processor: Any) -> Preprocess:
    """Return the preprocessing of a detector's image processor, so that batches stack.

    A picture is stretched where the processor stretches it; else it is fitted into a square of the
    processor's short side.
    """
    side = dict(processor.size)
    fixed = "height" in side and "width" in side
    size = (int(side["height"]), int(side["width"])) if fixed else None
    most = int(side.get("shortest_edge") or side.get("longest_edge") or _USUAL)
    normal = bool(getattr(processor, "do_normalize", True))
    scale = 1.0 if getattr(processor, "do_rescale", True) else 1 / 255
    mean = tuple(processor.image_mean) if normal else (0.0,) * 3
    std = tuple(processor.image_std) if normal else (scale,) * 3
    how = _INTERPOLATION.get(int(getattr(processor, "resample", 2) or 0), "bilinear")
    if size is not None:
        return Preprocess(size, size, how, mean, std)
    return Preprocess((most, most), most, how, mean, std, side="long")


def yolo(path: str) -> tuple[Callable[[Tensor], list[Found]], Known]:
    """Open an ONNX file that ultralytics exported."""
    place = Path(path)
    if not place.is_file():
        raise ModelError(f"expected an ONNX file, got {shown(path)}, which isn't there: check it")
    ort = require("onnxruntime", "onnx", f"the detector {place.name}")
    options = ort.SessionOptions()
    options.log_severity_level = 4  # errors that matter are raised
    try:
        session = ort.InferenceSession(str(place), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise ModelError(
            f"expected an ONNX file that ONNX Runtime can run, got {shown(path)} "
            f"({shown(str(error).splitlines()[0])}): export it again"
        ) from None
    entry, stated = session.get_inputs()[0], session.get_modelmeta().custom_metadata_map
    sides = [one if isinstance(one, int) else None for one in entry.shape]
    if len(sides) != 4:
        raise ModelError(
            f"expected a detector of pixels (n, 3, h, w), got the input {entry.shape}: name a file "
            "that ultralytics exported"
        )
    usual = _stated(stated.get("imgsz"), [_USUAL, _USUAL])
    size = (int(sides[2] or usual[0]), int(sides[3] or usual[1]))
    names = _stated(stated.get("names"), {})
    listed = list(names.values()) if isinstance(names, dict) else list(names)

    def detect(pixels: Tensor) -> list[Found]:
        step = sides[0] or len(pixels)
        given = pixels.detach().cpu().numpy()
        parts = [
            session.run(None, {entry.name: given[start : start + step]})[0]
            for start in range(0, len(given), step)
        ]
        return read_yolo(np.concatenate(parts), size)

    detect.__name__ = place.name
    zeros, ones = (0.0,) * 3, (1.0,) * 3
    preprocess = Preprocess(size, size[0], mean=zeros, std=ones, side="long")
    return detect, {"preprocess": preprocess, "labels": [str(one) for one in listed] or None}


def _stated(text: str | None, default: Any) -> Any:
    """Read a plain value out of a file's metadata."""
    try:
        return default if text is None else ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return default
