"""The base classes of methods for texts: frozen dataclasses that give each word a value.

A method's call is a pure function of windows of texts, a model and a scalar of its scores. Its file
is its documentation: equation, cost and source in the docstring, then the code.

Shapes are written with n words of a window, t pieces, m altered copies and k classes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from visxai.spec import Spec, built
from visxai.text.model import Keep, Need, Replacement, Scalar, TextModel, Window

Values = NDArray[np.float32]
_GROUP = 2**22  # pieces of altered copies that are held at once


@dataclass(frozen=True)
class Maps:
    """The result of a method.

    Attributes:
        values: For each window the values of its words (n,), float32, unscaled.
        quality: Figures of each window, such as completeness, by name; NaN where there is none.
    """

    values: Sequence[Values]
    quality: Mapping[str, Sequence[float]] = field(default_factory=dict)


@dataclass(frozen=True, repr=False)
class TextMethod(Spec, ABC):
    """A method for texts. Subclasses are final and frozen, and state what they need of a model.

    Attributes:
        needs: What a model must offer for the method to run.
    """

    needs: ClassVar[Need]

    @abstractmethod
    def __call__(self, model: TextModel, windows: Sequence[Window], aim: Scalar) -> Maps:
        """Explain windows.

        Args:
            model: The model, which offers the method's `needs`.
            windows: The windows, each with at least one word.
            aim: The scalar to explain, of scores (m, k) and the window of each (m,).
        """

    @abstractmethod
    def cost(self, words: int) -> int:
        """Count the rows that a window of this many words sends through the network at most."""

    @property
    def two_sided(self) -> bool:
        """Return whether values can hold evidence against the target."""
        return True

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> TextMethod:
        """Build the method from options.

        Raises:
            UnknownName: The method has no such option.
            ArgumentError: An option's value is not allowed.
        """
        return built(cls, options)


@dataclass(frozen=True, repr=False)
class Hiding(TextMethod):
    """A method that hides words and asks for the scores of what is left.

    Attributes:
        replacement: "delete" drops hidden words, "mask" puts the model's mask in their place.
        parts: The most parts that are hidden one by one or in combination: a window of more words
            is divided into so many runs of words, and a run's value is spread evenly over it.
    """

    replacement: Replacement = "delete"
    parts: int = 200

    needs = Need.SCORES

    def __post_init__(self) -> None:
        super().__post_init__()
        fits = self.replacement in ("delete", "mask")
        self._require(fits, "replacement='delete' or 'mask'", self.replacement)
        self._require(self.parts >= 1, "at least 1 part", self.parts)

    def divided(self, window: Window) -> NDArray[np.int64]:
        """Return the part of each word (n,), ascending from 0."""
        count = min(len(window), self.parts)
        return np.arange(len(window)) * count // max(len(window), 1)

    def spread(self, window: Window, values: NDArray[Any]) -> Values:
        """Spread the values of parts evenly over their words (n,)."""
        owner = self.divided(window)
        sizes = np.bincount(owner, minlength=len(values))
        return (values / np.maximum(sizes, 1))[owner].astype(np.float32)

    def responses(
        self, model: TextModel, windows: Sequence[Window], shown: Sequence[Keep], aim: Scalar
    ) -> list[NDArray[np.float64]]:
        """Evaluate the scalar on altered copies of windows.

        Args:
            model: The model.
            windows: The windows.
            shown: For each window (m, parts), whether each copy shows each part.
            aim: The scalar.

        Returns:
            (m,) for each window.
        """
        found: list[NDArray[np.float64]] = []
        at = 0
        while at < len(windows):
            rows: list[Any] = []
            counts: list[int] = []
            size = 0
            while at < len(windows) and (not rows or size < _GROUP):
                window = windows[at]
                made = model.altered(window, shown[at][:, self.divided(window)], self.replacement)
                rows += made
                counts.append(len(made))
                size += sum(map(len, made))
                at += 1
            which = np.repeat(np.arange(at - len(counts), at), counts)
            if rows:
                scores = model.score(rows)
                values = aim(scores, torch.from_numpy(which).to(scores.device))
                host = values.double().cpu().numpy()
            else:
                host = np.zeros(0)
            found += np.split(host, np.cumsum(counts)[:-1])
        return found


def seeded(seed: int, window: Window) -> np.random.Generator:
    """Return the generator of a window's draws: the same wherever the window stands in a batch."""
    return np.random.default_rng([seed, len(window)])


def along(slope: Tensor, line: Tensor) -> Tensor:
    """Multiply gradients (m, T, d) by directions and add up: (m, T)."""
    return (slope * line).sum(2)
