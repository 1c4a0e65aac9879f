"""Contestants in one process, in turn, and what was asked of them."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import measure
import torch
from torch import nn

Work = Callable[[], Any]
Seconds = Mapping[str, list[float]]


def load(name: str) -> nn.Module:
    """A network with the same random weights every time; the default model has its own."""
    if name == "efficientnet_lite0":
        import visxai

        return visxai.Engine(precision="fp32").model.module  # type: ignore[attr-defined, no-any-return]
    from torchvision.models import get_model

    torch.manual_seed(0)
    module = get_model(name, weights=None).eval()
    for part in module.modules():
        if isinstance(part, nn.Linear) and not part.weight.any():
            nn.init.normal_(part.weight, std=0.02)
    return module


def contest(works: Mapping[str, Work], rounds: int, limit: float) -> dict[str, list[float]]:
    """Seconds of each call in every round, after one that isn't timed; at least three rounds."""
    for work in works.values():
        work()
    seconds: dict[str, list[float]] = {label: [] for label in works}
    began = time.perf_counter()
    for number in range(rounds):
        if number >= 3 and time.perf_counter() - began > limit:
            break
        for label in works if number % 2 == 0 else reversed(list(works)):
            start = time.perf_counter()
            works[label]()
            seconds[label].append(time.perf_counter() - start)
    return seconds


def times(seconds: Seconds, label: str, reference: str, factor: float = 1.0) -> dict[str, float]:
    """How many times as fast `label` is as `factor` times `reference`: by minimum and median."""
    return {
        "minimum": round(factor * min(seconds[reference]) / min(seconds[label]), 3),
        "median": round(
            factor * statistics.median(seconds[reference]) / statistics.median(seconds[label]), 3
        ),
    }


def fastest(seconds: Seconds, labels: Iterable[str]) -> str:
    return min(labels, key=lambda label: min(seconds[label]))


def bar(
    what: str,
    seconds: Seconds,
    label: str,
    reference: str,
    asked: float,
    *,
    most: bool = False,
    factor: float = 1.0,
) -> dict[str, Any]:
    """What was asked and what was reached: times the reference's speed, or with `most` a share of
    its time at most. The minimum over the rounds decides, as the machine may be shared."""
    reached = times(seconds, label, reference, factor)
    if most:
        reached = {name: round(1 / value, 3) for name, value in reached.items()}
    met = reached["minimum"] <= asked if most else reached["minimum"] >= asked
    found = {
        "what": what,
        "of": reference,
        "bar": f"{'≤' if most else '≥'} {asked:g}",
        "reached": reached,
        "met": met,
    }
    print(f"  {'met   ' if met else 'MISSED'} {what}, of {reference}: {reached} {found['bar']}")
    return found


def unit(maps: torch.Tensor) -> torch.Tensor:
    """Maps (n, p) of length 1, however small their values are."""
    scaled = maps.double() / maps.abs().amax(1, keepdim=True).clamp_min(1e-300)
    return scaled / scaled.norm(dim=1, keepdim=True).clamp_min(1e-300)


def spearman(found: torch.Tensor, expected: torch.Tensor) -> float:
    """The correlation of the ranks of all positions of two maps."""
    ranks = []
    for maps in (found, expected):
        # Windows leave steps: equal values share the mean of their ranks.
        _, place, count = maps.flatten().unique(return_inverse=True, return_counts=True)
        ranks.append((count.cumsum(0) - (count - 1) / 2)[place].double())
    return float(torch.corrcoef(torch.stack(ranks))[0, 1])


def under(work: Work) -> Work:
    """A call under autocast to bfloat16."""

    def run() -> Any:
        with torch.autocast("cpu", torch.bfloat16):
            return work()

    return run


def keep(name: str, rows: Mapping[str, Any], command: str) -> None:
    """Write rows into benchmarks/results/NAME.json; other rows there stay as they were."""
    measure.save(name, {"rows": kept(name) | dict(rows)}, command)


def kept(name: str) -> dict[str, Any]:
    """The rows of benchmarks/results/NAME.json, none before the first run."""
    path = measure.RESULTS / f"{name}.json"
    found: dict[str, Any] = json.loads(path.read_text("utf-8"))["rows"] if path.is_file() else {}
    return found
