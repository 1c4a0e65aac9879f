"""A function from pixels to scores as a model, for methods that need scores alone.

    BlackBox(function, preprocess=Preprocess(...))

The function takes float32 pixels (n, c, h, w) in model space and returns scores (n, k), a tensor or
an array. Rows that are probabilities summing to 1 are replaced by their logarithms, so that scores
are logits; activation="none" uses them unchanged.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from visxai.errors import ModelError
from visxai.images.preprocess import Preprocess
from visxai.models.blocks import maps_of
from visxai.models.budget import RowBudget
from visxai.models.interface import Activation, Model, Need
from visxai.models.rows import Rows
from visxai.references import ModelRef
from visxai.target import Aim


class BlackBox(Model):
    """A model that offers the scores of a function and nothing else.

    Args:
        function: from float32 pixels (n, c, h, w) in model space to scores (n, k).
        ref: the model's identity; the function's name by default.
        preprocess: how an image becomes pixels in model space.
        labels: the names of the classes, in order.
        activation: how scores become probabilities.
        device: where the results lie; the CPU by default.
    """

    def __init__(
        self,
        function: Callable[[Tensor], Any],
        *,
        ref: ModelRef | None = None,
        preprocess: Any = None,
        labels: Sequence[str] | None = None,
        activation: Activation = "softmax",
        device: Any = None,
    ) -> None:
        self.function = function
        self.preprocess = None if preprocess is None else Preprocess.of(preprocess)
        described = "none" if self.preprocess is None else str(self.preprocess)
        self.ref = ref or _ref(function, described)
        self.labels = None if labels is None else tuple(labels)
        self.activation = activation
        self.offers = Need.SCORES
        self.device = torch.device(device or "cpu")
        self.precision = "fp32"
        self.precisions = ("fp32",)
        self.budget = RowBudget()
        self._logarithm: bool | None = None if ref is None else False

    def remedy(self, missing: Need) -> str:
        return "explain the nn.Module itself, since a function offers its scores alone"

    def with_output(self, output: Callable[[Any], Any]) -> BlackBox:
        """Return the same model with another function from what the function returns to scores.

        The function's name becomes part of the model's name, which records keep.
        """
        other, function = copy.copy(self), self.function
        read_by = str(getattr(output, "__qualname__", output))
        other.function = lambda x: output(function(x))
        other.ref = replace(self.ref, name=f"{self.ref.name} read by {read_by}")
        return other

    def scores(self, x: Tensor) -> Tensor:
        return torch.cat(
            list(self._blocks(Rows.of(x), "scores", lambda part, *_: self._called(part)))
        )

    def values(self, rows: Rows, aim: Aim) -> Tensor:
        out = torch.empty(len(aim), rows.turns, device=self.device)

        def run(x: Tensor, image: Tensor, turn: Tensor, _: int) -> bool:
            scores = self._called(x)
            for chosen, which in maps_of(aim, image):
                out[which, turn[chosen]] = aim(scores[chosen], which)
            return True

        all(self._blocks(rows, "scores", run))
        return out

    def _called(self, x: Tensor) -> Tensor:
        """Compute the logits (n, k), float32, of pixels x (n, c, h, w)."""
        # Cloned, so that a function that writes into its argument doesn't change the batch.
        found = torch.as_tensor(self.function(x.clone()))
        found = found.detach().to(self.device, torch.float32)
        if found.ndim == 1 and len(found) == len(x):
            found = found.unsqueeze(1)
        if found.ndim != 2 or len(found) != len(x):
            raise ModelError(
                f"expected {self.ref.name} to give scores ({len(x)}, classes), got shape "
                f"{tuple(found.shape)}: return one row of scores an image"
            )
        if self._logarithm is None:
            self._logarithm = self.activation == "softmax" and _sums_to_one(found)
        return (found + 1e-30).log() if self._logarithm else found


def _sums_to_one(rows: Tensor) -> bool:
    """Return whether rows (n, k) are probabilities of exclusive classes."""
    return rows.shape[1] > 1 and bool((rows >= 0).all() and ((rows.sum(1) - 1).abs() < 1e-4).all())


def _ref(function: Callable[..., Any], described: str) -> ModelRef:
    """Identify a function by its name, because what it computes can't be compared."""
    named = function if hasattr(function, "__qualname__") else type(function)
    name = f"{named.__module__}.{named.__qualname__}"
    return ModelRef(name, hashlib.sha256(f"function {name}".encode()).hexdigest(), described)
