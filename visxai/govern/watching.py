"""Watches the models of a log: cuts windows, tests them, compares groups, raises alerts.

    with govern.Log(URL) as log:
        govern.watch(log, webhook="https://…")      once; `visxai govern watch` does it by the clock
    with govern.watcher(URL, every=300): ...        in a thread of a service

Each tenant's items are watched by themselves. A model's reference are the tenant's items of its
card's reference dates, or else of the first window. A window is tested when it is full, and once:
its result stays. An alarm becomes an alert, which goes
to the log of the process, to the webhook and to the dashboard, until somebody acknowledges it.
Groups are compared on the newest 5,000 items for each attribute with two to twenty groups.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import threading
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import insert, select, update

from visxai.errors import ArgumentError, VisxaiError
from visxai.govern import tables
from visxai.govern.cards import card_of
from visxai.govern.delivery import Send, deliver, post
from visxai.govern.groups import fairness
from visxai.govern.log import Log, Model
from visxai.govern.windows import LEVEL, SIZE, Window, compare
from visxai.ledger import audit
from visxai.ledger.database import Database, insert_new
from visxai.ledger.ledger import Ledger
from visxai.web.page import as_json

_LOGGER = logging.getLogger("visxai.govern")
_NEWEST = 5000  # items that groups are compared on
_GROUPS = range(2, 21)  # groups of an attribute that is compared


@dataclass(frozen=True)
class Watched:
    """What a round of watching did.

    Attributes:
        measured: How many explanations were measured.
        windows: How many windows were tested.
        alerts: The ids of the alerts that were raised.
    """

    measured: int
    windows: int
    alerts: tuple[str, ...]


def watch(
    log: Log,
    *,
    size: int = SIZE,
    level: float = LEVEL,
    webhook: str | None = None,
    secret: str | None = None,
    send: Send | None = None,
) -> Watched:
    """Test every full window that wasn't tested yet, compare groups, and raise alerts.

    Args:
        log: The log.
        size: The items of a window.
        level: The share of windows that may alarm without any change, 0 to 1.
        webhook: Where alerts are posted as JSON, None for nowhere.
        secret: The key of the header X-Visxai-Signature: HMAC-SHA256 of "TIME.BODY" in hex, with
            TIME of the header X-Visxai-Time; None leaves both out.
        send: Posts (address, body, headers); None uses HTTP with three attempts.

    Returns:
        What was done.

    Raises:
        StoreError: The database can't be read or written.
    """
    measured, tested = log.catch_up(), 0
    raised: list[str] = []
    pairs = [(model, one) for model in log.models() for one in log.tenants(model.id)]
    for model, tenant in pairs:
        for id, window in _test(log, model, tenant, size, level):
            tested += 1
            if window.alarm:
                raised.append(_raise(log, model, tenant, id, window))
        _compare_groups(log, model, tenant, level)
    for alert in raised if webhook is not None else ():
        assert webhook is not None
        deliver(log, alert, webhook, secret, send or post)
    return Watched(measured, tested, tuple(raised))


@contextlib.contextmanager
def watcher(
    database: Ledger | Database | str,
    *,
    every: float = 300.0,
    size: int = SIZE,
    level: float = LEVEL,
    webhook: str | None = None,
    secret: str | None = None,
) -> Iterator[None]:
    """Watch a database by the clock in a thread of its own, while the context lasts.

    A round that fails is told in the process's log, and the next one goes on.

    Args:
        database: What is watched: a service's ledger, a database, or its address.
        every: Seconds between two rounds; the first begins at once.
        size: The items of a window.
        level: The share of windows that may alarm without any change, 0 to 1.
        webhook: Where alerts are posted as JSON, None for nowhere.
        secret: The key of the alerts' signature, None for none.

    Raises:
        ArgumentError: The pause isn't positive.
        StoreError: The database can't be reached.
    """
    if not every > 0:
        raise ArgumentError(
            expected="a pause above 0 seconds",
            got=str(every),
            remedy="every=300 looks each five minutes",
            field="every",
        )
    over = threading.Event()
    with Log(database) as log:

        def patrol() -> None:
            while True:
                try:
                    watch(log, size=size, level=level, webhook=webhook, secret=secret)
                except VisxaiError as error:
                    _LOGGER.error("watching for drift: %s", error)
                if over.wait(every):
                    return

        thread = threading.Thread(target=patrol, name="visxai-watch", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join(30.0)


def _test(log: Log, model: Model, tenant: str, size: int, level: float) -> list[tuple[str, Window]]:
    """Test the full windows that follow the last one, and keep the results."""
    card = card_of(log, model.id)
    if card is not None and card.reference_since and card.reference_until:
        since, until = card.reference_since, card.reference_until
        reference = log.observe(model.id, tenant=tenant, since=since, until=until, limit=4 * size)
        start = (card.reference_until, "")
    else:
        reference = log.observe(model.id, tenant=tenant, limit=size)
        start = (reference.created[-1], reference.ids[-1]) if len(reference) else ("", "")
    with log.ledger.database.reading() as connection:
        last = connection.execute(
            select(tables.windows.c.last, tables.windows.c.last_id)
            .where(tables.windows.c.model_id == model.id, tables.windows.c.tenant == tenant)
            .order_by(tables.windows.c.last.desc(), tables.windows.c.last_id.desc())
            .limit(1)
        ).one_or_none()
    after = max(start, (last[0], last[1]) if last else start)
    found: list[tuple[str, Window]] = []
    while len(reference) >= 8:
        seen = log.observe(model.id, tenant=tenant, after=after, limit=size)
        if len(seen) < size:
            break
        after = (seen.created[-1], seen.ids[-1])
        window = compare(reference, seen, level=level, seed=len(found))
        # Two watchers of one database find the same window under the same id, and one keeps it.
        name = f"{model.id}|{tenant}|{after}|{size}"
        id = hashlib.sha256(name.encode()).hexdigest()[:32]
        with log.ledger.writing() as (connection, at):
            new = insert_new(
                connection,
                tables.windows,
                {
                    "id": id,
                    "model_id": model.id,
                    "tenant": tenant,
                    "first": seen.created[0],
                    "last": after[0],
                    "last_id": after[1],
                    "n": len(seen),
                    "alarms": ",".join(window.alarms),
                    "result": as_json(window.to_dict()),
                    "at": at,
                },
            )
        if new:
            found.append((id, window))
    return found


def _raise(log: Log, model: Model, tenant: str, window_id: str, window: Window) -> str:
    """Put an alert down, in its table, in the audit chain and in the process's log."""
    id = uuid.uuid4().hex
    telling = log.sources(window.telling)
    body = {
        "alert": id,
        "model": model.name,
        "weights": model.weights,
        "tenant": tenant,
        "from": window.first,
        "to": window.last,
        "n": window.n,
        "alarms": list(window.alarms),
        "p": dict(window.q),
        "moved": [
            {
                "side": side,
                "figure": one.name,
                "before": one.before,
                "after": one.after,
                "ks": one.statistic,
                "q": one.q,
            }
            for side in window.alarms
            for one in window.sides[side].columns[:5]
        ],
        "records": [{"id": one, "source": telling.get(one, "")} for one in window.telling],
    }
    with log.ledger.writing() as (connection, at):
        row = {"id": id, "model_id": model.id, "tenant": tenant, "window_id": window_id, "at": at}
        told = {"state": "open", "body": as_json(body), "delivered": ""}
        connection.execute(insert(tables.alerts).values(**row, **told))
        sides = {"sides": list(window.alarms)}
        audit.append(connection, at, "alert.raised", id, tenant=tenant, body=sides)
    _LOGGER.warning("drift of %s in %s from %s", model.name, ", ".join(window.alarms), window.first)
    return id


def _compare_groups(log: Log, model: Model, tenant: str, level: float) -> None:
    """Compare the groups of each attribute, unless nothing came since they were compared."""
    newest = log.observe(model.id, tenant=tenant, limit=1, newest=True).ids
    mine = (tables.gaps.c.model_id == model.id, tables.gaps.c.tenant == tenant)
    with log.ledger.database.reading() as connection:
        known = connection.execute(select(tables.gaps.c.result).where(*mine)).scalars()
        if newest and any(json.loads(one).get("newest") == newest[0] for one in known):
            return
    seen = log.observe(model.id, tenant=tenant, limit=_NEWEST, newest=True)
    for attribute, values in seen.groups.items():
        if len({one for one in values if one}) not in _GROUPS or len(attribute) > 128:
            continue
        found = fairness(seen, attribute, level=level)
        row = {
            "model_id": model.id,
            "tenant": tenant,
            "attribute": attribute,
            "n": len(seen),
            "result": as_json({**found.to_dict(), "newest": newest[0]}),
        }
        with log.ledger.writing() as (connection, at):
            if not insert_new(connection, tables.gaps, {**row, "at": at}):
                connection.execute(
                    update(tables.gaps)
                    .where(*mine, tables.gaps.c.attribute == attribute)
                    .values(n=row["n"], result=row["result"], at=at)
                )


def acknowledge(log: Log, alert: str, text: str, actor: str, tenant: str | None = None) -> None:
    """Acknowledge an alert with a note; the audit chain keeps who did.

    Args:
        log: The log.
        alert: The alert's id.
        text: What was found, or what is done.
        actor: Who says so.
        tenant: Whose alert it is; None for anybody's.

    Raises:
        ArgumentError: There is no such alert, or no text.
    """
    annotate(log, alert, text, actor, tenant)
    with log.ledger.writing() as (connection, at):
        connection.execute(
            update(tables.alerts).where(tables.alerts.c.id == alert).values(state="acknowledged")
        )
        query = select(tables.alerts.c.tenant).where(tables.alerts.c.id == alert)
        whose = connection.execute(query).scalar_one()
        audit.append(connection, at, "alert.acknowledged", alert, actor=actor, tenant=whose)


def annotate(log: Log, alert: str, text: str, actor: str, tenant: str | None = None) -> None:
    """Add a note to an alert.

    Args:
        log: The log.
        alert: The alert's id.
        text: The note.
        actor: Whose it is.
        tenant: Whose alert it is; None for anybody's.

    Raises:
        ArgumentError: There is no such alert, or no text.
    """
    if not text.strip():
        raise ArgumentError(
            expected="a note", got="none", remedy="say what was found", field="text"
        )
    with log.ledger.writing() as (connection, at):
        query = select(tables.alerts.c.tenant).where(tables.alerts.c.id == alert)
        whose = connection.execute(query).scalar_one_or_none()
        if whose is None or tenant not in (None, whose):
            raise ArgumentError(
                expected="the id of an alert",
                got=repr(alert)[:80],
                remedy="`visxai govern alerts` lists them",
                field="alert",
            )
        note = {"id": uuid.uuid4().hex, "alert_id": alert, "at": at, "actor": actor[:64]}
        connection.execute(insert(tables.notes).values(**note, text=text.replace("\0", "\ufffd")))


def alerts(log: Log, tenant: str | None = None) -> list[dict[str, Any]]:
    """List alerts with their notes, the latest first.

    Args:
        log: The log.
        tenant: Whose alerts; None for everybody's.
    """
    query = select(tables.alerts).order_by(tables.alerts.c.at.desc())
    if tenant is not None:
        query = query.where(tables.alerts.c.tenant == tenant)
    with log.ledger.database.reading() as connection:
        rows = connection.execute(query).all()
        told = connection.execute(select(tables.notes).order_by(tables.notes.c.at)).all()
    return [
        {
            **json.loads(row.body),
            "id": row.id,
            "model_id": row.model_id,
            "tenant": row.tenant,
            "at": row.at,
            "state": row.state,
            "delivered": row.delivered,
            "notes": [
                {"at": note.at, "actor": note.actor, "text": note.text}
                for note in told
                if note.alert_id == row.id
            ],
        }
        for row in rows
    ]
