"""Rows of the table of measures: made of explanations, and read as observations."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from visxai.govern.cells import measure_rows
from visxai.govern.features.base import FIXED, measure
from visxai.govern.observations import (
    DECISIONS,
    Observations,
    answer_of,
    decisions_of,
    name_of,
)
from visxai.govern.regions import measure_regions
from visxai.ledger.canonical import parse_time
from visxai.ledger.envelope import Envelope
from visxai.record.base import Explanation
from visxai.record.table import TableExplanation


def row_of(
    id: str,
    model: str,
    at: str,
    explanation: Explanation,
    envelope: Envelope,
    inputs: Mapping[str, float] | None,
) -> dict[str, Any]:
    """Make the row of an explanation.

    Args:
        id: The explanation's id on record.
        model: The model's id on record.
        at: The time that stands in where the record has none of its own.
        explanation: The explanation.
        envelope: What is recorded around it.
        inputs: Statistics of the input; a table's row brings its own.
    """
    told: dict[str, Any] = dict(envelope.metadata)
    regions = measure_regions(explanation, told)
    measured = {**measure(explanation), **regions}
    found = {name: value for name, value in measured.items() if math.isfinite(value)}
    decided = decisions_of([explanation], [envelope.truth])
    found |= {name: float(column[0]) for name, column in decided.items()}
    if isinstance(explanation, TableExplanation):
        told = {**explanation.groups, **told}
        inputs = inputs or {name: one[0] for name, one in measure_rows([explanation]).items()}
    groups = {
        str(name): str(value)
        for name, value in told.items()
        if isinstance(value, (str, int, float, bool)) and name not in regions
    }
    others = {name: value for name, value in found.items() if name not in FIXED}
    finite = {name: value for name, value in (inputs or {}).items() if math.isfinite(value)}
    return {
        "explanation_id": id,
        "model_id": model,
        "tenant": envelope.tenant,
        "kind": explanation.kind,
        "at": parse_time(explanation.created) if explanation.created else at,
        "source": plain(name_of(explanation)),
        "label": plain(answer_of(explanation)),
        "truth": None if envelope.truth is None else plain(envelope.truth),
        "score": explanation.score,
        "logit": explanation.logit,
        **{name: found.get(name) for name in FIXED},
        "others": json.dumps(others),
        "inputs": json.dumps(finite),
        "groups": json.dumps(groups),
    }


def of_rows(rows: Sequence[Mapping[Any, Any]], name: str, weights: str) -> Observations:
    """Read rows of the table of measures.

    Args:
        rows: The rows, in the order of time.
        name: The model's name.
        weights: The SHA-256 of its weights.
    """
    parsed = {
        column: [json.loads(row[column]) for row in rows]
        for column in ("others", "inputs", "groups")
    }

    def named(dicts: list[dict[str, Any]]) -> dict[str, Any]:
        names = dict.fromkeys(name for one in dicts for name in one)
        return {name: np.array([one.get(name, np.nan) for one in dicts]) for name in names}

    fixed = {
        one: np.array([np.nan if row[one] is None else row[one] for row in rows], np.float64)
        for one in FIXED
    }
    groups = dict.fromkeys(name for one in parsed["groups"] for name in one)
    others = named(parsed["others"])
    decisions = {one: others.pop(one) for one in DECISIONS if one in others}
    return Observations(
        tuple(row["explanation_id"] for row in rows),
        tuple(row["at"] for row in rows),
        name,
        weights,
        tuple(row["label"] for row in rows),
        tuple(row["truth"] for row in rows),
        np.array([row["score"] for row in rows], np.float64),
        np.array([row["logit"] for row in rows], np.float64),
        {one: values for one, values in fixed.items() if not np.isnan(values).all()} | others,
        named(parsed["inputs"]),
        {one: tuple(told.get(one) for told in parsed["groups"]) for one in groups},
        decisions,
    )


def key_of(explanation: Explanation) -> tuple[str, ...]:
    """Return what tells an explanation from others: content, method, class and weights."""
    return (
        explanation.input.source_sha256,
        explanation.method,
        plain(explanation.label),
        explanation.model.weights_sha256,
    )


def plain(text: str) -> str:
    """Return text that both databases take: without NUL and lone surrogates."""
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode()
