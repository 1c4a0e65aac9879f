"""Workers: they lease a batch of jobs, explain it, and write results and states together."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from visxai.errors import Failure, StoreError
from visxai.pipeline.batch import failure_of, noise, one_by_one
from visxai.record.image import ImageExplanation
from visxai.record.pair import PairExplanation
from visxai.record.text import TextExplanation
from visxai.serve import reuse
from visxai.serve.image_with_text import Seen
from visxai.serve.jobs import Job
from visxai.serve.precise import Checked, check_image, fast_explanation

if TYPE_CHECKING:
    from visxai.images.prepared import Prepared
    from visxai.ledger import Envelope
    from visxai.record.base import Explanation
    from visxai.serve.examine import Examined
    from visxai.serve.service import Service

_AT_ONCE = 4  # items that are handed to the decoders at the same time
_LINGER = 0.01  # seconds from a job to its claim, in which the answer to its sender gets away
IDLE = 0.25  # seconds between looks at an empty queue of another process's


@dataclass(frozen=True, eq=False)
class Result:
    """What a worker made of a job.

    Attributes:
        job: The job as claimed.
        explanation: The explanation, None for a failure.
        reason: Why it failed.
        timings: Seconds by stage.
        confidence: Figures on the explanation's quality.
    """

    job: Job
    explanation: Explanation | None
    reason: str | None
    timings: dict[str, float]
    confidence: dict[str, Any]


@dataclass(frozen=True, eq=False)
class _Ready:
    """A job whose image is decoded."""

    job: Job
    examined: Examined
    prepared: Prepared
    timings: dict[str, float]


class Worker:
    """Works through one lane of the queue: claims, computes, and writes what it computed.

    The next batch is claimed and computed while the results of the one before are written. All
    threads live as long as the worker: one that computes has threads of OpenMP and memory of its
    own, and many in turn take more and more of both.

    Args:
        service: The service.
        lane: "fast" or "precise"; lanes have workers of their own, so that neither starves.
        log: Takes a line about what goes wrong; lines hold ids, never contents.
    """

    def __init__(
        self, service: Service, lane: str, log: Callable[[str], None] = lambda _: None
    ) -> None:
        self.service, self.lane, self._log = service, lane, log
        self._stop = threading.Event()
        self._held: list[Job] = []  # what is under way, whose leases are renewed
        self._lock = threading.Lock()
        self._kinds = deque(service.kinds.names)
        name = f"visxai-worker-{lane}"
        self._threads = [
            threading.Thread(target=self._run, name=name, daemon=True),
            threading.Thread(target=self._beat, name=f"{name}-beat", daemon=True),
        ]
        self._decoding = ThreadPoolExecutor(_AT_ONCE, f"{name}-decode")
        self._writing = ThreadPoolExecutor(1, f"{name}-write")
        self._written: Future[None] | None = None
        # A slow method holds nobody up in a thread of its own; see `Service` for the fast lane's.
        self._compute = (
            service.compute if lane == "fast" else ThreadPoolExecutor(1, f"{name}-compute")
        )
        self.done = 0

    def start(self) -> None:
        """Start both threads."""
        for thread in self._threads:
            thread.start()

    def stop(self, wait: float = 30.0) -> None:
        """Finish the present batch and stop."""
        self._stop.set()
        for thread in self._threads:
            thread.join(wait)
        for pool in (self._decoding, self._writing, self._compute):
            if pool is not self.service.compute:
                pool.shutdown(wait=False)

    def step(self) -> int:
        """Claim a batch and work it off.

        Returns:
            How many jobs were claimed.
        """
        count = self._advance()
        self._settle()
        return count

    def _advance(self) -> int:
        """Claim a batch, compute it, and begin to write it once the batch before is written."""
        most = self.service.config.tiers.fast.batch if self.lane == "fast" else 1
        claimed: list[Job] = []
        for _ in range(len(self._kinds)):
            self._kinds.rotate()  # so that no kind waits for all items of another
            key = self.service.kinds.key_of(self._kinds[0])
            if claimed := self.service.queue.claim(self.lane, most, key):
                break
        if not claimed:
            return 0
        with self._lock:
            self._held = [*self._held, *claimed]
        # What a worker died at comes again, alone: nothing else may be unwritten beside it.
        again = claimed[0].attempts > 1
        try:
            if again:
                self._settle()
            results = self._explained(claimed)
            self._settle()
        except BaseException:
            self._leave(claimed)
            raise
        self._written = self._writing.submit(self._write, claimed, results)
        if again:
            self._settle()
        return len(claimed)

    def _write(self, claimed: Sequence[Job], results: Sequence[Result]) -> None:
        try:
            self._finish(results)
            self.done += len(claimed)
        finally:
            self._leave(claimed)

    def _settle(self) -> None:
        """Wait until the last batch is written; raise what writing it raised."""
        written, self._written = self._written, None
        if written is not None:
            written.result()

    def _leave(self, claimed: Sequence[Job]) -> None:
        gone = {(job.id, job.token) for job in claimed}
        with self._lock:
            self._held = [job for job in self._held if (job.id, job.token) not in gone]

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                if self._advance():
                    continue
                self._settle()
            except StoreError as error:
                # The database is away: leases run out, and the jobs are claimed again.
                self._log(f"{self.lane} worker: {error}")
                self._stop.wait(1.0)
            except Exception as error:
                self._log(f"{self.lane} worker: {type(error).__name__}, the jobs are tried again")
                self._stop.wait(1.0)
            wake = self.service.wake[self.lane]
            if wake.wait(IDLE):
                self._stop.wait(_LINGER)
            wake.clear()
        with contextlib.suppress(Exception):
            self._settle()

    def _beat(self) -> None:
        while not self._stop.wait(self.service.config.queue.lease / 4):
            try:
                self.service.queue.renew(self._held)
            except StoreError as error:
                self._log(f"{self.lane} heart-beat: {error}")

    def _explained(self, claimed: Sequence[Job]) -> list[Result]:
        """Decode and explain a batch; an item that fails, fails alone."""
        from visxai.images.prepared import Prepared

        if (kind := claimed[0].spec.get("kind")) in ("text", "table"):
            return self._explained_whole(claimed, str(kind))
        results: list[Result] = []
        ready: list[_Ready] = []
        began = time.perf_counter()
        examined = list(self._decoding.map(self._examine, claimed))
        seconds = (time.perf_counter() - began) / len(claimed)
        for job, found in zip(claimed, examined, strict=True):
            queued = max(0.0, (job.started or job.created) - job.created)
            timings = {"queue": queued, "decode_again": seconds}
            if isinstance(found, Failure):
                results.append(Result(job, None, found.reason, timings, {}))
            else:
                prepared = Prepared(found.pixels, found.input, None)
                ready.append(_Ready(job, found, prepared, timings))
        if not ready:
            return results
        began = time.perf_counter()
        run = self._run_posts if kind == "post" else self._run_images

        def explain() -> list[Checked[Any] | Exception]:
            first = ready[0]
            blank = replace(first, prepared=noise(first.prepared))
            return one_by_one(ready, run, lambda: run([blank], control=True))

        made: list[Any] = self._compute.submit(explain).result()
        seconds = (time.perf_counter() - began) / len(ready)
        for one, found in zip(ready, made, strict=True):
            one.timings["explain"] = seconds
            if isinstance(found, Exception):
                reason = failure_of(None, found).reason
                results.append(Result(one.job, None, reason, one.timings, {}))
            else:
                told = found.explanation, None, one.timings, found.confidence
                results.append(Result(one.job, *told))
        return results

    def _run_images(self, batch: Sequence[_Ready], *, control: bool = False) -> list[Checked[Any]]:
        """Explain images; a control isn't checked, whatever the lane."""
        service, moderator = self.service, self.service.moderator
        target, method = str(batch[0].job.spec["target"]), str(batch[0].job.spec["method"])
        if self.lane == "fast" or control:
            found = moderator.explain([one.prepared for one in batch], target, method)
            return [Checked(one, {}) for one in found]
        return [
            check_image(
                moderator,
                service.config.tiers.precise,
                one.prepared,
                one.examined.whole,
                target,
                method,
                fast_explanation(service.database, one.job, ImageExplanation),
            )
            for one in batch
        ]

    def _run_posts(self, batch: Sequence[_Ready], *, control: bool = False) -> list[Checked[Any]]:
        """Explain images with their texts, likewise."""
        posts, method = self.service.kinds.post(), str(batch[0].job.spec["method"])
        seen = [Seen(one.prepared, one.examined.text or "") for one in batch]
        if control:
            seen = [Seen(one.prepared, "a text") for one in batch]
        if self.lane == "fast" or control:
            return [Checked(one, {}) for one in posts.explain(seen, method)]
        return [
            posts.check(
                self.service.config.tiers.precise,
                post,
                one.examined.whole,
                method,
                fast_explanation(self.service.database, one.job, PairExplanation),
            )
            for post, one in zip(seen, batch, strict=True)
        ]

    def _explained_whole(self, claimed: Sequence[Job], kind: str) -> list[Result]:
        """Explain a batch of texts or rows; one that fails, fails alone."""
        from visxai.serve import text_checks

        results: list[Result] = []
        ready: list[tuple[Job, bytes]] = []
        for job in claimed:
            try:
                ready.append((job, self.service.blobs.get(str(job.spec["blob"]))))
            except StoreError as error:
                results.append(Result(job, None, str(error), {}, {}))
        texts, rows = self.service.kinds.texts, self.service.kinds.rows
        if not ready:
            return results
        target, method = str(claimed[0].spec["target"]), str(claimed[0].spec["method"])
        began = time.perf_counter()

        def run(batch: Sequence[tuple[Job, bytes]]) -> list[Checked[Any]]:
            precise = self.lane == "precise"
            if kind == "table":
                assert rows is not None  # else its jobs aren't claimed, and so with texts
                return [Checked(*rows.explain(data, precise=precise)) for _, data in batch]
            assert texts is not None
            told = [data.decode("utf-8") for _, data in batch]
            if precise:
                return [
                    text_checks.check(
                        texts,
                        text,
                        target,
                        method,
                        fast_explanation(self.service.database, job, TextExplanation),
                    )
                    for (job, _), text in zip(batch, told, strict=True)
                ]
            return [Checked(one, {}) for one in texts.explain(told, target, method)]

        def control() -> None:
            if kind == "table" and rows is not None:
                rows.control()
            elif texts is not None:
                texts.explain(["a text"], target, method)

        def explain() -> list[Checked[Any] | Exception]:
            return one_by_one(ready, run, control)

        # Rows are explained in milliseconds, and their libraries share one model: in one thread.
        compute = self.service.compute if kind == "table" else self._compute
        made = compute.submit(explain).result()
        seconds = (time.perf_counter() - began) / len(ready)
        for (job, _), one in zip(ready, made, strict=True):
            queued = max(0.0, (job.started or job.created) - job.created)
            timings = {"queue": queued, "explain": seconds}
            if isinstance(one, Exception):
                # What a library says of a row may repeat its values, and pages show reasons.
                said = type(one).__name__ if kind == "table" else failure_of(None, one).reason
                results.append(Result(job, None, said, timings, {}))
            else:
                results.append(Result(job, one.explanation, None, timings, one.confidence))
        return results

    def _examine(self, job: Job) -> Examined | Failure:
        content = str(job.spec["content_sha256"])
        if self.lane == "fast" and (known := self.service.examined(content)) is not None:
            return known
        try:
            data = self.service.blobs.get(str(job.spec["blob"]))
        except StoreError as error:
            return Failure(None, str(error), "StoreError")
        kind = str(job.spec.get("kind", "image"))
        return self.service.examine(content, data, whole=self.lane == "precise", kind=kind)

    def _finish(self, results: Sequence[Result]) -> None:
        """Write the results and end the jobs, in one transaction."""
        service = self.service
        made = [(one, one.explanation) for one in results if one.explanation is not None]
        # Before the transaction: what it takes, everybody waits for.
        records = [explanation.to_dict() for _, explanation in made]
        with service.ledger.writing() as (connection, _):
            now = service.database.now(connection)
            # All jobs first, then the audit chain: whoever submits takes these locks in that order.
            for result in results:
                if result.explanation is None:
                    reason = result.reason or "it failed"
                    service.queue.fail(connection, result.job, now, reason)
            ended = service.queue.complete_all(connection, [one.job for one, _ in made], now)
            rows: list[tuple[Job, Mapping[str, Any], Envelope]] = []
            for (result, _), record in zip(made, records, strict=True):
                job, figures = result.job, result.confidence
                if (followers := ended.get(job.id)) is None:
                    continue  # the lease was lost: its new holder writes it
                none, exact = {"kind": "none"}, {"kind": "exact", "source": job.id}
                envelope = service.envelope(job, now, none, result.timings, figures)
                rows.append((job, record, envelope))
                for other in followers:
                    again = service.envelope(other, now, exact, None, figures)
                    rows.append((other, record, again))
            jobs = [result.job for result, _ in made if result.job.id in ended]
            reuse.remember(connection, jobs, now)
            service.record(connection, rows, now)
        service.ends.tell([result.job.id for result in results] + [job.id for job, _, _ in rows])
