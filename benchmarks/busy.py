"""A warm map on a busy machine: how much longer it takes beside a process that always computes.

    python benchmarks/busy.py [--seconds 8] [--write]      (writes benchmarks/results/busy.json)

For each setting a new process makes an engine with the embedded model and explains one photograph
again and again: first alone, then beside as many busy loops as asked for, then alone again. The
settings are those that visxai chooses by itself (`visxai`), and what PyTorch comes with
(`torch`: VISXAI_WAIT=torch).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

RESULTS = Path(__file__).parent / "results" / "busy.json"
SETTINGS: dict[str, dict[str, str]] = {"visxai": {}, "torch": {"VISXAI_WAIT": "torch"}}


def child(seconds: float) -> None:
    """Explain for as long as asked in each line of standard input; answer with milliseconds."""
    import numpy as np

    import visxai

    engine = visxai.Engine(precision="fp32", accelerate="off")
    photograph = np.random.default_rng(0).integers(0, 255, (300, 400, 3), dtype=np.uint8)
    for _ in range(5):
        engine.explain(photograph)
    print("ready", flush=True)
    for _ in sys.stdin:
        took, end = [], time.perf_counter() + seconds
        while time.perf_counter() < end or len(took) < 5:
            start = time.perf_counter()
            engine.explain(photograph)
            took.append(1000 * (time.perf_counter() - start))
        print(json.dumps([statistics.median(took), sorted(took)[int(0.9 * len(took))]]), flush=True)


def measure(settings: dict[str, str], seconds: float, loops: int) -> dict[str, float]:
    plain = {name: value for name, value in os.environ.items() if not name.startswith("OMP_")}
    process = subprocess.Popen(
        [sys.executable, __file__, "--child", "--seconds", str(seconds)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=plain | settings,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"

    def once() -> list[float]:
        process.stdin.write("go\n")
        process.stdin.flush()
        return json.loads(process.stdout.readline())

    alone = once()
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(loops)]
    try:
        busy = once()
    finally:
        for one in others:
            one.kill()
            one.wait()
    again = once()
    process.stdin.close()
    process.wait()
    quiet = min(alone[0], again[0])
    return {
        "quiet_ms": round(quiet, 1),
        "busy_ms": round(busy[0], 1),
        "busy_p90_ms": round(busy[1], 1),
        "ratio": round(busy[0] / quiet, 2),
        "ratio_p90": round(busy[1] / quiet, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--child", action="store_true")
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--write", action="store_true")
    asked = parser.parse_args()
    if asked.child:
        child(asked.seconds)
        return
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    found: dict[str, object] = {"cores": cores}
    for loops in (1, cores or 1):
        for name, settings in SETTINGS.items():
            figures = measure(settings, asked.seconds, loops)
            found[f"{name}, {loops} busy"] = figures
            print(f"{name}, beside {loops}: {figures}", flush=True)
    if asked.write:
        RESULTS.write_text(json.dumps(found, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
