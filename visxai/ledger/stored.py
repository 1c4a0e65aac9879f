"""How an explanation lies in the database: its payload, and the columns that repeat parts of it.

The whole record and its envelope are one canonical JSON text, compressed with zstd. The audit chain
holds the SHA-256 of a random salt and that text.
"""

from __future__ import annotations

import itertools
import json
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from visxai.errors import ArgumentError, StoreError, require
from visxai.ledger.canonical import canonical, sha256
from visxai.ledger.envelope import Envelope
from visxai.record.base import Explanation

if TYPE_CHECKING:
    from sqlalchemy import Row

MAX_PAYLOAD = 256 * 2**20  # bytes of a record's JSON, as a database may be a stranger's
_LEVEL = 3  # of zstd
_MADE = itertools.count()  # ids of this process

# The columns that say the same as the payload, and where it says it.
OF_ENVELOPE = (
    "tenant",
    "tier",
    "item_id",
    "decision_id",
    "supersedes",
    "decision",
    "content_sha256",
    "pixel_sha256",
    "retain_until",
)
_OF_RECORD = ("kind", "method", "label", "score")


@dataclass(frozen=True)
class Stored:
    """An explanation on record.

    Attributes:
        id: Its id.
        created: When it was put on record, ISO 8601 in UTC.
        envelope: What is recorded around it; of an erased one only tenant and tier.
        record: The explanation's fields, as `Explanation.to_dict` gives them; None once erased.
        hold: The reason of a legal hold, None without one.
        erased: When it was erased, None while it is there.
    """

    id: str
    created: str
    envelope: Envelope
    record: dict[str, Any] | None
    hold: str | None = None
    erased: str | None = None

    @property
    def explanation(self) -> Explanation:
        """The explanation itself, with its map.

        Raises:
            ArgumentError: It was erased, or the record is damaged.
        """
        if self.record is None:
            raise ArgumentError(
                expected="an explanation that is still on record",
                got=f"{self.id}, erased at {self.erased}",
                remedy="explain the item again",
            )
        return Explanation.from_dict(self.record)


def new_id() -> str:
    """Make an id; ids sort in the order in which a process made them.

    It is 48 bits of milliseconds, 16 of a counter and 64 random ones, in hexadecimal. Explanations
    of one second keep their order that way.
    """
    return f"{time.time_ns() // 10**6:012x}{next(_MADE) & 0xFFFF:04x}{secrets.token_hex(8)}"


def row_of(record: Mapping[str, Any], envelope: Envelope) -> dict[str, Any]:
    """Make the columns of an explanation that follow from what is recorded, with its payload.

    Args:
        record: The record, as `Explanation.to_dict` gives it.
        envelope: What is recorded around it.

    Returns:
        All columns but the id, the model's id and the time.

    Raises:
        ArgumentError: A value isn't one of JSON.
    """
    told = envelope.to_dict()
    text = canonical({"envelope": told, "record": record}).encode("utf-8")
    salt = secrets.token_bytes(16)
    return {
        **_columns(told, record),
        "digest": sha256(salt + text),
        "salt": salt,
        "data": _zstd().ZstdCompressor(level=_LEVEL).compress(text),
    }


def of_row(row: Row[Any]) -> Stored:
    """Read an explanation from its row; raise StoreError where its payload is damaged."""
    if row.data is None:
        envelope = Envelope(tenant=row.tenant, tier=row.tier)
        return Stored(row.id, row.created, envelope, None, row.hold, row.erased)
    whole = json.loads(payload(row.data))
    envelope = Envelope.from_dict(whole["envelope"])
    return Stored(row.id, row.created, envelope, whole["record"], row.hold, row.erased)


def payload(data: bytes) -> bytes:
    """Decompress a payload; raise StoreError where it is damaged or larger than 256 MiB."""
    zstd = _zstd()
    try:
        size = zstd.frame_content_size(data)
        if 0 <= size <= MAX_PAYLOAD:
            return bytes(zstd.ZstdDecompressor().decompress(data))
    except zstd.ZstdError:
        pass
    raise StoreError(
        expected=f"a compressed record of at most {MAX_PAYLOAD} bytes",
        got=f"{len(data)} other bytes",
        remedy="run `visxai audit verify` and restore the database from a backup",
    )


def misfit(row: Row[Any], text: bytes) -> str | None:
    """Return the first column of a row that doesn't say what its payload says, None if all do."""
    whole = json.loads(text)
    told = _columns(whole["envelope"], whole["record"])
    return next((name for name, value in told.items() if getattr(row, name) != value), None)


def _columns(envelope: Mapping[str, Any], record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the columns that repeat parts of the payload."""
    found = {name: envelope[name] for name in OF_ENVELOPE}
    # Postgres has no text with NUL, which labels of strangers may hold.
    found.update({name: record.get(name) for name in _OF_RECORD})
    for name in ("method", "label"):
        found[name] = None if found[name] is None else str(found[name]).replace("\0", "\ufffd")
    return found


def _zstd() -> Any:
    return require("zstandard", "serve", "the ledger")
