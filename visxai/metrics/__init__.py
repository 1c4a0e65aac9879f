"""The quality metrics, one file each, found by listing this folder.

names()                          what there is
load("insertion(steps=56)")      a metric from its spec string

    case = Case(engine.model, x, Target.of("top1"), maps, method)
    load("deletion")(case).values          # (r,), one figure a map

`visxai.metrics.controls` holds the maps that every report carries beside the methods'.
"""

from __future__ import annotations

from functools import cache

from visxai.errors import ArgumentError, UnknownName
from visxai.metrics.base import Ask, Case, Check, Metric, Scores
from visxai.spec import built, defined, listed, parse

__all__ = ["Ask", "Case", "Check", "Metric", "Scores", "find", "load", "load_check", "names"]


@cache
def names() -> tuple[str, ...]:
    """The names of all metrics, sorted: the files of this folder, without importing them."""
    return listed(__path__, besides=("base", "controls"))


@cache
def find(name: str) -> type[Metric]:
    """The class of a metric by name; UnknownName lists the choices."""
    if name not in names():
        raise UnknownName("metric", name, names())
    return defined(__name__, name, Metric)  # type: ignore[type-abstract]


def load(spec: str | Metric) -> Metric:
    """A metric from its spec string: a name, or a name with keyword arguments.

    >>> load("insertion(steps=56)").steps
    56
    """
    if isinstance(spec, Metric):
        return spec
    name, member, options = parse(spec, "metric", "insertion(steps=56)")
    if member:
        raise ArgumentError(f"expected a metric without a member, got {spec!r}: use {name!r}")
    return built(find(name), options)


def load_check(spec: str | Metric) -> Metric:
    """A metric that judges an explanation by itself, such as "faithfulness"; ArgumentError when it
    asks for more than the map and its method."""
    metric = load(spec)
    if metric.per != "map" or metric.asks & ~(Ask.MAPS | Ask.METHOD):
        able = [
            name
            for name in names()
            if find(name).per == "map" and not find(name).asks & ~(Ask.MAPS | Ask.METHOD)
        ]
        raise ArgumentError(
            f"expected a check of one explanation by itself, got {metric.name()}: use one of "
            f"{', '.join(able)}"
        )
    return metric
