"""Fair measurements: contestants in turn, medians and quartiles, peaks of memory.

On a shared machine only ratios within a run are meaningful, so everything is run in turn with what
it is compared to. CUDA devices are measured by events and the allocator; others by the clock, and
by the resident memory of a separate process.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import multiprocessing
import os
import platform
import re
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch

from visxai.models.devices import pick_device, versions

Work = Callable[[], Any]
_FEWEST = 3  # rounds before a limit of seconds may end a contest: quartiles need them


def contest(
    contestants: Mapping[str, Work],
    rounds: int = 7,
    warm_up: int = 1,
    *,
    limit: float | None = None,
    fewest: int = _FEWEST,
    device: str | torch.device = "auto",
) -> dict[str, list[float]]:
    """Time every contestant, run in turn (A B C A B C ...) after warming up.

    Args:
        contestants: The calls to time, by name.
        rounds: The most rounds.
        warm_up: Calls of each contestant that aren't timed.
        limit: Seconds; after `fewest` rounds, no round begins that would end later.
        fewest: The rounds that are run however long they take.
        device: The device that the calls run on.

    Returns:
        The seconds of every round, by name.
    """
    on = pick_device(device)
    for _ in range(warm_up):
        for work in contestants.values():
            work()
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    began = time.perf_counter()
    for number in range(rounds):
        spent = time.perf_counter() - began
        if limit is not None and number >= fewest and spent * (1 + 1 / number) > limit:
            break
        # Every other round runs backwards, so that no contestant always follows the same other.
        for name in list(contestants) if number % 2 == 0 else reversed(list(contestants)):
            seconds[name].append(timed(contestants[name], on))
    return seconds


def timed(work: Work, device: torch.device) -> float:
    """Time `work` on `device` in seconds: by events on CUDA, by the clock elsewhere."""
    if device.type == "cuda":
        with torch.cuda.device(device):
            first = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
            last = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
            torch.cuda.synchronize()
            first.record()
            work()
            last.record()
            torch.cuda.synchronize()
            return float(first.elapsed_time(last)) / 1000
    began = time.perf_counter()
    work()
    if device.type == "mps":
        torch.mps.synchronize()
    return time.perf_counter() - began


def spread(values: Sequence[float], digits: int = 3) -> dict[str, float]:
    """Compute the median and the quartiles ("low", "high"), rounded to `digits` decimals."""
    low, middle, high = (
        statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else [*values] * 3
    )
    return {
        "median": round(middle, digits),
        "low": round(low, digits),
        "high": round(high, digits),
    }


def ratio(seconds: Mapping[str, list[float]], name: str, reference: str) -> dict[str, float]:
    """Compute how many times as fast `name` is as `reference`: median and quartiles over rounds."""
    return spread([b / a for a, b in zip(seconds[name], seconds[reference], strict=True)])


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value at a share, from 0 to 1, of the sorted values."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def peak_increase(make: Callable[[], Work]) -> float | None:
    """Measure by how many MiB `make()()` raises memory over its level after `make()`, at its peak.

    It is the process's resident memory; for CUDA see `allocator_peak`. The call runs in
    a separate process, so `make` must be picklable.

    Args:
        make: A function that loads what is needed and returns the call to measure.

    Returns:
        MiB, or None where the system doesn't report peaks.
    """
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_peak_of, make).result()


def _peak_of(make: Callable[[], Work]) -> float | None:
    work = make()
    gc.collect()
    return _resident_peak(work)


def allocator_peak(work: Work) -> float:
    """Measure the peak of what `work` allocates on CUDA, in MiB.

    Memory that is allocated before the call doesn't count.
    """
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    work()
    torch.cuda.synchronize()
    return float(torch.cuda.max_memory_allocated() - before) / 2**20


def _resident_peak(work: Work) -> float | None:
    with contextlib.suppress(OSError, AttributeError, TypeError):  # only glibc has malloc_trim
        # Memory that loading left free in the allocator would be reused without raising the peak.
        ctypes.CDLL(None).malloc_trim(0)
    before = _status("VmRSS")
    try:
        Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    except OSError:
        return None
    work()
    peak = _status("VmHWM")
    return None if before is None or peak is None else peak - before


def _status(name: str) -> float | None:
    """Read an entry of /proc/self/status in MiB."""
    try:
        found = re.search(rf"^{name}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.M)
    except OSError:
        return None
    return int(found[1]) / 1024 if found else None


def environment(device: str | torch.device = "auto") -> dict[str, Any]:
    """Describe what figures depend on: versions, threads, the GPU; not the machine's name."""
    on = pick_device(device)
    found: dict[str, Any] = {
        **versions(),
        "python": platform.python_version(),
        "system": platform.system(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "threads_between_operations": torch.get_num_interop_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "gpu": "not measured",
    }
    with contextlib.suppress(ImportError):
        import onnxruntime

        found["onnxruntime"] = onnxruntime.__version__
    if on.type == "cuda":
        card = torch.cuda.get_device_properties(on)
        found |= {
            "gpu": card.name,
            "gpu_memory_gib": round(card.total_memory / 2**30, 1),
            "driver": _driver(),
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
            # Read by the one interface that visxai also sets: mixing the two breaks compiling.
            "tf32_products": torch.get_float32_matmul_precision() != "highest",
            "tf32_convolutions": torch.backends.cudnn.allow_tf32,
        }
    return found


def _driver() -> str:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        told = subprocess.run(command, capture_output=True, text=True, timeout=20).stdout
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return told.splitlines()[0].strip() if told.strip() else "unknown"
