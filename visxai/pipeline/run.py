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
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from visxai.errors import Failure
from visxai.images.decoding import Limits
from visxai.images.sources import Source, find
from visxai.labels import label_of
from visxai.pipeline.batch import Result, explain_batch, gate_counts
from visxai.pipeline.naming import Naming
from visxai.pipeline.progress import Outcome, Progress, Tally
from visxai.pipeline.request import Asked, answers, ask, expected
from visxai.pipeline.tasks import TIMEOUT, Decoded, Drawn, Setup, Style, decode, draw
from visxai.pipeline.workers import Task, Workers, check_workers, worker_count
from visxai.record.image import ImageExplanation
from visxai.record.scores import Scores
from visxai.results.inputs import Input
from visxai.results.rows import Row, image_of, row_of, text
from visxai.results.store import Store

if TYPE_CHECKING:
    from visxai.engine.engine import Engine, Methods
    from visxai.engine.gate import Gate
    from visxai.metrics.base import Metric

_COMMITS = 2  # commits being drawn and written while the next batch is computed
_INTERVAL = 10.0  # seconds between the commits of a chunk


@dataclass
class _Chunk:
    """A chunk on its way to the store: what each of its images, by position, has come to, as far
    as it wasn't handed over yet."""

    number: int
    inputs: list[Input]
    explained: dict[int, tuple[Result, Task | None]] = field(default_factory=dict)
    failed: dict[int, Failure] = field(default_factory=dict)
    # The same bytes as an image of this chunk or an earlier one: sha256 and that chunk.
    copies: dict[int, tuple[str, int]] = field(default_factory=dict)

    def take(self, stop: int) -> _Chunk:
        """Hands over what the images before position `stop` have come to."""
        taken = _Chunk(self.number, self.inputs)
        for name in ("explained", "failed", "copies"):
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
    timeout: float | None = None,
    path_column: str | None = None,
    label_column: str | None = None,
    fresh: bool = False,
    retry_failures: bool = False,
    command: str = "",
    progress: Callable[[Progress], None] = lambda _: None,
    stop: Callable[[], bool] = lambda: False,
) -> Outcome:
    """Explain files, folders, lists, tables, tars and URLs into OUT (see `visxai.images.sources`).

    Goes on where an earlier run of the same settings was.

    only: a condition on scores, as `Engine.explain` has it; images that don't meet it have no row.
    Where the sources have labels, "wrong" and "right" are the images whose class hasn't, or has,
    the greatest score; images without a label are neither.
    check: a metric whose figures go into each row's quality, such as "faithfulness".
    style: how overlays are drawn, None for no overlays. chunk_size: images finished together, a
    multiple of the engine's batch size; None is that multiple from 64 on. workers: processes that
    decode and draw; 0 does all in this one; None is one a core, and none for one or two images
    without a timeout. timeout: seconds that one image may take a worker process to decode, None
    for 60. path_column, label_column: of tables, found by name without them; label_column="none"
    leaves labels out. fresh: delete what an earlier run left in OUT. retry_failures: do the chunks
    again in which an earlier run had failures. progress is called after each batch, and stop
    before each: when it says True the run ends with what is finished in OUT.

    Images that can't be explained are in OUT's failures. Raises VisxaiError for wrong arguments
    and when OUT can't be written; what was finished stays finished.
    """
    found = list(find(sources, out, path_column=path_column, label_column=label_column))
    check_workers(workers, timeout)
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
        limit = timeout or TIMEOUT
        writes = (str(store.overlays),)
        setup = Setup(engine.model.preprocess, limits, style, timeout=limit, writes=writes)
        run = _Run(store, engine, asked, setup, worker_count(workers, todo, timeout))
        return run.tally.ended(run.all(progress, stop), changed)


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
        chunk = batch.chunk
        inputs = chunk.inputs[batch.start : batch.stop]
        decoded = [self.decoded_by(task) for task in batch.decoding]
        began = time.perf_counter()
        results = explain_batch(self.engine, self.asked, inputs, decoded, self.known)
        self.tally.spent("compute", time.perf_counter() - began)
        for position, (one, task, result) in enumerate(
            zip(inputs, batch.decoding, results, strict=True), batch.start
        ):
            if result.failure is not None:
                chunk.failed[position] = result.failure
                self.tally.failures += 1
                continue
            assert isinstance(task, Task)
            assert result.sha256 is not None
            if result.known:
                chunk.copies[position] = result.sha256, self.store.seen[_key(result.sha256)]
            elif result.copy_of is not None:
                chunk.copies[position] = result.sha256, chunk.number
            else:
                if result.explanations and one.expected is None:
                    self.store.seen[_key(result.sha256)] = chunk.number
                chunk.explained[position] = result, self.draw(one, result.explanations, task.at)
                self.tally.maps += len(result.explanations)
        self.tally.done += len(inputs)

    def known(self, digest: str) -> bool:
        return _key(digest) in self.store.seen

    def decoded_by(self, task: Task | Failure) -> Decoded:
        """What decoding an image gave."""
        found = task if isinstance(task, Failure) else self.pool.result(task)
        if isinstance(found, Failure):
            return Decoded(None, found, 0.0)
        assert isinstance(found, Decoded)
        self.tally.spent("decode", found.seconds)
        return found

    def draw(
        self, one: Input, explanations: Sequence[ImageExplanation], at: int | None
    ) -> Task | None:
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
            rows, scores = self.rows(chunk)
            began = time.perf_counter()
            failed = [chunk.failed[position] for position in sorted(chunk.failed)]
            told = [r for p in sorted(rows) for r in rows[p]]
            scored = [scores[position] for position in sorted(scores)]
            counts = answers(
                self.engine.model, [result.right for result, _ in chunk.explained.values()]
            ) | gate_counts(self.asked.gate, scored)
            self.store.commit(chunk.number, told, failed, counts, images=images, scores=scored)
            self.tally.spent("write", time.perf_counter() - began)
        except BaseException:
            # Later chunks may hold copies of this one's rows.
            self.broken = True
            raise

    def rows(self, chunk: _Chunk) -> tuple[dict[int, list[Row]], dict[int, Scores]]:
        """The rows and the scores of each image of a chunk, its overlays drawn."""
        rows: dict[int, list[Row]] = {}
        scores: dict[int, Scores] = {}
        own: dict[str | None, tuple[list[Row], Scores | None]] = {}
        for position, (result, drawing) in chunk.explained.items():
            one = chunk.inputs[position]
            there = self.drawn(chunk, position, drawing)
            said = None
            if one.expected is not None:
                said = label_of(self.engine.model.labels, one.expected)
            rows[position] = [
                row_of(e, self.naming.overlay(one, e) if there else None, said)
                for e in result.explanations
            ]
            if result.scores is not None:
                scores[position] = replace(result.scores, path=text(one.path))
            if said is None:
                own[result.sha256] = rows[position], result.scores
        copied = []
        for position, (digest, earlier) in chunk.copies.items():
            mine = own.get(digest) if earlier == chunk.number else None
            found, scored = self.store.copied(earlier, digest) if mine is None else mine
            one = chunk.inputs[position]
            same = [replace(e, input=replace(e.input, path=one.path)) for e in map(image_of, found)]
            self.tally.maps += len(same)
            if scored is not None:
                scores[position] = replace(scored, path=text(one.path))
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
        return rows, scores

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


def _key(digest: str) -> bytes:
    return bytes.fromhex(digest)
