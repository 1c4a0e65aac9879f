"""A run on a Ray cluster: it distributes the steps of `visxai.pipeline` with Ray Data.

    driver          tasks                   actors, one a GPU      tasks                  driver
    batches     ->  read, decode, crop  ->  compute a batch    ->  draw, encode, rows ->  commit

The unit of work is the batch that a local run would compute, and only the driver writes the
store: OUT, its chunks and its keys are those of a local run, and either run can continue the
other. A batch whose process or machine dies is computed again, and a batch that arrives twice
counts once. Every node needs visxai, and must see the images and OUT under the same paths.

    visxai.scale.explain(["photos"], "out", "efficientnet_lite0", address="auto")
"""

from __future__ import annotations

import contextlib
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from visxai.errors import ArgumentError
from visxai.images.decoding import Limits
from visxai.images.sources import Source, find
from visxai.pipeline.batch import gate_counts
from visxai.pipeline.options import RunOptions
from visxai.pipeline.progress import Outcome, Progress, Tally
from visxai.pipeline.request import expected
from visxai.pipeline.tasks import Style
from visxai.pipeline.workers import check_workers
from visxai.results.store import Store
from visxai.scale.cluster import connected, one_sentence
from visxai.scale.stages import TASK_CPUS, Batch, EngineFacts, Maker, Order, stages, survey

if TYPE_CHECKING:
    from visxai.engine.engine import Methods
    from visxai.engine.gate import Gate
    from visxai.metrics.base import Metric


def explain(
    sources: Iterable[Source],
    out: str | os.PathLike[str],
    engine: Maker = "efficientnet_lite0",
    method: Methods = "grad_cam",
    target: Any = "top1",
    *,
    only: str | Gate | None = None,
    check: str | Metric | None = None,
    style: Style | None = Style(),  # noqa: B008 - frozen
    limits: Limits = Limits(),  # noqa: B008 - frozen
    chunk_size: int | None = None,
    timeout: float | None = None,
    path_column: str | None = None,
    label_column: str | None = None,
    address: str | None = None,
    actors: int | None = None,
    fresh: bool = False,
    retry_failures: bool = False,
    command: str = "",
    progress: Callable[[Progress], None] = lambda _: None,
    stop: Callable[[], bool] = lambda: False,
) -> Outcome:
    """Explain sources into OUT on a Ray cluster, and continue an earlier run in OUT.

    `visxai.pipeline.explain` describes the arguments at more length.

    Args:
        sources: What to explain (see `visxai.images.sources`).
        out: The folder OUT for the results, under the same path on every node.
        engine: A model's name, the arguments of `visxai.Engine` by name, or a function without
            arguments that makes an engine. Each actor makes its own engine.
        method: One method or several.
        target: A target that can be written as text, such as "top1" or "class=207".
        only: A condition that images must meet to be explained.
        check: A metric whose figures go into each row's quality.
        style: The style of overlays, None for no overlays.
        limits: The limits on an image's pixels and bytes.
        chunk_size: The images that are finished together, a multiple of the batch size.
        timeout: The seconds that a process may take to decode an image; None is 60.
        path_column: The column of paths in tables; None finds it by its usual names.
        label_column: The column of labels in tables; None finds it by its usual names, and "none"
            ignores labels.
        address: The address of a running cluster, "auto" or HOST:PORT, whose token is configured;
            None is the cluster that this process is connected to, or else a Ray on this machine
            for this run only.
        actors: The number of engines; None is one a GPU, or one for every two cores without GPUs.
        fresh: Delete the results of an earlier run in OUT first.
        retry_failures: Compute again the chunks in which an earlier run had failures.
        command: The command line to keep in OUT's run.json.
        progress: Called at the start and after each batch.
        stop: Called after each batch; if it returns True the run ends, and OUT keeps what is
            finished.

    Returns:
        The outcome of the run.

    Raises:
        VisxaiError: If an argument is wrong, the cluster is too small or doesn't answer, or OUT
            can't be written; finished images stay finished.
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
        sources,
        out,
        engine,
        options,
        address=address,
        actors=actors,
        progress=progress,
        stop=stop,
    )


def explain_sources(
    sources: Iterable[Source],
    out: str | os.PathLike[str],
    engine: Maker,
    options: RunOptions,
    *,
    address: str | None = None,
    actors: int | None = None,
    progress: Callable[[Progress], None] = lambda _: None,
    stop: Callable[[], bool] = lambda: False,
) -> Outcome:
    """Explains sources into OUT as `explain` does, whose options come gathered."""
    _check_maker(engine)
    if actors is not None and actors < 1:
        raise ArgumentError(f"expected at least 1 actor, got {actors}: leave it out")
    check_workers(None, options.timeout)
    found = list(
        find(sources, out, path_column=options.path_column, label_column=options.label_column)
    )
    with connected(address) as ray, one_sentence(ray):
        cluster = ray.cluster_resources()
        cpus, gpus = cluster.get("CPU", 0), 0 if _on_cpu(engine) else int(cluster.get("GPU", 0))
        count = actors or gpus or max(1, int(cpus) // 2)
        if count + TASK_CPUS > cpus or count > gpus > 0:
            raise ArgumentError(
                f"expected a core and, where there are GPUs, a GPU for each of {count} actors and "
                f"a core to decode with, got a cluster of {cpus:g} cores and {gpus} GPUs: give it "
                "more, or use fewer actors"
            )
        labelled = any(one.label is not None for one in found)
        earlier = None if options.fresh else Path(os.path.abspath(out))
        order = Order(engine, options, -(-len(found) // count), earlier, labelled)
        surveying = ray.remote(num_cpus=1, num_gpus=min(1, gpus))(survey)
        facts = ray.get(surveying.remote(order))
        if not isinstance(facts, EngineFacts):
            raise facts
        found = expected(found, facts.labels, options.asked_column)
        with Store(
            out,
            facts.settings,
            command=options.command,
            fresh=options.fresh,
            retry=options.retry_failures,
        ) as store:
            _, changed = store.add(found)
            del found
            run = _Run(store)
            passing = stages(ray, run.batches(), order, facts, store.overlays, count, min(1, gpus))
            with contextlib.closing(passing) as batches:
                complete = run.all(batches, progress, stop)
            return run.tally.ended(complete, changed)


def _check_maker(engine: Any) -> None:
    """Raise ArgumentError unless other processes can make an engine from the argument."""
    if isinstance(engine, (str, Mapping)):
        model = engine if isinstance(engine, str) else engine.get("model", "")
        if isinstance(model, str):
            return
    elif callable(engine) and not hasattr(engine, "parameters"):
        return
    raise ArgumentError(
        f"expected engine= as a model's name, the arguments of visxai.Engine by name, or a "
        f"function that makes an engine, got {type(engine).__name__}: it isn't sent to other "
        "machines; write engine=lambda: visxai.Engine(...) around what makes the model"
    )


def _on_cpu(engine: Maker) -> bool:
    """Tell whether an engine's arguments place it on a CPU."""
    return isinstance(engine, Mapping) and str(engine.get("device", "")).startswith("cpu")


_INTERVAL = 10.0  # seconds between the commits of unfinished chunks


class _Run:
    """A run over the pending chunks of a store."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.tally = Tally(store)

    def batches(self) -> Iterator[Batch]:
        """Yield the pending batches, with the boundaries of a local run."""
        size = self.store.settings["batch"]
        for number in self.store.pending():
            inputs = self.store.inputs(number)
            for start in range(self.store.begun(number), len(inputs), size):
                yield Batch(number, start, inputs[start : start + size])

    def all(
        self,
        batches: Iterator[Batch],
        progress: Callable[[Progress], None],
        stop: Callable[[], bool],
    ) -> bool:
        """Commit chunks as their batches arrive; return False if images remain."""
        waiting: dict[int, dict[int, Batch]] = {}
        committed = time.monotonic()
        progress(self.tally.progress())
        try:
            for batch in batches:
                if batch.error is not None:
                    raise batch.error
                there = waiting.setdefault(batch.chunk, {})
                done = batch.start < self.store.begun(batch.chunk)
                if done or batch.chunk in self.store.finished or batch.start in there:
                    continue  # computed twice: a node was lost after it had returned the batch
                there[batch.start] = batch
                self.tally.done += len(batch.inputs)
                self.tally.maps += len(batch.rows)
                self.tally.failures += len(batch.failed)
                for stage, seconds in batch.seconds.items():
                    self.tally.spent(stage, seconds)
                self.commit(batch.chunk, there, whole=True)
                if not there:
                    del waiting[batch.chunk]
                if time.monotonic() - committed >= _INTERVAL:
                    self.commit_begun(waiting)
                    committed = time.monotonic()
                progress(self.tally.progress())
                if stop():
                    break
        finally:
            self.commit_begun(waiting)  # computed batches are committed, whatever ended the run
        return not self.store.pending()

    def commit_begun(self, waiting: dict[int, dict[int, Batch]]) -> None:
        """Commit each chunk's waiting batches that follow without a gap on its finished images."""
        for chunk, there in waiting.items():
            if self.store.divisible(chunk):
                self.commit(chunk, there, whole=False)

    def commit(self, chunk: int, there: dict[int, Batch], whole: bool) -> None:
        """Commit the batches that follow without a gap on the finished images of a chunk.

        Args:
            chunk: The chunk's number.
            there: The chunk's waiting batches by their first position; committed ones are removed.
            whole: Whether to commit only if that finishes the chunk.
        """
        began = time.perf_counter()
        ordered, stop = [], self.store.begun(chunk)
        while (batch := there.get(stop)) is not None:
            ordered.append(batch)
            stop += len(batch.inputs)
        if not ordered or (whole and stop < self.store.size(chunk)):
            return
        rows = [row for batch in ordered for row in batch.rows]
        failed = [batch.failed[place] for batch in ordered for place in sorted(batch.failed)]
        counts: Counter[str] = Counter()
        for batch in ordered:
            counts.update(batch.answers)
        scores = [one for batch in ordered for one in batch.scores]
        counts.update(gate_counts(self.store.settings.get("only"), scores))
        self.store.commit(chunk, rows, failed, counts, images=stop, scores=scores)
        for batch in ordered:
            del there[batch.start]
        self.tally.spent("write", time.perf_counter() - began)
