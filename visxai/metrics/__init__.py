"""The quality metrics, one file each, discovered by listing this folder.

names()                          the names of all metrics
load("insertion(steps=56)")      a metric from its spec string

    case = Case(engine.model, x, Target.of("top1"), maps, method)
    load("deletion")(case).values          # (r,), one figure a map

`visxai.metrics.controls` holds the control maps that every report adds to the methods'.
"""

from __future__ import annotations

from functools import cache

from visxai.errors import ArgumentError, UnknownName
from visxai.metrics.base import Ask, Case, Check, Metric, Scores
from visxai.spec import built, defined, listed, parse

__all__ = ["Ask", "Case", "Check", "Metric", "Scores", "find", "load", "load_check", "names"]


@cache
def names() -> tuple[str, ...]:
    """List the names of all metrics, sorted, without importing their files."""
    return listed(__path__, besides=("base", "controls"))


@cache
def find(name: str) -> type[Metric]:
    """Look up the class of a metric by name; raise UnknownName, which lists the choices."""
    if name not in names():
        raise UnknownName("metric", name, names())
    return defined(__name__, name, Metric)  # type: ignore[type-abstract]


def load(spec: str | Metric) -> Metric:
    """Load a metric from its spec string: a name, or a name with keyword arguments.

    >>> load("insertion(steps=56)").steps
    56

    Args:
        spec: The spec string; a metric is returned as it is.

    Raises:
        UnknownName: The metric or an option doesn't exist.
        ArgumentError: The spec can't be parsed, or an option's value is not allowed.
    """
    if isinstance(spec, Metric):
        return spec
    name, member, options = parse(spec, "metric", "insertion(steps=56)")
    if member:
        raise ArgumentError(f"expected a metric without a member, got {spec!r}: use {name!r}")
    return built(find(name), options)


def load_check(spec: str | Metric) -> Metric:
    """Load a metric that judges an explanation by itself, such as "faithfulness".

    Args:
        spec: The spec string, or a metric.

    Raises:
        UnknownName: The metric or an option doesn't exist.
        ArgumentError: The metric needs more than a map and its method, or the spec is wrong.
    """
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
