"""The ledger: records put down and erased, and a chain that names whatever was tampered with."""

from __future__ import annotations

import io
import json
import sqlite3
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import databases
import numpy as np
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, insert, select, text, update
from stores import explanation, photograph

from visxai import cli
from visxai.errors import ArgumentError, StoreError
from visxai.ledger import Checkpoint, Envelope, Ledger, Signer, explanations, tables
from visxai.ledger.audit import GENESIS, Entry
from visxai.ledger.canonical import canonical, parse_time, sha256
from visxai.ledger.database import Database, full_url
from visxai.ledger.exported import verify_export
from visxai.ledger.verification import verify_entries
from visxai.record.image import ImageExplanation

HOSTILE = "<script>\0\u202e'; DROP TABLE audit;--"


@pytest.fixture(params=databases.KINDS)
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    made = Database(databases.address(request.param, tmp_path))
    yield made
    made.close()


@pytest.fixture
def ledger(database: Database, tmp_path: Path) -> Ledger:
    return Ledger(database, signer=Signer.open(tmp_path / "key"), every=10**6)


@pytest.fixture(scope="module")
def explained(tmp_path_factory: pytest.TempPathFactory) -> ImageExplanation:
    return explanation(photograph(tmp_path_factory.mktemp("photo") / "a.png", 1))


def chain(length: int) -> list[Entry]:
    """A chain without a database."""
    made: list[Entry] = []
    for number in range(1, length + 1):
        previous = made[-1].hash if made else GENESIS
        body = canonical({"n": number})
        open_ = Entry(number, "t", "e", "a", "", f"s{number}", body, None, previous, "")
        made.append(replace(open_, hash=open_.digest()))
    return made


def kinds(entries: list[Entry], **more: object) -> list[tuple[str, int, int]]:
    verdict = verify_entries(entries, **more)  # type: ignore[arg-type]
    return [(flaw.kind, flaw.first, flaw.last) for flaw in verdict.flaws]


# ---- the chain by itself ---------------------------------------------------------------------


def test_a_hash_is_the_one_computed_by_hand() -> None:
    (only,) = chain(1)
    by_hand = (
        '{"actor":"a","at":"t","body":"{\\"n\\":1}","event":"e","payload_sha256":null,'
        f'"previous":"{"0" * 64}","sequence":1,"subject":"s1","tenant":""}}'
    )
    assert only.hash == sha256(by_hand)


def test_an_intact_chain_has_no_flaw() -> None:
    assert kinds([]) == []
    assert kinds(chain(5), head=(5, chain(5)[-1].hash)) == []


def test_an_edited_entry_is_named() -> None:
    entries = chain(6)
    entries[2] = replace(entries[2], body='{"n":99}')
    assert kinds(entries) == [("edited", 3, 3)]


def test_an_entry_edited_together_with_its_hash_is_named() -> None:
    entries = chain(6)
    edited = replace(entries[2], body='{"n":99}')
    entries[2] = replace(edited, hash=edited.digest())
    assert kinds(entries) == [("edited", 3, 3)]
    last = replace(entries[-1], actor="b")
    entries = [*chain(6)[:-1], replace(last, hash=last.digest())]
    assert kinds(entries) == []  # nothing speaks of the last entry but the head
    assert kinds(entries, head=(6, chain(6)[-1].hash)) == [("edited", 6, 6)]


def test_deleted_entries_are_named() -> None:
    entries = chain(8)
    assert kinds(entries[:2] + entries[4:]) == [("deleted", 3, 4)]
    assert kinds(entries[2:]) == [("deleted", 1, 2)]
    assert kinds(entries[:6], head=(8, entries[-1].hash)) == [("deleted", 7, 8)]


def test_a_deleted_entry_is_named_though_the_others_were_renumbered() -> None:
    entries = chain(6)
    moved = [replace(one, sequence=one.sequence - 1) for one in entries[3:]]
    assert kinds(entries[:2] + moved) == [("deleted", 3, 3), ("reordered", 3, 5)]


def test_an_inserted_entry_is_named() -> None:
    entries = chain(6)
    forged = replace(entries[2], subject="forged")
    forged = replace(forged, hash=forged.digest())
    moved = [replace(one, sequence=one.sequence + 1) for one in entries[2:]]
    assert kinds([*entries[:2], forged, *moved]) == [("inserted", 3, 3), ("reordered", 4, 7)]


def test_an_entry_after_the_end_is_named() -> None:
    entries = chain(4)
    assert kinds(entries, head=(3, entries[2].hash)) == [("inserted", 4, 4)]


def test_reordered_entries_are_named() -> None:
    entries = chain(8)
    entries[2], entries[5] = (
        replace(entries[5], sequence=3),
        replace(entries[2], sequence=6),
    )
    assert kinds(entries) == [("reordered", 3, 3), ("reordered", 6, 6)]


@settings(max_examples=150, deadline=None)
@given(st.integers(3, 12), st.data())
def test_no_change_goes_unseen(length: int, data: st.DataObject) -> None:
    entries = chain(length)
    head = (length, entries[-1].hash)
    at = data.draw(st.integers(0, length - 1))
    change = data.draw(st.sampled_from(["edit", "rehash", "delete", "swap", "copy"]))
    if change in ("edit", "rehash"):
        name = data.draw(st.sampled_from(["at", "event", "actor", "tenant", "subject", "body"]))
        entries[at] = replace(entries[at], **{name: "other"})
        if change == "rehash":
            entries[at] = replace(entries[at], hash=entries[at].digest())
        expected = "edited"
    elif change == "delete":
        del entries[at]
        expected = "deleted"
    elif change == "swap":
        other = data.draw(st.integers(0, length - 1).filter(lambda one: one != at))
        entries[at], entries[other] = (
            replace(entries[other], sequence=at + 1),
            replace(entries[at], sequence=other + 1),
        )
        expected = "reordered"
    else:
        entries.append(replace(entries[at], sequence=length + 1))
        expected = "inserted"
    assert expected in {kind for kind, _, _ in kinds(entries, head=head)}


# ---- checkpoints -------------------------------------------------------------------------------


def test_a_chain_computed_anew_contradicts_its_checkpoint(tmp_path: Path) -> None:
    signer = Signer.open(tmp_path / "key")
    entries = chain(9)
    signed = [signer.sign(n, entries[n - 1].hash, "t") for n in (3, 9)]
    anew: list[Entry] = entries[:4]
    for number in range(5, 10):
        one = replace(entries[number - 1], actor="forged", previous=anew[-1].hash)
        anew.append(replace(one, hash=one.digest()))
    head = (9, anew[-1].hash)
    verdict = verify_entries(anew, head=head, checkpoints=signed, keys=[signer.public])
    assert [(f.kind, f.first, f.last) for f in verdict.flaws] == [("rewritten", 4, 9)]
    assert verdict.covered == 3
    whole = verify_entries(entries, checkpoints=signed, keys=[signer.public])
    assert whole
    assert whole.covered == 9
    cut = verify_entries(entries[:5], checkpoints=signed, keys=[signer.public])
    assert [(f.kind, f.first, f.last) for f in cut.flaws] == [("deleted", 4, 9)]


def test_a_forged_checkpoint_and_an_unknown_key_are_named(tmp_path: Path) -> None:
    signer, other = Signer.open(tmp_path / "key"), Signer.open(tmp_path / "other")
    entries = chain(3)
    good = signer.sign(3, entries[2].hash, "t")
    forged = replace(good, at="later")
    for one, keys in ((forged, [signer.public]), (good, [other.public])):
        assert kinds(entries, checkpoints=[one], keys=keys) == [("checkpoint", 3, 3)]
    assert Checkpoint.from_dict(json.loads(json.dumps(good.to_dict()))) == good
    with pytest.raises(ArgumentError, match="expected a checkpoint"):
        Checkpoint.from_dict({"sequence": "3"})


def test_a_key_stays_the_same_and_is_its_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "key"
    first = Signer.open(path)
    assert Signer.open(path).key_id == first.key_id
    assert path.stat().st_mode & 0o077 == 0
    path.write_text("nonsense")
    with pytest.raises(StoreError, match="64 hexadecimal digits"):
        Signer.open(path)


# ---- records in a database ---------------------------------------------------------------------


def test_the_migrations_make_the_tables_of_the_code(ledger: Ledger) -> None:
    with ledger.database.reading() as connection:
        context = MigrationContext.configure(
            connection, opts={"version_table": "ledger_version", "compare_type": True}
        )
        assert compare_metadata(context, tables.metadata) == []


def test_an_explanation_comes_back_with_its_envelope(
    ledger: Ledger, explained: ImageExplanation
) -> None:
    envelope = Envelope(
        tenant="acme",
        tier="precise",
        item_id="item-1",
        decision="flag",
        threshold=0.5,
        metadata={"group": "a", "name": HOSTILE},
        confidence={"faithful": True},
    )
    made = replace(explained, label=HOSTILE)
    id = ledger.add(made, envelope, actor="key-1")
    found = ledger.get(id)
    assert found.envelope == envelope
    assert isinstance(found.explanation, ImageExplanation)
    assert found.explanation.label == HOSTILE
    np.testing.assert_allclose(found.explanation.values, explained.values, atol=1e-3)
    assert [(one.event, one.actor) for one in ledger.history(id)] == [
        ("explanation.added", "key-1")
    ]
    assert ledger.verify()
    with pytest.raises(ArgumentError, match="an explanation on record"):
        ledger.get(id, tenant="another")
    with pytest.raises(ArgumentError, match="isn't taken"):
        ledger.add(made, envelope, id=id)
    assert ledger.verify().entries == 1


def test_many_at_once_are_as_each_by_itself(ledger: Ledger, explained: ImageExplanation) -> None:
    other = replace(explained, label=HOSTILE, model=replace(explained.model, name="n"))
    items = [(one.to_dict(), Envelope(tenant="t")) for one in (explained, other, explained)]
    with ledger.writing() as (connection, at):
        made = explanations.add_all(connection, at, items, actor="k")
        assert explanations.add_all(connection, at, []) == []
    alone = ledger.add(explained, Envelope(tenant="t"), actor="k")
    assert len({id for id, _ in made}) == 3
    assert made[0][1] == made[2][1] != made[1][1]
    for id, record in zip([id for id, _ in made], items, strict=True):
        assert ledger.get(id, "t").record == record[0]
    first, last = (ledger.history(id)[0] for id in (made[0][0], alone))
    assert (first.sequence, last.sequence) == (1, 4)
    for name in ("event", "actor", "tenant", "body"):
        assert getattr(first, name) == getattr(last, name)
    assert ledger.verify()


def test_explanations_are_found_in_their_order(
    ledger: Ledger, explained: ImageExplanation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(explanations, "_PAGE", 3)
    ids = [
        ledger.add(explained, Envelope(tenant="ab"[n % 2], decision="flag" if n > 4 else None))
        for n in range(8)
    ]
    assert [one.id for one in ledger.find()] == ids
    assert [one.id for one in ledger.find(tenant="a")] == ids[::2]
    assert [one.id for one in ledger.find(decision="flag", model="m")] == ids[5:]
    assert list(ledger.find(model="other")) == []
    third = ledger.get(ids[3]).created
    assert [one.id for one in ledger.find(since=third)] == ids[3:]
    assert [one.id for one in ledger.find(until=third)] == ids[:3]
    with pytest.raises(ArgumentError, match="a column"):
        next(ledger.find(data="x"))


def test_erasure_leaves_a_tombstone_and_a_chain_that_verifies(
    ledger: Ledger, explained: ImageExplanation
) -> None:
    id = ledger.add(explained, Envelope(tenant="acme", item_id="item-1", content_sha256="c" * 64))
    assert ledger.erase(id, actor="key-2")
    assert not ledger.erase(id)
    found = ledger.get(id)
    assert found.record is None
    assert found.erased is not None
    assert found.envelope == Envelope(tenant="acme")
    with pytest.raises(ArgumentError, match="still on record"):
        _ = found.explanation
    assert list(ledger.find()) == []
    assert [one.id for one in ledger.find(erased=True)] == [id]
    assert [one.event for one in ledger.history(id)] == [
        "explanation.added",
        "explanation.erased",
    ]
    assert ledger.verify()


def test_nothing_of_an_erased_record_stays_in_the_file(
    tmp_path: Path, explained: ImageExplanation
) -> None:
    path = tmp_path / "ledger.db"
    with Ledger(path) as ledger:
        id = ledger.add(explained, Envelope(item_id="find-me-item", content_sha256="d" * 64))
        with ledger.database.reading() as connection:
            data = connection.execute(select(tables.explanations.c.data)).scalar_one()
        ledger.erase(id)
        whole = b"".join(one.read_bytes() for one in tmp_path.glob("ledger.db*"))
        assert data[20:60] not in whole
        assert b"find-me-item" not in whole
        assert b"d" * 64 not in whole


def test_a_legal_hold_beats_retention_and_requests(
    database: Database, explained: ImageExplanation
) -> None:
    ledger = Ledger(database)
    past, future = "2020-01-01T00:00:00Z", "2999-01-01T00:00:00+02:00"
    old, held, young = (
        ledger.add(explained, Envelope(retain_until=until)) for until in (past, past, future)
    )
    ledger.hold(held, "case 12")
    assert ledger.apply_retention() == 1
    assert ledger.get(old).erased is not None
    assert ledger.get(held).hold == "case 12"
    assert ledger.get(young).erased is None
    with pytest.raises(ArgumentError, match="legal hold"):
        ledger.erase(held)
    ledger.release(held)
    assert ledger.apply_retention() == 1
    assert ledger.verify()
    with pytest.raises(ArgumentError, match="on record"):
        ledger.hold("nothing", "reason")


def unguard(database: Database) -> None:
    """What somebody with all rights can do: drop the triggers."""
    with database.writing() as connection:
        if database.sqlite:
            for name in ("audit", "checkpoints"):
                connection.execute(text(f"DROP TRIGGER {name}_no_update"))
                connection.execute(text(f"DROP TRIGGER {name}_no_delete"))
        else:
            for name in ("audit", "checkpoints"):
                connection.execute(text(f"ALTER TABLE {name} DISABLE TRIGGER {name}_append_only"))


def test_the_database_itself_refuses_to_change_entries(ledger: Ledger) -> None:
    ledger.append("a", "b")
    for change in (update(tables.audit).values(actor="x"), delete(tables.audit)):
        with (
            pytest.raises(StoreError, match="append-only"),
            ledger.database.writing() as connection,
        ):
            connection.execute(change)
    assert ledger.verify()


def test_tampering_in_the_database_is_named(ledger: Ledger, explained: ImageExplanation) -> None:
    ids = [ledger.add(explained) for _ in range(4)]
    for _ in range(3):
        ledger.append("policy.changed", "p")
    ledger.checkpoint()
    unguard(ledger.database)
    audit, rows = tables.audit, tables.explanations
    with ledger.database.writing() as connection:
        connection.execute(update(audit).where(audit.c.sequence == 5).values(actor="me"))
        connection.execute(delete(audit).where(audit.c.sequence == 6))
        connection.execute(update(rows).where(rows.c.id == ids[0]).values(score=0.1))
        connection.execute(update(rows).where(rows.c.id == ids[1]).values(data=None, salt=None))
        connection.execute(delete(rows).where(rows.c.id == ids[2]))
        copy = connection.execute(select(rows).where(rows.c.id == ids[3])).one()._asdict()
        connection.execute(insert(rows).values({**copy, "id": "f" * 32}))
        connection.execute(update(rows).where(rows.c.id == ids[3]).values(data=b"nonsense"))
    verdict = ledger.verify()
    assert not verdict
    said = " / ".join(flaw.sentence for flaw in verdict.flaws)
    assert "entry 5 was edited" in said
    assert "entry 6 was deleted" in said
    assert f"{ids[0]} of entry 1 was edited: its score" in said
    assert f"{ids[1]} of entry 2 was removed, and no entry says so" in said
    assert f"{ids[2]} of entry 3 was deleted" in said
    assert f"{ids[3]} of entry 4 was edited: it isn't a record" in said
    assert f"{'f' * 32} was inserted without an entry" in said


def tampered(ledger: Ledger, how: str, tmp_path: Path) -> None:
    """Change a ledger of eight signed entries as somebody with all rights to it can."""
    audit, rows, signed = tables.audit, tables.explanations, tables.checkpoints
    with ledger.database.writing() as connection:
        if how == "edit":
            connection.execute(update(audit).where(audit.c.sequence == 4).values(actor="me"))
        elif how == "delete":
            connection.execute(delete(audit).where(audit.c.sequence == 4))
        elif how == "insert":
            later = select(audit).where(audit.c.sequence >= 4).order_by(audit.c.sequence.desc())
            for row in connection.execute(later).all():
                number = audit.c.sequence == row.sequence
                connection.execute(update(audit).where(number).values(sequence=row.sequence + 1))
            made = row._asdict() | {"sequence": 4, "event": "mine", "hash": "f" * 64}
            connection.execute(insert(audit).values(made))
        elif how == "reorder":
            for before, after in ((4, 99), (5, 4), (99, 5)):
                number = audit.c.sequence == before
                connection.execute(update(audit).where(number).values(sequence=after))
        elif how == "truncate":
            connection.execute(delete(audit).where(audit.c.sequence > 6))
            last = connection.execute(select(audit).where(audit.c.sequence == 6)).one()
            connection.execute(update(tables.audit_head).values(sequence=6, hash=last.hash))
        elif how == "replace a payload":
            one, other = connection.execute(select(rows).order_by(rows.c.created, rows.c.id)).all()
            told = {name: getattr(other, name) for name in ("salt", "data", "digest", "score")}
            connection.execute(update(rows).where(rows.c.id == one.id).values(told))
        else:
            # The chain is computed anew from the fourth entry on, and signed with their own key.
            previous = None
            for row in connection.execute(select(audit).order_by(audit.c.sequence)).all():
                actor = "me" if row.sequence == 4 else row.actor
                entry = Entry(
                    **row._asdict() | {"previous": previous or row.previous, "actor": actor}
                )
                previous = entry.digest()
                values = {"actor": actor, "previous": entry.previous, "hash": previous}
                number = audit.c.sequence == row.sequence
                connection.execute(update(audit).where(number).values(values))
            connection.execute(update(tables.audit_head).values(hash=previous))
            forged = Signer.open(tmp_path / "theirs").sign(8, str(previous), "2026-01-01T00:00:00Z")
            connection.execute(delete(signed))
            connection.execute(insert(signed).values(forged.to_dict()))


@pytest.mark.parametrize(
    ("how", "kind", "first", "said"),
    [
        ("edit", "edited", 4, "entry 4 was edited"),
        ("delete", "deleted", 4, "entry 4 was deleted"),
        ("insert", "inserted", 4, "entry 4 was inserted"),
        ("reorder", "reordered", 5, "entry 5 stands in another entry's place"),
        ("truncate", "deleted", 7, "some entries from 7 to 8 were deleted after the checkpoint"),
        ("replace a payload", "payload", 1, "of entry 1 was edited"),
        ("re-sign", "checkpoint", 8, "isn't among those given"),
        ("re-sign", "rewritten", 4, "some entries from 4 to 8 were rewritten after the checkpoint"),
    ],
)
def test_each_way_of_tampering_is_found_and_located(
    ledger: Ledger,
    explained: ImageExplanation,
    tmp_path: Path,
    how: str,
    kind: str,
    first: int,
    said: str,
) -> None:
    ledger.add(explained)
    ledger.add(replace(explained, score=0.25))
    ledger.append("policy.changed", "p")
    kept = [ledger.checkpoint()]  # of entry 3, kept elsewhere as well as that of entry 8
    for _ in range(3):
        ledger.append("policy.changed", "p")
    if how == "truncate":
        kept.append(ledger.checkpoint())  # of entry 6
    for _ in range(2):
        ledger.append("policy.changed", "p")
    kept.append(ledger.checkpoint())
    assert ledger.verify(checkpoints=[one for one in kept if one]).covered == 8
    unguard(ledger.database)
    tampered(ledger, how, tmp_path)
    found = ledger.verify(checkpoints=[one for one in kept if one])
    assert not found
    named = [flaw for flaw in found.flaws if flaw.kind == kind]
    assert named, found.flaws
    assert named[0].first == first
    assert said in named[0].sentence


def test_threads_append_one_after_the_other(database: Database) -> None:
    ledger = Ledger(database)

    def work(who: int) -> None:
        for number in range(10):
            ledger.append("e", f"s{number}", actor=f"thread-{who}")

    threads = [threading.Thread(target=work, args=(who,)) for who in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    verdict = ledger.verify()
    assert verdict
    assert verdict.entries == 40


def test_checkpoints_are_signed_every_so_many_entries(database: Database, tmp_path: Path) -> None:
    ledger = Ledger(database, signer=Signer.open(tmp_path / "key"), every=3)
    for _ in range(7):
        ledger.append("e", "s")
    assert ledger.verify().covered == 6
    kept = ledger.checkpoint()
    assert kept is not None
    assert kept.sequence == 7
    assert ledger.verify(checkpoints=[kept]).covered == 7


def test_an_export_verifies_without_the_database(ledger: Ledger) -> None:
    assert ledger.signer is not None
    for number in range(4):
        ledger.append("e", f"s{number}", body={"text": HOSTILE})
    ledger.checkpoint()
    file = io.StringIO()
    assert ledger.export(file) == 4
    lines = file.getvalue().splitlines()
    verdict = verify_export(iter(lines), keys=[ledger.signer.public])
    assert verdict
    assert verdict.covered == 4
    cut = verify_export(iter(lines[:1] + lines[2:]), keys=[ledger.signer.public])
    assert [flaw.kind for flaw in cut.flaws] == ["deleted"]
    with pytest.raises(StoreError, match="line 1"):
        verify_export(iter(["[]"]))


def test_a_failed_transaction_leaves_nothing(ledger: Ledger, explained: ImageExplanation) -> None:
    def fail() -> None:
        with ledger.writing() as (connection, at):
            explanations.add(connection, at, explained, Envelope())
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert list(ledger.find()) == []
    assert ledger.verify().entries == 0


def test_a_database_of_a_later_version_is_refused(database: Database) -> None:
    Ledger(database)
    with database.writing() as connection:
        connection.execute(text("UPDATE ledger_version SET version_num = 'ledger_9999'"))
    with pytest.raises(StoreError, match="a later version"):
        Ledger(database)


# ---- small parts ---------------------------------------------------------------------------------


def test_addresses() -> None:
    assert full_url("a.db") == "sqlite:///a.db"
    assert full_url("postgresql://u@h/n") == "postgresql+psycopg://u@h/n"
    with pytest.raises(ArgumentError, match="sqlite:///FILE"):
        full_url("mysql://h/n")


def test_an_unreachable_database_is_one_sentence_without_secrets(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="expected a database that answers") as told:
        Ledger(f"sqlite:///{tmp_path / 'missing' / 'a.db'}")
    assert "SELECT" not in str(told.value)
    with pytest.raises(StoreError) as told:
        Ledger("postgresql://u:secret@127.0.0.1:1/n")
    assert "secret" not in str(told.value)


@pytest.mark.parametrize(
    ("field", "value"),
    [("tenant", "a b"), ("item_id", ""), ("content_sha256", "x"), ("tier", "slow")],
)
def test_an_envelope_checks_its_names(field: str, value: str) -> None:
    with pytest.raises(ArgumentError) as told:
        Envelope(**{field: value})
    assert told.value.field == field


@settings(max_examples=100, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_canonical_json_is_read_back_to_the_same_text(value: object) -> None:
    try:
        written = canonical(value)
    except ArgumentError:  # infinite numbers, lone surrogates
        return
    assert canonical(json.loads(written)) == written


def test_times_are_written_in_one_form() -> None:
    assert parse_time("2026-01-02") == "2026-01-02T00:00:00.000000Z"
    with pytest.raises(ArgumentError, match="a time by ISO 8601"):
        parse_time("yesterday")


def test_sqlite_is_in_wal_mode(tmp_path: Path) -> None:
    with Ledger(tmp_path / "a.db"):
        plain = sqlite3.connect(tmp_path / "a.db")
        assert plain.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        plain.close()


# ---- the command line ------------------------------------------------------------------------


def run(*words: str) -> int:
    with pytest.raises(SystemExit) as left:
        cli.main(["audit", *words])
    return int(left.value.code or 0)


def test_the_command_line_signs_exports_and_verifies(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.db"
    url, key = f"sqlite:///{path}", str(tmp_path / "key")
    with Ledger(path) as ledger:
        for number in range(3):
            ledger.append("e", f"s{number}")
    kept, exported = str(tmp_path / "kept.json"), str(tmp_path / "audit.jsonl")
    assert run("checkpoint", "--database", url, "--key", key, "--out", kept) == 0
    public = capsys.readouterr().err.split()[-1]
    assert run("export", "--database", url, "--out", exported) == 0
    assert run("verify", "--database", url, "--key", key) == 0
    assert "3 entries, signed up to entry 3: intact" in capsys.readouterr().out
    assert run("verify", "--export", exported, "--public-key", public) == 0
    plain = sqlite3.connect(path)
    plain.execute("DROP TRIGGER audit_no_delete")
    plain.execute("DELETE FROM audit WHERE sequence = 3")
    plain.execute(
        "UPDATE audit_head SET sequence = 2, hash = (SELECT hash FROM audit WHERE sequence = 2)"
    )
    plain.execute("DROP TRIGGER checkpoints_no_delete")
    plain.execute("DELETE FROM checkpoints")
    plain.commit()
    plain.close()
    assert run("verify", "--database", url) == 0  # nothing in the database speaks of the end
    capsys.readouterr()
    assert run("verify", "--database", url, "--public-key", public, "--checkpoint", kept) == 1
    assert "entries from 1 to 3 were deleted" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("verify", "--database", "missing.db"), "expected a database that is there"),
        (("verify", "--database", "mysql://h/n"), "sqlite:///FILE or postgresql"),
        (("verify", "--export", "missing.jsonl"), "expected to read missing.jsonl"),
        (("verify", "--public-key", "xyz"), "64 hexadecimal digits"),
        (("verify", "--checkpoint", "missing.json"), "expected to read missing.json"),
    ],
)
def test_mistakes_are_one_sentence(
    words: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*words) == 2
    assert said in capsys.readouterr().err
