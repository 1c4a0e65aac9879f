"""Rows of tables: decided on by a model with a card, explained exactly, with reasons in words.

A row is refused where its score is below the threshold of the model's card. Its explanation is by
the card's method, which is exact for trees, linear models and machines of terms, in both tiers; an
appeal adds what would have changed the decision.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from visxai.errors import ArgumentError
from visxai.foreign import shown
from visxai.ledger.canonical import canonical, sha256
from visxai.moderation import FLAG, PASS, Decision, Policy, Rule
from visxai.record.table import TableExplanation
from visxai.references import Cell
from visxai.tabular.counterfactuals import what_would_change
from visxai.tabular.engine import Engine
from visxai.tabular.reasons import reasons_for, wording_of
from visxai.tabular.saving import load_engine

if TYPE_CHECKING:
    from visxai.serve.config import Config, TableSettings

_MOST = 1e30  # what single precision holds, with room for sums
_WHOLE = 2.0**53  # up to here every whole number is itself


class Explained(NamedTuple):
    """A row's explanation and what its envelope says of it.

    Attributes:
        explanation: The explanation.
        confidence: Figures and reasons, by name.
    """

    explanation: TableExplanation
    confidence: dict[str, Any]


class RowModerator:
    """Decides on rows by a threshold, and explains them.

    Args:
        engine: The engine with the model.
        settings: The category, its severity and ground, the wording and what may change.
        policy: The policy's name.

    Attributes:
        policy: The policy, of one rule.
        method: The method, in both tiers.
        model_key: The hash of all that an explanation depends on but the row.

    Raises:
        ArgumentError: The engine has no threshold or no background, or the settings don't fit.
    """

    def __init__(self, engine: Engine, settings: TableSettings, policy: str) -> None:
        if engine.threshold is None or not engine.typical:
            raise ArgumentError(
                expected="a card with a threshold and the rows to compare with",
                got="one without them",
                remedy="add threshold and background to the card, which reasons need",
                field="table.model",
            )
        for name in settings.actions:
            if name not in engine.model.features.names:
                raise ArgumentError(
                    expected="columns of the model in table.actions",
                    got=repr(name)[:80],
                    remedy=f"use some of {', '.join(engine.model.features.names)}",
                    field="table.actions",
                )
        wording_of(settings.wording)
        self.engine, self.settings, self.limit = engine, settings, float(engine.threshold)
        rule = Rule(settings.category, f"score<{self.limit:g}", settings.severity, settings.ground)
        self.policy, self.method = Policy(policy, (rule,)), repr(engine.method)
        features = [[one.name, list(one.levels)] for one in engine.model.features.items]
        told: list[Any] = [
            engine.model.sha256,
            engine.model.name,
            features,
            engine.explained_against,
        ]
        told += [self.method, self.limit, engine.label, list(engine.excluded), settings.wording]
        self.model_key = sha256(canonical([*told, dict(settings.actions)]))

    @classmethod
    def open(cls, config: Config) -> RowModerator:
        """Load the model that the settings name.

        Raises:
            VisxaiError: It can't be opened, or doesn't fit the settings.
        """
        assert config.table is not None
        engine = load_engine(config.table.model)
        return cls(engine, config.table, config.policy.name)

    def read(self, told: Mapping[str, Cell]) -> bytes:
        """Check a row, and write it so that equal rows have equal bytes.

        Args:
            told: The row's values by column; None where one is missing.

        Returns:
            The row as canonical JSON, with the values as the model sees them.

        Raises:
            ArgumentError: The columns aren't the model's, or a value isn't what its column holds;
                the sentence names the column and doesn't repeat the value.
        """
        features = self.engine.model.features
        for name in told:
            if name not in features.names:
                groups = name in self.engine.excluded
                raise ArgumentError(
                    expected=f"the columns that the model scores ({', '.join(features.names)})",
                    got=f"another one, {shown(name)[:60]!r}",
                    remedy="send it in metadata" if groups else "leave it out",
                    field="features",
                )
        cells: dict[str, Cell] = {}
        for at, one in enumerate(features.items):
            if one.name not in told:
                raise ArgumentError(
                    expected=f"the columns that the model scores ({', '.join(features.names)})",
                    got=f"a row without {one.name}",
                    remedy="add it, with null where the value is missing",
                    field=f"features.{one.name}",
                )
            value = told[one.name]
            if value is None:
                cells[one.name] = None
                continue
            if not (_is_level(value, one.levels) if one.levels else _is_number(value)):
                known = ", ".join(map(repr, one.levels))
                raise ArgumentError(
                    expected=f"{one.name} as {f'one of {known}' if known else 'a number'}",
                    got="another level" if known else _kind(value),
                    remedy="correct it, or send null where it is missing",
                    field=f"features.{one.name}",
                )
            number = one.levels.index(str(value)) if one.levels else float(value)
            whole = abs(number) < _WHOLE
            cells[one.name] = features.cell(at, number) if whole else number
        return canonical(cells).encode("utf-8")

    def decide(self, rows: Sequence[bytes]) -> list[Decision]:
        """Decide on rows as `read` writes them, without explaining any."""
        features = self.engine.model.features
        x = np.stack([features.numbers(list(self._cells(row).values())) for row in rows])
        return [self.judge([float(score)]) for score in self.engine.model.predict(x)]

    def judge(self, scores: Sequence[float]) -> Decision:
        """Apply the threshold to a score."""
        (score,), (rule,) = scores, self.policy.rules
        flagged = score < self.limit
        return Decision(
            FLAG if flagged else PASS,
            rule.category,
            score,
            self.limit,
            {rule.category: score},
            rule.severity if flagged else 0,
            self.engine.label,
        )

    def explain(self, row: bytes, *, precise: bool = False) -> Explained:
        """Explain a row, and give the reasons.

        Args:
            row: The row as `read` writes it.
            precise: Whether what would have changed the decision is wanted as well.

        Returns:
            The explanation with `reasons` (at most four, each with its sentence), or `no_reasons`
            (the sentence that says why there are none), its `additivity`, and `change` (the score
            and the values with which it would have been reached) where the settings allow some.
        """
        made = self._explained(row)
        confidence: dict[str, Any] = dict(made.quality)
        if made.favourable is not False:  # only where rounding lifts a score to its threshold
            return Explained(made, confidence)
        found = reasons_for(self.engine, made, self.settings.wording)
        confidence["reasons"] = [asdict(one) for one in found.items]
        if found.note is not None:
            confidence["no_reasons"] = found.note
        if precise and self.settings.actions:
            other = what_would_change(self.engine, made, self.settings.actions)
            if other is not None:
                changes = [one._asdict() for one in other.changes]
                confidence["change"] = {"score": other.score, "changes": changes}
        return Explained(made, confidence)

    def control(self) -> None:
        """Explain the typical row, which fails only where no row can be explained."""
        names = self.engine.model.features.names
        self._explained(
            canonical(dict(zip(names, self.engine.typical, strict=True))).encode("utf-8")
        )

    def _explained(self, row: bytes) -> TableExplanation:
        # Row by row: in a column of several rows whole numbers would become others' fractions.
        (made,) = self.engine.explain({name: [cell] for name, cell in self._cells(row).items()})
        return made

    def _cells(self, row: bytes) -> dict[str, Cell]:
        told = json.loads(row)
        return {name: told[name] for name in self.engine.model.features.names}


def _is_number(value: Cell) -> bool:
    if isinstance(value, str) or value is None:
        return False
    return -_MOST <= value <= _MOST and math.isfinite(value)


def _is_level(value: Cell, levels: Sequence[str]) -> bool:
    return not isinstance(value, float) and str(value) in levels


def _kind(value: Cell) -> str:
    return "text" if isinstance(value, str) else "one that isn't finite or is beyond 1e30"
