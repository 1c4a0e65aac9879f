"""The evaluation of methods for texts: figures over the texts of tables, beside a random control.

    found = texts.run(engine, ["comments.csv"], "integrated_gradients,lime", out="OUT")

    OUT/evaluation.html        a table for each figure, with intervals and the gain over the control
    OUT/evaluation.json        the same, to compute with
    OUT/rows.csv               one row a text, class and method
    OUT/explanations/...       the records of the maps (`visxai.results.read`)

Figures: comprehensiveness and sufficiency under both replacements (`visxai.text.judging`); tau,
Kendall's agreement with leaving words out, in signed order; completeness, the relative error of the
sum, of methods that promise it; stability_seeds, the mean of Kendall's tau between a map and those
of the same method with two other seeds, of methods that draw. The control gives words random
values. Every method is judged on the same texts, so intervals and differences are paired
(`visxai.evaluate.statistics`).

tau and the figures under "delete" favour leave_one_out, which asks nearly the same question.

A stopped run continues where it ended: texts are judged some at a time, and each such chunk is
stored completely or not at all.
"""

from __future__ import annotations

import csv
import io
import json
import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from visxai import files
from visxai.drawing import tokens
from visxai.errors import ArgumentError, TargetError, UnknownName
from visxai.evaluate.statistics import Interval, differences, intervals
from visxai.foreign import for_cell, for_html
from visxai.pipeline.items import Answer, ItemRun
from visxai.pipeline.progress import Outcome, Progress
from visxai.record.text import TextExplanation
from visxai.results import reading
from visxai.results.inputs import Input
from visxai.results.rows import row_of, schema_of, text
from visxai.results.store import Store
from visxai.target import Target
from visxai.text import judging, sources
from visxai.text.engine import Engine, Methods
from visxai.text.methods.base import TextMethod
from visxai.text.rates import tau
from visxai.text.run import settings_of

METRICS = {
    "comprehensiveness_delete": "higher",
    "comprehensiveness_mask": "higher",
    "sufficiency_delete": "lower",
    "sufficiency_mask": "lower",
    "tau": "higher",
    "completeness": "lower",
    "stability_seeds": "higher",
}
CONTROL = "random"
_SEEDS = 2  # further seeds whose maps a map is compared with
_CHUNK = 32  # texts that are judged and stored together


@dataclass(frozen=True)
class Figure:
    """A method's mean figure over all texts.

    Attributes:
        method: The method, or "random".
        metric: A name of METRICS.
        mean: The mean with its 95 % interval.
        gain: The difference from the control with its 95 % interval; not defined for completeness.
        texts: The maps that have the figure.
    """

    method: str
    metric: str
    mean: Interval
    gain: Interval
    texts: int

    @property
    def beats(self) -> bool:
        """Whether the whole interval of the gain is on the better side of 0."""
        higher = METRICS[self.metric] == "higher"
        return self.gain.low > 0 if higher else self.gain.high < 0


@dataclass(frozen=True)
class TextEvaluation:
    """The result of an evaluation.

    Attributes:
        outcome: The progress of the run, and what OUT holds.
        figures: A figure for each metric and method, in their order; none if the run was stopped
            before its end.
    """

    outcome: Outcome
    figures: tuple[Figure, ...]


def run(
    engine: Engine,
    paths: Sequence[str | os.PathLike[str]],
    methods: Methods = "integrated_gradients,leave_one_out",
    metrics: Sequence[str] = tuple(METRICS),
    out: str | os.PathLike[str] = "visxai_evaluation",
    *,
    target: Any = "top1",
    text_column: str | None = None,
    chunk_size: int | None = None,
    draws: int = 10_000,
    seed: int = 0,
    fresh: bool = False,
    command: str = "",
    progress: Callable[[Progress], None] = lambda _: None,
    stop: Callable[[], bool] = lambda: False,
) -> TextEvaluation:
    """Judge methods on the texts of tables, and write the results to OUT.

    Args:
        engine: The engine whose model is explained.
        paths: Tables and lines of JSON.
        methods: The methods to judge; the control is added.
        metrics: Names of METRICS.
        out: The folder OUT.
        target: A target of one class a map, such as "top1", "class=toxic" or "above=0.5".
        text_column: The column of texts; None finds it by its usual names.
        chunk_size: Texts that are judged and stored together; None is 32.
        draws: The number of bootstrap draws.
        seed: The seed of the control and of the bootstrap.
        fresh: Whether to delete what an earlier run left in OUT.
        command: The command line, for the run's record.
        progress: Called at the start and after each chunk.
        stop: Called before each chunk; if it returns True the run ends, and a later run with the
            same settings continues it.

    Raises:
        VisxaiError: An argument is wrong, or OUT can't be written.
    """
    for name in metrics:
        if name not in METRICS:
            raise UnknownName("metric of texts", name, tuple(METRICS))
    if draws < 1:
        raise ArgumentError(f"expected draws of at least 1, got {draws}: leave it out for 10000")
    loaded = tuple(dict.fromkeys(engine.methods(methods)))
    aimed = Target.of(target, engine.model.labels)
    if aimed.kind not in ("top", "class", "above"):
        raise TargetError(
            f"expected a target of one class a map that can be written down, got {target!r}: use "
            "top1, class=toxic or above=0.5"
        )
    given = sources.read(paths, text_column, "none")
    settings = settings_of(engine, loaded, aimed, None, chunk_size or _CHUNK)
    settings |= {"judged": list(METRICS), "seed": seed}
    with Store(out, settings, command=command, fresh=fresh, schema=schema_of("text")) as store:
        _, changed = store.add(list(given.found))
        judging_run = _Run(store, engine, loaded, aimed, given.texts, seed)
        complete = judging_run.all(progress, stop)
        figures: list[Figure] = []
        if complete:
            rows = list(_rows(store.out))
            if not rows:
                raise ArgumentError(
                    f"expected texts with a map of {target}, got none: choose another target"
                )
            named = [*dict.fromkeys(map(repr, loaded)), CONTROL]
            figures = [
                one for metric in metrics for one in _figures(rows, named, metric, draws, seed)
            ]
            with store.writing():
                _write(store.out, engine, rows, figures, str(aimed))
        return TextEvaluation(judging_run.tally.ended(complete, changed), tuple(figures))


class _Run(ItemRun):
    """Judges texts, some at a time."""

    noun = "text"

    def __init__(
        self,
        store: Store,
        engine: Engine,
        loaded: Sequence[TextMethod],
        target: Target,
        texts: dict[str, str],
        seed: int,
    ) -> None:
        super().__init__(store)
        self.engine, self.loaded, self.target = engine, loaded, target
        self.texts, self.seed = texts, seed

    def holds(self, one: Input) -> bool:
        return one.path in self.texts

    def control(self) -> None:
        self.engine.explain_batch(["a text"], self.loaded, self.target, None, ["-"], [None])

    def batch(self, inputs: Sequence[Input]) -> list[Answer]:
        texts, paths = [self.texts[one.path] for one in inputs], [one.path for one in inputs]
        found = self.engine.explain_batch(texts, self.loaded, self.target, None, paths)
        judged = iter(self._judged([made for one in found for made in one.explanations]))
        answers = []
        for one, result in zip(inputs, found, strict=True):
            # A class has a map by each method, and one by the control.
            count = len(result.explanations) // len(self.loaded) * (len(self.loaded) + 1)
            rows = [row_of(next(judged), None) for _ in range(count)]
            answers.append(Answer(rows, replace(result.scores, path=text(one.path))))
        return answers

    def _judged(self, made: Sequence[TextExplanation]) -> Iterator[TextExplanation]:
        """Yield explanations and their controls, text by text, with their figures."""
        first = [one for one in made if one.method == repr(self.loaded[0])]
        # The classes are settled: what a map is compared with explains the same class.
        left_out = self._again("leave_one_out", first)
        others: dict[str, list[Any]] = {
            repr(one): [self._again(other, first) for other in _reseeded(one)]
            for one in self.loaded
        }
        others[CONTROL] = [
            {_key(one): _random(one, self.seed + turn) for one in first}
            for turn in range(1, _SEEDS + 1)
        ]
        whole: list[TextExplanation] = []
        last = None
        for one in made:  # the controls of a text follow its maps
            if last is not None and one.input.path != last:
                whole += [_random(each, self.seed) for each in first if each.input.path == last]
            whole.append(one)
            last = one.input.path
        whole += [_random(each, self.seed) for each in first if each.input.path == last]
        for one, figures in zip(whole, judging.judge(self.engine.model, whole), strict=True):
            told: dict[str, Any] = dict(figures)
            told["tau"] = _number(tau(one.values, left_out[_key(one)].values))
            again = [tau(one.values, each[_key(one)].values) for each in others[one.method]]
            told["stability_seeds"] = _number(float(np.mean(again))) if again else None
            yield replace(one, quality={**one.quality, **told})

    def _again(
        self, method: str | TextMethod, first: Sequence[TextExplanation]
    ) -> dict[Any, TextExplanation]:
        """Explain the same texts and classes by another method."""
        if not first:
            return {}
        classes = [one.class_index for one in first]
        found = self.engine.explain([one.text for one in first], method, classes)
        return {_key(one): again for one, again in zip(first, found, strict=True)}


def _reseeded(method: TextMethod) -> list[TextMethod]:
    """Return a method with other seeds; none of a method that draws nothing."""
    seed = getattr(method, "seed", None)
    if seed is None:
        return []
    return [replace(method, seed=seed + turn) for turn in range(1, _SEEDS + 1)]  # type: ignore[call-arg]


def _rows(out: Path) -> Iterator[dict[str, Any]]:
    """Yield the figures of each text, class and method that OUT holds."""
    kept = ("path", "class_index", "label", "method")
    for table in reading.tables(out, [*kept, "quality"]):
        for row in table.to_pylist():
            figures = json.loads(row["quality"])
            yield {name: row[name] for name in kept} | {
                name: float("nan") if figures.get(name) is None else figures[name]
                for name in METRICS
            }


def _key(one: TextExplanation) -> tuple[Any, Any]:
    return one.input.path, one.class_index


def _number(value: float) -> float | None:
    return None if np.isnan(value) else value


def _random(one: TextExplanation, seed: int) -> TextExplanation:
    """Give the words of a text random values."""
    generator = np.random.default_rng([seed, zlib.crc32(one.text.encode())])
    values = generator.standard_normal(len(one.values)).astype(np.float32)
    return replace(one, values=values, method=CONTROL, quality={})


def _figures(
    rows: Sequence[dict[str, Any]], named: Sequence[str], metric: str, draws: int, seed: int
) -> Iterator[Figure]:
    """Average a metric for each method, paired over maps."""
    places: dict[tuple[Any, Any], int] = {}
    for row in rows:
        places.setdefault((row["path"], row["class_index"]), len(places))
    values = np.full((len(places), len(named)), np.nan)
    for row in rows:
        place = places[row["path"], row["class_index"]]
        values[place, named.index(row["method"])] = row[metric]
    means = intervals(values, draws, seed)
    gains = differences(values, len(named) - 1, draws, seed)
    counts = (~np.isnan(values)).sum(0).tolist()
    for name, mean, gain, count in zip(named, means, gains, counts, strict=True):
        if count:
            yield Figure(name, metric, mean, gain, count)


def _write(
    out: Path, engine: Engine, rows: Sequence[dict[str, Any]], found: Sequence[Figure], target: str
) -> None:
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(
        {
            name: "" if isinstance(one, float) and np.isnan(one) else for_cell(one)
            for name, one in row.items()
        }
        for row in rows
    )
    files.write(out / "rows.csv", buffer.getvalue())
    summary = {
        "model": engine.model.ref.name,
        "target": target,
        "figures": [
            asdict(one) | {"mean": one.mean.to_dict(), "gain": one.gain.to_dict()} for one in found
        ],
    }
    files.write(out / "evaluation.json", json.dumps(summary, indent=1) + "\n")
    told = f"Methods for {engine.model.ref.name}, target {target}"
    files.write(out / "evaluation.html", tokens.document(told, _body(found)))


def table(found: Sequence[Figure], metric: str) -> list[list[str]]:
    """List a metric's figures as cells: method, mean, gain over the control."""
    rows = []
    named = {one.method: one.method.partition("(")[0] for one in found}
    plain = len(set(named.values())) == len(named)  # no two methods that differ by options alone
    for one in found:
        if one.metric == metric:
            gain = "" if np.isnan(one.gain.value) or one.method == CONTROL else _told(one.gain, "+")
            rows.append(
                [
                    named[one.method] if plain else one.method,
                    _told(one.mean),
                    gain + (" *" if one.beats else ""),
                ]
            )
    return rows


def _told(one: Interval, sign: str = "") -> str:
    return f"{one.value:{sign}.3f} ({one.low:{sign}.3f} to {one.high:{sign}.3f})"


def _body(found: Sequence[Figure]) -> str:
    parts = [
        "<p>Means with 95 % intervals of the paired bootstrap over texts; the gain is the "
        "difference from random values of the words, * where its whole interval is better. tau and "
        "the figures of deletion favour leave_one_out, which asks nearly the same question.</p>"
    ]
    for metric in dict.fromkeys(one.metric for one in found):
        cells = "".join(
            "<tr>" + "".join(f"<td>{for_html(cell)}</td>" for cell in row) + "</tr>"
            for row in table(found, metric)
        )
        parts.append(
            f"<h2>{for_html(metric)}</h2><p>{METRICS[metric]} is better</p>"
            '<div class="wide"><table><tr><th>method</th><th>mean</th><th>gain</th></tr>'
            f"{cells}</table></div>"
        )
    return "".join(parts)
