"""Which method to use on your model and your images, found by successive halving.

    found = recommend(engine, ["photos"], budget=64)
    found.best            "hires_cam()"
    found.rows            every candidate: its figures with intervals, images, price

Every candidate is judged on a few images; the worse half is dropped, and the rest is judged on
twice as many, until two are left that have seen the whole budget of images. A candidate's place is

    r_m = mean over metrics and images of  rank of m among those still judged

so that metrics of different scales count equally, and an image that is hard for all sets none back.
A random map is judged along and never dropped: who isn't better than it has found nothing.

The best is chosen on the same images that its figures come from, which flatters it a little.
Differences are paired over images (`visxai.evaluate.statistics`).

Source: Karnin et al., Almost optimal exploration in multi-armed bandits, ICML 2013.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from visxai import methods as all_methods
from visxai.engine.engine import load_methods
from visxai.engine.explained import Explained
from visxai.errors import ArgumentError, Failure, TargetError
from visxai.evaluate import statistics
from visxai.evaluate.judge import Judge, loaded, named
from visxai.images.sources import find
from visxai.metrics import controls
from visxai.metrics.base import Ask, Metric
from visxai.pipeline.request import accelerated
from visxai.target import Target

if TYPE_CHECKING:
    from visxai.engine.engine import Engine, Methods
    from visxai.images.prepared import Prepared
    from visxai.methods.base import Method

METRICS = ("insertion(steps=28)", "deletion(steps=28)")
_CONTROL = "random_map"
_BATCH = 8
_FIRST = 4  # images of the first round, at least

# The methods that are tried, with the options that change their maps most. {w} and {s} are a
# quarter and an eighth of the input's side.
CANDIDATES = (
    "grad_cam",
    "hires_cam",
    "layer_cam",
    "grad_cam_plus_plus",
    "xgrad_cam",
    "chefer",
    "legrad",
    "grad_eclip",
    "integrated_gradients",
    "integrated_gradients(baseline='blur')",
    "input_x_gradient",
    "smooth_grad(copies=16)",
    "occlusion(window={w}, stride={s})",
    "occlusion(window={w}, stride={s}, baseline='blur')",
    "rise(masks=128, grid=4)",
    "rise(masks=128, grid=7)",
    "lime(samples=100)",
    "partition_shap(max_evaluations=100)",
)


@dataclass(frozen=True)
class Row:
    """A candidate and how it did.

    Attributes:
        method: Its spec.
        brief: The shortest spec that stands for it.
        images: The images that it was judged on.
        figures: Each metric's mean and interval over them.
        place: Its mean rank among those of its last round, 1 the best, with its interval.
        seconds: The time of a map in seconds.
        kept: Whether it was judged on all images.
        control: Whether it is the random map.
    """

    method: str
    brief: str
    images: int
    figures: dict[str, statistics.Interval]
    place: statistics.Interval
    seconds: float
    kept: bool
    control: bool

    def to_dict(self) -> dict[str, Any]:
        """Convert the row for JSON."""
        return {
            **vars(self),
            "figures": {name: one.to_dict() for name, one in self.figures.items()},
            "place": self.place.to_dict(),
        }


@dataclass(frozen=True)
class Recommendation:
    """The result of the search.

    Attributes:
        best: The spec of the best method.
        equals: The specs of those that can't be told from it on these images, quickest first.
        better_than_random: Whether its place is better than the random map's beyond chance.
        rows: Every candidate, best first, and the random map.
        metrics: The specs of the metrics.
        images: The images of the last round.
        failed: The images that couldn't be read.
        maps: The maps that the search computed.
        seconds: Its duration.
    """

    best: str
    equals: tuple[str, ...]
    better_than_random: bool
    rows: tuple[Row, ...]
    metrics: tuple[str, ...]
    images: int
    failed: tuple[Failure, ...]
    maps: int
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Convert the result for JSON."""
        return {
            **vars(self),
            "rows": [row.to_dict() for row in self.rows],
            "failed": [{"path": one.path, "reason": one.reason} for one in self.failed],
        }

    def describe(self) -> str:
        """Say in plain sentences which method to use."""
        row = self.rows[0]
        if not self.better_than_random:
            return (
                f"No method is better than a random map on these {self.images} images beyond "
                "chance: take more images, or other metrics."
            )
        said = f"Use {row.brief}: {row.seconds:.2g} s a map here."
        brief = {one.method: one.brief for one in self.rows}
        equals = [brief[one] for one in self.equals]
        quick = next((one for one in self.rows if one.method in self.equals[:1]), None)
        if quick is not None and quick.seconds < row.seconds / 2:
            times = row.seconds / max(quick.seconds, 1e-9)
            said += (
                f" {quick.brief} can't be told from it on {self.images} images and takes "
                f"1/{times:.0f} of the time."
            )
        elif equals:
            said += f" {', '.join(equals)} can't be told from it on {self.images} images."
        return said


def candidates(engine: Engine) -> tuple[Method, ...]:
    """List the methods of `CANDIDATES` that a model serves, windows in proportion to its input."""
    side = min(engine.model.preprocess.size) if engine.model.preprocess is not None else 224  # type: ignore[union-attr]
    sizes = {"w": max(1, side // 4), "s": max(1, side // 8)}
    found = [all_methods.load(spec.format(**sizes)) for spec in CANDIDATES]
    return tuple(one for one in found if one.needs in engine.model.offers)


def recommend(
    engine: Engine,
    paths: Iterable[str | os.PathLike[str]],
    methods: Methods | None = None,
    metrics: Sequence[str | Metric] = METRICS,
    *,
    budget: int = 64,
    target: Any = "top1",
    draws: int = 2_000,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Recommendation:
    """Find the method that explains a model best on some images.

    Args:
        engine: The engine whose model is explained.
        paths: Files and folders of images.
        methods: The candidates; None takes those of `CANDIDATES` that the model serves.
        metrics: The metrics that judge, of each map, with a better and a worse.
        budget: The images that the last candidates are judged on, fewer where there are no more.
        target: What is explained, one class an image, such as "top1" or "class=207".
        draws: Draws of the bootstrap.
        seed: Seed of the bootstrap and of the choice of images.
        progress: Called with the number of maps that are computed, and of all.

    Raises:
        ArgumentError: The budget is below 4 images, fewer can be read, there are no two candidates,
            a metric needs more than maps, or the model can't serve one.
        TargetError: The target has several classes an image.
    """
    began = time.perf_counter()
    judged = _checked(metrics, engine)
    known = Target.of(target, engine.model.labels)
    chosen = candidates(engine) if methods is None else tuple(dict.fromkeys(load_methods(methods)))
    for one in chosen:
        engine.check(one)
    if len(chosen) < 2 or budget < _FIRST:
        raise ArgumentError(
            f"expected at least two methods and a budget of {_FIRST} images, got {len(chosen)} and "
            f"{budget}: name more"
        )
    images, failed = _images(engine, paths, budget, seed)
    control = controls.load(_CONTROL)
    rounds = schedule(len(chosen), len(images))
    before = [0, *(seen for _, seen in rounds)]
    total = sum((n + 1) * (seen - was) for (n, seen), was in zip(rounds, before, strict=False))
    forwards = sum(metric.forwards() for metric in judged.values())
    accelerated(engine, chosen, total // len(chosen), None, forwards)
    search = _Search(engine, images, judged, known, lambda done: progress(done, total))
    best: list[Method] = list(chosen)
    ended: dict[Method, tuple[int, statistics.Interval]] = {}
    for count, seen in rounds:
        compared = [*best[:count], control]
        search.judge(compared, seen)
        ranks = search.ranks(compared)
        places = statistics.intervals(ranks, draws, seed)
        ended |= {one: (seen, place) for one, place in zip(compared, places, strict=True)}
        best = sorted(compared[:-1], key=lambda one: ended[one][1].value)
    winner = best[0]
    apart = statistics.differences(ranks, compared.index(winner), draws, seed)
    equals = [
        one
        for one, gap in zip(compared[:-1], apart, strict=False)
        if one != winner and gap.low <= 0
    ]
    equals.sort(key=search.seconds)
    rows = [
        Row(
            repr(one),
            one.brief,
            seen,
            dict(
                zip(judged, (search.figure(name, one, draws, seed) for name in judged), strict=True)
            ),
            place,
            search.seconds(one),
            one in compared,
            one == control,
        )
        for one, (seen, place) in ended.items()
    ]
    rows.sort(key=lambda row: (row.control, -row.images, row.place.value))
    return Recommendation(
        repr(winner),
        tuple(map(repr, equals)),
        bool(apart[compared.index(control)].low > 0),
        tuple(rows),
        tuple(map(repr, judged.values())),
        len(images),
        tuple(failed),
        search.done,
        time.perf_counter() - began,
    )


def schedule(methods: int, images: int) -> list[tuple[int, int]]:
    """Plan the rounds of successive halving.

    Args:
        methods: The number of candidates.
        images: The images of the last round.

    Returns:
        For each round how many candidates it judges, and on how many images altogether: half the
        candidates on twice the images, until two are left.
    """
    counts = [methods]
    while counts[-1] > 2:
        counts.append(max(2, (counts[-1] + 1) // 2))
    most = len(counts) - 1
    return [
        (count, max(min(_FIRST, images), images >> (most - place)))
        for place, count in enumerate(counts)
    ]


class _Search:
    """The figures of candidates on images, computed as they are needed."""

    def __init__(
        self,
        engine: Engine,
        images: Sequence[Prepared],
        metrics: dict[str, Metric],
        target: Target,
        progress: Callable[[int], None],
    ) -> None:
        self.engine, self.images, self.metrics = engine, images, metrics
        self.target, self.progress = target, progress
        self.done = 0
        # For each candidate a row of figures for each image, and the time of each map.
        self.figures: dict[Method, list[list[float]]] = {}
        self.times: dict[Method, list[float]] = {}

    def judge(self, candidates: Sequence[Method], seen: int) -> None:
        """Judge candidates on the first images, those that they haven't been judged on."""
        for one in candidates:
            rows = self.figures.setdefault(one, [])
            times = self.times.setdefault(one, [])
            while len(rows) < seen:
                batch = self.images[len(rows) : min(seen, len(rows) + _BATCH)]
                found = self.engine.explain_prepared(
                    batch, [one], self.target, check=Judge(self.metrics)
                )
                for image in found:
                    assert isinstance(image, Explained)
                    if len(image.explanations) != 1:
                        raise TargetError(
                            f"expected one class an image, got {len(image.explanations)} for the "
                            f"target {self.target}: explain top1 or one class"
                        )
                    (record,) = image.explanations
                    told = [record.quality[name] for name in self.metrics]
                    rows.append([math.nan if value is None else float(value) for value in told])
                    times.append(record.seconds)
                self.done += len(batch)
                self.progress(self.done)

    def ranks(self, candidates: Sequence[Method]) -> statistics.Array:
        """Rank candidates on each image, averaged over metrics: (images, candidates), from 1."""
        table = np.array([self.figures[one] for one in candidates])
        found = []
        for place, metric in enumerate(self.metrics.values()):
            values = table[:, :, place].T
            values = -values if metric.better == "higher" else values
            values = np.where(np.isnan(values), np.inf, values)  # a map without a figure is last
            below = (values[:, None, :] < values[:, :, None]).sum(2)
            equal = (values[:, None, :] == values[:, :, None]).sum(2)
            found.append(below + (equal + 1) / 2)
        ranks: statistics.Array = np.mean(found, axis=0)
        return ranks

    def figure(self, name: str, one: Method, draws: int, seed: int) -> statistics.Interval:
        """Return a candidate's mean of a metric, with its interval."""
        column = np.array(self.figures[one])[:, [list(self.metrics).index(name)]]
        return statistics.intervals(column, draws, seed)[0]

    def seconds(self, one: Method) -> float:
        """Return the median time of a candidate's maps in seconds."""
        return float(np.median(self.times[one]))


def _checked(metrics: Sequence[str | Metric], engine: Engine) -> dict[str, Metric]:
    """Load metrics, by the names of their figures; raise ArgumentError where one can't judge."""
    found = named(loaded(metrics))
    for metric in found.values():
        other = metric.per != "map" or metric.better == "neither" or Ask.OBJECTS in metric.asks
        if other or metric.needs & ~engine.model.offers:
            raise ArgumentError(
                f"expected metrics that judge a map alone and that {engine.model.ref.name} can "
                f"serve, got {metric.name()}: take insertion, deletion, road or infidelity"
            )
    return found


def _images(
    engine: Engine, paths: Iterable[str | os.PathLike[str]], budget: int, seed: int
) -> tuple[list[Prepared], list[Failure]]:
    """Read as many images as the budget allows, drawn from all."""
    every = list(find(paths, os.devnull))  # no folder of results lies among them
    kept: list[Prepared] = []
    failed: list[Failure] = []
    for place in np.random.default_rng(seed).permutation(len(every)):
        found = engine.prepare(every[place].failure or every[place].path, "record")
        if isinstance(found, Failure):
            failed.append(found)
        else:
            kept.append(found)
        if len(kept) == budget:
            break
    if len(kept) < _FIRST:
        raise ArgumentError(
            f"expected at least {_FIRST} images that can be read, got {len(kept)}: add some"
        )
    return kept, failed
