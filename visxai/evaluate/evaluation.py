"""The evaluation of methods: metrics over a folder of photographs, with intervals and controls.

    visxai.evaluate.run(engine, ["photos"], ["grad_cam", "rise"], ["insertion", "deletion"], "OUT")

    OUT/evaluation.html        tables, ranks, curves and examples on one page that opens from disk
    OUT/evaluation.md, .json   the same, to read and to compute with
    OUT/rows.csv               one row an image, class and method, with every figure
    OUT/explanations/...       the records of the maps, curves beside them (`visxai.results.read`)

A random map and a centred Gaussian are always among the methods. Every method is judged on the
same images, classes and draws, so intervals are paired (`visxai.evaluate.statistics`). A stopped
run continues where it ended: images are judged a few at a time, and each such chunk is stored
completely or not at all.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import torch

from visxai.engine.engine import load_methods
from visxai.engine.explained import Explained
from visxai.engine.settings import settings_of
from visxai.errors import Argument, ArgumentError, Failure, TargetError, require
from visxai.evaluate import output
from visxai.evaluate.grids import Grids
from visxai.evaluate.judge import Judge, loaded, named
from visxai.evaluate.truth import Truth, mask
from visxai.foreign import shown
from visxai.images.decoding import Limits
from visxai.images.prepared import Prepared
from visxai.images.sources import find
from visxai.labels import class_finder
from visxai.methods.base import Method
from visxai.metrics import controls
from visxai.metrics.base import Ask, Metric
from visxai.pipeline.batch import failure_of, noise, one_by_one
from visxai.pipeline.progress import Outcome, Progress, Tally
from visxai.pipeline.request import accelerated
from visxai.pipeline.tasks import TIMEOUT, Setup, decode
from visxai.pipeline.workers import Workers, check_workers, worker_count
from visxai.references import ImageRef
from visxai.results.inputs import Input
from visxai.results.rows import SCHEMA, Row, row_of
from visxai.results.store import Store
from visxai.target import Target

if TYPE_CHECKING:
    from visxai.engine.engine import Engine, Methods

__all__ = ["METRICS", "Evaluation", "run"]

METRICS = ("insertion", "deletion")
_SCHEMA = SCHEMA.append(pa.field("curves", pa.string())).append(pa.field("layout", pa.string()))
_SCHEMA = _SCHEMA.append(pa.field("agreement", pa.list_(pa.float32())))


@dataclass(frozen=True)
class Evaluation:
    """The result of an evaluation.

    Attributes:
        outcome: The progress of the run, and what OUT holds.
        summary: The content of evaluation.json; None if the run was stopped before its end.
    """

    outcome: Outcome
    summary: dict[str, Any] | None


def run(
    engine: Engine,
    paths: Iterable[str | os.PathLike[str]],
    methods: Methods,
    metrics: Sequence[str | Metric] = METRICS,
    out: str | os.PathLike[str] = "visxai_evaluation",
    *,
    target: Any = "top1",
    truth: str | os.PathLike[str] | None = None,
    limits: Limits = Limits(),  # noqa: B008 - frozen
    workers: int | None = None,
    timeout: float | None = None,
    chunk_size: int = 8,
    draws: int = 10_000,
    seed: int = 0,
    examples: int = 6,
    fresh: bool = False,
    command: str = "",
    progress: Callable[[Progress], None] = lambda _: None,
    stop: Callable[[], bool] = lambda: False,
) -> Evaluation:
    """Judge methods by metrics on the images of files and folders, and write the results to OUT.

    Args:
        engine: The engine whose model is explained.
        paths: Files and folders of images.
        methods: The methods to judge; the controls are added to them.
        metrics: The metrics, as specs or objects.
        out: The folder OUT for the results.
        target: The target, as in `Engine.explain`, or "truth": each class that the file `truth`
            names in an image.
        truth: A CSV or COCO file with labels and boxes or outlines (`visxai.evaluate.truth`), for
            the metrics of localisation. With target="truth" only objects of the explained class
            count, otherwise all objects of an image.
        limits: Limits on the images that are decoded.
        workers: Number of processes that decode; 0 decodes in this process; None uses a single
            process, and none for one or two images without a timeout.
        timeout: Seconds that a worker may take to decode an image; None for 60.
        chunk_size: Number of images that are judged and stored together.
        draws: Number of bootstrap draws.
        seed: Seed of the bootstrap.
        examples: Number of images to draw, those on which the methods disagree most.
        fresh: Whether to delete what an earlier run left in OUT.
        command: The command line, for the run's record.
        progress: A function that is called with the progress after each metric of each method and
            after each chunk.
        stop: A function that is called as often; when it returns True the run ends, and a later
            run with the same settings continues it.

    Raises:
        VisxaiError: An argument is wrong, which is checked before anything is computed, or OUT
            can't be written.
    """
    check_workers(workers, timeout)
    require("matplotlib", "bench", "plots of an evaluation")
    if chunk_size < 1 or draws < 1 or examples < 0:
        raise ArgumentError(
            f"expected chunk_size and draws of at least 1 and examples of at least 0, got "
            f"{chunk_size}, {draws} and {examples}: leave them out for the defaults"
        )
    given = dict.fromkeys((*load_methods(methods), *map(controls.load, controls.names())))
    judged = loaded(metrics)
    request = _Request(engine, tuple(given), judged, target, truth)
    found = list(find(paths, out))
    if request.truth is not None:
        request.truth.check(one.path for one in found if one.failure is None)
    settings = settings_of(engine, request.methods, request.plain)
    forwards = sum(metric.forwards() for metric in judged)
    earlier = None if fresh else Path(out)
    decision = accelerated(engine, request.methods, len(found), earlier, forwards)
    settings |= {
        "target": request.target,
        "metrics": [repr(metric) for metric in judged],
        "truth": None if request.truth is None else request.truth.sha256,
        "accelerate": str(decision),
        "chunk": chunk_size,
        "max_pixels": limits.max_pixels,
    }
    with Store(out, settings, command=command, fresh=fresh, schema=_SCHEMA) as store:
        _, changed = store.add(found)
        images = len(found)
        del found
        count = worker_count(1 if workers is None and images > 2 else workers, images, timeout)
        with contextlib.closing(_decoders(engine, limits, count, timeout)) as pool:
            judging = _Run(store, request, pool)
            complete = judging.all(progress, stop)
            grids, summary = request.grids(pool), None
            if complete and grids is not None:
                complete = grids.judge(store.out, store.settings, stop)
        if complete:
            told = (store.out, request.methods, judged, grids, draws, seed, examples)
            with store.writing():
                summary = output.write(*told)
        outcome = judging.tally.ended(complete, changed)
        with contextlib.suppress(OSError):  # an evaluation draws no overlays
            store.overlays.rmdir()
        return Evaluation(outcome, summary)


class _Request:
    """The request of an evaluation, checked against the model."""

    def __init__(
        self,
        engine: Engine,
        methods: tuple[Method, ...],
        metrics: tuple[Metric, ...],
        target: Any,
        truth: str | os.PathLike[str] | None,
    ) -> None:
        self.engine, self.methods = engine, methods
        self.metrics = named([metric for metric in metrics if metric.per == "map"])
        self.over_grids = [metric for metric in metrics if metric.per == "grid"]
        self.located = any(Ask.OBJECTS in metric.asks for metric in metrics)
        self.by_truth = target == "truth" if isinstance(target, str) else False
        self.plain = Target.of("top1" if self.by_truth else target, engine.model.labels)
        self.target = "truth" if self.by_truth else str(self.plain)
        self.class_of = class_finder(engine.model.labels)
        if self.plain.kind in ("index", "callable"):
            raise TargetError(
                f"expected a target that can be written down, got {target!r}: use top1, "
                "class=207, any=281,282, diff=207,282, above=0.5 or truth"
            )
        if truth is None and (self.located or self.by_truth):
            what = "the target truth" if self.by_truth else "metrics of localisation"
            raise ArgumentError(
                expected=f"a file of labels or boxes for {what}",
                got="none",
                remedy=("give one with ", Argument("truth")),
                field="truth",
            )
        self.truth = None if truth is None else Truth.read(truth)
        if self.truth is not None:
            self._check(self.truth)
        for metric in metrics:
            lacking = metric.needs & ~engine.model.offers
            if lacking:
                raise ArgumentError(
                    f"expected metrics that {engine.model.ref.name} can serve, but {metric.name()} "
                    f"needs {lacking}: leave it out"
                )

    def _check(self, truth: Truth) -> None:
        """Raise ArgumentError unless the file has the labels or boxes that the evaluation needs."""
        objects = [one for known in truth.objects.values() for one in known]
        labels = [one.label for one in objects if one.label]
        if self.by_truth:
            for label in labels:
                self.class_of(label)
            if objects and not labels:
                raise ArgumentError(
                    "expected labels for the target truth, got boxes alone: add the column label, "
                    "or choose another target"
                )
        if self.located and objects and not any(one.box or one.outline for one in objects):
            raise ArgumentError(
                "expected boxes for metrics of localisation, got labels alone: add the columns "
                "left,top,right,bottom, or leave these metrics out"
            )

    def items(self, one: ImageRef) -> list[int | None]:
        """List the classes to explain of an image; [None] leaves them to the target."""
        if not self.by_truth:
            return [None]
        assert self.truth is not None
        return list(self.truth.classes(one.path, self.class_of))

    def objects(self, items: Sequence[tuple[Prepared, int | None]]) -> torch.Tensor | None:
        """Rasterise the objects of images in the model's view: (b, h, w), bool, on the device.

        Args:
            items: Images, each with the class whose objects count, or None for all its objects.

        Returns:
            The masks, or None if no metric needs objects.
        """
        if not self.located:
            return None
        assert self.truth is not None
        masks = []
        for image, wanted in items:
            where = image.input
            regions = self.truth.regions(where.path, wanted, self.class_of)
            masks.append(mask(regions, where.transform, (where.width, where.height)))
        return torch.from_numpy(np.stack(masks)).to(self.engine.device)

    def grids(self, pool: Workers) -> Grids | None:
        """Build the judge of the metrics over grids; None without such metrics."""
        if not self.over_grids:
            return None
        return Grids(self.engine, self.methods, self.over_grids, pool)


def _decoders(engine: Engine, limits: Limits, count: int, timeout: float | None) -> Workers:
    """Start the workers that decode an evaluation's images, on which nothing is drawn."""
    assert engine.model.preprocess is not None
    setup = Setup(engine.model.preprocess, limits, None, timeout=timeout or TIMEOUT)
    return Workers(setup, count)


class _Stopped(BaseException):
    """A request to stop within a chunk, whose work is dropped.

    It is no `Exception`, so that it isn't recorded as the failure of an image.
    """


class _Run:
    """The judging of the chunks that a store lists as pending."""

    def __init__(self, store: Store, request: _Request, pool: Workers) -> None:
        self.store, self.request, self.pool = store, request, pool
        self.tally = Tally(store)

    def all(self, progress: Callable[[Progress], None], stop: Callable[[], bool]) -> bool:
        """Judge all pending chunks; return False when stopped before the end."""
        progress(self.tally.progress())
        for number in self.store.pending():
            if stop():
                return False
            inputs = self.store.inputs(number)
            try:
                rows, failed = self.judged(inputs, self.stepping(len(inputs), progress, stop))
            except _Stopped:
                return False
            self.store.commit(number, rows, failed)
            self.tally.done += len(inputs)
            self.tally.part = 0.0
            self.tally.maps += len(rows)
            self.tally.failures += len(failed)
            progress(self.tally.progress())
        return True

    def stepping(
        self, images: int, progress: Callable[[Progress], None], stop: Callable[[], bool]
    ) -> Callable[[], None]:
        """Build the function to call after each metric of each method: a chunk may take minutes.

        It reports the progress, and raises `_Stopped` when the run is to end.
        """
        share = images / (len(self.request.methods) * max(1, len(self.request.metrics)))

        def step() -> None:
            self.tally.part += share
            progress(self.tally.progress())
            if stop():
                raise _Stopped

        return step

    def judged(
        self, inputs: Sequence[Input], step: Callable[[], None]
    ) -> tuple[list[Row], list[Failure]]:
        """Judge a chunk's images, and return their rows and failures."""
        items: list[tuple[Prepared, int | None]] = []
        failed = []
        tasks = [one.failure or self.pool.submit(decode, one.path) for one in inputs]
        for one, task in zip(inputs, tasks, strict=True):
            found = self.pool.result(task)
            if isinstance(found, Failure):
                failed.append(found)
                continue
            classes = self.request.items(found.input)
            if not classes:
                reason = (
                    f"expected a label for {shown(one.path)} in the file of labels, got none: add "
                    "it"
                )
                failed.append(Failure(one.path, reason, "ArgumentError"))
            items += [(found, wanted) for wanted in classes]
        rows = []
        wrong: dict[str | None, Failure] = {}
        results = one_by_one(
            items,
            lambda batch: self.explained(batch, step),
            lambda: self.explained([(noise(items[0][0]), items[0][1])], lambda: None),
        )
        for (image, _), result in zip(items, results, strict=True):
            if isinstance(result, Exception):
                path = image.input.path
                wrong.setdefault(path, failure_of(path, result))
            else:
                rows += result
        return rows, [*failed, *wrong.values()]

    def explained(
        self, items: Sequence[tuple[Prepared, int | None]], step: Callable[[], None]
    ) -> list[list[Row]]:
        """Explain and judge images: for each item, a row for each class and method."""
        request = self.request
        target = request.plain
        if request.by_truth:
            target = Target.of([wanted for _, wanted in items])
        judge = Judge(request.metrics, request.objects(items), step)
        batch = [prepared for prepared, _ in items]
        found = request.engine.explain_prepared(batch, request.methods, target, check=judge)
        # The explanations of each method come in the order of its maps.
        extras = {
            repr(method): iter(told)
            for method, told in zip(request.methods, judge.extras(), strict=True)
        }
        rows: list[list[Row]] = []
        for one in found:
            assert isinstance(one, Explained)
            rows.append([row_of(e, None) | next(extras[e.method]) for e in one.explanations])
        return rows
