"""The interface of a text classifier: what a method may ask of it.

A text is encoded once. Methods that alter it drop or replace the pieces of whole words in that
encoding; nothing is cut into pieces again, so a word stands for the same pieces all along.

    window.ids       the pieces of a window: numbers of a vocabulary
    window.owner     the word that each piece belongs to, as an index into window.words
    window.words     the words of the window, as indices into the text's words
"""

from __future__ import annotations

import enum
import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from visxai.errors import ModelError
from visxai.models.interface import Activation
from visxai.models.pytorch.sdpa import Call
from visxai.references import ModelRef
from visxai.text.words import Span

Numbers = NDArray[np.int64]
Keep = NDArray[np.bool_]
Replacement = Literal["delete", "mask"]
Scalar = Callable[[Tensor, Tensor], Tensor]  # scores (m, k), window of each (m,) -> (m,)
Row = Any  # an altered text in the form that its model takes


class Need(enum.Flag):
    """The capabilities that a method needs of a text model, or that a model offers."""

    SCORES = enum.auto()
    GRADIENT = enum.auto()
    ATTENTION = enum.auto()

    def __str__(self) -> str:
        return ", ".join(str(flag.name).lower() for flag in Need if flag in self)


@dataclass(frozen=True)
class Window:
    """A part of a text that the model reads at once; mostly the whole text.

    Attributes:
        ids: (t,) the pieces, without the model's own marks at both ends.
        owner: (t,) the word of each piece, an index into `words`.
        words: (n,) the words with pieces in this window, as indices into the text's words.
        text: The text.
        spans: (start, end) of each word of the window in the text.
    """

    ids: Numbers
    owner: Numbers
    words: Numbers
    text: str
    spans: tuple[Span, ...]

    def __len__(self) -> int:
        return len(self.words)

    def sums(self, values: NDArray[Any]) -> NDArray[np.float32]:
        """Add up the values of each word's pieces.

        Args:
            values: (t,) or (t, ...).

        Returns:
            (n,) or (n, ...) float32.
        """
        out = np.zeros((len(self), *values.shape[1:]), np.float64)
        np.add.at(out, self.owner, values)
        return out.astype(np.float32)


@dataclass(frozen=True)
class Encoded:
    """A text as a model reads it.

    Attributes:
        text: The text.
        spans: (start, end) of each of its words.
        windows: The parts that the model reads, at least one.
    """

    text: str
    spans: tuple[Span, ...]
    windows: tuple[Window, ...]


def windows(
    text: str, spans: Sequence[Span], ids: Numbers, owner: Numbers, limit: int | None
) -> tuple[Window, ...]:
    """Divide a text's pieces into windows at ends of words.

    Args:
        text: The text.
        spans: Its words.
        ids: (t,) its pieces.
        owner: (t,) the word of each piece, ascending.
        limit: The most pieces of a window, None for one window. A word of more pieces than that is
            cut within.

    Returns:
        The windows, one after another; a text without pieces has one empty window.
    """
    cuts, start = [0], 0
    while limit is not None and len(ids) - start > limit:
        end = start + limit
        whole = int(np.searchsorted(owner, owner[end]))  # the first piece of the word at the cut
        end = whole if whole > start else end
        cuts.append(end)
        start = end
    cuts.append(len(ids))
    made = []
    for first, last in itertools.pairwise(cuts):
        known, inner = np.unique(owner[first:last], return_inverse=True)
        places = tuple(spans[index] for index in known.tolist())
        made.append(Window(ids[first:last], inner.astype(np.int64), known, text, places))
    return tuple(made)


class TextModel(ABC):
    """A text classifier with its tokenizer, labels and identity.

    Attributes:
        ref: The model's identity: name, sha256 of the weights, and how texts are prepared.
        labels: The names of the classes; None where they are unknown.
        activation: What turns scores into the probabilities that the model reports.
        offers: What the model can compute.
        device: Where it runs.
        batch_size: The most rows of one forward.
        layer: The name of the word embedding; None where it can't be seen.
    """

    layer: str | None = None
    ref: ModelRef
    labels: Sequence[str] | None
    activation: Activation
    offers: Need
    device: torch.device
    batch_size: int

    @abstractmethod
    def encode(self, texts: Sequence[str]) -> list[Encoded]:
        """Encode texts."""

    @abstractmethod
    def altered(self, window: Window, keep: Keep, how: Replacement) -> list[Row]:
        """Make altered copies of a window.

        Args:
            window: The window.
            keep: (m, n) whether each copy shows each word.
            how: Whether hidden words are deleted, or replaced by the model's mask.

        Returns:
            m rows for `score`.
        """

    @abstractmethod
    def score(self, rows: Sequence[Row]) -> Tensor:
        """Score rows, equal ones once: (m, k) float32, without a graph."""

    def score_windows(self, found: Sequence[Window]) -> Tensor:
        """Score windows as they are: (b, k) float32."""
        rows = [
            row
            for window in found
            for row in self.altered(window, np.ones((1, len(window)), bool), "delete")
        ]
        return self.score(rows)

    def probabilities(self, scores: Tensor) -> Tensor:
        """Turn scores (b, k) into what the model reports."""
        if self.activation == "softmax":
            return scores.softmax(1)
        return scores.sigmoid() if self.activation == "sigmoid" else scores

    def embedded(
        self,
        found: Sequence[Window],
        turns: int,
        place: Callable[[int], float],
        aim: Scalar,
        baseline: str,
        reduce: Callable[[Tensor, Tensor], Tensor] | None,
    ) -> Iterator[tuple[int, int, float, Any]]:
        """Differentiate a scalar at the word embeddings, on lines from a baseline to windows.

        Args:
            found: The windows.
            turns: Points of each line.
            place: The part of the way, 0 to 1, of a point.
            aim: The scalar.
            baseline: What each line starts at: "pad", "mask" or "zero".
            reduce: Takes gradients and the lines' directions, each (m, T, d), the direction zero
                outside the text; returns a value for each piece (m, T). None for the scalar alone,
                without any gradient.

        Yields:
            For each window and point, in any order, their indices, the scalar and the values of the
            window's pieces (t,), None where there is nothing to reduce.

        Raises:
            ModelError: The model has no gradients.
        """
        raise self.lacking(Need.GRADIENT)

    def attended(
        self, found: Sequence[Window], aim: Scalar | None
    ) -> Iterator[tuple[Any, list[Tensor], list[Tensor]]]:
        """Run windows and yield their attention.

        Args:
            found: The windows.
            aim: The scalar whose gradients are wanted; None for no gradients.

        Yields:
            For each block of windows its layers' attention (m, heads, T, T), and the gradients of
            the scalar there, none without an aim.

        Raises:
            ModelError: The model returns no attention.
        """
        raise self.lacking(Need.ATTENTION)

    def last_attention(self, found: Sequence[Window], aim: Scalar) -> Iterator[tuple[Any, Call]]:
        """Run windows and yield the attention of the last layer with its inputs and output.

        Args:
            found: The windows.
            aim: The scalar whose gradient at the output is wanted.

        Yields:
            Each block of windows and its call of attention.

        Raises:
            ModelError: The model doesn't call `scaled_dot_product_attention`.
        """
        raise self.lacking(Need.ATTENTION)

    def lacking(self, need: Need) -> ModelError:
        """Make the error for what the model doesn't offer."""
        return ModelError(
            expected=f"a text model that offers {need}",
            got=f"{self.ref.name}, which offers {self.offers}",
            remedy="use a method that needs nothing but scores, such as leave_one_out",
        )


def distinct(rows: Sequence[Any]) -> tuple[list[Any], list[int]]:
    """Find the distinct rows.

    Args:
        rows: Texts, or arrays of numbers.

    Returns:
        The distinct rows in the order of their first place, and for each row its index among them.
    """
    known: dict[Any, int] = {}
    kept: list[Any] = []
    index: list[int] = []
    for row in rows:
        key = row if isinstance(row, str) else row.tobytes()
        if key not in known:
            known[key] = len(kept)
            kept.append(row)
        index.append(known[key])
    return kept, index
