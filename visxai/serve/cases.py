"""Cases: what people do about decisions. Two people never get the same one at the same time."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Row, and_, func, insert, or_, select, update

from visxai.errors import ArgumentError
from visxai.ledger import audit
from visxai.serve import tables
from visxai.serve.errors import Conflict, Missing

if TYPE_CHECKING:
    from visxai.serve.jobs import Job
    from visxai.serve.keys import Principal
    from visxai.serve.service import Service

HELD = 900.0  # seconds that a case stays with whoever opened it
LANES = ("appeal", "escalated", "review")
ACTIONS = ("uphold", "overturn", "escalate")
_EVENTS = {
    "uphold": "decision.upheld",
    "overturn": "decision.overturned",
    "escalate": "decision.escalated",
}

decisions, appeals, items = tables.decisions, tables.appeals, tables.items


def take(service: Service, who: Principal, lane: str | None = None) -> str | None:
    """Take the most urgent open case: appeals and escalated ones first, then by severity and age.

    Args:
        service: The service.
        who: Who takes it.
        lane: Only from this lane.

    Returns:
        The decision's id, None where nothing is open.
    """
    with service.database.writing() as connection:
        now = service.database.now(connection)
        # What this person has open comes first, so that a reload doesn't hand out another one.
        mine = decisions.c.reviewer == who.key_id
        query = (
            select(decisions.c.id)
            .where(*_open_to(who, now), *((decisions.c.lane == lane,) if lane else ()))
            .order_by(
                and_(mine, decisions.c.reviewer_until > now).desc(),
                (decisions.c.lane == "review").asc(),
                decisions.c.severity.desc(),
                decisions.c.opened,
                decisions.c.id,
            )
            .limit(1)
            .with_for_update(skip_locked=True)
        )
        id = connection.execute(query).scalar_one_or_none()
        if id is not None:
            _hold(connection, id, who, now)
        return None if id is None else str(id)


def keep(service: Service, who: Principal, id: str) -> bool:
    """Keep a case for longer, or take that one; return whether it is the caller's now."""
    with service.database.writing() as connection:
        now = service.database.now(connection)
        query = select(decisions.c.id).where(decisions.c.id == id, *_open_to(who, now))
        if connection.execute(query.with_for_update()).first() is None:
            return False
        _hold(connection, id, who, now)
        return True


def saw(service: Service, who: Principal, id: str, shown: list[str]) -> None:
    """Put on record that somebody opened a case, and which explanations it showed.

    Args:
        service: The service.
        who: Who opened it.
        id: The decision, of the same tenant.
        shown: The explanations that were done by then.
    """
    with service.ledger.writing() as (connection, at):
        audit.append(
            connection,
            at,
            "case.opened",
            id,
            actor=who.key_id,
            tenant=who.tenant,
            body={"role": who.role, "shown": shown},
        )


def act(
    service: Service, who: Principal, id: str, action: str, shown: str | None = None
) -> dict[str, Any]:
    """Close a case, or hand it to somebody with more say.

    Args:
        service: The service.
        who: Who decides; always a person's key.
        id: The decision.
        action: "uphold", "overturn" or "escalate".
        shown: The explanation that was shown, which goes on record.

    Returns:
        The decision's id, state, lane and action.

    Raises:
        ArgumentError: There is no such action, or the explanation isn't the decision's.
        Missing: The tenant has no such decision.
        Conflict: It is closed, or somebody else is at it.
    """
    if action not in ACTIONS:
        raise ArgumentError(
            expected=f"an action of {', '.join(ACTIONS)}",
            got=repr(action)[:80],
            remedy="use one of these",
            field="action",
        )
    with service.ledger.writing() as (connection, at):
        now = service.database.now(connection)
        row = _locked(connection, id, who.tenant)
        if row.state != "open":
            raise Conflict(expected="an open case", got="a closed one", remedy="appeal first")
        if row.reviewer not in (None, who.key_id) and row.reviewer_until > now:
            raise Conflict(
                expected="a case that nobody else is at",
                got="one that somebody else has open",
                remedy="take the next one",
            )
        if shown is not None and shown not in explanations_of(connection, id):
            raise ArgumentError(
                expected="an explanation of this decision",
                got="another",
                remedy="name the one that was shown",
                field="shown",
            )
        free = {"reviewer": None, "reviewer_until": None}
        values = (
            {"lane": "escalated", "opened": now}
            if action == "escalate"
            else {"state": "closed", "action": action, "closed": now, "closed_by": who.key_id}
        )
        connection.execute(
            update(decisions).where(decisions.c.id == id).values({**values, **free, "shown": shown})
        )
        if action != "escalate":
            connection.execute(
                update(appeals)
                .where(appeals.c.decision_id == id, appeals.c.outcome.is_(None))
                .values(outcome=action, closed=now, closed_by=who.key_id)
            )
        audit.append(
            connection,
            at,
            _EVENTS[action],
            id,
            actor=who.key_id,
            tenant=who.tenant,
            body={"role": who.role, "lane": row.lane, "shown": shown},
        )
    return {
        "decision_id": id,
        "state": values.get("state", "open"),
        "lane": values.get("lane", row.lane),
        "action": action,
    }


def appeal(service: Service, who: Principal, id: str, reason: str) -> dict[str, Any]:
    """Contest a decision: it is explained precisely, and a person looks at it again.

    Args:
        service: The service.
        who: Who hands the appeal in.
        id: The decision.
        reason: What the contesting person says.

    Returns:
        The appeal's id, and the id and state of the precise explanation.

    Raises:
        Missing: The tenant has no such decision, or its item was erased.
        Conflict: An appeal is open, or the decision was to let the item pass.
        Busy: The precise lane is full; nothing was put down.
    """
    with service.ledger.writing() as (connection, at):
        now = service.database.now(connection)
        row = _locked(connection, id, who.tenant)
        item = connection.execute(select(items).where(items.c.id == row.item_id)).one()
        if item.erased is not None:
            raise Missing("a decision on an item that is there")
        if row.decision != "flag":
            raise Conflict(
                expected="a flagged item", got="one that passed", remedy="none is needed"
            )
        still = select(appeals.c.id).where(appeals.c.decision_id == id, appeals.c.outcome.is_(None))
        if connection.execute(still).first() is not None:
            raise Conflict(
                expected="one appeal at a time", got="a second one", remedy="wait for the first"
            )
        job = _precise(service, connection, who, row, item, now)
        appeal_id = uuid.uuid4().hex
        connection.execute(
            insert(appeals).values(
                id=appeal_id,
                tenant=who.tenant,
                decision_id=id,
                created=now,
                reason=reason.replace("\0", "\ufffd"),
                job_id=job.id,
            )
        )
        connection.execute(
            update(decisions)
            .where(decisions.c.id == id)
            .values(
                lane="appeal",
                state="open",
                opened=now,
                action=None,
                closed=None,
                closed_by=None,
                reviewer=None,
                reviewer_until=None,
            )
        )
        audit.append(
            connection,
            at,
            "decision.appealed",
            id,
            actor=who.key_id,
            tenant=who.tenant,
            body={"appeal": appeal_id, "explanation": job.id},
        )
    service.wake["precise"].set()
    return {"id": appeal_id, "explanation": {"id": job.id, "state": job.state}}


def _precise(
    service: Service,
    connection: Connection,
    who: Principal,
    row: Row[Any],
    item: Row[Any],
    now: float,
) -> Job:
    from visxai.serve.service import plain

    spec = {
        "kind": item.kind,
        "item_id": item.id,
        "decision_id": row.id,
        "supersedes": row.job_id,
        "content_sha256": item.content_sha256,
        "pixel_sha256": item.pixel_sha256,
        "blob": item.blob,
        "policy": row.policy,
        "threshold": row.threshold,
        "decision": row.decision,
        "metadata": plain(item.metadata),
        "actor": who.key_id,
    }
    wanted = service.job(who.tenant, "precise", item.pixel_sha256, row.target, spec)
    return service.enqueue(connection, wanted, now)


def explanations_of(connection: Connection, id: str) -> list[str]:
    """List the jobs that explain a decision, newest first."""
    first = select(decisions.c.job_id, decisions.c.created).where(decisions.c.id == id)
    second = select(appeals.c.job_id, appeals.c.created).where(appeals.c.decision_id == id)
    rows = [*connection.execute(first), *connection.execute(second)]
    rows.sort(key=lambda row: row.created, reverse=True)
    return [row.job_id for row in rows if row.job_id]


def decision(connection: Connection, id: str, tenant: str) -> Row[Any]:
    """Read a tenant's decision.

    Raises:
        Missing: It has none with this id.
    """
    row = connection.execute(
        select(decisions).where(decisions.c.id == id, decisions.c.tenant == tenant)
    ).one_or_none()
    if row is None:
        raise Missing("a decision")
    return row


def listed(
    connection: Connection,
    tenant: str,
    *,
    state: str = "open",
    lane: str | None = None,
    category: str | None = None,
    limit: int = 50,
) -> list[Row[Any]]:
    """List cases as a queue shows them: the most urgent first, closed ones newest first."""
    query = (
        select(decisions, items.c.name, items.c.blob, items.c.kind)
        .join(items, items.c.id == decisions.c.item_id)
        .where(decisions.c.tenant == tenant, decisions.c.state == state)
    )
    if lane is not None:
        query = query.where(decisions.c.lane == lane)
    if category is not None:
        query = query.where(decisions.c.category == category)
    order = (
        (decisions.c.closed.desc(),)
        if state == "closed"
        else (
            (decisions.c.lane == "review").asc(),
            decisions.c.severity.desc(),
            decisions.c.opened,
            decisions.c.id,
        )
    )
    return list(connection.execute(query.order_by(*order).limit(limit)))


def counts(connection: Connection, tenant: str) -> dict[str, int]:
    """Count a tenant's open cases by lane."""
    query = (
        select(decisions.c.lane, func.count().label("count"))
        .where(decisions.c.tenant == tenant, decisions.c.state == "open")
        .group_by(decisions.c.lane)
    )
    found = {row.lane: int(row._mapping["count"]) for row in connection.execute(query)}
    return {lane: found.get(lane, 0) for lane in LANES}


def same_image(connection: Connection, item: Row[Any], id: str) -> list[Row[Any]]:
    """List up to ten other decisions of the tenant on the same pixels, newest first."""
    if item.pixel_sha256 is None:
        return []
    query = (
        select(decisions)
        .join(items, items.c.id == decisions.c.item_id)
        .where(
            items.c.tenant == item.tenant,
            items.c.pixel_sha256 == item.pixel_sha256,
            decisions.c.decision == "flag",
            decisions.c.id != id,
        )
    )
    return list(connection.execute(query.order_by(decisions.c.created.desc()).limit(10)))


def _open_to(who: Principal, now: float) -> tuple[Any, ...]:
    return (
        decisions.c.tenant == who.tenant,
        decisions.c.state == "open",
        or_(
            decisions.c.reviewer.is_(None),
            decisions.c.reviewer == who.key_id,
            decisions.c.reviewer_until <= now,
        ),
    )


def _hold(connection: Connection, id: str, who: Principal, now: float) -> None:
    values = {"reviewer": who.key_id, "reviewer_until": now + HELD}
    connection.execute(update(decisions).where(decisions.c.id == id).values(**values))


def _locked(connection: Connection, id: str, tenant: str) -> Row[Any]:
    query = select(decisions).where(decisions.c.id == id, decisions.c.tenant == tenant)
    row = connection.execute(query.with_for_update()).one_or_none()
    if row is None:
        raise Missing("a decision")
    return row
