"""The governance page of a log, as one file that opens from disk or that a service hands out.

    govern.report(log, "report.html")       a file; the audit chain is verified for it
    govern.page(log, model=id)              the HTML, for a service's /governance

Everything on the page was computed before: daily sums, tested windows, compared groups. Of the
explanations it reads only those it shows, so it is as quick for a million as for a thousand. A
service shows one model at a time, a file up to twenty.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import func, select

from visxai import files
from visxai.govern.log import Log
from visxai.govern.overview import summarise
from visxai.govern.watching import alerts
from visxai.govern.windows import LEVEL
from visxai.ledger import tables as ledger
from visxai.ledger.canonical import timestamp
from visxai.web import page as web

if TYPE_CHECKING:
    from sqlalchemy import Connection

_HERE = Path(__file__).parent / "assets"
_MODELS = 20
_ENTRIES = 100  # of the audit chain, the latest
_RECENT = 20_000  # entries among which a tenant's latest are looked for
# What people did after they had been shown an explanation; the entry says which.
_SEEN = ("decision.upheld", "decision.overturned", "decision.escalated")


def report(
    log: Log, out: str | os.PathLike[str], *, verify: bool = True, tenant: str | None = None
) -> Path:
    """Write the page as one file.

    Args:
        log: The log.
        out: The file.
        verify: Whether to verify the whole audit chain for it.
        tenant: Whose explanations; None for everybody's.

    Returns:
        The file's path.

    Raises:
        StoreError: The database can't be read, or the file can't be written.
    """
    target = Path(os.path.abspath(out))
    text = page(log, verify=verify, tenant=tenant)
    with files.one_sentence(f"to write {os.fspath(out)}", "name another file"):
        files.write(target, text)
    return target


def page(
    log: Log,
    *,
    model: str | None = None,
    tenant: str | None = None,
    act: str | None = None,
    verify: bool = False,
) -> str:
    """Make the page's HTML.

    Args:
        log: The log.
        model: The id of the only model to show; for one that isn't there ("") the latest used. The
            page asks for others with ?model=ID. None shows all of them, twenty at most.
        tenant: Whose explanations, sums, windows, alerts and audit entries; None for everybody's.
        act: The address that forms of alerts post to, with the fields alert, text and close ("yes"
            to acknowledge); None shows the command instead.
        verify: Whether to verify the whole audit chain, which reads all entries and payloads.

    Raises:
        StoreError: The database can't be read.
    """
    known = log.models(tenant)
    if model is None:
        shown = known = known[:_MODELS]
    else:
        shown = [one for one in known if one.id == model] or known[:1]
    told = alerts(log, tenant)
    whole = {one.id: summarise(log, one, told, tenant) for one in shown}
    data = {
        "models": [whole.get(one.id, asdict(one)) for one in known],
        "shown": shown[0].id if shown else None,
        "act": act,
        "audit": _audit(log, tenant, verify),
        "level": LEVEL,
    }
    style = Path(web.__file__).parent
    return web.filled(
        "Governance",
        data,
        template=_HERE / "dashboard.html",
        styles=(style / "page.css", _HERE / "dashboard.css"),
        scripts=(style / "plots.js", _HERE / "charts.js", _HERE / "dashboard.js"),
        forms=act is not None,
    )


def _audit(log: Log, tenant: str | None, verify: bool) -> dict[str, Any]:
    verdict = log.ledger.verify() if verify else None
    with log.ledger.database.reading() as connection:
        head = connection.execute(select(ledger.audit_head.c.sequence)).scalar() or 0
        checkpoint = connection.execute(
            select(ledger.checkpoints).order_by(ledger.checkpoints.c.sequence.desc()).limit(1)
        ).one_or_none()
        signed = connection.execute(select(func.count(ledger.checkpoints.c.sequence))).scalar() or 0
        latest = _entries(connection, tenant, head)
        seen = _seen(connection, tenant)
    return {
        "entries": head,
        "verified": None if verdict is None else bool(verdict),
        "flaws": [] if verdict is None else [one.sentence for one in verdict.flaws[:20]],
        "at": timestamp(time.time()),
        "checkpoints": signed,
        "checkpoint": None
        if checkpoint is None
        else {"sequence": checkpoint.sequence, "at": checkpoint.at, "key": checkpoint.key_id},
        "latest": [[row.at, row.event, row.actor, row.subject] for row in latest],
        "seen": seen,
    }


def _entries(connection: Connection, tenant: str | None, head: int) -> list[Any]:
    """Read the latest entries, of a tenant's among the latest 20,000 of all."""
    query = select(ledger.audit)
    if tenant is not None:
        recent = ledger.audit.c.sequence > head - _RECENT
        query = query.where(recent, ledger.audit.c.tenant == tenant)
    return list(connection.execute(query.order_by(ledger.audit.c.sequence.desc()).limit(_ENTRIES)))


def _seen(connection: Connection, tenant: str | None) -> list[list[Any]]:
    """Read who was shown which explanation before acting, the latest first."""
    table = ledger.audit
    found: list[Any] = []
    for event in _SEEN:  # each by itself, so that the index on events serves the order
        query = select(table).where(table.c.event == event)
        if tenant is not None:
            query = query.where(table.c.tenant == tenant)
        found += connection.execute(query.order_by(table.c.sequence.desc()).limit(_ENTRIES)).all()
    found.sort(key=lambda row: -row.sequence)
    told = ((row, json.loads(row.body)) for row in found[:_ENTRIES])
    return [
        [row.at, row.actor, body.get("role"), row.event, row.subject, body.get("shown")]
        for row, body in told
    ]
