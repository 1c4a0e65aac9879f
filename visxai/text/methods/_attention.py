"""What the methods that read attention share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from visxai.text.methods.base import TextMethod, Values
from visxai.text.model import Need, Window
from visxai.text.rows import Block


@dataclass(frozen=True, repr=False)
class Attending(TextMethod):
    """A method that reads the attention of an encoder; its values are never negative."""

    needs = Need.ATTENTION

    def cost(self, words: int) -> int:
        return 1

    @property
    def two_sided(self) -> bool:
        return False


def words_of(
    found: dict[int, Values], windows: Sequence[Window], block: Block, values: Tensor
) -> None:
    """Add up the values of each word's pieces, for the windows of a block.

    Args:
        found: The values of each window's words, which the block's are added to.
        windows: All windows.
        block: The block.
        values: (n, T) a value for each piece of the block's rows.
    """
    for row, part in zip(block.rows, block.content(values), strict=True):
        found[row] = windows[row].sums(part)


def padded(block: Block, matrix: Tensor) -> Tensor:
    """Set the columns of padding to 0 in a matrix (n, T, T)."""
    return matrix * block.mask[:, None, :].to(matrix)
