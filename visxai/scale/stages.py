"""The three stages of a batch in Ray's processes: read and decode, compute, draw."""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import visxai
from visxai.engine.decision import Decision
from visxai.engine.explained import Explained
from visxai.errors import Failure, VisxaiError
from visxai.images.prepared import Prepared
from visxai.labels import label_of
from visxai.pipeline.batch import Duplicate, Result, explain_batch
from visxai.pipeline.naming import Naming
from visxai.pipeline.options import RunOptions
from visxai.pipeline.request import Request, answers, make_request
from visxai.pipeline.tasks import TIMEOUT, Drawn, Setup, decode, draw
from visxai.pipeline.workers import Workers
from visxai.record.scores import Scores
from visxai.results.inputs import Input
from visxai.results.rows import Row, image_of, row_of, text

if TYPE_CHECKING:
    from visxai.engine.engine import Engine

Maker = str | Mapping[str, Any] | Callable[[], "Engine"]

# Decoding and drawing wait for files part of the time: two such tasks share a core.
TASK_CPUS = 0.5
_BLOCKS = 20_000  # Ray Data's blocks of a run: more would only keep the driver busy


@dataclass(frozen=True)
class Order:
    """The run's arguments, which are sent to each of its processes.

    Attributes:
        engine: What makes an engine (see `visxai.scale.explain`).
        options: The options of the run.
        images: The number of images for each engine.
        earlier: The OUT that the run continues, None for a new one.
        labelled: Whether some images have labels.
        version: The driver's version of visxai, which every node must have.
    """

    engine: Maker
    options: RunOptions
    images: int
    earlier: Path | None
    labelled: bool
    version: str = visxai.__version__

    def made(self) -> Engine:
        """Make a new engine; raise VisxaiError if this node has another version of visxai."""
        from visxai.engine.engine import Engine

        if self.version != visxai.__version__:
            raise VisxaiError(
                f"expected visxai {self.version} on every node, got {visxai.__version__} on one: "
                "install the same on all"
            )
        if isinstance(self.engine, str):
            return Engine(self.engine)
        return Engine(**self.engine) if isinstance(self.engine, Mapping) else self.engine()

    def request(self, engine: Engine) -> Request:
        """Check the request of the run against an engine."""
        return make_request(engine, self.options, self.images, self.earlier, labelled=self.labelled)


@dataclass(frozen=True)
class EngineFacts:
    """The facts about an engine that the driver needs, since it loads no engine itself.

    Attributes:
        settings: The settings that OUT keeps.
        decision: The decision on acceleration.
        labels: The model's labels, None for a model without.
        naming: The names of the overlays.
        setup: The settings of decoding and drawing.
    """

    settings: dict[str, Any]
    decision: Decision
    labels: tuple[str, ...] | None
    naming: Naming
    setup: Setup


@dataclass
class Batch:
    """A batch on its way through the stages.

    Attributes:
        chunk: The number of its chunk.
        start: The position in the chunk of its first image.
        inputs: Its images.
        decoded: The results of decoding, until the last stage.
        results: The results of explaining, until the last stage.
        said: The label of each labelled image, by place in the batch.
        answers: The counts of labelled images and of those that the model gets right.
        rows: The rows for the store.
        scores: The scores for the store.
        failed: The failures, by place in the batch.
        seconds: The seconds of each stage.
        error: The type and sentence of an error that ends the run, None for none.
    """

    chunk: int
    start: int
    inputs: list[Input]
    decoded: list[Prepared | Failure] = field(default_factory=list)
    results: list[Result] = field(default_factory=list)
    said: dict[int, str] = field(default_factory=dict)
    answers: dict[str, int] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    scores: list[Scores] = field(default_factory=list)
    failed: dict[int, Failure] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    error: VisxaiError | None = None


def survey(order: Order) -> EngineFacts | VisxaiError:
    """Make an engine where the run's engines will be, and describe it to the driver.

    Returns:
        The facts about the engine, or the error that prevents the run.
    """
    try:
        engine = order.made()
        request = order.request(engine)
    except VisxaiError as error:
        return error
    assert engine.model.preprocess is not None
    options = order.options
    # Another process draws the overlays: no photograph is kept for them.
    setup = Setup(
        engine.model.preprocess,
        options.limits,
        options.style,
        cache=0,
        timeout=options.timeout or TIMEOUT,
    )
    labels = None if engine.model.labels is None else tuple(engine.model.labels)
    naming = Naming.of(request, options.style)
    return EngineFacts(request.settings, request.decision, labels, naming, setup)


def stages(
    ray: Any,
    batches: Iterator[Batch],
    order: Order,
    facts: EngineFacts,
    overlays: Path,
    actors: int,
    gpus: int,
) -> Generator[Batch]:
    """Send batches through the three stages on Ray.

    Args:
        ray: The connected module `ray`.
        batches: The pending batches.
        order: The run's arguments.
        facts: The facts about its engines.
        overlays: The folder of overlays.
        actors: The number of engines.
        gpus: The GPUs of each engine, 0 or 1.

    Yields:
        The finished batches, in any order.
    """
    rows = [_packed(batch) for batch in batches]
    if not rows:
        return
    context = ray.data.DataContext.get_current().copy()
    context.enable_progress_bars = context.enable_operator_progress_bars = False
    setup = ray.cloudpickle.dumps(replace(facts.setup, writes=(str(overlays),)))
    with ray.data.DataContext.current(context):
        found = (
            ray.data.from_items(rows, override_num_blocks=min(len(rows), _BLOCKS))
            .map(partial(_decoded, setup=setup), num_cpus=TASK_CPUS)
            .map(
                _Explainer,
                fn_constructor_args=(order, facts),
                compute=ray.data.ActorPoolStrategy(size=actors),
                num_cpus=1,
                num_gpus=gpus,
            )
            .map(
                partial(_drawn, setup=setup, naming=facts.naming, overlays=overlays),
                num_cpus=TASK_CPUS,
            )
        )
        del rows
        for row in found.iter_rows():
            yield _unpacked(row)


def _packed(batch: Batch) -> dict[str, bytes]:
    return {"batch": pickle.dumps(batch, pickle.HIGHEST_PROTOCOL)}


def _unpacked(row: Mapping[str, bytes]) -> Batch:
    # The bytes come from a process of this run, over connections that need the cluster's token.
    batch = pickle.loads(row["batch"])
    assert isinstance(batch, Batch)
    return batch


_pools: dict[bytes, Workers] = {}


def _pool(setup: bytes) -> Workers:
    """Return this process's own worker, which a hostile file may crash in its place."""
    if setup not in _pools:
        while _pools:
            _pools.popitem()[1].close()
        _pools[setup] = Workers(pickle.loads(setup), 1)
    return _pools[setup]


def _decoded(row: dict[str, bytes], setup: bytes) -> dict[str, bytes]:
    """Decode the images of a batch: the first stage."""
    batch, pool = _unpacked(row), _pool(setup)
    tasks = [one.failure or pool.submit(decode, one.path) for one in batch.inputs]
    for task in tasks:
        found = pool.result(task)
        batch.decoded.append(found)
        if isinstance(found, Prepared):
            batch.seconds["decode"] = batch.seconds.get("decode", 0.0) + found.seconds
    return _packed(batch)


class _Explainer:
    """The second stage: an actor that makes an engine once and explains batches with it.

    Args:
        order: The run's arguments.
        facts: What the first engine said: this node's must have the same settings.

    Attributes:
        error: The type and sentence of the error that prevents this node's engine, if any.
    """

    def __init__(self, order: Order, facts: EngineFacts) -> None:
        self.error: VisxaiError | None = None
        try:
            self.engine = order.made()
            self.engine.settle(facts.decision, facts.settings["precision"])
            self.request = replace(order, earlier=None).request(self.engine)
        except VisxaiError as error:
            self.error = error
            return
        mine, settings = self.request.settings, facts.settings
        wrong = [name for name in settings if name != "accelerate" and mine[name] != settings[name]]
        if wrong:
            self.error = VisxaiError(
                expected=f"the same {wrong[0]} on every node",
                got=f"{mine[wrong[0]]} beside {settings[wrong[0]]}",
                remedy="give all nodes the same visxai, files and kind of device",
            )

    def __call__(self, row: dict[str, bytes]) -> dict[str, bytes]:
        batch = _unpacked(row)
        batch.error = self.error
        began = time.perf_counter()
        if batch.error is None:
            try:
                self.explain(batch)
            except VisxaiError as error:
                batch.error = error
        batch.seconds["compute"] = time.perf_counter() - began
        batch.decoded = []
        return _packed(batch)

    def explain(self, batch: Batch) -> None:
        """Fill in the results, labels and answers of a decoded batch."""
        batch.results = explain_batch(self.engine, self.request, batch.inputs, batch.decoded)
        model = self.engine.model
        for place, one in enumerate(batch.inputs):
            if one.expected is not None:
                batch.said[place] = label_of(model.labels, one.expected)
        explained = [one for one in batch.results if isinstance(one, Explained)]
        batch.answers = answers(model, [one.right for one in explained])


def _drawn(row: dict[str, bytes], setup: bytes, naming: Naming, overlays: Path) -> dict[str, bytes]:
    """Draw a batch's overlays, and make its rows and failures: the third stage."""
    batch = _unpacked(row)
    if batch.error is None:
        try:
            _draw(batch, _pool(setup), naming, overlays)
        except VisxaiError as error:
            batch.error = error
    return _packed(replace(batch, decoded=[], results=[]))


def _draw(batch: Batch, pool: Workers, naming: Naming, overlays: Path) -> None:
    waiting = []
    for place, (one, result) in enumerate(zip(batch.inputs, batch.results, strict=True)):
        if isinstance(result, Failure):
            batch.failed[place] = result
            continue
        first = batch.results[result.of or 0] if isinstance(result, Duplicate) else result
        assert isinstance(first, Explained)
        batch.scores.append(replace(first.scores, path=text(one.path)))
        same = [
            replace(e, input=replace(e.input, path=one.path), id=one.id) for e in first.explanations
        ]
        task = None
        if same and naming.format is not None:
            # A duplicate is drawn from the row of its first image, as in a local run.
            seen = same if first is result else [image_of(row_of(e, None)) for e in same]
            wanted = [(e, overlays / str(naming.overlay(one, e))) for e in seen]
            task = pool.submit(draw, one.path, wanted)
        waiting.append((place, one, same, task))
    batch.seconds["draw"] = 0.0
    for place, one, same, task in waiting:
        drawn = None if task is None else pool.result(task)
        failure = drawn.failure if isinstance(drawn, Drawn) else drawn
        if isinstance(drawn, Drawn):
            batch.seconds["draw"] += drawn.seconds
        if failure is not None:
            batch.failed[place] = failure
        said = batch.said.get(place)
        batch.rows += [row_of(e, None if failure else naming.overlay(one, e), said) for e in same]
