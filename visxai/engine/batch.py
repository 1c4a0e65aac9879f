"""The steps that turn a prepared batch into records."""

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
    """A decoded image, resized and cropped for the model.

    Attributes:
        pixels: (h, w, c) uint8, or (c, h, w) float32 from a preprocessing that isn't visxai's.
        input: The image's size, bytes' hash and path, and where the pixels lie in it.
        source: The object that the caller gave, None for a path.
        expected: The index of the image's labelled class, None without a label.
    """

    pixels: np.ndarray[Any, Any]
    input: ImageRef
    source: Any
    expected: int | None = None


def compute(method: Method, model: Model, x: Tensor, target: Target) -> Maps:
    """Compute a method's maps, whatever grad mode the caller is in.

    Args:
        method: The method; it enables gradients itself where it needs them.
        model: The model that it asks.
        x: Inputs (b, 3, h, w) in model space, on the model's device.
        target: What to explain.

    Returns:
        The maps, one for each row that the target aims at.
    """
    with torch.inference_mode(False), torch.no_grad():
        # A clone leaves inference mode, whose tensors can't be saved for a backward.
        return method(model, x.clone() if x.is_inference() else x, target)


def reported(probe: Probe, x: Tensor, target: Target) -> Tensor:
    """Return the score that the model reports for each map of a batch.

    Args:
        probe: The model as this batch sees it.
        x: Inputs (b, 3, h, w) in model space.
        target: What is explained.

    Returns:
        (r,) the probability of each map's class. For a set of classes it is the sum of their
        probabilities where they exclude each other (softmax) and the greatest otherwise; for a
        callable it is the callable's value.
    """
    case = Case(probe, x, target)
    return case.clean(case.certainty)


def tidy(values: Tensor) -> tuple[Tensor, Tensor]:
    """Make maps finite float32, and mark the degenerate ones.

    Args:
        values: Maps (r, u, v).

    Returns:
        The maps (r, u, v) float32, all zero in place of a map with a value that isn't finite; and
        (r,) bool, whether each map was degenerate, that is flat or not finite.
    """
    finite = values.isfinite().flatten(1).all(1)
    values = torch.where(finite[:, None, None], values, torch.zeros_like(values)).float()
    low, high = values.flatten(1).aminmax(dim=1)
    peak = torch.maximum(low.abs(), high.abs())
    return values, ~finite | (high - low <= 1e-6 * peak)


def _plain(figure: Any) -> Any:
    """Replace a NaN or infinite figure by None, since JSON has neither; flags and integers pass."""
    return figure if isinstance(figure, (bool, int)) or np.isfinite(figure) else None
