"""Answers kept under the callers' keys, so that a request that is sent again changes nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from visxai.ledger.database import insert_new
from visxai.serve import tables
from visxai.serve.errors import Conflict

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from visxai.serve.keys import Principal
    from visxai.serve.service import Service


def earlier(service: Service, who: Principal, key: str, fingerprint: str) -> dict[str, Any] | None:
    """Return the answer that a key got before; raise Conflict for another request's key."""
    rows = tables.requests
    with service.database.reading() as connection:
        row = connection.execute(
            select(rows).where(rows.c.tenant == who.tenant, rows.c.key == key)
        ).one_or_none()
    if row is None:
        return None
    if row.fingerprint != fingerprint:
        raise Conflict(
            expected="an Idempotency-Key for each request",
            got="one that was used for another request",
            remedy="make a new key",
        )
    answer: dict[str, Any] = json.loads(row.answer)
    return answer


def remember(
    connection: Connection,
    who: Principal,
    key: str | None,
    fingerprint: str,
    answer: Mapping[str, Any],
    now: float,
) -> None:
    """Keep an answer under its key; raise Conflict if another request did so meanwhile."""
    if key is None:
        return
    row = {"tenant": who.tenant, "key": key, "fingerprint": fingerprint, "created": now}
    if not insert_new(connection, tables.requests, {**row, "answer": json.dumps(dict(answer))}):
        raise Conflict(
            expected="one request at a time with an Idempotency-Key",
            got="two",
            remedy="send it again, and the answer of the first comes back",
        )
