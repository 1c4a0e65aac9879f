"""Randomisation checks of models and methods: read from evaluations, or run on images on record.

    read_checks(["evaluation"])[weights, "grad_cam()"].verdict      "pass"
    run_checks(records, ["efficientnet_lite0"], images=30)          the same, computed here

A map that stays as it is when what the model has learnt is destroyed doesn't explain the model. The
metric `model_randomisation` is the mean similarity to the maps of randomised models:

    pass    its 95 % interval ends below 0.5
    fail    the interval begins at 0.8 or above
    warn    anything between, and fewer than 30 images

For the efficient form, whose figure is a rise of entropy: above 0 passes, 0 or below fails.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from visxai.errors import ImageError, StoreError, VisxaiError
from visxai.images import address
from visxai.record.base import Explanation
from visxai.record.image import ImageExplanation

_CHANGED, _UNCHANGED = 0.5, 0.8
_ENOUGH = 30  # images below which a check is uncertain


@dataclass(frozen=True)
class Check:
    """What an evaluation says of a method of a model.

    Attributes:
        verdict: "pass", "warn" or "fail".
        said: The figure with its interval and the number of images.
    """

    verdict: Literal["pass", "warn", "fail"]
    said: str


Checks = Mapping[tuple[str, str], Check]  # by the weights' SHA-256 and the method


def read_checks(folders: Sequence[str | os.PathLike[str]]) -> dict[tuple[str, str], Check]:
    """Read the randomisation checks of evaluations.

    Args:
        folders: What `visxai evaluate --metrics model_randomisation` wrote.

    Returns:
        The checks by the SHA-256 of the model's weights and the method's spec.

    Raises:
        StoreError: A folder holds no evaluation with this check.
    """
    found: dict[tuple[str, str], Check] = {}
    for folder in folders:
        try:
            told = json.loads((Path(folder) / "evaluation.json").read_text("utf-8"))
            weights, metrics = str(told["settings"]["weights"]), told["metrics"]
            checks = [one for one in metrics if one["metric"].startswith("model_randomisation(")]
            for metric in checks:
                for entry in metric["methods"]:
                    found[weights, str(entry["method"])] = _judged(entry, metric["better"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            checks = []
        if not checks:
            raise StoreError(
                expected=f"an evaluation with the metric model_randomisation in {folder}",
                got="none",
                remedy="visxai evaluate --metrics model_randomisation --out FOLDER",
                field="evaluation",
            )
    return found


def run_checks(
    records: Iterable[Explanation], models: Sequence[str], images: int, known: Checks
) -> dict[tuple[str, str], Check]:
    """Run the check of each model and method on originals of its records.

    Models that travel with visxai are opened by the name in their records, others only where the
    caller names them; each must have the recorded weights. Originals behind URLs aren't asked.

    Args:
        records: Explanations; of each model and method the first that have their originals count.
        models: Further names of models, as for `visxai.Engine`.
        images: The most images for each model and method.
        known: Checks that needn't be run.

    Returns:
        The checks by the SHA-256 of the model's weights and the method's spec; those that can't be
        run are left out.
    """
    from visxai import models as cards

    originals: dict[tuple[str, str], list[str]] = {}
    names = dict.fromkeys(models)
    for one in records:
        key = (one.model.weights_sha256, one.method)
        held = originals.setdefault(key, [])
        path = one.input.path
        if key in known or len(held) >= images or not isinstance(one, ImageExplanation):
            continue
        if one.model.name in cards.names():
            names.setdefault(one.model.name)
        if path and not address.remote(path) and path not in held:
            try:
                one.original()
            except ImageError:
                continue
            held.append(path)
    found: dict[tuple[str, str], Check] = {}
    for name in names:
        found |= _run(name, {key: held for key, held in originals.items() if held})
    return found


def _run(name: str, originals: Mapping[tuple[str, str], list[str]]) -> dict[tuple[str, str], Check]:
    """Run the checks of the methods of one model, which is loaded once."""
    from visxai.engine import Engine

    engine = Engine(name, precision="fp32", accelerate="off")
    found = {}
    for (weights, method), paths in originals.items():
        if weights != engine.model.ref.weights_sha256:
            continue
        try:
            made = engine.explain(paths, method=method, check="model_randomisation")
        except VisxaiError as error:
            found[weights, method] = Check("warn", f"can't be run: {error}")
            continue
        values = np.array(
            [
                one.quality["model_randomisation"]
                for one in made
                if isinstance(one, ImageExplanation)
            ],
            np.float64,
        )
        values = values[np.isfinite(values)]
        half = (
            1.96 * float(values.std(ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else None
        )
        mean = float(values.mean()) if len(values) else None
        ends = (None, None) if mean is None or half is None else (mean - half, mean + half)
        entry = {"value": mean, "low": ends[0], "high": ends[1], "count": len(values)}
        found[weights, method] = _judged(entry, "lower")
    return found


def _judged(entry: dict[str, Any], better: str) -> Check:
    value, low, high, n = (entry[name] for name in ("value", "low", "high", "count"))
    if value is None or low is None or high is None:
        return Check("warn", "not defined")
    said = f"{value:.2f} ({low:.2f} to {high:.2f}, {n} images)"
    if n < _ENOUGH:
        return Check("warn", f"{said}, fewer than {_ENOUGH}")
    passed, failed = (high < _CHANGED, low >= _UNCHANGED)
    if better == "higher":
        passed, failed = low > 0, high <= 0
    return Check("pass" if passed else "fail" if failed else "warn", said)
