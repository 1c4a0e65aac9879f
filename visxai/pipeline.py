"""A folder of images to a folder of results, its stages overlapped.

    worker processes        this thread           worker processes     one thread
    read, decode, crop  ->  compute a batch   ->  draw, encode     ->  pack, write, sync

Batches are cut at fixed places of fixed chunks of the ordered input, so a run that was killed and
resumed computes what an uninterrupted one would have. A chunk is committed when it is done, and
every ten seconds up to the last whole batch, so a slow method loses little. Every stage is a
bounded number of images ahead of the next. The same bytes under two names are computed once.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from visxai.asked import Asked, Naming, answers, ask, expected
from visxai.errors import ArgumentError
from visxai.images import Limits
from visxai.inputs import Input
from visxai.progress import Outcome, Progress, Tally
from visxai.record import Explanation, Failure, InputRef, label_of
from visxai.results import Row, of_row, row_of, text
from visxai.sources import Source, find
from visxai.store import Store
from visxai.workers import Decoded, Drawn, Setup, Style, Task, Workers, decode, draw

if TYPE_CHECKING:
    from visxai.engine import Engine, Methods
    from visxai.metrics import Metric
    from visxai.target import Answer, Gate

_COMMITS = 2  # commits being drawn and written while the next batch is computed
_INTERVAL = 10.0  # seconds between the commits of a chunk


@dataclass
class _Chunk:
    """A chunk on its way to the store: what each of its images, by position, has come to, as far
    as it wasn't handed over yet."""

    number: int
    inputs: list[Input]
    explained: dict[int, tuple[list[Explanation], Task | None]] = field(default_factory=dict)
    failed: dict[int, Failure] = field(default_factory=dict)
    # The same bytes as an image of this chunk or an earlier one: sha256 and that chunk.
    copies: dict[int, tuple[str, int]] = field(default_factory=dict)
    answers: dict[int, Answer] = field(default_factory=dict)

    def take(self, stop: int) -> _Chunk:
        """Hands over what the images before position `stop` have come to."""
        taken = _Chunk(self.number, self.inputs)
        for name in ("explained", "failed", "copies", "answers"):
            mine, of_taken = getattr(self, name), getattr(taken, name)
            for position in [position for position in mine if position < stop]:
                of_taken[position] = mine.pop(position)
        return taken


@dataclass
class _Batch:
    """A part of a chunk from `start` on, and the decoding of its images."""

    chunk: _Chunk
    start: int
    last: bool
    decoding: list[Task | Failure]

    @property
    def stop(self) -> int:
        return self.start + len(self.decoding)


def explain(
    sources: Iterable[Source],
    out: str | os.PathLike[str],
    engine: Engine,
    method: Methods = "grad_cam",
    target: Any = "top1",
    *,
    only: str | Gate | None = None,
    check: str | Metric | None = None,
    style: Style | None = Style(),  # noqa: B008 - frozen
    limits: Limits = Limits(),  # noqa: B008 - frozen
    chunk_size: int | None = None,
    workers: int | None = None,
    timeout: float = 60.0,
    path_column: str | None = None,
    label_column: str | None = None,
    fresh: bool = False,
    retry_failures: bool = False,
    command: str = "",
    progress: Callable[[Progress], None] = lambda _: None,
    stop: Callable[[], bool] = lambda: False,
) -> Outcome:
    """Explain files, folders, lists, tables, tars and URLs (`visxai.sources`) into OUT, going on
    where an earlier run of the same settings was.

    only: a condition on scores, as `Engine.explain` has it; images that don't meet it have no row.
    Where the sources have labels, "wrong" and "right" are the images whose class hasn't, or has,
    the greatest score; images without a label are neither.
    check: a metric whose figures go into each row's quality, such as "faithfulness".
    style: how overlays are drawn, None for no overlays. chunk_size: images finished together, a
    multiple of the engine's batch size; None is that multiple from 64 on. workers: processes that
    decode and draw; 0 does all in this one; None is one a core, none for one or two images.
    timeout: seconds that one image may take a worker process to decode. path_column,
    label_column: of tables, found by name without them; label_column="none" leaves labels out.
    fresh: delete what an earlier run left in OUT. retry_failures: do the chunks again in which an
    earlier run had failures. progress is called after each batch, and stop before each: when it
    says True the run ends with what is finished in OUT.

    Images that can't be explained are in OUT's failures. Raises VisxaiError for wrong arguments
    and when OUT can't be written; what was finished stays finished.
    """
    found = list(find(sources, out, path_column=path_column, label_column=label_column))
    if timeout <= 0:
        raise ArgumentError(f"expected a timeout of more than 0 seconds, got {timeout}")
    found = expected(found, engine.model.labels, None if label_column == "none" else label_column)
    asked = ask(
        engine,
        method,
        target,
        len(found),
        None if fresh else Path(out),
        only=only,
        check=check,
        style=style,
        limits=limits,
        chunk_size=chunk_size,
        labelled=any(one.expected is not None for one in found),
    )
    settings = asked.settings
    with Store(out, settings, command=command, fresh=fresh, retry=retry_failures) as store:
        _, changed = store.add(found)
        del found
        todo = sum(store.size(number) - store.begun(number) for number in store.pending())
        assert engine.model.preprocess is not None
        writes = (str(store.overlays),)
        setup = Setup(engine.model.preprocess, limits, style, timeout=timeout, writes=writes)
        run = _Run(store, engine, asked, setup, worker_count(workers, todo))
        return run.tally.ended(run.all(progress, stop), changed)


def worker_count(workers: int | None, images: int) -> int:
    """How many worker processes a run of some images gets."""
    if workers is not None and workers < 0:
        raise ArgumentError(
            f"expected 0 or more workers, got {workers}: leave it out for one a core"
        )
    if images <= 2:
        return 0  # starting processes would take longer
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return min(cores or 1, 32, images) if workers is None else workers


class _Run:
    """One run over what a store says is pending."""

    def __init__(
        self,
        store: Store,
        engine: Engine,
        asked: Asked,
        setup: Setup,
        workers: int,
    ) -> None:
        self.store, self.engine, self.asked = store, engine, asked
        self.style, self.naming = setup.style, Naming.of(asked, setup.style)
        self.pool = Workers(setup, workers)
        self.tally = Tally(store)
        self.broken = False

    def all(self, progress: Callable[[Progress], None], stop: Callable[[], bool]) -> bool:
        """Do what is pending; False when stopped before the end."""
        writer = ThreadPoolExecutor(1, "visxai-writer")
        committing: deque[Future[None]] = deque()
        computed: _Batch | None = None  # the last one, until it is handed over
        finished, committed = False, time.monotonic()

        def hand_over(batch: _Batch) -> None:
            taken = batch.chunk.take(batch.stop)
            committing.append(writer.submit(self.commit, taken, batch.stop))

        try:
            progress(self.tally.progress())
            for batch in self.decoded():
                if stop():
                    break
                self.compute(batch)
                computed = batch
                progress(self.tally.progress())
                due = time.monotonic() - committed >= _INTERVAL
                if batch.last or (due and self.store.divisible(batch.chunk.number)):
                    hand_over(batch)
                    computed, committed = None, time.monotonic()
                while committing and (committing[0].done() or len(committing) > _COMMITS):
                    committing.popleft().result()
            else:
                finished = True
        finally:
            # What is computed is finished, whatever ended the run.
            if computed is not None and self.store.divisible(computed.chunk.number):
                hand_over(computed)
            writer.shutdown()
            self.pool.close()
        for one in committing:
            one.result()
        return finished

    def decoded(self) -> Iterator[_Batch]:
        """The pending batches in order, those to come being decoded meanwhile."""
        size = self.engine.batch_size
        ahead = max(2, -(-4 * self.pool.count // size)) if self.pool.count else 0
        waiting: deque[_Batch] = deque()
        for number in self.store.pending():
            chunk = _Chunk(number, self.store.inputs(number))
            for start in range(self.store.begun(number), len(chunk.inputs), size):
                inputs = chunk.inputs[start : start + size]
                last = start + size >= len(chunk.inputs)
                tasks = [one.failure or self.pool.submit(decode, one.path) for one in inputs]
                waiting.append(_Batch(chunk, start, last, tasks))
                if len(waiting) > ahead:
                    yield waiting.popleft()
        yield from waiting

    # ---- compute, in the thread of the run -------------------------------------------------------

    def compute(self, batch: _Batch) -> None:
        """Explain a batch and have its overlays drawn."""
        from visxai.engine import Prepared

        chunk, digests = batch.chunk, set()
        fresh: dict[str | None, tuple[int, Task, Prepared]] = {}  # by path
        for position, task in enumerate(batch.decoding, batch.start):
            where, pixels = self.taken(task)
            if isinstance(where, Failure):
                chunk.failed[position] = where
                continue
            answer = self.answer(chunk.inputs[position])
            if answer is None:
                digest = where.source_sha256
                earlier = chunk.number if digest in digests else self.store.seen.get(_key(digest))
                if earlier is not None:
                    chunk.copies[position] = digest, earlier
                    continue
                digests.add(digest)
            assert isinstance(task, Task)
            fresh[where.path] = position, task, Prepared(pixels, where, None, answer)
        began = time.perf_counter()
        explained: dict[str | None, list[Explanation]] = {path: [] for path in fresh}
        for one in self.engine.explain_prepared(
            [prepared for _, _, prepared in fresh.values()],
            self.asked.methods,
            self.asked.target,
            self.asked.gate,
            self.asked.check,
        ):
            assert isinstance(one, Explanation)
            explained[one.input.path].append(one)
        self.tally.spent("compute", time.perf_counter() - began)
        for path, (position, task, prepared) in fresh.items():
            found = explained[path]
            if prepared.answer is not None:
                chunk.answers[position] = prepared.answer
            elif found:
                self.store.seen[_key(prepared.input.source_sha256)] = chunk.number
            drawing = self.draw(chunk.inputs[position], found, task.at)
            chunk.explained[position] = found, drawing
            self.tally.maps += len(found)
        self.tally.done += len(batch.decoding)
        self.tally.failures += sum(position in chunk.failed for position in _span(batch))

    def answer(self, one: Input) -> Answer | None:
        """What the model has to tell of an image with a label; such an image is no copy of
        another, which may have another label."""
        from visxai.target import Answer

        if one.expected is None:
            return None
        return Answer(one.expected)

    def taken(self, task: Task | Failure) -> tuple[InputRef | Failure, Any]:
        """What decoding an image gave: where its pixels lie and they themselves, or a Failure."""
        found = task if isinstance(task, Failure) else self.pool.result(task)
        if isinstance(found, Failure):
            return found, None
        assert isinstance(found, Decoded)
        self.tally.spent("decode", found.seconds)
        return found.input, found.pixels

    def draw(self, one: Input, explanations: list[Explanation], at: int | None) -> Task | None:
        if self.style is None or not explanations:
            return None
        wanted = [(e, self.store.overlays / str(self.naming.overlay(one, e))) for e in explanations]
        return self.pool.submit(draw, one.path, wanted, at=at)

    # ---- commit, in the writer's thread, chunk by chunk in order ---------------------------------

    def commit(self, chunk: _Chunk, images: int) -> None:
        """Wait for the overlays of what was handed over of a chunk, and commit it; that makes
        `images` of the chunk."""
        if self.broken:
            return
        try:
            rows = self.rows(chunk)
            began = time.perf_counter()
            failed = [chunk.failed[position] for position in sorted(chunk.failed)]
            told = [r for p in sorted(rows) for r in rows[p]]
            found = answers(self.engine.model, list(chunk.answers.values()))
            self.store.commit(chunk.number, told, failed, found, images=images)
            self.tally.spent("write", time.perf_counter() - began)
        except BaseException:
            # Later chunks may hold copies of this one's rows.
            self.broken = True
            raise

    def rows(self, chunk: _Chunk) -> dict[int, list[Row]]:
        """The rows of each image of a chunk, its overlays drawn."""
        rows: dict[int, list[Row]] = {}
        own: dict[str, list[Row]] = {}
        for position, (explanations, drawing) in chunk.explained.items():
            one = chunk.inputs[position]
            there = self.drawn(chunk, position, drawing)
            said = None
            if one.expected is not None:
                said = label_of(self.engine.model.labels, one.expected)
            rows[position] = [
                row_of(e, self.naming.overlay(one, e) if there else None, said)
                for e in explanations
            ]
            if explanations and said is None:
                own[explanations[0].input.source_sha256] = rows[position]
        copied = []
        for position, (digest, earlier) in chunk.copies.items():
            mine = own.get(digest) if earlier == chunk.number else None
            found = self.store.rows_of(earlier, digest) if mine is None else mine
            one = chunk.inputs[position]
            same = [replace(e, input=replace(e.input, path=one.path)) for e in map(of_row, found)]
            self.tally.maps += len(same)
            copied.append((position, found, same, self.draw(one, same, None)))
        for position, found, same, drawing in copied:
            one = chunk.inputs[position]
            there = self.drawn(chunk, position, drawing)
            rows[position] = [
                row
                | {
                    "path": text(one.path),
                    "overlay": self.naming.overlay(one, e) if there else None,
                }
                for row, e in zip(found, same, strict=True)
            ]
        return rows

    def drawn(self, chunk: _Chunk, position: int, drawing: Task | None) -> bool:
        """Wait for an image's overlays; whether they are there."""
        if drawing is None:
            return self.style is not None
        result = self.pool.result(drawing)
        failure = result.failure if isinstance(result, Drawn) else result
        if isinstance(result, Drawn):
            self.tally.spent("draw", result.seconds)
        if failure is not None:
            chunk.failed[position] = failure
            self.tally.failures += 1
        return failure is None


def _span(batch: _Batch) -> range:
    return range(batch.start, batch.start + len(batch.decoding))


def _key(digest: str) -> bytes:
    return bytes.fromhex(digest)
