"""The intake: an item is examined, decided on, and put down with the job of its explanation.

Everything that is answered was committed before: an item that a caller was told of is there after
any crash, and so is its job.
"""

from __future__ import annotations

import contextlib
import functools
import json
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sqlalchemy import insert

from visxai.errors import ArgumentError, Failure, ImageError
from visxai.ledger.audit import Event
from visxai.ledger.canonical import canonical, sha256
from visxai.moderation import Decision
from visxai.serve import tables
from visxai.serve.examine import Examined
from visxai.serve.idempotency import earlier, remember
from visxai.serve.image_with_text import Seen
from visxai.serve.known import Known, look_up
from visxai.serve.similar import look_of

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from visxai.serve.jobs import Job
    from visxai.serve.keys import Principal
    from visxai.serve.service import Service

# Made once: making a statement costs as much as running it.
_TAKEN, _DECIDED = insert(tables.items), insert(tables.decisions)


@dataclass(frozen=True)
class Item:
    """What a caller sends.

    Attributes:
        data: The image's bytes, a text's in UTF-8, those of both as `Post.to_bytes` joins them, or
            a row's as `RowModerator.read` writes them.
        name: Its name, as people may see it.
        metadata: What the caller says of it.
        kind: "image", "text", "post" or "table".
    """

    data: bytes
    name: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    kind: str = "image"

    @functools.cached_property
    def content_sha256(self) -> str:
        """The SHA-256 of the bytes."""
        return sha256(self.data)

    def fingerprint(self, *more: Any) -> str:
        """Return a hash that is the same for the same request."""
        told = [self.content_sha256, self.name, dict(self.metadata), self.kind, *more]
        return sha256(canonical(told))


def moderate(
    service: Service, who: Principal, item: Item, idempotency: str | None = None
) -> dict[str, Any]:
    """Decide on an item, and put down the job of its explanation if it is flagged.

    Args:
        service: The service.
        who: Who sends it.
        item: The item.
        idempotency: The caller's key: the same key and item get the same answer within a day.

    Returns:
        The answer: item_id, decision_id, decision, category, score, threshold, scores, and the
        explanation's id and state where it is flagged.

    Raises:
        ImageError: The bytes can't be read as an image.
        Busy: The queue is full; nothing was put down.
        Conflict: The idempotency key was used for another item.
    """
    service.kinds.of(item.kind)
    fingerprint = item.fingerprint("moderate")
    if idempotency and (answer := earlier(service, who, idempotency, fingerprint)):
        return answer
    content = item.content_sha256
    known = look_up(service, who.tenant, content, item.kind, "fast", decided=True)
    if known is None or known.decision is None:
        known = service.once(
            f"decide {item.kind} {who.tenant} {content}", lambda: _decide(service, content, item)
        )
    decision = known.decision
    assert decision is not None
    # Only what is flagged is kept: for everything else the scores are enough.
    storing = (
        service.blobs.putting(who.tenant, item.data, content)
        if decision.flagged
        else contextlib.nullcontext()
    )
    # The bytes and the rows go to the disk at the same time.
    with storing as blob, service.ledger.writing() as (connection, _):
        now = service.database.now(connection)
        item_id = _insert_item(service, connection, now, who, item, content, known, blob)
        decision_id, job = uuid.uuid4().hex, None
        if decision.flagged:
            spec = {
                "kind": item.kind,
                "item_id": item_id,
                "decision_id": decision_id,
                "content_sha256": content,
                "pixel_sha256": known.pixel_sha256,
                "blob": blob,
                "policy": service.moderator.policy.name,
                "threshold": decision.threshold,
                "decision": decision.decision,
                "metadata": dict(item.metadata),
                "timings": dict(known.timings),
                "actor": who.key_id,
                **({} if known.look is None else {"look": known.look}),
            }
            wanted = service.job(who.tenant, "fast", known.pixel_sha256, decision.target, spec)
            body = {
                "item": item_id,
                "policy": service.moderator.policy.name,
                "category": decision.category,
            }
            flagged = Event("item.flagged", decision_id, who.key_id, who.tenant, body)
            job = service.enqueue(connection, wanted, now, [flagged])
        told = {
            "id": decision_id,
            "policy": service.moderator.policy.name,
            "decision": decision.decision,
            "category": decision.category,
            "score": decision.score,
            "threshold": decision.threshold,
            "severity": decision.severity,
        }
        row = {
            **told,
            "tenant": who.tenant,
            "item_id": item_id,
            "created": now,
            "scores": json.dumps(dict(decision.scores)),
            "target": decision.target,
            "job_id": None if job is None else job.id,
            "lane": "review",
            "state": "open" if decision.flagged else "none",
            "opened": now if decision.flagged else None,
        }
        connection.execute(_DECIDED, row)
        answer = {
            "item_id": item_id,
            "decision_id": decision_id,
            **{name: value for name, value in told.items() if name != "id"},
            "scores": dict(decision.scores),
            "explanation": None if job is None else {"id": job.id, "state": job.state},
        }
        remember(connection, who, idempotency, fingerprint, answer, now)
    if job is not None and job.state == "queued":
        service.wake["fast"].set()
    return answer


def explain(
    service: Service,
    who: Principal,
    item: Item,
    target: str,
    tier: str = "fast",
    idempotency: str | None = None,
) -> dict[str, Any]:
    """Put down the job of an explanation, without a decision.

    Args:
        service: The service.
        who: Who asks for it.
        item: The item.
        target: What to explain, such as "top1" or "class=281"; one map an image.
        tier: "fast" or "precise".
        idempotency: The caller's key, as for `moderate`.

    Returns:
        The answer: item_id, id and state.

    Raises:
        ImageError: The bytes can't be read as an image.
        TargetError: The target can't be read, names more than one map, or an unknown class.
        Busy: The queue is full; nothing was put down.
        Conflict: The idempotency key was used for another request.
    """
    from visxai.errors import TargetError
    from visxai.target import Target

    if item.kind in ("table", "post"):
        row = item.kind == "table"
        raise ArgumentError(
            expected="an image or a text to explain without a decision",
            got="a row" if row else "both",
            remedy=f"post it to /v1/items, where a {item.kind if not row else 'row'} that is "
            "flagged is explained",
            field="features" if row else "text",
        )
    moderator = service.moderator if item.kind == "image" else service.kinds.text()
    parsed = Target.of(target, moderator.engine.model.labels)
    single = parsed.kind in ("class", "any", "diff") or (parsed.kind == "top" and parsed.value == 1)
    if not single:
        raise TargetError(
            expected="a target of one map an image",
            got=repr(target)[:80],
            remedy="write top1, class=281, any=281,282 or diff=281,282",
            field="target",
        )
    fingerprint = item.fingerprint("explain", str(parsed), tier)
    if idempotency and (answer := earlier(service, who, idempotency, fingerprint)):
        return answer
    content = item.content_sha256
    known = look_up(service, who.tenant, content, item.kind, tier)
    if known is None and item.kind == "text":
        known = Known(content, None, None, None)
    if known is None:
        began = time.perf_counter()
        examined = service.once(
            f"examine {who.tenant} {content}", lambda: _examined(service, content, item)
        )
        service.keep(content, examined)
        known = _known(examined, None, began)
    storing = service.blobs.putting(who.tenant, item.data, content)
    with storing as blob, service.ledger.writing() as (connection, _):
        now = service.database.now(connection)
        item_id = _insert_item(service, connection, now, who, item, content, known, blob)
        spec = {
            "kind": item.kind,
            "item_id": item_id,
            "content_sha256": content,
            "pixel_sha256": known.pixel_sha256,
            "blob": blob,
            "metadata": dict(item.metadata),
            "timings": dict(known.timings),
            "actor": who.key_id,
        }
        wanted = service.job(who.tenant, tier, known.pixel_sha256, str(parsed), spec)
        job = service.enqueue(connection, wanted, now)
        answer = {"item_id": item_id, "id": job.id, "state": job.state}
        remember(connection, who, idempotency, fingerprint, answer, now)
    service.wake[tier].set()
    return answer


def _decide(service: Service, content: str, item: Item) -> Known:
    from visxai.images.prepared import Prepared

    if item.kind in ("text", "table"):
        began = time.perf_counter()
        decision = service.kinds.decide(item.kind, item.data)
        timings = {"decide": time.perf_counter() - began}
        return Known(content, None, None, decision, timings)
    if item.kind == "post":
        began = time.perf_counter()
        examined = _examined(service, content, item)
        decoded = time.perf_counter()
        prepared = Prepared(examined.pixels, examined.input, None)
        decision = service.kinds.decide_post(Seen(prepared, examined.text or ""))
        if decision.flagged:
            service.keep(content, examined)
        return _known(examined, decision, began, decoded)
    service.batcher.announce(1)
    try:
        began = time.perf_counter()
        examined = _examined(service, content, item)
        decoded = time.perf_counter()
        prepared = Prepared(examined.pixels, examined.input, None)
        decision = service.batcher.submit(prepared)
    finally:
        service.batcher.announce(-1)
    if decision.flagged:
        service.keep(content, examined)
    return _known(examined, decision, began, decoded)


def _known(
    examined: Examined, decision: Decision | None, began: float, decoded: float | None = None
) -> Known:
    ended = time.perf_counter()
    timings = {"decode": (decoded or ended) - began}
    if decoded is not None:
        timings["decide"] = ended - decoded
    size = examined.input.width, examined.input.height
    look = None if decision is None else look_of(examined, decision.score)
    return Known(examined.pixel_sha256, *size, decision, timings, look)


def _examined(service: Service, content: str, item: Item) -> Examined:
    found = service.examine(content, item.data, kind=item.kind)
    if isinstance(found, Failure):
        raise ImageError(found.reason)
    return found


def _insert_item(
    service: Service,
    connection: Connection,
    now: float,
    who: Principal,
    item: Item,
    content: str,
    known: Known,
    blob: str | None,
) -> str:
    id = uuid.uuid4().hex
    row = {
        "id": id,
        "tenant": who.tenant,
        "created": now,
        "kind": item.kind,
        "name": item.name.replace("\0", "\ufffd")[:500] if blob else None,
        "content_sha256": content,
        "pixel_sha256": known.pixel_sha256,
        "width": known.width,
        "height": known.height,
        "model_key": service.kinds.key_of(item.kind),
        "metadata": json.dumps(dict(item.metadata)) if item.metadata else None,
        "blob": blob,
    }
    connection.execute(_TAKEN, row)
    return id


def job_of(service: Service, connection: Connection, id: str, tenant: str) -> Job:
    """Read a tenant's job.

    Raises:
        Missing: It has none with this id.
    """
    from visxai.serve.errors import Missing

    try:
        return service.queue.get(connection, id, tenant)
    except KeyError:
        raise Missing("an explanation") from None
