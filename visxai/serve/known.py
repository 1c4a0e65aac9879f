"""What is known of an item from one of the same bytes before it, so that nothing is done twice."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sqlalchemy import bindparam, select

from visxai.moderation import Decision
from visxai.serve import tables

if TYPE_CHECKING:
    from visxai.serve.service import Service

# Made once: making a statement costs as much as running it.
_I, _D = tables.items.c, tables.decisions.c
_SAME = (
    select(_I.pixel_sha256, _I.width, _I.height, _D.scores)
    .join(
        tables.decisions, (_D.item_id == _I.id) & (_D.policy == bindparam("policy")), isouter=True
    )
    .where(
        _I.tenant == bindparam("tenant"),
        _I.content_sha256 == bindparam("content"),
        _I.model_key == bindparam("model"),
    )
    .order_by(_D.created.desc().nulls_last())
    .limit(1)
)


@dataclass(frozen=True)
class Known:
    """What is known of an item's pixels, from now or from before.

    Attributes:
        pixel_sha256: SHA-256 of the pixels, or of a text's or row's bytes.
        width: The image's width, None without one.
        height: Its height.
        decision: The decision, None where none was asked for.
        timings: Seconds by stage.
        look: How the image looks, for `similar`.
    """

    pixel_sha256: str
    width: int | None
    height: int | None
    decision: Decision | None
    timings: Mapping[str, float] = field(default_factory=dict)
    look: Mapping[str, Any] | None = None


def look_up(
    service: Service, tenant: str, content: str, kind: str, lane: str, *, decided: bool = False
) -> Known | None:
    """Find the tenant's last item with the same bytes, and the same policy's decision on it.

    Args:
        service: The service.
        tenant: Whose.
        content: The SHA-256 of the bytes.
        kind: The item's kind.
        lane: Where its explanation would wait.
        decided: Whether a decision is wanted.

    Raises:
        Busy: There is none, or none with a decision where one is wanted, and the lane is full.
    """
    wanted = {
        "tenant": tenant,
        "content": content,
        "model": service.kinds.key_of(kind),
        "policy": service.moderator.policy.name,
    }
    known = None
    with service.database.reading() as connection:
        exact = service.config.cache.exact
        row = connection.execute(_SAME, wanted).one_or_none() if exact else None
        if row is not None:
            decision = _judged(service, row.scores, kind)
            known = Known(row.pixel_sha256, row.width, row.height, decision)
        if known is None or (decided and known.decision is None):
            service.queue.check_room(connection, lane)
    return known


def _judged(service: Service, told: str | None, kind: str) -> Decision | None:
    """Judge the scores of an earlier decision by the present rules, if it has them all."""
    if told is None:
        return None
    scores = json.loads(told)
    moderator = service.kinds.of(kind)
    names = [rule.category for rule in moderator.policy.rules]
    if any(name not in scores for name in names):
        return None
    return moderator.judge([scores[name] for name in names])
