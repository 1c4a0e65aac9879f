"""The record of an explained text: a value for each of its words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from visxai.drawing import tokens
from visxai.foreign import for_html, shown
from visxai.record import sentences
from visxai.record.base import Explanation, Picture
from visxai.references import TextRef

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.text import Text


@dataclass(frozen=True, eq=False, repr=False)
class TextExplanation(Explanation):
    """Why a model gave a text its score for one target.

    `values` holds a number for each word of `input.spans`. Words that the model never saw, because
    it doesn't know them or because they lie outside the window it read, have the value 0.

    Raises:
        ArgumentError: The number of values isn't the number of words.
    """

    input: TextRef

    reference: ClassVar[type[TextRef]] = TextRef
    axes: ClassVar[str] = "(words)"

    def __post_init__(self) -> None:
        """Make the values read-only float32; raise ArgumentError where they don't fit the words."""
        super().__post_init__()
        tokens.check(self.input.text, self.input.spans, self.values)

    @property
    def text(self) -> str:
        """The text as the model was given it."""
        return self.input.text

    @property
    def words(self) -> tuple[str, ...]:
        """The words, one for each value."""
        return self.input.words

    def top(self, count: int = 5) -> tuple[tuple[str, float], ...]:
        """List the `count` words of the greatest magnitude as (word, value), greatest first."""
        order = np.argsort(-np.abs(self.values), kind="stable")[:count]
        words = self.words
        return tuple((words[index], float(self.values[index])) for index in order.tolist())

    def html(self) -> str:
        """Draw the text with its words highlighted, as a part of an HTML page without scripts."""
        return tokens.html(self.text, self.input.spans, self.values)

    def _repr_html_(self) -> str:
        return self.html() + f"<p>{for_html(self.describe())}</p>"

    def describe(self) -> str:
        """Say in one plain sentence what the model answered, and for which words."""
        return sentences.parts(self, [shown(word) for word in self.words], "word")

    def terminal(self) -> Text:
        """Draw the text with its words highlighted, for rich's console."""
        return tokens.terminal(self.text, self.input.spans, self.values)

    def render(self) -> Picture:
        """Draw the highlighted text as a whole HTML page without scripts."""
        return Picture("text/html", tokens.page([self.part()]).encode())

    def part(self) -> tokens.Part:
        """Return what a page of several explanations shows of this one."""
        return tokens.Part(self.text, self.input.spans, self.values, self.caption, self.two_sided)

    @property
    def _source_name(self) -> str:
        return self.input.path or "text in memory"


def sheet(explanations: Sequence[TextExplanation], title: str = "") -> str:
    """Draw explanations, such as those of several methods, one below the other as an HTML page.

    Args:
        explanations: The explanations.
        title: The page's title.
    """
    return tokens.page([one.part() for one in explanations], title)
