"""Statements of reasons in the fields of the EU's DSA transparency database (article 17(3)).

A statement holds no personal data: neither the item nor whoever sent or reviewed it is named. The
explanation supports the facts; the ground is the rule that the policy enforces.
"""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import select

from visxai.ledger import explanations
from visxai.serve import cases, tables
from visxai.serve.errors import Conflict

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from visxai.serve.service import Service

_Date = Annotated[str, Field(pattern=r"^\d{4}-\d{2}-\d{2}$")]


_Type = Literal["CONTENT_TYPE_IMAGE", "CONTENT_TYPE_TEXT", "CONTENT_TYPE_OTHER"]
_TYPES: dict[str, list[_Type]] = {
    "image": ["CONTENT_TYPE_IMAGE"],
    "text": ["CONTENT_TYPE_TEXT"],
    "post": ["CONTENT_TYPE_IMAGE", "CONTENT_TYPE_TEXT"],
    "table": ["CONTENT_TYPE_OTHER"],
}
_PARTS = {"image": "areas", "text": "words", "post": "areas and words"}
_THAN = {
    "lower": " (lower than is typical)",
    "higher": " (higher than is typical)",
    "other": " (another than is typical)",
    "together": " (together with other details)",
}


class Statement(BaseModel):
    """The fields of a statement of reasons, with the limits that the database sets."""

    model_config = ConfigDict(extra="forbid")

    puid: Annotated[str, Field(pattern=r"^[A-Za-z0-9-_]{1,500}$")]
    decision_visibility: list[
        Literal[
            "DECISION_VISIBILITY_CONTENT_REMOVED",
            "DECISION_VISIBILITY_CONTENT_DISABLED",
            "DECISION_VISIBILITY_CONTENT_DEMOTED",
            "DECISION_VISIBILITY_CONTENT_LABELLED",
            "DECISION_VISIBILITY_OTHER",
        ]
    ]
    decision_visibility_other: Annotated[str, Field(max_length=500)]
    decision_ground: Literal[
        "DECISION_GROUND_INCOMPATIBLE_CONTENT", "DECISION_GROUND_ILLEGAL_CONTENT"
    ]
    incompatible_content_ground: Annotated[str, Field(min_length=1, max_length=500)]
    incompatible_content_explanation: Annotated[str, Field(min_length=1, max_length=2000)]
    decision_facts: Annotated[str, Field(min_length=1, max_length=5000)]
    content_type: list[_Type]
    content_type_other: Annotated[str | None, Field(max_length=500)] = None
    category: Literal["STATEMENT_CATEGORY_SCOPE_OF_PLATFORM_SERVICE"]
    category_specification: list[str]
    content_date: _Date
    application_date: _Date
    source_type: Literal["SOURCE_VOLUNTARY", "SOURCE_ARTICLE_16", "SOURCE_TYPE_OTHER_NOTIFICATION"]
    automated_detection: Literal["Yes", "No"]
    automated_decision: Literal[
        "AUTOMATED_DECISION_FULLY",
        "AUTOMATED_DECISION_PARTIALLY",
        "AUTOMATED_DECISION_NOT_AUTOMATED",
    ]


def state(service: Service, tenant: str, id: str) -> Statement:
    """Write the statement of a decision.

    Args:
        service: The service.
        tenant: Whose decision it is.
        id: The decision.

    Returns:
        The statement; its fields keep the limits.

    Raises:
        Missing: The tenant has no such decision.
        Conflict: The item passed, or a person overturned the decision: there is nothing to state.
    """
    with service.database.reading() as connection:
        row = cases.decision(connection, id, tenant)
        kind = connection.execute(
            select(tables.items.c.kind).where(tables.items.c.id == row.item_id)
        ).scalar_one()
        reasons = _reasons(connection, id) if kind == "table" else ""
        shares = _shares(connection, id) if kind == "post" else ""
        appealed = connection.execute(
            select(tables.appeals.c.id).where(tables.appeals.c.decision_id == id)
        ).first()
    if row.decision != "flag" or row.action == "overturn":
        raise Conflict(
            expected="a decision that restricts an item",
            got="one that doesn't",
            remedy="state the reasons of flagged items",
        )
    known = kind in service.kinds.names  # else it was flagged under settings that had it
    rule = service.kinds.of(kind).policy.rule(row.category) if known else None
    ground = (rule.ground if rule else "") or f"the rule on {row.category}"
    human, what = row.action is not None, "row" if kind == "table" else kind
    how = (
        f"A classifier scored the {what} {row.score:.2f} for {row.category}; the policy "
        f"{row.policy} restricts {what}s {'above' if row.score > row.threshold else 'below'} "
        f"{row.threshold:.2f}."
    )
    then = " A person looked at it and upheld the decision." if human else " No person decided."
    again = " It was contested and looked at again." if appealed and human else ""
    support = reasons or (
        f"{shares} A map of the {_PARTS[kind]} that raised the score is on record; it supports "
        "these facts and isn't itself the ground."
    )
    return Statement(
        puid=row.id,
        decision_visibility=["DECISION_VISIBILITY_OTHER"],
        decision_visibility_other="Held back for review",
        decision_ground="DECISION_GROUND_INCOMPATIBLE_CONTENT",
        incompatible_content_ground=ground[:500],
        incompatible_content_explanation=(
            f"The {what} falls under {row.category}, which {ground} doesn't allow."
        )[:2000],
        decision_facts=(how + then + again + support)[:5000],
        content_type=_TYPES[kind],
        content_type_other="Row of a table" if kind == "table" else None,
        category="STATEMENT_CATEGORY_SCOPE_OF_PLATFORM_SERVICE",
        category_specification=[],
        content_date=_date(row.created),
        application_date=_date(row.closed or row.created),
        source_type="SOURCE_VOLUNTARY",
        automated_detection="Yes",
        automated_decision="AUTOMATED_DECISION_PARTIALLY" if human else "AUTOMATED_DECISION_FULLY",
    )


def _shares(connection: Connection, id: str) -> str:
    """Say what a post's image and its text added to its score."""
    for job_id in cases.explanations_of(connection, id):
        stored = explanations.get(connection, job_id)
        if stored is None or stored.record is None:
            continue
        image, text = (round(value, 2) + 0.0 for value in stored.explanation.values.tolist())
        return f" The image added {image:+.2f} and the text {text:+.2f} to it."
    return ""


def _reasons(connection: Connection, id: str) -> str:
    """Say which details of a row lowered its score most, without their values."""
    for job_id in cases.explanations_of(connection, id):
        stored = explanations.get(connection, job_id)
        if stored is None or stored.record is None:
            continue
        confidence = stored.envelope.confidence
        told = [
            one["feature"].replace("_", " ") + _THAN[one["direction"]]
            for one in confidence.get("reasons", ())
        ]
        if told:
            return f" What lowered the score most, the strongest first: {'; '.join(told)}."
        return f" {confidence.get('no_reasons') or 'No reasons are on record.'}"
    return " The reasons aren't on record yet."


def _date(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).date().isoformat()
