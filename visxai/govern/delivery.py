"""Delivers alerts to a webhook, signed, and keeps how that went."""

from __future__ import annotations

import hashlib
import hmac
import logging
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import TYPE_CHECKING

from sqlalchemy import select, update

from visxai.errors import ArgumentError, VisxaiError
from visxai.govern import tables
from visxai.ledger.canonical import timestamp

if TYPE_CHECKING:
    from visxai.govern.log import Log

Send = Callable[[str, bytes, dict[str, str]], None]

_LOGGER = logging.getLogger("visxai.govern")
_TRIES = 3


def deliver(log: Log, alert: str, webhook: str, secret: str | None, send: Send) -> None:
    """Post an alert and keep how that went; a webhook that fails never stops the watch.

    Args:
        log: The log.
        alert: The alert's id.
        webhook: The address.
        secret: The key of the signature, None for none.
        send: Posts (address, body, headers).
    """
    with log.ledger.database.reading() as connection:
        body = connection.execute(
            select(tables.alerts.c.body).where(tables.alerts.c.id == alert)
        ).scalar_one()
    data = str(body).encode("utf-8")
    headers = {"Content-Type": "application/json"}
    if secret is not None:
        now = timestamp(time.time())
        signed = hmac.new(secret.encode(), f"{now}.".encode() + data, hashlib.sha256).hexdigest()
        headers |= {"X-Visxai-Time": now, "X-Visxai-Signature": signed}
    try:
        send(webhook, data, headers)
        outcome = "delivered"
    except VisxaiError as error:
        outcome = f"failed: {error}"
        _LOGGER.error("alert %s could not be delivered: %s", alert, error)
    with log.ledger.writing() as (connection, _):
        connection.execute(
            update(tables.alerts).where(tables.alerts.c.id == alert).values(delivered=outcome)
        )


def post(address: str, body: bytes, headers: dict[str, str]) -> None:
    """Post a body over HTTP, at most three times with growing pauses.

    Raises:
        ArgumentError: The address isn't one of HTTP, or doesn't answer with a success.
    """
    if not address.startswith(("http://", "https://")):
        raise ArgumentError(
            expected="a webhook's address, http:// or https://",
            got=address[:80],
            remedy="write it whole",
            field="webhook",
        )
    said = ""
    for attempt in range(_TRIES):
        if attempt:
            time.sleep(0.5 * 4**attempt)
        request = urllib.request.Request(address, data=body, headers=headers, method="POST")
        try:
            with urllib.request.urlopen(request, timeout=10):
                return
        except (urllib.error.URLError, OSError) as error:
            said = str(error)
    raise ArgumentError(
        expected="a webhook that answers",
        got=said[:200],
        remedy="see that it runs",
        field="webhook",
    )
