"""What a text classifier gets wrong systematically: words whose texts it errs on more than others.

    found = debug(engine, texts, labels)
    found.cues         words behind which errors gather, each with figures that can be checked
    found.slices       errors by label and length
    found.worst        the surest mistakes, by LIME and by attention
    found.page()       the same as a page to read from top to bottom
    found.to_csv()     texts to add

For each label and each word that stands in enough texts of that label, the errors with and without
the word are compared by Fisher's exact test, one-sided, and so are the errors among texts of some
length with those among the others. The p-values are corrected for the number of comparisons by
Holm's method: of classifiers without any such word, at most one in twenty raises an alarm.

A word behind which errors gather needn't cause them. So each cue found is deleted from its texts,
and the change of the label's score is told for texts that the model gets wrong and for those it
gets right: a cue that misleads pushes the two apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import ceil
from typing import Any

import numpy as np

from visxai.errors import ArgumentError
from visxai.text.decisions import Decision, Said, decision_of
from visxai.text.engine import Engine, as_texts, clean
from visxai.text.findings import Cue, Findings, Slice, Worst
from visxai.text.model import Need
from visxai.text.rates import Rate, fisher, holm
from visxai.text.suggesting import suggest
from visxai.text.words import words

_SHOWN = 5  # examples of a cue


def debug(
    engine: Engine,
    texts: Sequence[str],
    labels: Sequence[str | int],
    *,
    target: str | int | None = None,
    threshold: float = 0.5,
    method: str = "leave_one_out",
    least: int = 10,
    level: float = 0.05,
    worst: int = 5,
    names: Sequence[str] | None = None,
) -> Findings:
    """Find words behind which a classifier's errors gather.

    Args:
        engine: The engine.
        texts: The texts.
        labels: The true class of each, by name or index; with a target, whether each text has that
            class: its name or "not" and its name, yes or no, 1 or 0.
        target: The one class that is judged, as "toxic" or "class=toxic", of a model that decides
            each class by itself; None judges which class the model chooses.
        threshold: The score above which a text has the target's class.
        method: The method that explains the examples.
        least: The fewest texts of a label with a word, and without it, that are compared.
        level: The chance of any false alarm.
        worst: The most mistakes that are explained by LIME and by attention.
        names: Where each text came from; None numbers them, "row 1" and so on.

    Raises:
        ArgumentError: The numbers of texts and labels differ, a label isn't the model's, or its
            classes are independent and no target is given.
    """
    many = [clean(one) for one in as_texts(texts)]
    if len(many) != len(labels):
        raise ArgumentError(
            f"expected a label for each of {len(many)} texts, got {len(labels)}: pass as many"
        )
    decision = decision_of(engine, target, threshold)
    numbered = [f"row {place}" for place in range(1, len(many) + 1)] if names is None else names
    if len(numbered) != len(many):
        raise ArgumentError(
            f"expected a name for each of {len(many)} texts, got {len(numbered)}: pass as many"
        )
    known = {one: decision.find(one) for one in dict.fromkeys(labels)}
    truth = np.array([known[one] for one in labels], np.int64)
    judged = _Judged(decision, many, numbered, truth, decision.answers(many))
    compared = [*_words(judged, least), *_lengths(judged, least)]
    chances = holm([one.p for one in compared if one.p is not None])
    told = [(one, None if one.p is None else chances.pop(0)) for one in compared]
    found = [(p, one) for one, p in told if one.word and p is not None and p <= level]
    cues = [_cue(judged, one, p) for p, one in sorted(found, key=lambda pair: pair[0])]
    places = sorted({place for cue in cues for place in cue.examples})
    explained = judged.explained(places, method)
    return Findings(
        overall=Rate.of(judged.wrong),
        labels={
            judged.decision.name(one): Rate.of(judged.wrong[truth == one]) for one in judged.classes
        },
        slices=tuple(
            Slice(judged.decision.name(one.label), *one.length, Rate.of(judged.wrong[one.rows]), p)
            for one, p in told
            if one.length and len(one.rows)
        ),
        compared=sum(one.p is not None for one in compared),
        level=level,
        cues=_once(cues),
        worst=_worst(judged, worst),
        explanations=dict(zip(places, explained, strict=True)),
    )


@dataclass(frozen=True)
class _Judged:
    """Texts, and what the model says about them."""

    decision: Decision
    texts: list[str]
    names: Sequence[str]
    truth: Any  # (n,) the true answer of each
    said: list[Said]

    @cached_property
    def given(self) -> Any:
        """The answer that the model gives each, (n,)."""
        return np.array([one.index for one in self.said], np.int64)

    @cached_property
    def wrong(self) -> Any:
        """Which texts it gets wrong, (n,)."""
        return self.given != self.truth

    @cached_property
    def classes(self) -> list[int]:
        """The true answers that there are."""
        return sorted({int(one) for one in self.truth})

    @cached_property
    def held(self) -> list[frozenset[str]]:
        """The words of each text, in lower case."""
        return [
            frozenset(one.text[start:end].casefold() for start, end in one.spans)
            for one in self.decision.engine.model.encode(self.texts)
        ]

    def explained(self, places: Sequence[int], method: str) -> list[Any]:
        """Explain the class behind the answer that the model gave, for texts at some places."""
        if not places:
            return []
        some = [self.texts[place] for place in places]
        given = self.decision.classes([int(self.given[place]) for place in places])
        named = [self.names[place] for place in places]
        return self.decision.engine.explain(some, method, given, paths=named)


@dataclass(frozen=True)
class _Compared:
    """Texts of a label compared with its others: by a word, or by length."""

    label: int
    rows: Any  # the places of the texts
    p: float | None  # None where there are too few texts
    word: str = ""
    length: tuple[int, int] | None = None


def _words(judged: _Judged, least: int) -> list[_Compared]:
    """Compare errors with and without each word."""
    found = []
    for label in judged.classes:
        rows = np.flatnonzero(judged.truth == label)
        places: dict[str, list[int]] = {}
        for row in rows.tolist():
            for word in judged.held[row]:
                places.setdefault(word, []).append(row)
        for word, some in sorted(places.items()):
            p = _chance(judged.wrong, some, rows, least)
            if p is not None and any(map(str.isalnum, word)):
                found.append(_Compared(label, np.array(some), p, word=word))
    return found


def _lengths(judged: _Judged, least: int) -> list[_Compared]:
    """Compare errors among short, middle and long texts, thirds of all, with the others."""
    sizes = np.array([len(words(one)) for one in judged.texts])
    if not len(sizes):
        return []
    thirds = np.quantile(sizes, (1 / 3, 2 / 3), method="lower")
    ends = sorted({*thirds.tolist(), int(sizes.max())})
    found, start = [], int(sizes.min())
    for end in ends:
        for label in judged.classes if len(ends) > 1 else ():
            rows = np.flatnonzero(judged.truth == label)
            some = rows[(sizes[rows] >= start) & (sizes[rows] <= end)]
            p = _chance(judged.wrong, some, rows, least)
            found.append(_Compared(label, some, p, length=(start, end)))
        start = end + 1
    return found


def _chance(wrong: Any, some: Any, rows: Any, least: int) -> float | None:
    """Compute the chance of so many errors among some of a label's texts; None of too few."""
    if min(len(some), len(rows) - len(some)) < least:
        return None
    return fisher(int(wrong[some].sum()), len(some), int(wrong[rows].sum()), len(rows))


def _cue(judged: _Judged, found: _Compared, p: float) -> Cue:
    word, label, rows = found.word, found.label, found.rows
    mine = judged.truth == label
    mine[rows] = False
    others = np.flatnonzero(mine)
    change = _deleted(judged.decision, [judged.texts[row] for row in rows.tolist()], word, label)
    bad = judged.wrong[rows]
    elsewhere = np.flatnonzero(judged.truth != label)
    share = np.mean([word in judged.held[row] for row in elsewhere]) if len(elsewhere) else 0.0
    total = len(rows) + len(others)
    return Cue(
        word=word,
        label=judged.decision.name(label),
        with_word=Rate.of(bad),
        without=Rate.of(judged.wrong[others]),
        p=p,
        effect_wrong=float(change[bad].mean()) if bad.any() else None,
        effect_right=float(change[~bad].mean()) if (~bad).any() else None,
        lacking=(
            max(0, ceil((share * total - len(rows)) / (1 - share) - 1e-9)) if share < 1 else None
        ),
        examples=tuple(rows[bad][:_SHOWN].tolist()),
        suggestions=suggest(
            judged.decision,
            judged.texts,
            judged.names,
            [*rows[bad].tolist(), *rows[~bad].tolist()],
            others.tolist(),
            word,
            (label, judged.decision.name(label)),
        ),
    )


def _once(cues: Sequence[Cue]) -> tuple[Cue, ...]:
    """Leave a text that several cues suggest to the first of them."""
    seen: set[str] = set()
    kept = []
    for cue in cues:
        new = tuple(one for one in cue.suggestions if one.text not in seen)
        seen.update(one.text for one in new)
        kept.append(replace(cue, suggestions=new))
    return tuple(kept)


def _worst(judged: _Judged, most: int) -> tuple[Worst, ...]:
    """Explain the texts that the model gets wrong with the greatest scores."""
    scores = np.array([one.score for one in judged.said])
    places = sorted(np.flatnonzero(judged.wrong).tolist(), key=lambda row: -scores[row])[:most]
    attends = Need.ATTENTION in judged.decision.engine.model.offers
    found = judged.explained(places, "lime," + ("attention" if attends else "leave_one_out"))
    return tuple(
        Worst(
            place,
            judged.names[place],
            judged.decision.name(int(judged.truth[place])),
            judged.said[place].label,
            judged.said[place].score,
            tuple(found[2 * at : 2 * at + 2]),
        )
        for at, place in enumerate(places)
    )


def _deleted(decision: Decision, texts: Sequence[str], word: str, label: int) -> Any:
    """Return the change of the label's reported score when a word is deleted from each text."""
    shorter = []
    for text in texts:
        (encoded,) = decision.engine.model.encode([text])
        kept, last = [], 0
        for start, end in encoded.spans:
            if text[start:end].casefold() == word:
                kept.append(text[last:start])
                last = end
        shorter.append("".join([*kept, text[last:]]))
    return decision.scores(shorter, label) - decision.scores(texts, label)
