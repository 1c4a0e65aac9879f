"""A run from folders of images to a folder of results, with overlapping stages.

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
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from visxai.errors import Failure
from visxai.images.decoding import Limits
from visxai.images.prepared import Prepared
from visxai.images.sources import Source, find
from visxai.labels import label_of
from visxai.pipeline.batch import Duplicate, Result, begin_batch, explain_batch, gate_counts
from visxai.pipeline.chunks import Batch, Chunk
from visxai.pipeline.naming import Naming
from visxai.pipeline.options import RunOptions
from visxai.pipeline.progress import Outcome, Progress, Tally
from visxai.pipeline.request import Request, answers, expected, make_request
from visxai.pipeline.spawning import EarlyWorkers
from visxai.pipeline.tasks import TIMEOUT, Drawn, Setup, Style, decode, draw
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
    """Explain files, folders, lists, tables, tars and URLs into the folder OUT.

    The run continues an earlier run of the same settings in OUT. Images that can't be explained
    are listed in OUT's failures and don't end the run.

    Args:
        sources: What to explain (see `visxai.images.sources`).
        out: The folder OUT for the results.
        engine: The engine that explains.
        method: One method or several, as for `Engine.explain`.
        target: A target that can be written as text, such as "top1" or "class=207".
        only: A condition on scores, as for `Engine.explain`; images that don't meet it have no
            row. For sources with labels also "wrong" or "right": the images whose label hasn't,
            or has, the greatest score; images without a label are neither.
        check: A metric whose figures go into each row's quality, such as "faithfulness".
        style: The style of overlays, None for no overlays.
        limits: The limits on an image's pixels and bytes.
        chunk_size: The images that are finished together, a multiple of the engine's batch size;
            None is an earlier run's number, otherwise the first multiple from 64 on.
        workers: The number of processes that decode and draw; 0 does both in this process; None
            is one a core, and 0 for one or two images without a timeout.
        timeout: The seconds that a worker process may take to decode an image; None is 60.
        path_column: The column of paths in tables; None finds it by its usual names.
        label_column: The column of labels in tables; None finds it by its usual names, and "none"
            ignores labels.
        fresh: Delete the results of an earlier run in OUT first.
        retry_failures: Compute again the chunks in which an earlier run had failures.
        command: The command line to keep in OUT's run.json.
        progress: Called at the start and after each batch.
        stop: Called before each batch; if it returns True the run ends, and OUT keeps what is
            finished.

    Returns:
        The outcome of the run.

    Raises:
        VisxaiError: If an argument is wrong or OUT can't be written; finished images stay
            finished.
    """
    options = RunOptions(
        method=method,
        target=target,
        only=only,
        check=check,
        style=style,
        limits=limits,
        chunk_size=chunk_size,
        timeout=timeout,
        path_column=path_column,
        label_column=label_column,
        fresh=fresh,
        retry_failures=retry_failures,
        command=command,
    )
    return explain_sources(
        sources, out, engine, options, workers=workers, progress=progress, stop=stop
    )


def explain_sources(
    sources: Iterable[Source],
    out: str | os.PathLike[str],
    engine: Engine,
    options: RunOptions,
    *,
    workers: int | None = None,
    early: EarlyWorkers | None = None,
    progress: Callable[[Progress], None] = lambda _: None,
    stop: Callable[[], bool] = lambda: False,
) -> Outcome:
    """Explains sources into OUT as `explain` does, whose options come gathered.

    `early` are processes that were started for this run before the engine was there.
    """
    found = list(
        find(sources, out, path_column=options.path_column, label_column=options.label_column)
    )
    check_workers(workers, options.timeout)
    found = expected(found, engine.model.labels, options.asked_column)
    earlier = None if options.fresh else Path(out)
    labelled = any(one.expected is not None for one in found)
    request = make_request(engine, options, len(found), earlier, labelled=labelled)
    with Store(
        out,
        request.settings,
        command=options.command,
        fresh=options.fresh,
        retry=options.retry_failures,
    ) as store:
        _, changed = store.add(found)
        del found
        todo = sum(store.size(number) - store.begun(number) for number in store.pending())
        assert engine.model.preprocess is not None
        setup = Setup(
            engine.model.preprocess,
            options.limits,
            options.style,
            timeout=options.timeout or TIMEOUT,
            writes=(str(store.overlays),),
        )
        pool = Workers(setup, worker_count(workers, todo, options.timeout), early)
        run = _Run(store, engine, request, setup, pool)
        return run.tally.ended(run.all(progress, stop), changed)


class _Run:
    """A run over the pending chunks of a store."""

    def __init__(
        self,
        store: Store,
        engine: Engine,
        request: Request,
        setup: Setup,
        pool: Workers,
    ) -> None:
        self.store, self.engine, self.request = store, engine, request
        self.style, self.naming = setup.style, Naming.of(request, setup.style)
        self.pool = pool
        self.tally = Tally(store)
        self.coming: set[bytes] = set()  # SHA-256 of unlabelled images, begun and not finished
        self.broken = self.stopped = False

    def all(self, progress: Callable[[Progress], None], stop: Callable[[], bool]) -> bool:
        """Compute all pending chunks; return False if stopped before the end."""
        writer = ThreadPoolExecutor(1, "visxai-writer")
        committing: deque[Future[None]] = deque()
        computed: Batch | None = None  # the last computed batch, until it is handed over
        committed = time.monotonic()

        def hand_over(batch: Batch) -> None:
            taken = batch.chunk.take(batch.stop)
            committing.append(writer.submit(self.commit, taken, batch.stop))

        try:
            progress(self.tally.progress())
            for batch in self.computed(stop):
                computed = batch
                progress(self.tally.progress())
                due = time.monotonic() - committed >= _INTERVAL
                if batch.last or (due and self.store.divisible(batch.chunk.number)):
                    hand_over(batch)
                    computed, committed = None, time.monotonic()
                while committing and (committing[0].done() or len(committing) > _COMMITS):
                    committing.popleft().result()
        finally:
            # Computed batches are committed, whatever ended the run.
            if computed is not None and self.store.divisible(computed.chunk.number):
                hand_over(computed)
            writer.shutdown()
            self.pool.close()
        for one in committing:
            one.result()
        return not self.stopped

    def decoded(self) -> Iterator[Batch]:
        """Yield the pending batches in order, while workers decode the following ones."""
        size = self.engine.batch_size
        ahead = max(2, -(-4 * self.pool.count // size)) if self.pool.count else 0
        waiting: deque[Batch] = deque()
        for number in self.store.pending():
            chunk = Chunk(number, self.store.inputs(number))
            for start in range(self.store.begun(number), len(chunk.inputs), size):
                inputs = chunk.inputs[start : start + size]
                last = start + size >= len(chunk.inputs)
                tasks = [one.failure or self.pool.submit(decode, one.path) for one in inputs]
                waiting.append(Batch(chunk, start, last, tasks))
                if len(waiting) > ahead:
                    yield waiting.popleft()
        yield from waiting

    # ---- compute, in the thread of the run -------------------------------------------------------

    def computed(self, stop: Callable[[], bool]) -> Iterator[Batch]:
        """Yield the pending batches explained, in order; on a GPU the next has begun by then.

        What has begun is finished, whatever ends the run.
        """
        batches = self.decoded()
        ended: BaseException | None = None
        begun: deque[tuple[Batch, Callable[[], list[Result]]]] = deque()
        more = True
        while more or begun:
            try:
                while more and len(begun) <= self.engine.ahead:
                    batch = next(batches, None)
                    self.stopped = batch is not None and stop()
                    if batch is None or self.stopped:
                        more = False
                    else:
                        begun.append((batch, self.begin(batch)))
            except BaseException as error:
                more, ended = False, error
            if begun:
                yield self.finish(*begun.popleft())
        if ended is not None:
            raise ended

    def begin(self, batch: Batch) -> Callable[[], list[Result]]:
        """Begin to explain a batch once its images are decoded."""
        inputs = batch.chunk.inputs[batch.start : batch.stop]
        decoded = [self.decoded_by(task) for task in batch.decoding]
        began = time.perf_counter()
        begun = begin_batch(self.engine, self.request, inputs, decoded, self.known)
        self.tally.spent("compute", time.perf_counter() - began)
        mine = {
            _key(image.input.source_sha256)
            for one, image in zip(inputs, decoded, strict=True)
            if one.expected is None and isinstance(image, Prepared)
        }
        self.coming |= mine

        def finish() -> list[Result]:
            self.coming -= mine
            results = begun()
            # Copies of images that had begun, and have no results now: they are explained as well.
            lost = [
                place
                for place, one in enumerate(results)
                if isinstance(one, Duplicate) and one.of is None and not self.known(one.sha256)
            ]
            given = [inputs[place] for place in lost], [decoded[place] for place in lost]
            for place, result in zip(
                lost, explain_batch(self.engine, self.request, *given), strict=True
            ):
                results[place] = result
            return results

        return finish

    def finish(self, batch: Batch, begun: Callable[[], list[Result]]) -> Batch:
        """Wait for a batch's results, and start the drawing of its overlays."""
        chunk = batch.chunk
        inputs = chunk.inputs[batch.start : batch.stop]
        began = time.perf_counter()
        results = begun()
        self.tally.spent("compute", time.perf_counter() - began)
        for position, (one, task, result) in enumerate(
            zip(inputs, batch.decoding, results, strict=True), batch.start
        ):
            if isinstance(result, Failure):
                chunk.failed[position] = result
                self.tally.failures += 1
            elif isinstance(result, Duplicate):
                known = result.of is None
                number = self.store.seen[_key(result.sha256)] if known else chunk.number
                chunk.copies[position] = result.sha256, number
            else:
                assert isinstance(task, Task)
                if result.explanations and one.expected is None:
                    self.store.seen[_key(result.input.source_sha256)] = chunk.number
                chunk.explained[position] = result, self.draw(one, result.explanations, task.at)
                self.tally.maps += len(result.explanations)
        self.tally.done += len(inputs)
        return batch

    def known(self, digest: str) -> bool:
        """Tell whether an image with these bytes, given by their SHA-256, is explained or begun."""
        return _key(digest) in self.store.seen or _key(digest) in self.coming

    def decoded_by(self, task: Task | Failure) -> Prepared | Failure:
        """Wait until an image is decoded, and return the result."""
        found: Prepared | Failure = self.pool.result(task)
        if isinstance(found, Prepared):
            self.tally.spent("decode", found.seconds)
        return found

    def draw(
        self, one: Input, explanations: Sequence[ImageExplanation], at: int | None
    ) -> Task | None:
        """Start drawing an image's overlays, at the worker `at` if given; None: none to draw."""
        if self.style is None or not explanations:
            return None
        wanted = [(e, self.store.overlays / str(self.naming.overlay(one, e))) for e in explanations]
        return self.pool.submit(draw, one.path, wanted, at=at)

    # ---- commit, in the writer's thread, chunk by chunk in order ---------------------------------

    def commit(self, chunk: Chunk, images: int) -> None:
        """Wait for the overlays of a chunk's results, and commit them.

        Args:
            chunk: The results to commit, as `Chunk.take` returns them.
            images: How many images of the chunk are done with this commit, from its first on.
        """
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
            ) | gate_counts(self.request.gate, scored)
            self.store.commit(chunk.number, told, failed, counts, images=images, scores=scored)
            self.tally.spent("write", time.perf_counter() - began)
        except BaseException:
            # Later chunks may hold copies of this one's rows.
            self.broken = True
            raise

    def rows(self, chunk: Chunk) -> tuple[dict[int, list[Row]], dict[int, Scores]]:
        """Wait for a chunk's overlays; return each image's rows and scores, by position."""
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
            scores[position] = replace(result.scores, path=text(one.path))
            if said is None:
                own[result.input.source_sha256] = rows[position], result.scores
        copied = []
        for position, (digest, earlier) in chunk.copies.items():
            mine = own.get(digest) if earlier == chunk.number else None
            found, scored = self.store.copied(earlier, digest) if mine is None else mine
            one = chunk.inputs[position]
            same = [
                replace(e, input=replace(e.input, path=one.path), id=one.id)
                for e in map(image_of, found)
            ]
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
                    "id": one.id,
                    "overlay": self.naming.overlay(one, e) if there else None,
                }
                for row, e in zip(found, same, strict=True)
            ]
        return rows, scores

    def drawn(self, chunk: Chunk, position: int, drawing: Task | None) -> bool:
        """Wait until an image's overlays are drawn; return whether they exist."""
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
