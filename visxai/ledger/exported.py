"""An exported audit chain, verified without the database that it came from."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from visxai.errors import StoreError
from visxai.ledger.audit import Entry
from visxai.ledger.signing import Checkpoint
from visxai.ledger.verification import Verdict, verify_entries


def verify_export(
    lines: Iterable[str], *, keys: Sequence[bytes] = (), checkpoints: Sequence[Checkpoint] = ()
) -> Verdict:
    """Verify what `Ledger.export` wrote, without the database.

    Args:
        lines: The lines of the file.
        keys: Public keys whose signatures count.
        checkpoints: Checkpoints that were kept elsewhere.

    Returns:
        The verdict.

    Raises:
        StoreError: A line isn't one of an export.
    """
    from visxai.ledger.signing import Checkpoint

    entries: list[Entry] = []
    signed = list(checkpoints)
    for number, line in enumerate(lines, 1):
        try:
            told = json.loads(line)
            kind = told.pop("type")
            if kind == "checkpoint":
                signed.append(Checkpoint.from_dict(told))
            else:
                entries.append(_entry(told))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise StoreError(
                expected="an entry or a checkpoint of an audit export",
                got=f"something else in line {number}",
                remedy="pass a file that `visxai audit export` wrote",
            ) from error
    return verify_entries(entries, checkpoints=signed, keys=keys)


def _entry(told: dict[str, Any]) -> Entry:
    texts = {name: value for name, value in told.items() if name != "sequence"}
    optional = texts.get("payload_sha256")
    if type(told["sequence"]) is not int or not all(
        type(value) is str for name, value in texts.items() if name != "payload_sha256"
    ):
        raise TypeError(told["sequence"])
    if optional is not None and type(optional) is not str:
        raise TypeError(optional)
    return Entry(**told)
