"""What a search for systematic errors found: figures, a page to read, rows to add."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import isnan
from typing import Any

from visxai.drawing import tokens
from visxai.foreign import for_cell, for_html
from visxai.record.text import TextExplanation
from visxai.text.rates import Rate, tau
from visxai.text.suggesting import Suggestion

_LISTED = 8  # suggestions on the page for each cue


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
        lacking: The texts of the label with the word that the table lacks: with so many more, the
            word would be as frequent there as in texts of other labels. None where all of these
            have it.
        examples: Places of texts with the word that the model gets wrong.
        suggestions: Texts to add.
    """

    word: str
    label: str
    with_word: Rate
    without: Rate
    p: float
    effect_wrong: float | None
    effect_right: float | None
    lacking: int | None
    examples: tuple[int, ...]
    suggestions: tuple[Suggestion, ...]


@dataclass(frozen=True)
class Slice:
    """Errors among the texts of a label of some length.

    Attributes:
        label: The label.
        shortest: The fewest words.
        longest: The most words.
        rate: The errors.
        p: The corrected p-value of more errors than among the label's other texts; None where there
            are too few texts to compare.
    """

    label: str
    shortest: int
    longest: int
    rate: Rate
    p: float | None


@dataclass(frozen=True)
class Worst:
    """A text that the model gets wrong with a great score, explained by two methods.

    Attributes:
        place: The text's place.
        name: Where the text came from.
        label: Its true label.
        given: The label that the model gave.
        score: The score of that label.
        explanations: Explanations of the model's class behind the given label, by LIME and by
            attention; where the model has no attention, by leaving words out.
    """

    place: int
    name: str
    label: str
    given: str
    score: float
    explanations: tuple[TextExplanation, ...]

    @property
    def agreement(self) -> float | None:
        """Kendall's tau-b of the magnitudes of both, -1 to 1; None where all words are equal."""
        first, second = (abs(one.values) for one in self.explanations)
        found = tau(first, second)
        return None if isnan(found) else found


@dataclass(frozen=True)
class Findings:
    """What was found.

    Attributes:
        overall: Errors among all texts.
        labels: Errors among the texts of each label.
        slices: Errors by label and length.
        compared: The number of comparisons made.
        level: The chance of any false alarm.
        cues: The words found, most certain first.
        worst: The texts that the model gets wrong with the greatest scores.
        explanations: An explanation of each example, for the label that the model gave, by place.
    """

    overall: Rate
    labels: dict[str, Rate]
    slices: tuple[Slice, ...]
    compared: int
    level: float
    cues: tuple[Cue, ...]
    worst: tuple[Worst, ...]
    explanations: dict[int, TextExplanation]

    @property
    def suggestions(self) -> list[Suggestion]:
        """The texts to add, of all cues."""
        return [one for cue in self.cues for one in cue.suggestions]

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as plain values, ready for JSON."""
        return {
            "overall": asdict(self.overall),
            "labels": {label: asdict(rate) for label, rate in self.labels.items()},
            "slices": [asdict(one) for one in self.slices],
            "compared": self.compared,
            "level": self.level,
            "cues": [asdict(cue) | {"examples": list(cue.examples)} for cue in self.cues],
            "worst": [
                {
                    "place": one.place,
                    "name": one.name,
                    "label": one.label,
                    "given": one.given,
                    "agreement": one.agreement,
                }
                for one in self.worst
            ],
        }

    def to_csv(self) -> str:
        """Return the texts to add as CSV: text, label, given, cue, how, source.

        Text that a spreadsheet would compute starts with an apostrophe. `source` says where the
        text came from that each was made of.
        """
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow(["text", "label", "given", "cue", "how", "source"])
        for one in self.suggestions:
            cells = [one.text, one.label, one.given, one.cue, one.how, one.source]
            writer.writerow([for_cell(cell) for cell in cells])
        return buffer.getvalue()

    def page(self, title: str = "What the model gets wrong") -> str:
        """Draw the findings as a page without scripts."""
        parts = [self._errors(), self._words(), self._worst(), self._added()]
        return tokens.document(title, "".join(parts))

    def _errors(self) -> str:
        rows = [["all", "any", str(self.overall), ""]]
        for label, rate in self.labels.items():
            rows.append([label, "any", str(rate), ""])
            rows += [
                [label, f"{one.shortest} to {one.longest}", str(one.rate), self._said(one.p)]
                for one in self.slices
                if one.label == label
            ]
        told = (
            "Shares have 95 % intervals (Wilson). A length is compared with the label's other "
            "texts."
        )
        return f"<h2>How many</h2>{_table(['label', 'words', 'errors', ''], rows)}<p>{told}</p>"

    def _said(self, p: float | None) -> str:
        if p is None:
            return "too few texts to compare"
        return f"errors gather here, p = {p:.2g}" if p <= self.level else ""

    def _words(self) -> str:
        said = [
            "<h2>Words behind which errors gather</h2><p>"
            f"{self.compared} comparisons of words and lengths by Fisher’s test, corrected by "
            "Holm’s method: a classifier without any such word raises an alarm "
            f"{100 * self.level:g} % of the time at most. A word that is found needn’t be the "
            "cause: words that stand "
            "together are found together.</p>"
        ]
        if not self.cues:
            said.append("<p>No word was found behind which errors gather beyond chance.</p>")
        for cue in self.cues:
            told = (
                f"{cue.with_word} with it, {cue.without} without it; p = {cue.p:.2g} after "
                "correction."
            )
            told += _effect("wrong", cue.effect_wrong) + _effect("right", cue.effect_right)
            said.append(f"<h3>{for_html(f'“{cue.word}” in texts that are {cue.label}')}</h3>")
            said.append(f"<p>{for_html(told)}</p>")
            said += [tokens.figure(self.explanations[place].part()) for place in cue.examples]
        if self.cues:
            said.append(f"<p>{tokens.legend()}</p>")
        return "".join(said)

    def _worst(self) -> str:
        if not self.worst:
            return ""
        said = [
            "<h2>The surest mistakes, explained twice</h2><p>LIME hides words and asks the model; "
            "attention says where a layer looks, which needn’t be what decides. Their agreement "
            "is Kendall’s τ of the words’ magnitudes: 1 for the same order, 0 for none.</p>"
        ]
        for one in self.worst:
            told = f"{one.name} is {one.label}, the model says {one.given} ({one.score:.2f})"
            if one.agreement is not None:
                told += f"; agreement τ = {one.agreement:.2f}"
            both = "".join(tokens.figure(each.part()) for each in one.explanations)
            said.append(f'<h3>{for_html(told)}</h3><div class="beside">{both}</div>')
        two_sided = any(each.two_sided for one in self.worst for each in one.explanations)
        return "".join(said) + f"<p>{tokens.legend(two_sided)}</p>"

    def _added(self) -> str:
        if not self.cues:
            return ""
        said = ["<h2>Data to add</h2>"]
        for cue in self.cues:
            said.append(f"<p>{for_html(_wanted(cue))}</p>")
            if cue.suggestions:
                rows = [[one.text, one.given, one.how] for one in cue.suggestions[:_LISTED]]
                said.append(_table(["text", "model", "how"], rows))
        said.append(
            "<p>Made texts are made of labelled ones and are proposals: read them first, and "
            "measure with and without them, on other texts, whether they help.</p>"
        )
        return "".join(said)


def _wanted(cue: Cue) -> str:
    named = f"“{cue.word}” in texts that are {cue.label}: "
    if cue.lacking:
        named += (
            f"collect about {cue.lacking} more; the word is rarer here than in texts of other "
            "labels. "
        )
    count = len(cue.suggestions)
    return named + f"{count} made text{'' if count == 1 else 's'} that the model gets wrong."


def _effect(which: str, value: float | None) -> str:
    if value is None:
        return ""
    return f" Deleting it changes the score of the true label by {value:+.2f} where it is {which}."


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{for_html(one)}</th>" for one in heads)
    body = "".join(
        "<tr>" + "".join(f'<td dir="auto">{for_html(one)}</td>' for one in row) + "</tr>"
        for row in rows
    )
    return f'<div class="wide"><table><tr>{head}</tr>{body}</table></div>'
