"""The demo's texts and rows, where what they need is installed."""

from __future__ import annotations

import importlib.util
import threading
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from visxai.errors import ArgumentError

if TYPE_CHECKING:
    from visxai import tabular
    from visxai import text as texts

TEXT_METHODS = ("integrated_gradients", "leave_one_out", "partition_shap", "input_x_gradient")
MOST = 2000  # characters of a text
_THRESHOLD = 0.7  # of the loans' model


class Words:
    """The classifier of toxic comments, loaded when it is first used."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    @cached_property
    def _engine(self) -> texts.Engine:
        from visxai import text as texts

        return texts.Engine("toxicity")

    def explain(self, text: str, method: str, target: str) -> dict[str, Any]:
        """Explain a comment: its words with their values.

        Args:
            text: At most `MOST` characters.
            method: One of `TEXT_METHODS`.
            target: "top1", or "class=" and a label.

        Raises:
            VisxaiError: Something isn't on offer.
        """
        if method not in TEXT_METHODS:
            raise ArgumentError(f"expected a method of {', '.join(TEXT_METHODS)}, got {method!r}")
        with self._lock:
            engine = self._engine
        (made,) = engine.explain(text[:MOST], method, target)
        (said,) = engine.predict(text[:MOST])
        ranked = [{"label": label, "score": score} for label, score in said.top(6)]
        return {
            "text": made.text,
            "spans": [list(span) for span in made.input.spans],
            "values": made.values.tolist(),
            "label": made.label,
            "score": made.score,
            "top": ranked,
        }


class Loans:
    """A model of the loans of German Credit, trained when it is first used, within a second."""

    installed = all(importlib.util.find_spec(name) for name in ("xgboost", "shap", "pandas"))

    def __init__(self) -> None:
        self._lock = threading.Lock()

    @cached_property
    def _engine(self) -> tabular.Engine:
        import xgboost

        from visxai import tabular
        from visxai.tabular import german_credit as credit

        table, known = credit.load(), credit.features()
        outcome = np.array(table.column(credit.OUTCOME).to_pylist())
        model = xgboost.XGBClassifier(n_estimators=60, max_depth=3, learning_rate=0.15, n_jobs=1)
        model.fit(known.matrix(table), outcome)
        scores = tabular.Engine(model, features=known).predict(table)
        near = tabular.Background.approved_near(table, scores, _THRESHOLD, most=100)
        return tabular.Engine(
            model, near, known, threshold=_THRESHOLD, label="repaid", protected=credit.PROTECTED
        )

    def columns(self) -> list[dict[str, Any]]:
        """List the columns that can be changed: name, levels of a category, a usual value."""
        from visxai.tabular import german_credit as credit

        first = credit.load().slice(0, 1).to_pylist()[0]
        return [
            {"name": one.name, "levels": list(one.levels), "value": first[one.name]}
            for one in credit.features().items
        ]

    def explain(self, row: dict[str, Any]) -> dict[str, Any]:
        """Explain a loan.

        Args:
            row: Values by column; columns that are missing take those of the first loan.

        Raises:
            ArgumentError: A value is no level or number.
        """
        from visxai.tabular import german_credit as credit
        from visxai.tabular.reasons import reasons_for

        first = credit.load().slice(0, 1).to_pylist()[0]
        for one in credit.features().items:
            if one.name not in row:
                continue
            value = row[one.name]
            wrong = value not in one.levels if one.levels else not isinstance(value, int)
            if wrong or (isinstance(value, int) and not 0 <= value <= 1_000_000):
                raise ArgumentError(
                    expected=f"{', '.join(one.levels) or 'a whole number'} for {one.name}",
                    got=repr(value)[:80],
                    remedy="choose another value",
                    field=one.name,
                )
            first[one.name] = value
        with self._lock:
            engine = self._engine
            (made,) = engine.explain([first])
            favourable = made.favourable
            told = () if favourable else reasons_for(engine, made, "en").sentences
        return {
            "label": made.label,
            "score": made.score,
            "favourable": favourable,
            "reasons": list(told),
            "contributions": [
                {"feature": one.feature, "cell": one.cell, "value": one.value}
                for one in made.contributions[:12]
            ],
        }
