"""Reasons for an unfavourable score in plain language, each checked against record and model.

At most four; only features that the model scored and that lowered the score, the strongest first. A
sentence names a direction ("{share} % of them have more") only where the model agrees: with the
typical value in place of the row's own, and all else the same, the score is higher. Where it isn't,
the sentence says that the feature counted together with others.

    found = reasons_for(engine, record)                    # "en", "de", or the path of a TOML file
    found.sentences

A help for those who write to applicants, not a legal opinion.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from visxai.errors import ArgumentError
from visxai.record.table import TableExplanation
from visxai.references import Cell
from visxai.tabular.engine import Engine
from visxai.tabular.features import Matrix

MOST = 4
_NEAR = 1e-6  # attributions that differ by less count equally
_WORDING = Path(__file__).parent / "wording"
_KEYS = ("lower", "higher", "other", "together", "missing", "degenerate", "equal", "none")


@dataclass(frozen=True)
class Reason:
    """One reason.

    Attributes:
        feature: The feature's name.
        value: Its attribution, below 0.
        own: The row's value.
        typical: The typical value of the rows compared with.
        direction: "lower", "higher", "other" (a category) or "together".
        share: The percentage of those rows with more ("lower") or less ("higher"), None otherwise.
        gain: How much the score rises with the typical value in place of the row's own.
        sentence: The reason in words.
    """

    feature: str
    value: float
    own: Cell
    typical: Cell
    direction: str
    share: int | None
    gain: float
    sentence: str


@dataclass(frozen=True)
class Reasons:
    """The reasons of one record.

    Attributes:
        items: The reasons, strongest first; empty where none can be given.
        note: Why none can be given, None where they are.
    """

    items: tuple[Reason, ...]
    note: str | None = None

    @property
    def sentences(self) -> tuple[str, ...]:
        """The sentences, or the one that says why there are none."""
        return (self.note,) if self.note else tuple(one.sentence for one in self.items)


def reasons_for(
    engine: Engine, record: TableExplanation, wording: str | os.PathLike[str] = "en"
) -> Reasons:
    """Give the reasons for a record's unfavourable score.

    Args:
        engine: The engine that made the record, with a background and a threshold.
        record: The record.
        wording: "en", "de", or the path of a TOML file with the same keys.

    Returns:
        At most four reasons, or the note that none can be given.

    Raises:
        ArgumentError: The score is favourable, the record has no threshold or background, or is
            another engine's, or the wording lacks a key.
    """
    words = wording_of(wording)
    compared = engine.compared
    if record.favourable is not False or not record.typical or compared is None:
        raise ArgumentError(
            "expected a score below its threshold, compared with a background, got "
            f"{record.score:.3f} with the threshold {record.threshold}: give the engine both"
        )
    for what, own, other in (
        ("model", engine.model.sha256, record.model.weights_sha256),
        ("background", engine.explained_against, record.background),
    ):
        if own != other:
            raise ArgumentError(
                f"expected a record of this engine's {what}, got another: use the engine that "
                "made it"
            )
    if record.degenerate or not record.quality.get("additive", False):
        return Reasons((), words["degenerate"])
    against = [one for one in record.contributions if one.value < -_NEAR]
    if not against:
        return Reasons((), words["none"])
    if len(against) > MOST and against[MOST].value - against[0].value <= _NEAR:
        return Reasons((), words["equal"])
    chosen = [record.features.index(one.feature) for one in against[:MOST]]
    row = engine.model.features.numbers(record.input.data)
    typical = engine.model.features.numbers(record.typical)
    swapped = np.tile(row, (len(chosen), 1))
    swapped[range(len(chosen)), chosen] = typical[chosen]
    gains = engine.model.predict(swapped) - record.score
    return Reasons(
        tuple(
            _reason(engine, record, at, float(gain), row[at], typical[at], compared, words)
            for at, gain in zip(chosen, gains, strict=True)
        )
    )


def _reason(
    engine: Engine,
    record: TableExplanation,
    at: int,
    gain: float,
    own: float,
    usual: float,
    compared: Matrix,
    words: Mapping[str, Any],
) -> Reason:
    """Word the reason of the feature at a position; only numbers have more and less."""
    column = compared[:, at]
    direction, share = "together", None
    if gain > 0 and np.isfinite(own) and own != usual:
        direction = "other"
        if not engine.model.features.items[at].levels:
            direction = "lower" if own < usual else "higher"
            beyond = column > own if own < usual else column < own
            share = round(100 * float(beyond.mean()))
    name = record.features[at]
    cell, typical = record.input.data[at], record.typical[at]
    sentence = words[direction].format(
        name=name_in(words, name),
        own=words["missing"] if cell is None else cell,
        typical=words["missing"] if typical is None else typical,
        share=share,
    )
    return Reason(name, float(record.values[at]), cell, typical, direction, share, gain, sentence)


def wording_of(wording: str | os.PathLike[str]) -> Mapping[str, Any]:
    """Read sentences.

    Args:
        wording: "en", "de", or the path of a TOML file with the same keys.

    Raises:
        ArgumentError: It can't be read, or lacks a sentence.
    """
    return _own(wording) if wording in ("en", "de") else _read(Path(wording))


@cache
def _own(language: str) -> Mapping[str, Any]:
    return _read(_WORDING / f"{language}.toml")


def _read(path: Path) -> Mapping[str, Any]:
    try:
        found = tomllib.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ArgumentError(
            f"expected en, de or a TOML file of sentences, got {path} ({error})", field="wording"
        ) from None
    lacking = [key for key in _KEYS if not isinstance(found.get(key), str)]
    if lacking:
        raise ArgumentError(
            f"expected the sentences {', '.join(_KEYS)}, got none for {', '.join(lacking)}",
            field="wording",
        )
    return found


def name_in(words: Mapping[str, Any], feature: str) -> str:
    """Return the words for a feature: those of the table `names`, or its own name."""
    return str(words.get("names", {}).get(feature, feature.replace("_", " ")))
