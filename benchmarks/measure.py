"""Fair measurements for the benchmarks: contestants in turn, medians, ratios with their spread.

Only ratios of one run mean anything on a shared machine; results files keep them with the
environment they were measured in.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

RESULTS = Path(__file__).parent / "results"


def contest(
    contestants: Mapping[str, Callable[[], Any]], rounds: int = 7, warm_up: int = 1
) -> dict[str, list[float]]:
    """Seconds of every contestant, run in turn (A B C A B C ...) after warming up."""
    for _ in range(warm_up):
        for work in contestants.values():
            work()
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(rounds):
        names = list(contestants)
        # Every other round backwards, so that no contestant always follows the same one.
        for name in names if number % 2 == 0 else reversed(names):
            synchronise()
            began = time.perf_counter()
            contestants[name]()
            synchronise()
            seconds[name].append(time.perf_counter() - began)
    return seconds


def ratio(seconds: Mapping[str, list[float]], name: str, reference: str) -> dict[str, float]:
    """How many times as fast `name` is as `reference`: round by round, median and quartiles."""
    pairs = [b / a for a, b in zip(seconds[name], seconds[reference], strict=True)]
    low, middle, high = statistics.quantiles(pairs, n=4) if len(pairs) > 1 else pairs * 3
    return {"median": round(middle, 3), "low": round(low, 3), "high": round(high, 3)}


def synchronise() -> None:
    """Wait for the device, so that a clock read afterwards means something."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def environment() -> dict[str, Any]:
    """What the figures depend on; nothing that names the machine."""
    import visxai

    found: dict[str, Any] = {
        "visxai": visxai.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "system": platform.system(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "gpu": "not measured",
    }
    if torch.cuda.is_available():
        found["gpu"] = torch.cuda.get_device_name()
        found["cuda"] = torch.version.cuda
    return found


def save(name: str, results: Mapping[str, Any], command: str) -> Path:
    """Write benchmarks/results/NAME.json with the command and environment that made it."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    text = json.dumps(
        {"command": command, "environment": environment(), **results}, indent=1, sort_keys=False
    )
    path.write_text(text + "\n", "utf-8")
    return path


def table(rows: list[Mapping[str, Any]]) -> str:
    """A Markdown table of dictionaries with the same keys."""
    names = list(rows[0])
    lines = ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
    lines += ["| " + " | ".join(str(row[name]) for name in names) + " |" for row in rows]
    return "\n".join(lines)
