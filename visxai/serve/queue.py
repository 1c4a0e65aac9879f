"""The queue: a table of jobs that workers lease, a batch of one kind at a time.

    queued  --claim-->  running  --complete-->  done
       ^                   |  |----fail------->  failed
       |----lease over-----|  `----cancel----->  cancelled

A worker that dies loses its lease when it no longer renews it; its jobs are then claimed again,
each alone, so that one job that kills workers takes no other down with it. After three attempts a
job has failed. A result and the state "done" are written in one transaction that first checks the
lease, so a worker that was only slow changes nothing any more.

Jobs of the same content are computed once: the first is the leader, those that arrive while it
waits or runs follow it and end as it ends.
"""

from __future__ import annotations

import json
import secrets
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from sqlalchemy import bindparam, func, insert, select, update

from visxai.ledger.database import Database, insert_new
from visxai.serve.jobs import OPEN, Busy, Depth, Job
from visxai.serve.tables import jobs

if TYPE_CHECKING:
    from sqlalchemy import Connection, Row

ATTEMPTS = 3  # after which a job that keeps losing its worker has failed
POISON = "expected an explanation, got three ends of the process that computed it: leave it out"
# Made once: making a statement costs as much as running it.
_PUT = insert(jobs)
_LEADER = (
    select(jobs.c.id)
    .where(jobs.c.content_key == bindparam("key"), jobs.c.leader.is_(None), jobs.c.state.in_(OPEN))
    .with_for_update()
)
_DEPTH = select(func.count()).select_from(
    select(jobs.c.id)
    .where(jobs.c.state == "queued", jobs.c.lane == bindparam("lane"))
    .limit(bindparam("most"))
    .subquery()
)


@dataclass(frozen=True)
class Queue:
    """The jobs in a database.

    Attributes:
        database: The database, with the service's tables.
        lease: The seconds that a claim lasts without a heart-beat.
        limits: The most jobs that wait in each lane.
    """

    database: Database
    lease: float = 30.0
    limits: Mapping[str, int] | None = None

    def submit(
        self,
        connection: Connection,
        job: Job,
        now: float,
        known: Callable[[], bool] = lambda: False,
    ) -> Job | None:
        """Put a job into the queue, or let it follow one of the same content.

        Args:
            connection: A connection in a writing transaction.
            job: The job.
            now: The present time.
            known: Tells whether the result is already there. It is asked once it is certain that
                no job of the same content is on its way.

        Returns:
            The job as it was put down, None if its result is known.

        Raises:
            Busy: The lane is full.
        """
        self.check_room(connection, job.lane)
        id = job.id or uuid.uuid4().hex
        row = {
            "id": id,
            "tenant": job.tenant,
            "lane": job.lane,
            "model_key": job.model_key,
            "batch_key": job.batch_key,
            "content_key": job.content_key,
            "item_id": job.spec.get("item_id"),
            "state": "queued",
            "attempts": 0,
            "created": now,
            "spec": json.dumps(dict(job.spec)),
        }
        while True:
            leader = connection.execute(_LEADER, {"key": job.content_key}).scalar_one_or_none()
            if leader is None and known():
                return None
            # Another transaction may put down the first job of this content at the same time: then
            # nothing is inserted here, and that job is the leader.
            if insert_new(connection, jobs, {**row, "leader": leader}):
                return replace(job, id=id, leader=leader, created=now)

    def put_done(self, connection: Connection, job: Job, now: float) -> Job:
        """Put down a job that is done already, as its result is known.

        Args:
            connection: A connection in the transaction that writes the result.
            job: The job, with its id.
            now: The present time.
        """
        made = replace(job, state="done", created=now, started=now, finished=now)
        row = {name: value for name, value in vars(made).items() if name != "spec"}
        spec = {"item_id": job.spec.get("item_id"), "spec": json.dumps(dict(job.spec))}
        connection.execute(_PUT, {**row, **spec})
        return made

    def check_room(self, connection: Connection, lane: str) -> None:
        """Raise Busy if as many jobs wait in a lane as may."""
        most = (self.limits or {}).get(lane)
        if most is None:
            return
        depth = connection.execute(_DEPTH, {"lane": lane, "most": most}).scalar_one()
        if depth >= most:
            raise Busy(lane, depth, 1 if lane == "fast" else 5)

    def get(self, connection: Connection, id: str, tenant: str | None = None) -> Job:
        """Read a job.

        Raises:
            KeyError: There is none with this id, or it is another tenant's.
        """
        row = connection.execute(select(jobs).where(jobs.c.id == id)).one_or_none()
        if row is None or tenant not in (None, row.tenant):
            raise KeyError(id)
        return _job(row)

    def claim(self, lane: str, most: int, model_key: str) -> list[Job]:
        """Lease the oldest waiting job of a lane, and others that fit into its batch.

        A job that lost its worker before is leased alone.

        Args:
            lane: The lane.
            most: The most jobs.
            model_key: The worker's model.

        Returns:
            The jobs, with the token of the lease; none where nothing waits.
        """
        if not self._any(lane, model_key):
            return []
        with self.database.writing() as connection:
            now = self.database.now(connection)
            self._reap(connection, now)
            waiting = (
                select(jobs)
                .where(
                    jobs.c.state == "queued",
                    jobs.c.lane == lane,
                    jobs.c.model_key == model_key,
                    jobs.c.leader.is_(None),
                )
                .order_by(jobs.c.created, jobs.c.id)
                .with_for_update(skip_locked=True)
            )
            first = connection.execute(waiting.limit(1)).one_or_none()
            if first is None:
                return []
            found = [first]
            if first.attempts == 0 and most > 1:
                others = waiting.where(
                    jobs.c.batch_key == first.batch_key,
                    jobs.c.attempts == 0,
                    jobs.c.id != first.id,
                )
                found += connection.execute(others.limit(most - 1)).all()
            token = secrets.token_hex(16)
            connection.execute(
                update(jobs)
                .where(jobs.c.id.in_([row.id for row in found]))
                .values(
                    state="running",
                    attempts=jobs.c.attempts + 1,
                    token=token,
                    lease_until=now + self.lease,
                    started=func.coalesce(jobs.c.started, now),
                )
            )
            ids = [row.id for row in found]
            rows = connection.execute(select(jobs).where(jobs.c.id.in_(ids))).all()
            return sorted(map(_job, rows), key=lambda job: ids.index(job.id))

    def _any(self, lane: str, model_key: str) -> bool:
        """Tell whether there is something to claim or to take back, without a lock."""
        with self.database.reading() as connection:
            waits = (jobs.c.state == "queued") & (jobs.c.lane == lane)
            mine = waits & (jobs.c.model_key == model_key) & jobs.c.leader.is_(None)
            late = jobs.c.lease_until < self.database.now(connection)
            either = (select(jobs.c.id).where(one).limit(1) for one in (mine, _RUNS & late))
            return any(connection.execute(one).first() is not None for one in either)

    def renew(self, claimed: Sequence[Job]) -> set[str]:
        """Renew the leases of claimed jobs: the heart-beat.

        Returns:
            The ids of those that are still leased to the caller.
        """
        if not claimed:
            return set()
        with self.database.writing() as connection:
            now = self.database.now(connection)
            kept = connection.execute(
                update(jobs)
                .where(*_held(claimed))
                .values(lease_until=now + self.lease)
                .returning(jobs.c.id)
            )
            return set(kept.scalars())

    def complete(self, connection: Connection, job: Job, now: float) -> list[Job] | None:
        """End a claimed job as done, within the transaction that writes its result.

        Args:
            connection: A connection in a writing transaction.
            job: The job as claimed.
            now: The present time.

        Returns:
            The jobs that followed it, which are done as well and get the same result; None if the
            lease was lost: then the transaction must write nothing.
        """
        return self.complete_all(connection, [job], now).get(job.id)

    def complete_all(
        self, connection: Connection, claimed: Sequence[Job], now: float
    ) -> dict[str, list[Job]]:
        """End jobs of one claim as done, within the transaction that writes their results.

        Args:
            connection: A connection in a writing transaction.
            claimed: The jobs as claimed.
            now: The present time.

        Returns:
            For each job that was still leased to the caller, the jobs that followed it, which are
            done as well; for the others the transaction must write nothing.
        """
        return self._end(connection, claimed, now, "done", None)

    def fail(self, connection: Connection, job: Job, now: float, reason: str) -> list[Job] | None:
        """End a claimed job as failed.

        Args:
            connection: A connection in a writing transaction.
            job: The job as claimed.
            now: The present time.
            reason: Why, in one sentence.

        Returns:
            The jobs that followed it, which have failed as well; None if the lease was lost.
        """
        return self._end(connection, [job], now, "failed", reason).get(job.id)

    def release(self, claimed: Sequence[Job]) -> None:
        """Give leases back unused, as a worker does that is asked to stop."""
        with self.database.writing() as connection:
            fewer = {"attempts": jobs.c.attempts - 1, **_FREE}
            connection.execute(update(jobs).where(*_held(claimed)).values(state="queued", **fewer))

    def cancel(self, connection: Connection, id: str, now: float) -> bool:
        """Cancel a job that hasn't ended; a follower takes its place as leader.

        Returns:
            Whether it hadn't ended.
        """
        row = connection.execute(
            select(jobs).where(jobs.c.id == id, jobs.c.state.in_(OPEN)).with_for_update()
        ).one_or_none()
        if row is None:
            return False
        connection.execute(
            update(jobs)
            .where(jobs.c.id == id)
            .values(state="cancelled", token=None, lease_until=None, finished=now)
        )
        if row.leader is None:
            next_id = connection.execute(
                select(jobs.c.id)
                .where(jobs.c.leader == id, jobs.c.state == "queued")
                .order_by(jobs.c.created, jobs.c.id)
                .limit(1)
                .with_for_update()
            ).scalar_one_or_none()
            if next_id is not None:
                connection.execute(
                    update(jobs)
                    .where(jobs.c.leader == id, jobs.c.state == "queued", jobs.c.id != next_id)
                    .values(leader=next_id)
                )
                connection.execute(update(jobs).where(jobs.c.id == next_id).values(leader=None))
        return True

    def reap(self) -> None:
        """Take expired leases back; jobs whose attempts are used up have failed."""
        with self.database.writing() as connection:
            self._reap(connection, self.database.now(connection))

    def _reap(self, connection: Connection, now: float) -> None:
        over = connection.execute(
            select(jobs.c.id, jobs.c.attempts)
            .where(jobs.c.state == "running", jobs.c.lease_until < now)
            .order_by(jobs.c.id)
            .with_for_update(skip_locked=True)
        ).all()
        for row in over:
            if row.attempts < ATTEMPTS:
                values = {"state": "queued", **_FREE}
                connection.execute(update(jobs).where(jobs.c.id == row.id).values(**values))
                continue
            ended = {"state": "failed", "reason": POISON, "finished": now, **_FREE}
            connection.execute(update(jobs).where(jobs.c.id == row.id).values(**ended))
            self._end_followers(connection, [row.id], now, "failed", POISON)

    def _end(
        self,
        connection: Connection,
        claimed: Sequence[Job],
        now: float,
        state: str,
        reason: str | None,
    ) -> dict[str, list[Job]]:
        if not claimed:
            return {}
        ended = connection.execute(
            update(jobs)
            .where(*_held(claimed))
            .values(state=state, reason=reason, finished=now, token=None, lease_until=None)
            .returning(jobs.c.id)
        )
        found: dict[str, list[Job]] = {id: [] for id in ended.scalars()}
        if found:
            for job in self._end_followers(connection, list(found), now, state, reason):
                found[str(job.leader)].append(job)
        return found

    def _end_followers(
        self,
        connection: Connection,
        ids: Sequence[str],
        now: float,
        state: str,
        reason: str | None,
    ) -> list[Job]:
        rows = connection.execute(
            update(jobs)
            .where(jobs.c.leader.in_(ids), jobs.c.state == "queued")
            .values(state=state, reason=reason, finished=now)
            .returning(jobs)
        ).all()
        return [_job(row) for row in rows]

    def depths(self, connection: Connection, tenant: str | None = None) -> dict[str, Depth]:
        """Return what waits in each lane."""
        query = select(
            jobs.c.lane, func.count().label("waiting"), func.min(jobs.c.created).label("oldest")
        ).where(jobs.c.state == "queued")
        if tenant is not None:
            query = query.where(jobs.c.tenant == tenant)
        now = self.database.now(connection)
        return {
            row.lane: Depth(row.waiting, max(0.0, now - row.oldest))
            for row in connection.execute(query.group_by(jobs.c.lane))
        }


_RUNS = jobs.c.state == "running"
_FREE = {"token": None, "lease_until": None}


def _held(claimed: Sequence[Job]) -> tuple[Any, ...]:
    tokens = {job.token for job in claimed}
    return (
        jobs.c.id.in_([job.id for job in claimed]),
        jobs.c.state == "running",
        jobs.c.token.in_(tokens),
    )


def _job(row: Row[Any]) -> Job:
    told = {n: value for n, value in row._mapping.items() if n not in ("lease_until", "item_id")}
    return Job(**{**told, "spec": json.loads(row.spec)})
