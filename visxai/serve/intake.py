"""The intake: an item is examined, decided on, and put down with the job of its explanation.

Everything that is answered was committed before: an item that a caller was told of is there after
any crash, and so is its job.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sqlalchemy import insert, select

from visxai.errors import ArgumentError, Failure, ImageError
from visxai.ledger import audit
from visxai.ledger.canonical import canonical, sha256
from visxai.moderation import Decision
from visxai.serve import tables
from visxai.serve.examine import Examined
from visxai.serve.idempotency import earlier, remember
from visxai.serve.post import Seen
from visxai.serve.similar import look_of

if TYPE_CHECKING:
    from sqlalchemy import Connection, Row

    from visxai.serve.jobs import Job
    from visxai.serve.keys import Principal
    from visxai.serve.service import Service


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

    def fingerprint(self, *more: Any) -> str:
        """Return a hash that is the same for the same request."""
        return sha256(
            canonical([sha256(self.data), self.name, dict(self.metadata), self.kind, *more])
        )


@dataclass(frozen=True)
class _Known:
    """What is known of an item's pixels, from now or from before."""

    pixel_sha256: str
    width: int | None
    height: int | None
    decision: Decision | None
    timings: Mapping[str, float] = field(default_factory=dict)
    look: Mapping[str, Any] | None = None


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
    content = sha256(item.data)
    known = _look_up(service, who.tenant, content, item.kind, "fast", decided=True)
    if known is None or known.decision is None:
        known = service.once(
            f"decide {item.kind} {who.tenant} {content}", lambda: _decide(service, content, item)
        )
    decision = known.decision
    assert decision is not None
    # Only what is flagged is kept: for everything else the scores are enough.
    blob = service.blobs.put(who.tenant, item.data) if decision.flagged else None
    with service.ledger.writing() as (connection, at):
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
            job = service.enqueue(connection, wanted, now)
        told = {
            "id": decision_id,
            "policy": service.moderator.policy.name,
            "decision": decision.decision,
            "category": decision.category,
            "score": decision.score,
            "threshold": decision.threshold,
            "severity": decision.severity,
        }
        connection.execute(
            insert(tables.decisions).values(
                **told,
                tenant=who.tenant,
                item_id=item_id,
                created=now,
                scores=json.dumps(dict(decision.scores)),
                target=decision.target,
                job_id=None if job is None else job.id,
                lane="review",
                state="open" if decision.flagged else "none",
                opened=now if decision.flagged else None,
            )
        )
        if decision.flagged:
            audit.append(
                connection,
                at,
                "item.flagged",
                decision_id,
                actor=who.key_id,
                tenant=who.tenant,
                body={"item": item_id, "policy": told["policy"], "category": told["category"]},
            )
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
    content = sha256(item.data)
    known = _look_up(service, who.tenant, content, item.kind, tier)
    if known is None and item.kind == "text":
        known = _Known(content, None, None, None)
    if known is None:
        began = time.perf_counter()
        examined = service.once(
            f"examine {who.tenant} {content}", lambda: _examined(service, content, item)
        )
        service.keep(content, examined)
        known = _known(examined, None, began)
    blob = service.blobs.put(who.tenant, item.data)
    with service.ledger.writing() as (connection, _):
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


def _decide(service: Service, content: str, item: Item) -> _Known:
    from visxai.images.prepared import Prepared

    if item.kind in ("text", "table"):
        began = time.perf_counter()
        decision = service.kinds.decide(item.kind, item.data)
        timings = {"decide": time.perf_counter() - began}
        return _Known(content, None, None, decision, timings)
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
) -> _Known:
    ended = time.perf_counter()
    timings = {"decode": (decoded or ended) - began}
    if decoded is not None:
        timings["decide"] = ended - decoded
    size = examined.input.width, examined.input.height
    look = None if decision is None else look_of(examined, decision.score)
    return _Known(examined.pixel_sha256, *size, decision, timings, look)


def _examined(service: Service, content: str, item: Item) -> Examined:
    found = service.examine(content, item.data, kind=item.kind)
    if isinstance(found, Failure):
        raise ImageError(found.reason)
    return found


def _look_up(
    service: Service, tenant: str, content: str, kind: str, lane: str, *, decided: bool = False
) -> _Known | None:
    """Find the tenant's last item with the same bytes, and the same policy's decision on it.

    Raises:
        Busy: There is none, or none with a decision where one is wanted, and the lane is full.
    """
    items, decisions = tables.items, tables.decisions
    policy = service.moderator.policy.name
    query = (
        select(items, decisions)
        .join(
            decisions,
            (decisions.c.item_id == items.c.id) & (decisions.c.policy == policy),
            isouter=True,
        )
        .where(
            items.c.tenant == tenant,
            items.c.content_sha256 == content,
            items.c.model_key == service.kinds.key_of(kind),
        )
        .order_by(decisions.c.created.desc().nulls_last())
        .limit(1)
    )
    known = None
    with service.database.reading() as connection:
        row = connection.execute(query).one_or_none() if service.config.cache.exact else None
        if row is not None:
            decision = _judged(service, row, kind)
            known = _Known(row.pixel_sha256, row.width, row.height, decision)
        if known is None or (decided and known.decision is None):
            service.queue.check_room(connection, lane)
    return known


def _judged(service: Service, row: Row[Any], kind: str) -> Decision | None:
    """Judge the scores of an earlier decision by the present rules, if it has them all."""
    if row.scores is None:
        return None
    scores = json.loads(row.scores)
    moderator = service.kinds.of(kind)
    names = [rule.category for rule in moderator.policy.rules]
    if any(name not in scores for name in names):
        return None
    return moderator.judge([scores[name] for name in names])


def _insert_item(
    service: Service,
    connection: Connection,
    now: float,
    who: Principal,
    item: Item,
    content: str,
    known: _Known,
    blob: str | None,
) -> str:
    id = uuid.uuid4().hex
    connection.execute(
        insert(tables.items).values(
            id=id,
            tenant=who.tenant,
            created=now,
            kind=item.kind,
            name=item.name.replace("\0", "\ufffd")[:500] if blob else None,
            content_sha256=content,
            pixel_sha256=known.pixel_sha256,
            width=known.width,
            height=known.height,
            model_key=service.kinds.key_of(item.kind),
            metadata=json.dumps(dict(item.metadata)) if item.metadata else None,
            blob=blob,
        )
    )
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
