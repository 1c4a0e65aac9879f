"""What a text classifier gets wrong systematically: words whose texts it errs on more than others.

    found = debug(engine, texts, labels)
    found.cues        words behind which errors gather, each with figures that can be checked
    found.page()      the same as a page to read from top to bottom

For each label and each word that stands in enough texts of that label, the errors with and without
the word are compared by Fisher's exact test, one-sided, and the p-values are corrected for the
number of comparisons by Holm's method: of classifiers without any such word, at most one in twenty
raises an alarm. Error rates have Wilson's 95 % intervals.

A word behind which errors gather needn't cause them. So each cue found is deleted from its texts,
and the change of the label's score is told for texts that the model gets wrong and for those it
gets right: a cue that misleads pushes the two apart.

Source: Fisher, Statistical methods for research workers, 1925; Holm, A simple sequentially
rejective multiple test procedure, 1979; Wilson, Probable inference, 1927.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import comb, sqrt
from typing import Any

import numpy as np

from visxai.drawing import tokens
from visxai.errors import ArgumentError
from visxai.foreign import for_html
from visxai.labels import class_finder, label_of
from visxai.record.text import TextExplanation
from visxai.text.engine import Engine, as_texts, clean

_SHOWN = 5  # examples of a cue on the page
_Z = 1.959964  # of a 95 % interval


@dataclass(frozen=True)
class Rate:
    """Errors among texts, with Wilson's 95 % interval.

    Attributes:
        errors: The texts that the model gets wrong.
        texts: All texts.
    """

    errors: int
    texts: int

    @property
    def value(self) -> float:
        """The share of errors, 0 without texts."""
        return self.errors / self.texts if self.texts else 0.0

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval of the share, 0 to 1."""
        if not self.texts:
            return 0.0, 1.0
        n, p = self.texts, self.value
        middle = (p + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
        half = _Z / (1 + _Z**2 / n) * sqrt(p * (1 - p) / n + _Z**2 / (4 * n**2))
        return max(0.0, middle - half), min(1.0, middle + half)

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.errors} of {self.texts} wrong ({low:.0%} to {high:.0%})"


@dataclass(frozen=True)
class Cue:
    """A word behind which errors gather.

    Attributes:
        word: The word, in lower case.
        label: The label of the texts.
        with_word: Errors among this label's texts with the word.
        without: Errors among its texts without the word.
        p: The corrected p-value.
        effect_wrong: The mean change of the label's score, as the model reports it, when the word
            is deleted from texts it gets wrong; None without such texts.
        effect_right: The same for texts it gets right.
        examples: Places of texts with the word that the model gets wrong.
    """

    word: str
    label: str
    with_word: Rate
    without: Rate
    p: float
    effect_wrong: float | None
    effect_right: float | None
    examples: tuple[int, ...]


@dataclass(frozen=True)
class Findings:
    """What was found.

    Attributes:
        overall: Errors among all texts.
        labels: Errors among the texts of each label.
        compared: The number of comparisons made.
        cues: The words found, most certain first.
        explanations: An explanation of each example, for the label that the model gave, by place.
    """

    overall: Rate
    labels: dict[str, Rate]
    compared: int
    cues: tuple[Cue, ...]
    explanations: dict[int, TextExplanation]

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as plain values, ready for JSON."""
        return {
            "overall": asdict(self.overall),
            "labels": {label: asdict(rate) for label, rate in self.labels.items()},
            "compared": self.compared,
            "cues": [asdict(cue) | {"examples": list(cue.examples)} for cue in self.cues],
        }

    def page(self, title: str = "What the model gets wrong") -> str:
        """Draw the findings as a page without scripts."""
        said = [f"<p>{for_html(str(self.overall))}; {self.compared} comparisons of words.</p><ul>"]
        said += [f"<li>{for_html(f'{label}: {rate}')}" for label, rate in self.labels.items()]
        said.append("</ul>")
        if not self.cues:
            said.append("<p>No word was found behind which errors gather beyond chance.</p>")
        parts: list[tokens.Part] = []
        for cue in self.cues:
            told = (
                f"“{cue.word}” in texts that are {cue.label}: {cue.with_word}; without it "
                f"{cue.without}; p = {cue.p:.2g} after correction."
            )
            told += _effect("wrong", cue.effect_wrong) + _effect("right", cue.effect_right)
            said.append(f"<p>{for_html(told)}</p>")
            parts += [self.explanations[place].part() for place in cue.examples]
        body = "".join(said)
        return tokens.page(parts, title).replace("</h1>", f"</h1>{body}", 1)


def _effect(which: str, value: float | None) -> str:
    if value is None:
        return ""
    return f" Deleting it changes the score of the true label by {value:+.2f} where it is {which}."


def debug(
    engine: Engine,
    texts: Sequence[str],
    labels: Sequence[str | int],
    *,
    method: str = "leave_one_out",
    least: int = 10,
    level: float = 0.05,
) -> Findings:
    """Find words behind which a classifier's errors gather.

    Args:
        engine: The engine; its model chooses one class.
        texts: The texts.
        labels: The true class of each, by name or index.
        method: The method that explains the examples.
        least: The fewest texts of a label with a word, and without it, that are compared.
        level: The chance of any false alarm.

    Raises:
        ArgumentError: The numbers of texts and labels differ, a label isn't the model's, or its
            classes are independent.
    """
    many = [clean(one) for one in as_texts(texts)]
    if len(many) != len(labels):
        raise ArgumentError(
            f"expected a label for each of {len(many)} texts, got {len(labels)}: pass as many"
        )
    if engine.model.activation == "sigmoid":
        raise ArgumentError(
            f"expected a model that chooses one class, got {engine.model.ref.name}, whose classes "
            "are independent (sigmoid): pass activation='softmax' where one class is right"
        )
    known = engine.model.labels
    find = class_finder(known)
    truth = np.array([one if isinstance(one, int) else find(one) for one in labels], np.int64)
    given = np.array([one.class_index for one in engine.predict(many)], np.int64)
    wrong = given != truth
    held = [_vocabulary(engine, one) for one in many]
    found = _compared(held, truth, wrong, least)
    cues = [
        _cue(engine, many, truth, wrong, held, word, label, p)
        for word, label, p in _holm(found, level)
    ]
    places = sorted({place for cue in cues for place in cue.examples})
    explained = (
        engine.explain(
            [many[place] for place in places], method, [int(given[place]) for place in places]
        )
        if places
        else []
    )
    classes = sorted({int(one) for one in truth})
    return Findings(
        Rate(int(wrong.sum()), len(many)),
        {label_of(known, one): _rate(wrong[truth == one]) for one in classes},
        len(found),
        tuple(cues),
        dict(zip(places, explained, strict=True)),
    )


def _vocabulary(engine: Engine, text: str) -> frozenset[str]:
    (encoded,) = engine.model.encode([text])
    return frozenset(text[start:end].casefold() for start, end in encoded.spans)


def _rate(wrong: Any) -> Rate:
    return Rate(int(wrong.sum()), len(wrong))


def _compared(
    held: Sequence[frozenset[str]], truth: Any, wrong: Any, least: int
) -> list[tuple[str, int, float]]:
    """Compare errors with and without each word: (word, label, p)."""
    found = []
    for label in sorted({int(one) for one in truth}):
        rows = np.flatnonzero(truth == label)
        counts: dict[str, list[int]] = {}
        for row in rows.tolist():
            for word in held[row]:
                known = counts.setdefault(word, [0, 0])
                known[0] += 1
                known[1] += int(wrong[row])
        errors = int(wrong[rows].sum())
        for word, (texts, mine) in sorted(counts.items()):
            if texts >= least and len(rows) - texts >= least and any(map(str.isalnum, word)):
                found.append((word, label, fisher(mine, texts, errors, len(rows))))
    return found


def fisher(mine: int, texts: int, errors: int, total: int) -> float:
    """Compute the chance of at least `mine` errors among `texts` of `total` with `errors`."""
    most = min(texts, errors)
    ways = sum(comb(errors, k) * comb(total - errors, texts - k) for k in range(mine, most + 1))
    return ways / comb(total, texts)


def _holm(found: Sequence[tuple[str, int, float]], level: float) -> list[tuple[str, int, float]]:
    """Keep what stands after Holm's correction, with corrected p-values, most certain first."""
    kept, highest = [], 0.0
    for rank, (word, label, p) in enumerate(sorted(found, key=lambda one: one[2])):
        highest = max(highest, min(1.0, p * (len(found) - rank)))
        if highest > level:
            break
        kept.append((word, label, highest))
    return kept


def _cue(
    engine: Engine,
    texts: Sequence[str],
    truth: Any,
    wrong: Any,
    held: Sequence[frozenset[str]],
    word: str,
    label: int,
    p: float,
) -> Cue:
    inside = np.array([word in one for one in held])
    rows = np.flatnonzero((truth == label) & inside)
    others = (truth == label) & ~inside
    change = _deleted(engine, [texts[row] for row in rows.tolist()], word, label)
    bad = wrong[rows]
    return Cue(
        word,
        label_of(engine.model.labels, label),
        _rate(bad),
        _rate(wrong[others]),
        p,
        float(change[bad].mean()) if bad.any() else None,
        float(change[~bad].mean()) if (~bad).any() else None,
        tuple(rows[bad][:_SHOWN].tolist()),
    )


def _deleted(engine: Engine, texts: Sequence[str], word: str, label: int) -> Any:
    """Return the change of the label's reported score when a word is deleted from each text."""
    shorter = []
    for text in texts:
        (encoded,) = engine.model.encode([text])
        kept, last = [], 0
        for start, end in encoded.spans:
            if text[start:end].casefold() == word:
                kept.append(text[last:start])
                last = end
        shorter.append("".join([*kept, text[last:]]))
    before, after = engine.score(texts, label), engine.score(shorter, label)
    return np.array(after) - np.array(before)
