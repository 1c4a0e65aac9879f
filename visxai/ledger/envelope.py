"""The envelope of an explanation on record: whose it is, what it led to, and how long it stays."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from visxai.errors import ArgumentError
from visxai.ledger.canonical import parse_time

TIERS = ("fast", "precise")
_NAME = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Envelope:
    """What is recorded around an explanation.

    Attributes:
        tenant: Whose item it is: 1 to 64 of letters, digits and "_.:-".
        tier: "fast" or "precise".
        item_id: The item's id with its owner, in the same characters.
        decision_id: The decision that the explanation belongs to.
        supersedes: The id of the explanation that this one takes the place of.
        content_sha256: SHA-256 of the item's bytes.
        pixel_sha256: SHA-256 of its decoded pixels, or of a text's normal form.
        policy: The name and version of the policy that decided.
        threshold: The score from which that policy flags.
        decision: What the policy decided, such as "flag" or "pass".
        cache: Where the explanation came from: {"kind": "none"}, {"kind": "exact", "source": id} or
            {"kind": "similar", "source": id, "distance": bits}.
        confidence: Figures on the explanation's quality (completeness, faithfulness, agreement,
            stability), never a probability of guilt.
        timings: Seconds by stage.
        metadata: What the caller says of the item, such as groups for fairness, by name.
        truth: The label that people know to be right, None where nobody has said so.
        retain_until: When it is erased unless it is held, ISO 8601; None keeps it.
    """

    tenant: str = "default"
    tier: str = "fast"
    item_id: str | None = None
    decision_id: str | None = None
    supersedes: str | None = None
    content_sha256: str | None = None
    pixel_sha256: str | None = None
    policy: str | None = None
    threshold: float | None = None
    decision: str | None = None
    cache: Mapping[str, Any] = field(default_factory=lambda: {"kind": "none"})
    confidence: Mapping[str, Any] = field(default_factory=dict)
    timings: Mapping[str, float] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)
    truth: str | None = None
    retain_until: str | None = None

    def __post_init__(self) -> None:
        """Check the names; raise ArgumentError for the first that is wrong."""
        for name in ("tenant", "item_id", "decision_id", "supersedes"):
            value = getattr(self, name)
            if value is not None and not _NAME.fullmatch(value):
                raise ArgumentError(
                    expected=f"1 to 64 of letters, digits and _.:- for {name}",
                    got=repr(value)[:80],
                    remedy="use an id of that form",
                    field=name,
                )
        for name in ("content_sha256", "pixel_sha256"):
            value = getattr(self, name)
            if value is not None and not _SHA256.fullmatch(value):
                raise ArgumentError(
                    expected=f"64 hexadecimal digits for {name}",
                    got=repr(value)[:80],
                    remedy="pass a SHA-256",
                    field=name,
                )
        if self.tier not in TIERS:
            raise ArgumentError(
                expected=f"a tier of {' or '.join(TIERS)}",
                got=repr(self.tier),
                remedy="use one of these",
                field="tier",
            )
        if self.retain_until is not None:
            object.__setattr__(self, "retain_until", parse_time(self.retain_until))

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain values, ready for JSON."""
        told = {one.name: getattr(self, one.name) for one in fields(self)}
        return {
            name: dict(value) if isinstance(value, Mapping) else value
            for name, value in told.items()
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Envelope:
        """Read what `to_dict` returned; unknown fields of later versions are left out.

        Raises:
            ArgumentError: A field is wrong.
        """
        known = {one.name for one in fields(cls)}
        return cls(**{name: value for name, value in data.items() if name in known})
