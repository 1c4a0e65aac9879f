"""The queue: nothing lost, nothing twice, whatever happens to workers, on both databases."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import databases
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    invariant,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import delete, select

from visxai.ledger.database import Database
from visxai.serve import tables
from visxai.serve.database import prepare
from visxai.serve.jobs import Busy, Job
from visxai.serve.queue import ATTEMPTS, Queue

MODEL = "m" * 64


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def job(content: int = 0, *, batch: int = 0, lane: str = "fast", id: str = "") -> Job:
    return Job(id, "default", lane, MODEL, f"b{batch}", f"c{content}", {"n": content})


@pytest.fixture(params=databases.KINDS)
def queue(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Queue]:
    database = Database(databases.address(request.param, tmp_path), clock=Clock())
    prepare(database)
    yield Queue(database, lease=10.0)
    database.close()


def submit(queue: Queue, one: Job) -> Job:
    with queue.database.writing() as connection:
        made = queue.submit(connection, one, queue.database.now(connection))
    assert made is not None
    return made


def end(queue: Queue, one: Job, reason: str | None = None) -> list[Job] | None:
    with queue.database.writing() as connection:
        now = queue.database.now(connection)
        if reason is not None:
            return queue.fail(connection, one, now, reason)
        return queue.complete(connection, one, now)


def state(queue: Queue, id: str) -> str:
    with queue.database.reading() as connection:
        return queue.get(connection, id).state


def tick(queue: Queue, seconds: float) -> None:
    clock = queue.database._clock
    assert isinstance(clock, Clock)
    clock.now += seconds


def test_the_migrations_make_the_tables_of_the_code(queue: Queue) -> None:
    with queue.database.reading() as connection:
        context = MigrationContext.configure(
            connection,
            opts={
                "version_table": "serve_version",
                "compare_type": True,
                "include_name": lambda name, kind, _: (
                    kind != "table" or name in tables.metadata.tables
                ),
            },
        )
        assert compare_metadata(context, tables.metadata) == []


def test_a_batch_holds_jobs_of_one_key_and_lane_oldest_first(queue: Queue) -> None:
    ids = []
    for number in range(6):
        tick(queue, 1)
        ids.append(submit(queue, job(number, batch=number % 2)).id)
    submit(queue, job(9, lane="precise"))
    assert [one.id for one in queue.claim("fast", 2, MODEL)] == ids[0:4:2]
    assert [one.id for one in queue.claim("fast", 9, MODEL)] == ids[1::2]
    assert [one.id for one in queue.claim("fast", 9, MODEL)] == ids[4:5]
    assert queue.claim("fast", 9, MODEL) == []
    assert queue.claim("precise", 9, "another model") == []
    assert len(queue.claim("precise", 9, MODEL)) == 1


def test_jobs_of_one_content_are_computed_once(queue: Queue) -> None:
    leader, *others = (submit(queue, job(1)) for _ in range(4))
    (claimed,) = queue.claim("fast", 9, MODEL)
    late = submit(queue, job(1))
    assert claimed.id == leader.id
    followers = end(queue, claimed)
    assert followers is not None
    assert {one.id for one in followers} == {one.id for one in (*others, late)}
    assert all(state(queue, one.id) == "done" for one in (leader, *others, late))
    assert submit(queue, job(1)).leader is None


def test_a_lost_lease_writes_nothing(queue: Queue) -> None:
    submit(queue, job(1))
    (slow,) = queue.claim("fast", 1, MODEL)
    tick(queue, 11)
    (again,) = queue.claim("fast", 1, MODEL)
    assert again.id == slow.id
    assert end(queue, slow) is None
    assert queue.renew([slow]) == set()
    assert queue.renew([again]) == {again.id}
    assert end(queue, again) == []


def test_a_heart_beat_keeps_the_lease(queue: Queue) -> None:
    submit(queue, job(1))
    (one,) = queue.claim("fast", 1, MODEL)
    for _ in range(5):
        tick(queue, 9)
        assert queue.renew([one]) == {one.id}
        assert queue.claim("fast", 1, MODEL) == []
    assert end(queue, one) == []


def test_a_job_that_kills_workers_fails_and_takes_no_other_along(queue: Queue) -> None:
    ids = []
    for number in range(3):
        tick(queue, 1)
        ids.append(submit(queue, job(number)).id)
    follower = submit(queue, job(0)).id
    assert len(queue.claim("fast", 9, MODEL)) == 3
    for _ in range(ATTEMPTS - 1):
        tick(queue, 11)
        (alone,) = queue.claim("fast", 9, MODEL)
        assert alone.id == ids[0]
    others = [queue.claim("fast", 9, MODEL)[0] for _ in ids[1:]]
    assert all(end(queue, one) == [] for one in others)
    tick(queue, 11)
    assert queue.claim("fast", 9, MODEL) == []
    assert [state(queue, id) for id in (*ids, follower)] == ["failed", "done", "done", "failed"]
    with queue.database.reading() as connection:
        assert "three ends" in str(queue.get(connection, ids[0]).reason)


def test_a_full_lane_is_busy_and_the_other_is_not(queue: Queue) -> None:
    bounded = replace(queue, limits={"fast": 3, "precise": 3})
    for number in range(3):
        submit(bounded, job(number))
    with pytest.raises(Busy, match="3 waiting jobs") as told:
        submit(bounded, job(4))
    assert told.value.retry_after >= 1
    submit(bounded, job(4, lane="precise"))
    with queue.database.reading() as connection:
        tick(queue, 7)
        depths = queue.depths(connection)
    assert (depths["fast"].waiting, depths["fast"].oldest) == (3, 7)


def test_a_cancelled_leader_hands_over_to_its_followers(queue: Queue) -> None:
    leader, second, third = (submit(queue, job(1)) for _ in range(3))
    with queue.database.writing() as connection:
        assert queue.cancel(connection, leader.id, 1.0)
        assert not queue.cancel(connection, leader.id, 1.0)
    (claimed,) = queue.claim("fast", 1, MODEL)
    assert claimed.id in (second.id, third.id)
    assert end(queue, claimed) is not None
    assert {state(queue, one.id) for one in (second, third)} == {"done"}


def test_many_workers_claim_each_job_once(queue: Queue) -> None:
    ids = {submit(queue, job(n, batch=n % 3)).id for n in range(60)}
    done: list[str] = []

    def work() -> None:
        while claimed := queue.claim("fast", 4, MODEL):
            for one in claimed:
                assert end(queue, one) == []
                done.append(one.id)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # A worker that finds everything locked by others stops; what it left, the next one takes.
    work()
    assert sorted(done) == sorted(ids)


def test_submitting_at_the_same_time_leaves_one_leader(queue: Queue) -> None:
    made: list[Job] = []
    threads = [
        threading.Thread(target=lambda: made.append(submit(queue, job(5)))) for _ in range(12)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 12
    assert sum(one.leader is None for one in made) == 1


class Machine(RuleBasedStateMachine):
    """Random lives of jobs; a plain dictionary says what must be true."""

    queue: Queue
    jobs = Bundle("jobs")
    leases = Bundle("leases")

    def __init__(self) -> None:
        super().__init__()
        with self.queue.database.writing() as connection:
            connection.execute(delete(tables.jobs))
        self.results: dict[str, int] = {}
        self.ended: dict[str, str] = {}

    @rule(target=jobs, content=st.integers(0, 3), batch=st.integers(0, 1))
    def submit(self, content: int, batch: int) -> str:
        made = submit(self.queue, job(content, batch=batch))
        self.results[made.id] = 0
        return made.id

    @rule(target=leases, most=st.integers(1, 3))
    def claim(self, most: int) -> list[Job]:
        return self.queue.claim("fast", most, MODEL)

    @rule(lease=leases)
    def renew(self, lease: list[Job]) -> None:
        self.queue.renew(lease)

    @rule(lease=leases)
    def complete(self, lease: list[Job]) -> None:
        with self.queue.database.writing() as connection:
            now = self.queue.database.now(connection)
            ended = self.queue.complete_all(connection, lease, now)
        for id, followers in ended.items():
            for done in [id, *(one.id for one in followers)]:
                self.results[done] += 1

    @rule(lease=leases)
    def fail(self, lease: list[Job]) -> None:
        for one in lease:
            end(self.queue, one, "reason")

    @rule(lease=leases)
    def release(self, lease: list[Job]) -> None:
        self.queue.release(lease)

    @rule(lease=leases)
    def crash_half_way(self, lease: list[Job]) -> None:
        for one in lease[:1]:
            try:
                with self.queue.database.writing() as connection:
                    self.queue.complete(connection, one, 1.0)
                    raise KeyboardInterrupt
            except KeyboardInterrupt:
                pass

    @rule(id=jobs)
    def cancel(self, id: str) -> None:
        with self.queue.database.writing() as connection:
            self.queue.cancel(connection, id, 1.0)

    @rule(seconds=st.sampled_from([1.0, 6.0, 11.0]))
    def wait(self, seconds: float) -> None:
        tick(self.queue, seconds)

    @invariant()
    def nothing_is_lost_and_nothing_twice(self) -> None:
        with self.queue.database.reading() as connection:
            rows = connection.execute(select(tables.jobs)).all()
        assert {row.id for row in rows} == set(self.results)
        by_id = {row.id: row for row in rows}
        for row in rows:
            assert self.results[row.id] == (row.state == "done")
            assert (row.state == "running") == (row.token is not None)
            assert row.attempts <= ATTEMPTS
            if row.id in self.ended:
                assert row.state == self.ended[row.id]  # what has ended stays as it ended
            if row.state in ("done", "failed", "cancelled"):
                self.ended[row.id] = row.state
            elif row.leader is not None:
                assert by_id[row.leader].state in ("queued", "running")

    def teardown(self) -> None:
        # Whatever happened before: workers that live on bring every job to its end.
        for _ in range(4 * ATTEMPTS):
            tick(self.queue, 11)
            while claimed := self.queue.claim("fast", 3, MODEL):
                self.complete(claimed)
        self.nothing_is_lost_and_nothing_twice()
        assert set(self.ended) == set(self.results)


def test_random_lives_lose_and_double_nothing(queue: Queue) -> None:
    class OnThis(Machine):
        pass

    OnThis.queue = queue
    run_state_machine_as_test(
        OnThis,
        settings=settings(
            max_examples=25,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
