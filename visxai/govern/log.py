"""The log: a ledger's explanations measured once, for trends, drift, fairness and audits.

    with govern.Log("sqlite:///visxai.db") as log:
        log.import_run("OUT", metadata="people.csv")    a folder run
        log.catch_up()                                  what a service has put on record since
        seen = log.observe(log.models()[0].id)

The explanations themselves lie in the ledger, under its audit chain; here are the numbers derived
from them. What the ledger has erased goes from here at the next `catch_up`; daily sums stay, as
nobody can be told from them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from sqlalchemy import delete, func, insert, or_, select

from visxai.errors import UnknownName, VisxaiError
from visxai.govern import tables
from visxai.govern.daily import add_sums, add_unexplained
from visxai.govern.metadata import read_metadata
from visxai.govern.observations import Observations, name_of, one_an_item, read_records
from visxai.govern.stored import key_of, of_rows, row_of
from visxai.ledger import explanations as put
from visxai.ledger.canonical import parse_time
from visxai.ledger.database import Database
from visxai.ledger.envelope import Envelope
from visxai.ledger.ledger import Ledger
from visxai.ledger.migrate import upgrade
from visxai.ledger.tables import explanations, models
from visxai.record.base import Explanation

if TYPE_CHECKING:
    from sqlalchemy import Connection

_BATCH = 500  # explanations of one transaction


@dataclass(frozen=True)
class Item:
    """An explanation and what is known around it, to be put on record.

    Attributes:
        explanation: The explanation.
        envelope: What the ledger keeps around it; its metadata are the item's groups.
        inputs: Statistics of the input by name.
        record: The explanation's fields as they were read, None to write them anew.
    """

    explanation: Explanation
    envelope: Envelope
    inputs: Mapping[str, float] | None = None
    record: Mapping[str, Any] | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Model:
    """A model of the log.

    Attributes:
        id: Its id.
        name: Its name.
        weights: The SHA-256 of its weights.
        preprocess: How its inputs are prepared, in words.
        n: How many of its explanations were measured.
        first: The time of the first, "" without any.
        last: The time of the last.
    """

    id: str
    name: str
    weights: str
    preprocess: str
    n: int
    first: str
    last: str


class Log:
    """The measured explanations of a database.

    Args:
        database: A ledger, a database, or its address: "sqlite:///FILE", "postgresql://…", a path.

    Attributes:
        ledger: The ledger with the explanations and the audit chain.

    Raises:
        ArgumentError: The address is of another kind of database.
        StoreError: The database can't be reached, or was written by a later version.
        MissingExtra: The extra `serve` isn't installed.
    """

    def __init__(self, database: Ledger | Database | str | os.PathLike[str]) -> None:
        self._owned = not isinstance(database, Ledger)
        if isinstance(database, Ledger):
            self.ledger = database
        else:
            given = database if isinstance(database, (Database, str)) else Path(database)
            self.ledger = Ledger(given)
        try:
            upgrade(self.ledger.database, Path(__file__).parent / "migrations", "govern_version")
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the database, if this log opened it."""
        if self._owned:
            self.ledger.close()

    # ---- writing ------------------------------------------------------------------------------

    def add(self, items: Sequence[Item], *, seen: int | None = None, actor: str = "govern") -> int:
        """Put explanations on record and measure them, all or none.

        Args:
            items: The explanations.
            seen: How many items the model judged meanwhile, explained or not; None is as many as
                were explained.
            actor: Who has it done, for the audit chain.

        Returns:
            The number of explanations.

        Raises:
            ArgumentError: A record or a name is wrong.
            StoreError: The database can't be written.
        """
        with self.ledger.writing() as (connection, at):
            told = [
                (
                    item.explanation.to_dict() if item.record is None else item.record,
                    item.envelope,
                )
                for item in items
            ]
            made = put.add_all(connection, at, told, actor=actor)
            rows = [
                row_of(id, model, at, item.explanation, item.envelope, item.inputs)
                for (id, model), item in zip(made, items, strict=True)
            ]
            self._keep(connection, rows, 0 if seen is None else seen - len(items))
        return len(items)

    def import_run(
        self,
        out: str | os.PathLike[str],
        *,
        metadata: str | os.PathLike[str] | None = None,
        tenant: str = "default",
    ) -> int:
        """Put the explanations of a folder run on record; what already is there isn't put again.

        Args:
            out: The folder of the run.
            metadata: A table with what is known of each item (`read_metadata`).
            tenant: Whose items they are.

        Returns:
            The number of explanations that are new.

        Raises:
            StoreError: The folder isn't a run's, or the table doesn't fit, or the database can't be
                written.
        """
        found = one_an_item(read_records(Path(out)))
        groups: dict[str, tuple[str | None, ...]] = {}
        if metadata is not None:
            listed = list(found)
            groups = read_metadata(str(metadata), [name_of(one) for one, _ in listed])
            found = iter(listed)
        count = position = 0
        while batch := list(islice(found, _BATCH)):
            known = self._known([one for one, _ in batch], tenant)
            items = []
            for explanation, (record, truth) in batch:
                told = {name: values[position] for name, values in groups.items()}
                position += 1
                if key_of(explanation) in known:
                    continue
                envelope = Envelope(
                    tenant=tenant,
                    content_sha256=explanation.input.source_sha256,
                    metadata={name: value for name, value in told.items() if value is not None},
                    truth=truth,
                )
                items.append(Item(explanation, envelope, record=record))
            count += self.add(items, actor="govern.import") if items else 0
        return count

    def catch_up(self) -> int:
        """Measure what is on record and wasn't measured, and forget what was erased.

        Returns:
            The number of explanations that were measured.

        Raises:
            StoreError: The database can't be written.
        """
        gone = select(explanations.c.id).where(explanations.c.erased.is_not(None))
        with self.ledger.database.writing() as connection:
            connection.execute(
                delete(tables.measures).where(tables.measures.c.explanation_id.in_(gone))
            )
        missing = (
            select(explanations.c.id)
            .outerjoin(tables.measures, tables.measures.c.explanation_id == explanations.c.id)
            .where(explanations.c.erased.is_(None), tables.measures.c.explanation_id.is_(None))
            .order_by(explanations.c.created, explanations.c.id)
            .limit(_BATCH)
        )
        count, after = 0, ("", "")
        while True:
            later = or_(
                explanations.c.created > after[0],
                (explanations.c.created == after[0]) & (explanations.c.id > after[1]),
            )
            with self.ledger.database.writing() as connection:
                ids = list(connection.execute(missing.where(later)).scalars())
                of, rows = _models_of(connection, ids), []
                for id in ids:
                    stored = put.get(connection, id)
                    assert stored is not None
                    after = (stored.created, id)
                    if stored.record is None:
                        continue
                    try:
                        explanation = Explanation.from_dict(stored.record)
                        made = row_of(
                            id, of[id], stored.created, explanation, stored.envelope, None
                        )
                        rows.append(made)
                    except VisxaiError:
                        continue  # a kind without features, or a damaged record: the audit says so
                self._keep(connection, rows, 0)
                count += len(rows)
            if len(ids) < _BATCH:
                return count

    def count_unexplained(self, model: str, count: int, tenant: str = "default") -> None:
        """Count items that a model judged today and that weren't explained.

        Args:
            model: The model's id.
            count: How many.
            tenant: Whose items they are.
        """
        with self.ledger.writing() as (connection, at):
            add_unexplained(connection, model, tenant, at[:10], count)

    def _keep(self, connection: Connection, rows: list[dict[str, Any]], unexplained: int) -> None:
        if not rows:
            return
        connection.execute(insert(tables.measures), rows)
        add_sums(connection, rows, unexplained)

    def _known(self, batch: Sequence[Explanation], tenant: str) -> set[tuple[str, ...]]:
        """Return the keys of those explanations of a batch that are on record already."""
        digests = [one.input.source_sha256 for one in batch]
        query = (
            select(
                explanations.c.content_sha256,
                explanations.c.method,
                explanations.c.label,
                models.c.weights_sha256,
            )
            .join(models, models.c.id == explanations.c.model_id)
            .where(explanations.c.content_sha256.in_(digests), explanations.c.tenant == tenant)
        )
        with self.ledger.database.reading() as connection:
            return {tuple(map(str, row)) for row in connection.execute(query)}

    # ---- reading ------------------------------------------------------------------------------

    def tenants(self, model: str) -> list[str]:
        """List the tenants for whom a model has explanations.

        Args:
            model: The model's id.
        """
        told = tables.daily.c
        query = select(told.tenant).where(told.model_id == model).distinct().order_by(told.tenant)
        with self.ledger.database.reading() as connection:
            return [str(one) for one in connection.execute(query).scalars()]

    def models(self, tenant: str | None = None) -> list[Model]:
        """List the models that have explanations, the latest used first.

        Args:
            tenant: Whose explanations count; None for everybody's.
        """
        sums, explained = tables.daily, tables.daily.c
        counted = (
            select(
                explained.model_id,
                func.sum(explained.n),
                func.min(explained.day),
                func.max(explained.day),
            )
            .where(sums.c.label == "", sums.c.figure == "score")
            .group_by(explained.model_id)
        )
        if tenant is not None:
            counted = counted.where(sums.c.tenant == tenant)
        with self.ledger.database.reading() as connection:
            told = {row[0]: tuple(row)[1:] for row in connection.execute(counted)}
            found = [
                Model(
                    row.id,
                    row.name,
                    row.weights_sha256,
                    row.preprocess,
                    int(told[row.id][0]),
                    *map(str, told[row.id][1:]),
                )
                for row in connection.execute(select(models))
                if row.id in told
            ]
        return sorted(found, key=lambda one: (one.last, one.n), reverse=True)

    def model(self, name: str) -> Model:
        """Find a model by its id, its name, or the beginning of its weights' SHA-256.

        Raises:
            UnknownName: There is no such model, or several.
        """
        known = self.models()
        found = [
            one
            for one in known
            if name in (one.id, one.name) or (len(name) >= 8 and one.weights.startswith(name))
        ]
        if len(found) != 1:
            choices = [f"{one.name} ({one.weights[:12]})" for one in known]
            remedy = "say which by the SHA-256 of its weights" if found else ""
            raise UnknownName("model", name, choices, remedy, field="model")
        return found[0]

    def observe(
        self,
        model: str,
        *,
        tenant: str | None = None,
        since: str | None = None,
        until: str | None = None,
        after: tuple[str, str] | None = None,
        limit: int | None = None,
        newest: bool = False,
    ) -> Observations:
        """Read measured explanations, in the order of time.

        Args:
            model: The model's id.
            tenant: Whose they are; None for everybody's.
            since: Only those of this time (ISO 8601) or later.
            until: Only those before this time.
            after: Only those behind the item with this (time, id).
            limit: The most items.
            newest: Whether the limit keeps the latest instead of the first.

        Returns:
            The items, which may be none. Their ids are those of the explanations.
        """
        table = tables.measures
        query = select(table).where(table.c.model_id == model)
        if tenant is not None:
            query = query.where(table.c.tenant == tenant)
        if since is not None:
            query = query.where(table.c.at >= parse_time(since))
        if until is not None:
            query = query.where(table.c.at < parse_time(until))
        if after is not None:
            query = query.where(
                or_(
                    table.c.at > after[0],
                    (table.c.at == after[0]) & (table.c.explanation_id > after[1]),
                )
            )
        order = (table.c.at, table.c.explanation_id)
        query = query.order_by(*(one.desc() for one in order) if newest else order)
        if limit is not None:
            query = query.limit(limit)
        with self.ledger.database.reading() as connection:
            rows = [row._mapping for row in connection.execute(query)]
            told = connection.execute(select(models).where(models.c.id == model)).one_or_none()
        if told is None:
            raise UnknownName("model", model, [one.id for one in self.models()], field="model")
        return of_rows(rows[::-1] if newest else rows, told.name, told.weights_sha256)

    def sources(self, ids: Sequence[str]) -> dict[str, str]:
        """Look up what explanations are about: the path of each, or the hash of its content."""
        table = tables.measures
        query = select(table.c.explanation_id, table.c.source).where(
            table.c.explanation_id.in_(list(ids))
        )
        with self.ledger.database.reading() as connection:
            return {str(row[0]): str(row[1]) for row in connection.execute(query)}


def _models_of(connection: Connection, ids: Sequence[str]) -> dict[str, str]:
    """Look up the model of each explanation."""
    query = select(explanations.c.id, explanations.c.model_id).where(explanations.c.id.in_(ids))
    return {str(row[0]): str(row[1]) for row in connection.execute(query)}
