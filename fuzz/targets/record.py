"""Records as JSON, and stored rows: what is read can be drawn, told and written again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np

from visxai.errors import VisxaiError
from visxai.record.image import ImageExplanation
from visxai.references import ImageRef, ModelRef, Transform
from visxai.results import rows

WORDS = tuple(f'"{name}":' for name in ("map_shape", "map_scale", "map", "quality", "transform"))


def check(data: bytes) -> None:
    """Fields as JSON, laid over a good record and over a good row; and the JSON alone."""
    try:
        told = json.loads(data)
    except (ValueError, RecursionError):
        return
    _read(lambda: ImageExplanation.from_dict(told))
    if isinstance(told, Mapping):
        _read(lambda: ImageExplanation.from_dict({**_record().to_dict(), **told}))
        _read(lambda: rows.of_row({**rows.row_of(_record(), None), **told}))


def _read(make: Any) -> None:
    try:
        record: ImageExplanation = make()
    except VisxaiError:
        return
    repr(record)
    record.heatmap((7, 5))
    record.seen((7, 5))
    again = ImageExplanation.from_dict(json.loads(json.dumps(record.to_dict())))
    assert again.values.shape == record.values.shape
    assert again.input == record.input


@cache
def _record() -> ImageExplanation:
    return ImageExplanation(
        input=ImageRef(40, 30, Transform((32, 24), (4, 0, 24, 24), 6), "0" * 64, "owl.jpg"),
        model=ModelRef("resnet18", "1" * 64, "resize 24"),
        values=np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4),
        method="grad_cam(relu=True)",
        target="top1",
        class_index=3,
        label="owl",
        score=0.5,
        logit=1.5,
        quality={"completeness": 0.01},
        versions={"torch": "2.10"},
        created="2026-01-01T00:00:00+00:00",
    )


def seeds() -> dict[str, bytes]:
    """A whole record, and single fields that are wrong."""
    whole = _record().to_dict()
    wrong: dict[str, Any] = {
        "shape": {"map_shape": [2**20, 2**20]},
        "negative": {"map_shape": [-3, -4]},
        "scale": {"map_scale": None},
        "base64": {"map": "!"},
        "orientation": {"transform": {**whole["transform"], "orientation": 9}},
        "crop": {"transform": {**whole["transform"], "crop": [0, 0, 0, 0]}},
        "width": {"width": 0},
        "label": {"label": 3, "score": "x"},
        "quality": {"quality": "[1]", "versions": "{"},
        "huge": {"width": 2**40, "height": 2**40},
    }
    made = {f"{name}.json": json.dumps(fields).encode() for name, fields in wrong.items()}
    return {**made, "whole.json": json.dumps(whole).encode(), "list.json": b"[1, 2]"}
