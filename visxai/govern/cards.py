"""Model cards: who answers for a model, what it is for, and what it is watched against.

govern.register(log, "toxicity", owner="Trust & Safety", purpose="flag comments", risk="high")
print(govern.card(log, "toxicity"))     Markdown
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from sqlalchemy import insert, select, update

from visxai.errors import ArgumentError
from visxai.foreign import shown
from visxai.govern import daily, tables
from visxai.ledger import audit
from visxai.ledger.canonical import parse_time
from visxai.ledger.tables import explanations

if TYPE_CHECKING:
    from visxai.govern.log import Log

RISKS = ("minimal", "limited", "high")  # the classes of the EU's AI Act that may be in service


@dataclass(frozen=True)
class Card:
    """What an organisation says of a model.

    Attributes:
        owner: Who answers for it.
        purpose: What it decides, and what not.
        risk: "minimal", "limited" or "high".
        threshold: The score from which it flags, None without one.
        reference_since: The beginning of the reference window (ISO 8601), None for the first items.
        reference_until: Its end.
    """

    owner: str
    purpose: str
    risk: str
    threshold: float | None = None
    reference_since: str | None = None
    reference_until: str | None = None


def register(
    log: Log,
    model: str,
    *,
    owner: str,
    purpose: str,
    risk: str,
    threshold: float | None = None,
    reference: tuple[str, str] | None = None,
    actor: str = "govern",
) -> Card:
    """Register a model, or change what is said of it.

    Args:
        log: The log.
        model: Its name, id, or the beginning of its weights' SHA-256.
        owner: Who answers for it.
        purpose: What it decides, and what not.
        risk: "minimal", "limited" or "high".
        threshold: The score from which it flags.
        reference: Beginning and end (ISO 8601) of the window that drift is measured against.
        actor: Who registers it, for the audit chain.

    Returns:
        The card.

    Raises:
        UnknownName: There is no such model.
        ArgumentError: The risk class or a time is wrong.
    """
    if risk not in RISKS:
        raise ArgumentError(
            expected=f"a risk class ({', '.join(RISKS)})",
            got=repr(risk),
            remedy="choose one of these",
            field="risk",
        )
    since, until = (parse_time(one) for one in reference) if reference else (None, None)
    id = log.model(model).id
    made = Card(owner, purpose, risk, threshold, since, until)
    with log.ledger.writing() as (connection, at):
        known = connection.execute(
            select(tables.cards.c.model_id).where(tables.cards.c.model_id == id)
        ).one_or_none()
        values = {**asdict(made), "at": at}
        if known is None:
            connection.execute(insert(tables.cards).values(model_id=id, **values))
        else:
            connection.execute(
                update(tables.cards).where(tables.cards.c.model_id == id).values(values)
            )
        audit.append(connection, at, "model.registered", id, actor=actor, body=asdict(made))
    return made


def card_of(log: Log, id: str) -> Card | None:
    """Read the card of a model by its id; None where nobody registered it."""
    with log.ledger.database.reading() as connection:
        row = connection.execute(
            select(tables.cards).where(tables.cards.c.model_id == id)
        ).one_or_none()
    if row is None:
        return None
    told = dict(row._mapping)
    return Card(**{name: told[name] for name in Card.__dataclass_fields__})


def card(log: Log, model: str) -> str:
    """Format a model's card as Markdown: what is said of it, and what its log shows.

    Args:
        log: The log.
        model: Its name, id, or the beginning of its weights' SHA-256.

    Raises:
        UnknownName: There is no such model.
    """
    found = log.model(model)
    told = card_of(log, found.id)
    with log.ledger.database.reading() as connection:
        classes = daily.labels(connection, found.id)
        methods = connection.execute(
            select(explanations.c.method)
            .where(explanations.c.model_id == found.id, explanations.c.method.is_not(None))
            .distinct()
        ).scalars()
        used = sorted(str(one) for one in methods)
        tested = connection.execute(
            select(tables.windows.c.alarms).where(tables.windows.c.model_id == found.id)
        ).scalars()
        alarms = [str(one) for one in tested]
        compared = connection.execute(
            select(tables.gaps).where(tables.gaps.c.model_id == found.id)
        ).all()
    said = told or Card("not registered", "not registered", "not registered")
    reference = (
        f"{said.reference_since} to {said.reference_until}"
        if said.reference_since
        else "the first window"
    )
    lines = [
        f"# {_told(found.name)}",
        "",
        "| | |",
        "|---|---|",
        f"| Weights (SHA-256) | `{found.weights}` |",
        f"| Preprocessing | {_told(found.preprocess)} |",
        f"| Owner | {_told(said.owner)} |",
        f"| Purpose | {_told(said.purpose)} |",
        f"| Risk class | {_told(said.risk)} |",
        f"| Threshold | {'none' if said.threshold is None else f'{said.threshold:g}'} |",
        f"| Reference of drift | {reference} |",
        f"| Explained | {found.n} items, {found.first} to {found.last} |",
        f"| Methods | {_told(', '.join(used) or 'none')} |",
        f"| Windows tested for drift | {len(alarms)}, {sum(map(bool, alarms))} with an alarm |",
        "",
        "## Classes",
        "",
        "| class | explained |",
        "|---|---|",
        *(f"| {_told(label)} | {count} |" for label, count in classes),
        "",
        "## Groups",
        "",
    ]
    for row in compared:
        level = json.loads(row.result)
        findings = [one for one in level["gaps"] if one["p"] <= level["level"]]
        lines.append(
            f"- {_told(row.attribute)}: {len(findings)} gaps that chance doesn't explain, "
            f"{row.n} items"
        )
    if not compared:
        lines.append("No groups were given, so none were compared.")
    return "\n".join(lines) + "\n"


def _told(text: str) -> str:
    """Escape text for a cell of Markdown."""
    from visxai.foreign import for_html

    return for_html(shown(text)).replace("|", "\\|").replace("`", "\\`")
