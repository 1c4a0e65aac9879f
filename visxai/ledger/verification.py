"""Verification of the audit chain: which entry was edited, deleted, inserted or reordered.

The hash of an entry covers its number, so an entry that was given another number still tells its
true one: the number for which its content has the stored hash. Numbers that are missing among the
true ones are deleted entries, those that come twice are inserted ones, and an entry that tells no
number was edited.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sqlalchemy import exists, select

from visxai.errors import StoreError
from visxai.ledger.audit import GENESIS, Entry
from visxai.ledger.canonical import sha256
from visxai.ledger.signing import Checkpoint, is_signed, key_id
from visxai.ledger.stored import misfit, payload
from visxai.ledger.tables import audit, explanations

if TYPE_CHECKING:
    from sqlalchemy import Connection, Row

_NEAR = 2000  # how far from its place an entry's true number is looked for
_PAGE = 200


@dataclass(frozen=True)
class Flaw:
    """Something that isn't as it was recorded.

    Attributes:
        kind: "edited", "deleted", "inserted", "reordered", "rewritten", "payload" or "checkpoint".
        first: The number of the first entry concerned.
        last: The number of the last one.
        sentence: What is wrong, in words.
    """

    kind: str
    first: int
    last: int
    sentence: str


@dataclass(frozen=True)
class Verdict:
    """The result of a verification.

    Attributes:
        entries: How many entries were read.
        covered: The number up to which a checkpoint with a known key covers the chain.
        flaws: What is wrong, in the order of the entries; none for an intact chain.
    """

    entries: int
    covered: int
    flaws: tuple[Flaw, ...]

    def __bool__(self) -> bool:
        return not self.flaws


@dataclass
class _Walk:
    """The state of a walk along the chain.

    Attributes:
        expected: The true number that comes next.
        last: The last entry in its true place, None after a gap or an edited one.
        holes: True numbers that were passed over.
        shift: Place minus true number of the entries just read.
    """

    expected: int = 1
    last: Entry | None = None
    holes: set[int] = field(default_factory=set)
    shift: int = 0
    numbers: list[int | None] = field(default_factory=list)  # the following entry's, once found
    flaws: list[Flaw] = field(default_factory=list)

    def flag(self, kind: str, sequence: int, sentence: str) -> None:
        """Note a flaw; join it with the one before if that is the same in the entry before."""
        before = self.flaws[-1] if self.flaws else None
        if before and before.kind == kind and before.last == sequence - 1:
            first = before.first
            plural = sentence.replace("was ", "were ").replace("stands", "stand")
            said = f"entries {first} to {sequence} {plural}"
            self.flaws[-1] = Flaw(kind, first, sequence, said)
        else:
            self.flaws.append(Flaw(kind, sequence, sequence, f"entry {sequence} {sentence}"))

    def take(self, entry: Entry, following: Entry | None) -> None:
        """Judge an entry, with the one that follows at hand."""
        true = self.numbers.pop() if self.numbers else self.true_number(entry)
        next_true = None if following is None else self.true_number(following)
        self.numbers.append(next_true)
        before = GENESIS if self.expected == 1 else self.last.hash if self.last else None
        if (
            following is not None
            and next_true == self.expected
            and true not in self.holes
            and before in (None, following.previous)
        ):
            self.flag("inserted", entry.sequence, "was inserted")
            return
        if true is None:
            self.flag("edited", entry.sequence, "was edited")
            self.expected, self.last = max(self.expected, entry.sequence + 1), None
            return
        if true < self.expected:
            if true not in self.holes:
                self.flag("inserted", entry.sequence, "was inserted: it is a copy of another one")
                return
            self.holes.discard(true)
        else:
            self.holes.update(range(self.expected, true))
            if true > self.expected:
                self.last = None
            elif before is not None and entry.previous != before:
                # The entry before was computed anew with its hash; the first has none before it.
                self.flag("edited", max(1, true - 1), "was edited, and its hash with it")
            self.expected, self.last = true + 1, entry
        if true != entry.sequence:
            self.flag("reordered", entry.sequence, "stands in another entry's place")

    def true_number(self, entry: Entry) -> int | None:
        """Find the number for which an entry has its hash; None for an edited one."""
        nearby = (entry.sequence, entry.sequence - self.shift)
        others = (entry.sequence + sign * step for step in range(1, _NEAR + 1) for sign in (-1, 1))
        for numbers in (nearby, others):
            for number in numbers:
                if number > 0 and entry.digest(number) == entry.hash:
                    self.shift = entry.sequence - number
                    return number
        return None


def verify_entries(
    entries: Iterable[Entry],
    *,
    head: tuple[int, str] | None = None,
    checkpoints: Sequence[Checkpoint] = (),
    keys: Sequence[bytes] = (),
) -> Verdict:
    """Verify entries of a chain, from its first one on.

    Args:
        entries: The entries in the order of their places.
        head: Number and hash of the last entry as noted elsewhere.
        checkpoints: Signed statements on the chain, from the database or kept elsewhere.
        keys: The public keys whose signatures count.

    Returns:
        The verdict.
    """
    walk, count = _Walk(), 0
    at = {one.sequence: "" for one in checkpoints}
    held: Entry | None = None
    for entry in entries:
        count += 1
        if entry.sequence in at:
            at[entry.sequence] = entry.hash
        if held is not None:
            walk.take(held, entry)
        held = entry
    if held is not None:
        walk.take(held, None)
    walk.holes.update(range(walk.expected, head[0] + 1) if head else ())
    if head and head[0] + 1 < walk.expected:
        for number in range(head[0] + 1, walk.expected):
            walk.flag("inserted", number, "was inserted after the end of the chain")
    elif head and head[0] == walk.expected - 1 and walk.last and walk.last.hash != head[1]:
        assert held is not None
        walk.flag("edited", held.sequence, "was edited, and its hash with it")
    for number in sorted(walk.holes):
        walk.flag("deleted", number, "was deleted")
    flaws, covered = _check_checkpoints(checkpoints, at, keys, walk.flaws)
    flaws.sort(key=lambda flaw: (flaw.first, flaw.last))
    return Verdict(count, covered, tuple(flaws))


def _check_checkpoints(
    checkpoints: Sequence[Checkpoint],
    at: Mapping[int, str],
    keys: Sequence[bytes],
    flaws: list[Flaw],
) -> tuple[list[Flaw], int]:
    """Compare checkpoints with the hashes of their entries.

    Returns:
        All flaws, and the number up to which the chain is covered.
    """
    known = {key_id(key): key for key in keys}
    found, covered = list(flaws), 0
    for one in sorted(checkpoints, key=lambda one: one.sequence):
        where = f"the checkpoint of entry {one.sequence}"
        key = known.get(one.key_id)
        if key is None:
            if known:
                said = f"{where} is signed with the key {one.key_id}, which isn't among those given"
                found.append(Flaw("checkpoint", one.sequence, one.sequence, said))
            continue
        if not is_signed(one, key):
            said = f"{where} has a signature that isn't its key's"
            found.append(Flaw("checkpoint", one.sequence, one.sequence, said))
        elif at[one.sequence] == one.hash:
            covered = one.sequence
        elif not any(covered < flaw.last and flaw.first <= one.sequence for flaw in flaws):
            # The chain is whole in itself, and yet isn't the one that was signed.
            gone = "were deleted" if not at[one.sequence] else "were rewritten"
            kind = "deleted" if not at[one.sequence] else "rewritten"
            said = (
                f"some entries from {covered + 1} to {one.sequence} {gone} after {where} was signed"
            )
            found.append(Flaw(kind, covered + 1, one.sequence, said))
    return found, covered


def verify_payloads(connection: Connection) -> list[Flaw]:
    """Compare the explanations on record with the hashes that the chain holds of them.

    Args:
        connection: A connection.

    Returns:
        What is wrong.
    """
    flaws, last = [], ""
    query = select(explanations).order_by(explanations.c.id).limit(_PAGE)
    while rows := connection.execute(query.where(explanations.c.id > last)).all():
        last = rows[-1].id
        told = connection.execute(
            select(audit.c.subject, audit.c.event, audit.c.sequence, audit.c.payload_sha256).where(
                audit.c.subject.in_([row.id for row in rows]),
                audit.c.event.in_(("explanation.added", "explanation.erased")),
            )
        ).all()
        added = {one.subject: one for one in told if one.event == "explanation.added"}
        erased = {one.subject for one in told if one.event == "explanation.erased"}
        for row in rows:
            entry = added.get(row.id)
            if entry is None:
                said = f"the explanation {row.id} was inserted without an entry"
                flaws.append(Flaw("payload", 0, 0, said))
            elif wrong := _wrong_payload(row, entry.payload_sha256, row.id in erased):
                said = f"the explanation {row.id} of entry {entry.sequence} {wrong}"
                flaws.append(Flaw("payload", entry.sequence, entry.sequence, said))
    missing = select(audit.c.sequence, audit.c.subject).where(
        audit.c.event == "explanation.added",
        ~exists().where(explanations.c.id == audit.c.subject),
    )
    for lost in connection.execute(missing.order_by(audit.c.sequence)):
        said = f"the explanation {lost.subject} of entry {lost.sequence} was deleted"
        flaws.append(Flaw("payload", lost.sequence, lost.sequence, said))
    return flaws


def _wrong_payload(row: Row[Any], digest: str | None, erased: bool) -> str:
    """Return what is wrong with an explanation's row, "" for nothing."""
    data, salt = row.data, row.salt
    if data is None:
        return "" if erased else "was removed, and no entry says so"
    if erased:
        return "was put back after it had been erased"
    try:
        text = payload(data)
    except StoreError:
        return "was edited: it isn't a record any more"
    if sha256((salt or b"") + text) != digest:
        return "was edited"
    wrong = misfit(row, text)
    return f"was edited: its {wrong} isn't that of its record" if wrong else ""
