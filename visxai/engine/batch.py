"""The steps between a prepared batch and its records."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from visxai.methods.base import Maps, Method
from visxai.metrics.base import Case
from visxai.models.interface import Model
from visxai.models.probe import Probe
from visxai.references import ImageRef
from visxai.target import Target


@dataclass(frozen=True)
class Prepared:
    """A decoded image, cut for the model: its pixels (h, w, c) uint8 (or what an opaque
    preprocess made, (c, h, w) float32), where they lie, the caller's object if not a path, and
    the image's class, where it is known."""

    pixels: np.ndarray[Any, Any]
    input: ImageRef
    source: Any
    expected: int | None = None


def compute(method: Method, model: Model, x: Tensor, target: Target) -> Maps:
    """A method's maps, in any grad mode of the caller's: gradients are opened where needed."""
    with torch.inference_mode(False), torch.no_grad():
        # A clone leaves inference mode, whose tensors can't be saved for a backward.
        return method(model, x.clone() if x.is_inference() else x, target)


def reported(probe: Probe, x: Tensor, target: Target) -> Tensor:
    """What the model reports for each map (r,) of x: the class's probability.

    For a set of exclusive classes (softmax) it is their sum, otherwise its strongest; for a
    callable it is the callable's own value.
    """
    case = Case(probe, x, target)
    return case.clean(case.certainty)


def tidy(values: Tensor) -> tuple[Tensor, Tensor]:
    """Finite float32 maps (r, u, v), and whether each was degenerate (r,): flat or not finite."""
    finite = values.isfinite().flatten(1).all(1)
    values = torch.where(finite[:, None, None], values, torch.zeros_like(values)).float()
    low, high = values.flatten(1).aminmax(dim=1)
    peak = torch.maximum(low.abs(), high.abs())
    return values, ~finite | (high - low <= 1e-6 * peak)


def _plain(figure: Any) -> Any:
    """JSON has no NaN or infinity: a figure that is neither finite nor a flag becomes None."""
    return figure if isinstance(figure, (bool, int)) or np.isfinite(figure) else None
