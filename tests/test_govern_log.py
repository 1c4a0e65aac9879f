"""The log on a ledger: measured once, imported, caught up, forgotten; trends by hand."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import databases
import numpy as np
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import select, text
from stores import explanation, fill, photograph

from visxai import govern
from visxai.errors import StoreError, UnknownName, VisxaiError
from visxai.govern import daily, tables
from visxai.govern.log import Item, Log
from visxai.ledger import Envelope, Ledger
from visxai.record.image import ImageExplanation
from visxai.record.table import TableExplanation
from visxai.references import ModelRef, RowRef

HOSTILE = "<img src=x onerror=1>\0\u202e'; DROP TABLE audit;--"


@pytest.fixture(params=databases.KINDS)
def log(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Log]:
    with Log(databases.address(request.param, tmp_path)) as made:
        yield made


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return photograph(tmp_path_factory.mktemp("photo") / "a.png", 1)


def dated(photo: Path, day: int, **changes: Any) -> ImageExplanation:
    return explanation(photo, created=f"2026-03-{day:02d}T10:00:00+00:00", **changes)


def test_the_migration_makes_the_tables(log: Log) -> None:
    with log.ledger.database.reading() as connection:
        context = MigrationContext.configure(connection)
        found = compare_metadata(context, tables.metadata)
    ours = [one for one in found if "govern_" in str(one)]
    assert not [one for one in ours if one[0] != "remove_table"]


def test_what_is_added_is_measured_and_on_record(log: Log, photo: Path) -> None:
    made = dated(photo, 1, label=HOSTILE, quality={"completeness": 0.25})
    told = {"sex": "f", "nested": {"a": 1}}
    item = Item(made, Envelope(metadata=told, truth="dog"), {"brightness": 0.5})
    assert log.add([item], seen=4) == 1
    (model,) = log.models()
    assert (model.name, model.n, model.first) == ("m", 1, "2026-03-01")
    seen = log.observe(model.id)
    expected = govern.measure(made)
    for name, values in seen.explanations.items():
        assert values[0] == pytest.approx(expected[name])
    assert {name for name, value in expected.items() if math.isfinite(value)} == set(
        seen.explanations
    )
    assert seen.groups == {"sex": ("f",)}
    assert seen.inputs["brightness"] == [0.5]
    assert seen.labels == (HOSTILE.replace("\0", "\ufffd"),)
    stored = log.ledger.get(seen.ids[0])
    assert stored.record is not None
    assert log.ledger.verify()
    assert log.sources(seen.ids) == {seen.ids[0]: str(photo)}
    with log.ledger.database.reading() as connection:
        (row,) = connection.execute(select(tables.coverage)).all()
        assert (row.seen, row.explained) == (4, 1)
        # The columns are there for any client of SQL.
        border = connection.execute(text("SELECT border FROM govern_measures")).scalar_one()
    assert border == pytest.approx(expected["border"])


def test_trends_by_hand(log: Log, photo: Path) -> None:
    made = [(1, 0.2, "cat"), (1, 0.6, "dog"), (2, 0.9, "cat")]
    items = [
        Item(dated(photo, day, score=score, label=label), Envelope(truth="cat"))
        for day, score, label in made
    ]
    log.add(items[:1])
    log.add(items[1:])  # the second call adds to the day's sums
    (model,) = log.models()
    with log.ledger.database.reading() as connection:
        found = daily.trend(connection, model.id, ["score", "error"])
        cats = daily.trend(connection, model.id, ["score"], "cat")["score"]
        assert daily.labels(connection, model.id) == [("cat", 2), ("dog", 1)]
    first, second = found["score"]
    assert (first.day, first.n, first.mean) == ("2026-03-01", 2, pytest.approx(0.4))
    assert first.high - first.mean == pytest.approx(1.959964 * 0.2 / np.sqrt(2))
    assert (second.n, second.low, second.high) == (1, pytest.approx(0.9), pytest.approx(0.9))
    assert [one.mean for one in found["error"]] == [0.5, 0.0]
    assert [one.mean for one in cats] == pytest.approx([0.2, 0.9])


def test_a_run_is_imported_once(log: Log, tmp_path: Path) -> None:
    paths = [photograph(tmp_path / "in" / f"{at}.png", at) for at in range(5)]
    made = [explanation(path, label=label) for path in paths for label in ("cat", "dog")]
    out = fill(tmp_path / "out", made, expected={str(path): "cat" for path in paths})
    table = tmp_path / "people.csv"
    table.write_text("path,sex\n0.png,f\n3.png,m\n", "utf-8")
    assert log.import_run(out, metadata=table) == 5  # one an item
    assert log.import_run(out) == 0
    seen = log.observe(log.model("m").id)
    assert set(seen.expected) == {"cat"}
    places = {Path(log.sources([id])[id]).name: at for at, id in enumerate(seen.ids)}
    assert [seen.groups["sex"][places[f"{at}.png"]] for at in (0, 1, 3)] == ["f", None, "m"]
    with pytest.raises(StoreError, match="visxai explain --out"):
        log.import_run(tmp_path)
    assert log.ledger.verify()


def test_catching_up_with_a_service_and_forgetting(log: Log, photo: Path) -> None:
    ids = [log.ledger.add(dated(photo, day), Envelope(metadata={"site": "a"})) for day in (1, 2, 3)]
    assert log.models() == []
    assert log.catch_up() == 3
    assert log.catch_up() == 0
    (model,) = log.models()
    assert set(log.observe(model.id).ids) == set(ids)
    assert log.ledger.erase(ids[1])
    log.catch_up()
    left = log.observe(model.id)
    assert left.ids == (ids[0], ids[2])  # in the order of time
    assert log.models()[0].n == 3  # the sums are nobody's
    newest = log.observe(model.id, limit=1, newest=True)
    assert newest.ids == (ids[2],)
    assert log.observe(model.id, after=(left.created[0], ids[0])).ids == (ids[2],)
    assert log.observe(model.id, since="2026-03-02", until="2026-03-03").ids == ()


def test_rows_of_tables(log: Log) -> None:
    row = TableExplanation(
        RowRef(("age", "job"), (30, "clerk"), 4, "credit.csv"),
        ModelRef("credit", "c" * 64, "none"),
        np.array([0.75, -0.25], np.float32),
        "tree_shap()",
        "good",
        1,
        "good",
        0.6,
        0.7,
        base_value=0.1,
        groups={"sex": "f"},
    )
    log.add([Item(row, Envelope())])
    seen = log.observe(log.model("credit").id)
    assert seen.explanations["attribution.age"] == [0.75]
    assert seen.explanations["against"] == [0.25]
    assert seen.explanations["concentration"] == pytest.approx([(1 * 0.75 - 0.25) / 2])
    assert seen.explanations["miss"] == pytest.approx([0.1], abs=1e-6)
    assert {name: values[0] for name, values in seen.inputs.items()} == {"age": 30, "job=clerk": 1}
    assert seen.groups == {"sex": ("f",)}
    direct = govern.observe([row])
    assert direct.ids == ("credit.csv, row 4",)
    assert direct.groups == {"sex": ("f",)}
    assert set(direct.inputs) == {"age", "job=clerk"}


def test_models_by_name_and_by_weights(log: Log, photo: Path) -> None:
    one = dated(photo, 1)
    log.add([Item(one, Envelope())])
    log.add([Item(replace(one, model=ModelRef("m", "b" * 64, "no resize")), Envelope())])
    assert log.model("bbbbbbbb").weights == "b" * 64
    with pytest.raises(UnknownName, match="say which"):
        log.model("m")
    with pytest.raises(UnknownName, match="unknown model"):
        log.observe("none")


def test_all_or_nothing(log: Log, photo: Path) -> None:
    good, bad = dated(photo, 1), explanation(photo, created="soon")
    with pytest.raises(VisxaiError):
        log.add([Item(good, Envelope()), Item(bad, Envelope())])
    assert log.models() == []
    assert log.ledger.verify().entries == 0


def test_a_log_of_an_open_ledger_leaves_it_open(tmp_path: Path, photo: Path) -> None:
    with Ledger(tmp_path / "l.db") as ledger:
        with Log(ledger) as log:
            log.add([Item(dated(photo, 1), Envelope(metadata={"n": 3}))])
        assert json.loads(json.dumps(ledger.verify().entries)) == 1
