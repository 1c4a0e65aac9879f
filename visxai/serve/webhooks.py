"""Webhooks: what happens is told to other programs, signed, and again until they take it.

    audit chain  --publish-->  deliveries (waiting)  --send-->  delivered, or failed after days

Every event is an entry of the audit chain, written in the transaction that makes it true. A courier
reads the chain from where it stopped and puts a delivery down for each entry that a webhook asks
for, in one transaction with the place where it stops: so nothing is lost or put down twice,
whichever process is killed. A delivery is leased while it is sent. One that was sent by a process
that ended before it said so is sent again, under the same id.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import threading
import uuid
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from sqlalchemy import delete, insert, select, update

from visxai.errors import ArgumentError, StoreError, VisxaiError
from visxai.govern.tables import alerts
from visxai.ledger import audit
from visxai.ledger.canonical import canonical, sha256, timestamp
from visxai.ledger.database import insert_new
from visxai.ledger.tables import audit_head
from visxai.serve import outside
from visxai.serve.tables import deliveries, webhooks

if TYPE_CHECKING:
    from sqlalchemy import Connection, Row

    from visxai.serve.config import Webhook
    from visxai.serve.service import Service

PAUSE = 0.5  # seconds between two looks at the chain
ATTEMPTS = 10  # after which a delivery has failed: some four days
_FIRST, _GROWTH, _LONGEST = 2.0, 4.0, 86400.0  # seconds between attempts, times each, at most
_LEASE = 120.0  # seconds that a process has for what it claimed
_AT_ONCE = 4  # deliveries that are claimed together: each may take `outside.seconds`
_KEPT = 7 * 86400.0  # seconds that a delivery stays on record once it ended


class Courier:
    """Delivers events to webhooks, in a thread of its own.

    Args:
        service: The service.
        hooks: The webhooks.
        secret: The key of the signatures, None for none.
        log: Takes a line about what goes wrong.

    Raises:
        ArgumentError: The settings name webhooks, and there is no secret to sign with.
        StoreError: The database can't be written.
    """

    def __init__(
        self,
        service: Service,
        hooks: Sequence[Webhook],
        secret: str | None,
        log: Callable[[str], None] = lambda _: None,
    ) -> None:
        if service.config.webhooks and not secret:
            raise ArgumentError(
                expected="a secret that webhooks are signed with",
                got="none",
                remedy="put one into the environment as VISXAI_WEBHOOK_SECRET",
                field="webhooks",
            )
        self._service, self._secret, self._log = service, secret, log
        self._hooks = {_id(one): one for one in hooks}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="visxai-courier", daemon=True)
        if hooks:
            with service.database.writing() as connection:
                head = connection.execute(select(audit_head.c.sequence)).scalar_one()
                for id in self._hooks:  # a new one hears of what happens from now on
                    insert_new(connection, webhooks, {"id": id, "sequence": head})

    def start(self) -> None:
        """Start the thread, if there is a webhook."""
        if self._hooks:
            self._thread.start()

    def stop(self, wait: float = 30.0) -> None:
        """Finish the present delivery and stop."""
        self._over.set()
        if self._thread.is_alive():
            self._thread.join(wait)

    def step(self) -> int:
        """Put deliveries down for what happened, and send those that are due.

        Returns:
            How many were sent, whether they were taken or not.
        """
        self._publish()
        sent = 0
        while claimed := self._claim():
            for row in claimed:
                self._deliver(row)
            sent += len(claimed)
            if self._over.is_set():
                break
        return sent

    def _run(self) -> None:
        while not self._over.wait(PAUSE):
            try:
                self.step()
            except StoreError as error:
                self._log(f"webhooks: {error}")
                self._over.wait(1.0)

    def _publish(self) -> None:
        """Read the chain from where it was left, and put deliveries down."""
        database = self._service.database
        with database.reading() as connection:
            head = connection.execute(select(audit_head.c.sequence)).scalar_one()
            behind = connection.execute(
                select(webhooks.c.id).where(
                    webhooks.c.id.in_(self._hooks), webhooks.c.sequence < head
                )
            ).scalars()
            ids = list(behind)
        for id in ids:
            with database.writing() as connection:
                place = select(webhooks.c.sequence).where(webhooks.c.id == id).with_for_update()
                last = connection.execute(place).scalar_one()
                now = database.now(connection)
                for entry in audit.entries(connection, after=last):
                    last = entry.sequence
                    if _wanted(self._hooks[id], entry):
                        connection.execute(insert(deliveries), _row(connection, id, entry, now))
                connection.execute(
                    update(webhooks).where(webhooks.c.id == id).values(sequence=last)
                )
                old = (deliveries.c.finished.is_not(None), deliveries.c.finished < now - _KEPT)
                connection.execute(delete(deliveries).where(*old))

    def _claim(self) -> list[Row[Any]]:
        database = self._service.database
        with database.writing() as connection:
            now = database.now(connection)
            due = (
                select(deliveries)
                .where(
                    deliveries.c.state == "waiting",
                    deliveries.c.webhook.in_(self._hooks),
                    deliveries.c.due <= now,
                )
                .order_by(deliveries.c.attempts, deliveries.c.due, deliveries.c.sequence)
                .limit(_AT_ONCE)
                .with_for_update(skip_locked=True)
            )
            ids = [row.id for row in connection.execute(due)]
            if not ids:
                return []
            connection.execute(
                update(deliveries)
                .where(deliveries.c.id.in_(ids))
                .values(attempts=deliveries.c.attempts + 1, due=now + _LEASE)
            )
            query = select(deliveries).where(deliveries.c.id.in_(ids))
            return list(connection.execute(query.order_by(deliveries.c.sequence)))

    def _deliver(self, row: Row[Any]) -> None:
        settings = self._service.config.outside
        data = row.body.encode()
        headers = {
            "Content-Type": "application/json",
            "X-Visxai-Event": row.event,
            "X-Visxai-Delivery": row.id,
        }
        database = self._service.database
        with database.reading() as connection:
            headers |= signature(self._secret, database.now(connection), data)
        reason: str | None = None
        try:
            answer = outside.request(
                self._hooks[row.webhook].url,
                method="POST",
                body=data,
                headers=headers,
                private=settings.networks(),
                seconds=settings.seconds,
            )
            if not 200 <= answer.status < 300:
                reason = f"expected a status of 200 to 299, got {answer.status}"
        except VisxaiError as error:
            reason = str(error)
        self._settle(row, reason)

    def _settle(self, row: Row[Any], reason: str | None) -> None:
        """Write down how an attempt went."""
        database = self._service.database
        over = reason is None or row.attempts >= ATTEMPTS
        with database.writing() as connection:
            now = database.now(connection)
            pause = min(_FIRST * _GROWTH ** (row.attempts - 1), _LONGEST)
            state = "waiting" if not over else "delivered" if reason is None else "failed"
            ended = connection.execute(
                update(deliveries)
                # Nothing is written over an attempt that began after this one's lease was over.
                .where(deliveries.c.id == row.id, deliveries.c.attempts == row.attempts)
                .values(
                    state=state,
                    reason=reason,
                    due=now + pause,
                    finished=now if over else None,
                )
                .returning(deliveries.c.id)
            ).first()
            if ended is not None and over and row.event == "alert.raised":
                said = "delivered" if reason is None else f"failed: {reason}"
                connection.execute(
                    update(alerts).where(alerts.c.id == row.subject).values(delivered=said)
                )
        if reason is not None:
            self._log(f"webhook, delivery {row.id}, attempt {row.attempts}: {reason}")


def signature(secret: str | None, now: float, data: bytes) -> dict[str, str]:
    """Sign a body: HMAC-SHA256 of "TIME.BODY" in hex, with the time beside it.

    Args:
        secret: The key; None signs nothing.
        now: The present time.
        data: The body.

    Returns:
        The headers X-Visxai-Time and X-Visxai-Signature.
    """
    if not secret:
        return {}
    at = timestamp(now)
    made = hmac.new(secret.encode(), f"{at}.".encode() + data, hashlib.sha256).hexdigest()
    return {"X-Visxai-Time": at, "X-Visxai-Signature": made}


def _id(hook: Webhook) -> str:
    return sha256(canonical([hook.url, hook.tenant]))[:32]


def _wanted(hook: Webhook, entry: audit.Entry) -> bool:
    return entry.event in hook.events and hook.tenant in (None, entry.tenant)


def _row(connection: Connection, hook: str, entry: audit.Entry, now: float) -> dict[str, Any]:
    id, facts = uuid.uuid4().hex, json.loads(entry.body)
    if entry.event == "alert.raised":
        found = select(alerts.c.body).where(alerts.c.id == entry.subject)
        facts = json.loads(connection.execute(found).scalar_one_or_none() or "{}")
    told = {
        "id": id,
        "event": entry.event,
        "at": entry.at,
        "tenant": entry.tenant,
        "subject": entry.subject,
        "sequence": entry.sequence,
        "facts": facts,
    }
    return {
        "id": id,
        "webhook": hook,
        "sequence": entry.sequence,
        "event": entry.event,
        "subject": entry.subject,
        "body": canonical(told),
        "state": "waiting",
        "attempts": 0,
        "due": now,
        "created": now,
    }
