"""The settings of an engine that results depend on, as plain values."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from visxai.errors import ArgumentError
from visxai.images.preprocess import Preprocess
from visxai.models.cards import without_preprocess

if TYPE_CHECKING:
    from visxai.engine.engine import Engine
    from visxai.methods.base import Method
    from visxai.target import Target


def settings_of(engine: Engine, methods: Sequence[Method], target: Target) -> dict[str, Any]:
    """Collect the settings that all runs into one OUT must share, since they change its rows.

    Args:
        engine: The engine of the run.
        methods: Its methods.
        target: Its target.

    Returns:
        The settings by name, as values for JSON.

    Raises:
        ArgumentError: If the model can't serve a method or has no preprocessing.
        TargetError: If the target doesn't fit the model's scores.
    """
    model = engine.model
    for method in methods:
        engine.check(method)
    if model.preprocess is None:
        raise ArgumentError(without_preprocess(model.ref.name))
    layers: list[str | None] = []
    if isinstance(model.preprocess, Preprocess):
        blank = engine.tensor([model.preprocess.blank()])
        # In float32, so that a copy in half precision is checked by the first rows instead.
        scores = model.in_precision("fp32").scores(blank)
        target.aim(scores, model.probabilities(scores))
        layers = [method.layer_of(model, blank) for method in methods]
    named = hashlib.sha256("\n".join(model.labels or ()).encode("utf-8", "backslashreplace"))
    return {
        "model": model.ref.name,
        "weights": model.ref.weights_sha256,
        "preprocess": model.ref.preprocess,
        "activation": str(model.activation),
        "labels": f"{len(model.labels or ())} ({named.hexdigest()[:12]})",
        "methods": [repr(method) for method in methods],
        "layers": layers,
        "target": str(target),
        "device": engine.device.type,
        "precision": engine.precision,
        "batch": engine.batch_size,
    }
