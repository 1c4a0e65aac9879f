"""Texts to add to a training set, where a classifier errs behind a word.

Each is made of texts whose label is known, so that it most likely has that label too:

    swapped   one word of a text with the cue is replaced by one that stands between the same two
              words in another text of the label
    joined    a text with the cue is followed by another text of the label

Only those are kept that the model gets wrong. They are proposals: a person reads them, and what
they do for the model is known only when it is trained with and without them and measured on others.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from visxai.text.decisions import Decision
from visxai.text.words import words

_TRIED = 4  # texts made for each that is wanted


@dataclass(frozen=True)
class Suggestion:
    """A text to add.

    Attributes:
        text: The text.
        label: The label that it most likely has.
        given: The label that the model gives it.
        cue: The word behind which errors gather.
        how: What was done, "swapped" or "joined".
        source: Where the text with the cue came from that it was made of.
    """

    text: str
    label: str
    given: str
    cue: str
    how: str
    source: str


def suggest(
    decision: Decision,
    texts: Sequence[str],
    names: Sequence[str],
    with_cue: Sequence[int],
    without: Sequence[int],
    cue: str,
    label: tuple[int, str],
    *,
    most: int = 20,
    seed: int = 0,
) -> tuple[Suggestion, ...]:
    """Make texts of a label with a cue that the model gets wrong.

    Args:
        decision: The question that the model answers.
        texts: The texts.
        names: Where each came from.
        with_cue: The places of the label's texts with the cue; the first are changed first.
        without: The places of the label's texts without it.
        cue: The word, in lower case.
        label: The label's index and name.
        most: The most texts made of each kind.
        seed: Of the choice of texts that are joined.
    """
    known = {one.strip().casefold() for one in texts}
    found: list[Suggestion] = []
    for how, made in (
        ("swapped", _swapped(texts, with_cue, without, cue)),
        ("joined", _joined(texts, with_cue, without, seed)),
    ):
        tried = dict(islice(made, _TRIED * most))
        new = [(text, place) for text, place in tried.items() if text.casefold() not in known]
        wrong = (
            Suggestion(text, label[1], said.label, cue, how, names[place])
            for (text, place), said in zip(
                new, decision.answers([text for text, _ in new]) if new else [], strict=True
            )
            if said.index != label[0]
        )
        found += islice(wrong, most)
    return tuple(found)


def _neighbours(
    texts: Sequence[str], places: Iterable[int]
) -> dict[tuple[str, str], dict[str, None]]:
    """Collect the words that stand between each two words, in the order of their first place."""
    found: dict[tuple[str, str], dict[str, None]] = {}
    for place in places:
        said = [texts[place][start:end].casefold() for start, end in words(texts[place])]
        padded = ["", *said, ""]
        for before, word, after in zip(padded, said, padded[2:], strict=False):
            if word.isalpha():
                found.setdefault((before, after), {})[word] = None
    return found


def _swapped(
    texts: Sequence[str], with_cue: Sequence[int], without: Sequence[int], cue: str
) -> Iterator[tuple[str, int]]:
    """Yield texts with one word replaced, each with the place of its source."""
    between = _neighbours(texts, [*with_cue, *without])
    for place in with_cue:
        text = texts[place]
        spans = words(text)
        padded = ["", *(text[start:end].casefold() for start, end in spans), ""]
        for at, (start, end) in enumerate(spans):
            word = padded[at + 1]
            if word == cue or not word.isalpha():
                continue
            for other in between.get((padded[at], padded[at + 2]), ()):
                if other not in (word, cue):
                    cased = other.capitalize() if text[start].isupper() else other
                    yield text[:start] + cased + text[end:], place


def _joined(
    texts: Sequence[str], with_cue: Sequence[int], without: Sequence[int], seed: int
) -> Iterator[tuple[str, int]]:
    """Yield texts followed by another of the label, each with the place of its source."""
    if not without:
        return
    order = np.random.default_rng(seed).permutation(len(without)).tolist()
    for turn in range(len(order)):
        for at, place in enumerate(with_cue):
            other = without[order[(turn + at) % len(order)]]
            yield f"{texts[place].strip()} {texts[other].strip()}", place
