"""Rows of pieces: how a model wants them, and the blocks of them that run together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from visxai.text.model import Numbers
from visxai.text.words import Span

# Cuts texts into pieces: for each text their numbers and places.
Tokenizer = Callable[[Sequence[str]], list[tuple[list[int], list[Span]]]]


@dataclass(frozen=True)
class Format:
    """How a model wants its rows.

    Attributes:
        prefix: The pieces in front of every text.
        suffix: The pieces behind every text.
        pad: The piece that fills rows up.
        mask: The piece that stands for a hidden one.
        length: The most pieces of a row, all marks included; None for no limit.
        fixed: Whether every row has this length, filled up, and the model reads padding like
            pieces.
        front: Whether rows of fixed length are filled up in front, instead of at the end.
        read: The piece that an encoder's scores are read off: the row's "first", the "end" mark
            right behind the text, or the row's "last".
    """

    prefix: tuple[int, ...] = ()
    suffix: tuple[int, ...] = ()
    pad: int = 0
    mask: int = 0
    length: int | None = None
    fixed: bool = False
    front: bool = True
    read: Literal["first", "end", "last"] = "first"

    @property
    def limit(self) -> int | None:
        """The most pieces of a text in a row."""
        marks = len(self.prefix) + len(self.suffix)
        return None if self.length is None else self.length - marks


@dataclass(frozen=True)
class Block:
    """Rows that run together.

    Attributes:
        rows: The place of each row among those that were asked for.
        ids: (n, T) pieces with marks and padding.
        mask: (n, T) bool, what isn't padding.
        start: (n,) where each row's text begins.
        lengths: (n,) the pieces of each row's text.
        read: (n,) the piece of each row that an encoder's scores are read off.
        lead: The positions of padding in front of every row that `ids` and `mask` leave out.
    """

    rows: tuple[int, ...]
    ids: Tensor
    mask: Tensor
    start: Numbers
    lengths: Numbers
    read: Numbers
    lead: int = 0

    def part(self, first: int, last: int) -> Block:
        """Return the rows from `first` on and before `last`."""
        some = slice(first, last)
        return Block(
            self.rows[some],
            self.ids[some],
            self.mask[some],
            self.start[some],
            self.lengths[some],
            self.read[some],
            self.lead,
        )

    def inside(self) -> Tensor:
        """Return (n, T) bool, whether a piece belongs to the text."""
        places = torch.arange(self.ids.shape[1], device=self.ids.device)
        start = torch.from_numpy(self.start).to(self.ids.device).unsqueeze(1)
        size = torch.from_numpy(self.lengths).to(self.ids.device).unsqueeze(1)
        return (places >= start) & (places < start + size)

    def of_read(self, matrix: Tensor) -> Tensor:
        """Take the row of the piece that is read out of matrices (n, T, T): (n, T)."""
        index = torch.from_numpy(self.read).to(matrix.device)[:, None, None]
        return matrix.gather(1, index.expand(-1, 1, matrix.shape[2])).squeeze(1)

    def content(self, values: Tensor) -> list[np.ndarray[Any, Any]]:
        """Cut values (n, T, ...) down to the pieces of each row's text."""
        host = values.detach().float().cpu().numpy()
        places = zip(self.start.tolist(), self.lengths.tolist(), strict=True)
        return [host[i, at : at + size] for i, (at, size) in enumerate(places)]
