"""Randomisation checks on record: what `visxai evaluate` found about a model and its methods.

    read_checks(["evaluation"])[weights, "grad_cam()"].verdict      "pass"

A map that stays as it is when what the model has learnt is destroyed doesn't explain the model. The
metric `model_randomisation` is the mean similarity to the maps of randomised models:

    pass    its 95 % interval ends below 0.5
    fail    the interval begins at 0.8 or above
    warn    anything between, and fewer than 30 images

For the efficient form, whose figure is a rise of entropy: above 0 passes, 0 or below fails.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from visxai.errors import StoreError

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
