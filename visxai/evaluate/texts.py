"""The evaluation of methods for texts: figures over the texts of tables, beside a random control.

    found = texts.run(engine, ["comments.csv"], "integrated_gradients,lime", out="OUT")

    OUT/evaluation.html        a table for each figure, with intervals and the gain over the control
    OUT/evaluation.json        the same, to compute with
    OUT/rows.csv               one row a text, class and method

Figures: comprehensiveness and sufficiency under both replacements (`visxai.text.judging`); tau,
Kendall's agreement with leaving words out, in signed order; completeness, the relative error of the
sum, of methods that promise it. The control gives words random values. Every method is judged on
the same texts, so intervals and differences are paired (`visxai.evaluate.statistics`).

tau and the figures under "delete" favour leave_one_out, which asks nearly the same question.
"""

from __future__ import annotations

import csv
import io
import json
import os
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from visxai import files
from visxai.drawing import tokens
from visxai.errors import ArgumentError, UnknownName
from visxai.evaluate.statistics import Interval, differences, intervals
from visxai.foreign import for_cell, for_html
from visxai.record.text import TextExplanation
from visxai.target import Target
from visxai.text import judging, sources
from visxai.text.engine import Engine, Methods
from visxai.text.rates import tau

METRICS = {
    "comprehensiveness_delete": "higher",
    "comprehensiveness_mask": "higher",
    "sufficiency_delete": "lower",
    "sufficiency_mask": "lower",
    "tau": "higher",
    "completeness": "lower",
}
CONTROL = "random"
_CHUNK = 32  # texts whose figures are computed together


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


def run(
    engine: Engine,
    paths: Sequence[str | os.PathLike[str]],
    methods: Methods = "integrated_gradients,leave_one_out",
    metrics: Sequence[str] = tuple(METRICS),
    out: str | os.PathLike[str] = "visxai_evaluation",
    *,
    target: Any = "top1",
    text_column: str | None = None,
    draws: int = 10_000,
    seed: int = 0,
) -> list[Figure]:
    """Judge methods on the texts of tables, and write the results to OUT.

    Args:
        engine: The engine whose model is explained.
        paths: Tables and lines of JSON.
        methods: The methods to judge; the control is added.
        metrics: Names of METRICS.
        out: The folder OUT.
        target: A target of one class a map, such as "top1", "class=toxic" or "above=0.5".
        text_column: The column of texts; None finds it by its usual names.
        draws: The number of bootstrap draws.
        seed: The seed of the control and of the bootstrap.

    Returns:
        A figure for each metric and method, in their order.

    Raises:
        VisxaiError: An argument is wrong, or OUT can't be written.
    """
    for name in metrics:
        if name not in METRICS:
            raise UnknownName("metric of texts", name, tuple(METRICS))
    if draws < 1:
        raise ArgumentError(f"expected draws of at least 1, got {draws}: leave it out for 10000")
    loaded = engine.methods(methods)
    given = sources.read(paths, text_column, "none")
    rows = list(_rows(engine, given, loaded, Target.of(target, engine.model.labels), seed))
    if not rows:
        raise ArgumentError(
            f"expected texts with a map of {target}, got none: choose another target"
        )
    named = [*dict.fromkeys(map(repr, loaded)), CONTROL]
    found = [one for metric in metrics for one in _figures(rows, named, metric, draws, seed)]
    _write(Path(out), engine, rows, found, str(target))
    return found


def _rows(
    engine: Engine, given: sources.Texts, loaded: Any, target: Target, seed: int
) -> Iterator[dict[str, Any]]:
    """Yield the figures of each text, class and method."""
    every = [one.path for one in given.found]
    for start in range(0, len(every), _CHUNK):
        paths = every[start : start + _CHUNK]
        texts = [given.texts[path] for path in paths]
        made = engine.explain(texts, loaded, target, paths=paths)
        first = [one for one in made if one.method == repr(loaded[0])]
        # The classes are settled: what a map is compared with explains the same class.
        again = (
            engine.explain(
                [one.text for one in first], "leave_one_out", [one.class_index for one in first]
            )
            if first
            else []
        )
        left_out = {_key(one): two for one, two in zip(first, again, strict=True)}
        made += [_random(one, seed) for one in first]
        for one, figures in zip(made, judging.judge(engine.model, made), strict=True):
            figures["tau"] = tau(one.values, left_out[_key(one)].values)
            figures["completeness"] = one.quality.get("completeness")
            yield {
                "path": one.input.path,
                "class_index": one.class_index,
                "label": one.label,
                "method": one.method,
                **{name: _number(figures[name]) for name in METRICS},
            }


def _key(one: TextExplanation) -> tuple[Any, Any]:
    return one.input.path, one.class_index


def _number(value: float | None) -> float:
    return float("nan") if value is None else float(value)


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
    with files.one_sentence(f"to write {out}", "make room there and run it again"):
        out.mkdir(parents=True, exist_ok=True)
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
