"""The ledger: explanations on record in a database, and an audit chain over their lives."""

from __future__ import annotations

from typing import TYPE_CHECKING

from visxai._lazy import hand_on

if TYPE_CHECKING:
    from visxai.ledger.audit import Entry
    from visxai.ledger.database import Database
    from visxai.ledger.envelope import Envelope
    from visxai.ledger.ledger import Ledger
    from visxai.ledger.signing import Checkpoint, Signer
    from visxai.ledger.stored import Stored
    from visxai.ledger.verification import Flaw, Verdict

__all__ = [
    "Checkpoint",
    "Database",
    "Entry",
    "Envelope",
    "Flaw",
    "Ledger",
    "Signer",
    "Stored",
    "Verdict",
]

__getattr__, __dir__ = hand_on(
    __name__,
    {
        "Checkpoint": "signing",
        "Database": "database",
        "Entry": "audit",
        "Envelope": "envelope",
        "Flaw": "verification",
        "Ledger": "ledger",
        "Signer": "signing",
        "Stored": "stored",
        "Verdict": "verification",
    },
)
