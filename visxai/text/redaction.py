"""Redaction of texts: hide the words of the greatest values, score the rest (`Engine.redact`)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from visxai.errors import ArgumentError
from visxai.record.text import TextExplanation

BLOCK = "█"


@dataclass(frozen=True)
class TextRedaction:
    """A text whose words of the greatest values are hidden, and the target's score for it.

    Attributes:
        text: The redacted text: a block stands for each letter of a hidden word.
        label: The label of the explained class.
        words: The hidden words, in order.
        before: The target's score of the text, as the model reports it.
        after: The target's score of the redacted text.
    """

    text: str
    label: str
    words: tuple[str, ...]
    before: float
    after: float

    def __str__(self) -> str:
        count = f"{len(self.words)} word{'' if len(self.words) == 1 else 's'}"
        return (
            f"with {count} hidden, {self.label} {'falls' if self.after < self.before else 'goes'} "
            f"from {self.before:.2f} to {self.after:.2f}"
        )


def redacted_words(explanation: TextExplanation, share: float) -> tuple[tuple[str, ...], str]:
    """Hide the fewest words whose values sum to a share of all positive ones.

    Args:
        explanation: The explanation.
        share: The share, above 0 and at most 1.

    Returns:
        The hidden words in order, and the text with blocks in their place.

    Raises:
        ArgumentError: The share isn't above 0 and at most 1.
    """
    if not 0 < share <= 1:
        raise ArgumentError(f"expected a share between 0 and 1, got {share}: try share=0.5")
    positive = np.clip(explanation.values.astype(np.float64), 0, None)
    order = np.argsort(-positive, kind="stable")
    sums = np.cumsum(positive[order])
    total = float(sums[-1]) if len(sums) else 0.0
    count = int(np.searchsorted(sums, share * total * (1 - 1e-9))) + 1 if total > 0 else 0
    hidden = sorted(order[:count].tolist())
    text, spans = explanation.text, explanation.input.spans
    parts, last = [], 0
    for at in hidden:
        start, end = spans[at]
        parts += [text[last:start], BLOCK * (end - start)]
        last = end
    return tuple(explanation.words[at] for at in hidden), "".join([*parts, text[last:]])
