"""What a whole folder run costs, told for two ways of running it turn about.

    python benchmarks/folder_run.py --against CHECKOUT     # this version beside another one's files
    python benchmarks/folder_run.py --sandbox              # with the workers' sandbox and without

Each run is the command `visxai explain FOLDER` in a new process, with one decoding worker, in
float32 by PyTorch alone, so that both ways do the same work: start, decoding, maps, overlays and
the Parquet rows. With --against, Grad-CAM and occlusion of warm engines are compared as well, in
one process each. Prints the median and quartiles of the rounds' ratios of processor seconds
(children included), which other work on the machine moves less than the clock's, and of the clock.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

HERE = Path(__file__).resolve().parents[1]
OPTIONS = ["--device", "cpu", "--precision", "fp32", "--accelerate", "off", "--workers", "1"]
WARM = """
import sys, time
import torch, visxai
engine = visxai.Engine(device="cpu", precision="fp32", accelerate="off")
x = torch.randn(16, 3, 224, 224, generator=torch.Generator().manual_seed(0))
print("ready", flush=True)
for line in sys.stdin:
    start = time.process_time()
    engine.attribute(x if line.strip() == "grad_cam" else x[:1], line.strip())
    print(time.process_time() - start, flush=True)
"""


def photographs(folder: Path, count: int) -> None:
    generator = np.random.default_rng(0)
    for index in range(count):
        small = Image.fromarray(generator.integers(0, 256, (24, 32, 3), dtype=np.uint8))
        image = small.resize((640, 480), Image.Resampling.BICUBIC)
        image.save(folder / f"{index:04d}.jpg", quality=90)


def command(checkout: Path, folder: Path, sandbox: str) -> tuple[float, float]:
    """Run the command; return its processor seconds, its workers' included, and its time."""
    with tempfile.TemporaryDirectory() as out:
        arguments = ["explain", str(folder), "--out", f"{out}/out", *OPTIONS]
        environment = os.environ | {"PYTHONPATH": str(checkout), "VISXAI_SANDBOX": sandbox}
        start = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-m", "visxai", *arguments],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        _, status, used = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        assert process.stderr is not None
        said = process.stderr.read()
        if process.returncode:
            raise SystemExit(f"the run with {checkout} ended with {process.returncode}: {said!r}")
        return used.ru_utime + used.ru_stime, seconds


def report(name: str, pairs: list[tuple[float, float]]) -> None:
    """Print the ratios second / first of pairs of times."""
    low, middle, high = statistics.quantiles([after / before for before, after in pairs], n=4)
    print(f"{name}: {middle:.3f} (quartiles {low:.3f} to {high:.3f}, {len(pairs)} rounds)")


def warm(checkouts: list[Path], rounds: int) -> None:
    engines = []
    for checkout in checkouts:
        environment = os.environ | {"PYTHONPATH": str(checkout)}
        engine = subprocess.Popen(
            [sys.executable, "-c", WARM],
            env=environment,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert engine.stdin is not None
        assert engine.stdout is not None
        engine.stdout.readline()
        engines.append((engine, engine.stdin, engine.stdout))
    for method in ("grad_cam", "occlusion"):
        pairs = []
        for number in range(rounds + 1):
            found = [0.0, 0.0]
            for which in (0, 1) if number % 2 else (1, 0):
                _, stdin, stdout = engines[which]
                stdin.write(f"{method}\n")
                stdin.flush()
                found[which] = float(stdout.readline())
            if number:  # the first pair warms up
                pairs.append((found[0], found[1]))
        report(f"{method}, warm, processor", pairs)
    for engine, stdin, _ in engines:
        stdin.close()
        engine.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    ways = parser.add_mutually_exclusive_group(required=True)
    ways.add_argument("--against", type=Path, help="the other version's checkout")
    ways.add_argument("--sandbox", action="store_true")
    given = parser.parse_args()
    ways_of_running = (
        [(HERE, "0"), (HERE, "1")] if given.sandbox else [(given.against, "1"), (HERE, "1")]
    )
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        photographs(folder, given.images)
        processor, clock = [], []
        for number in range(given.rounds + 1):
            found = [(0.0, 0.0), (0.0, 0.0)]
            for which in (0, 1) if number % 2 else (1, 0):
                found[which] = command(ways_of_running[which][0], folder, ways_of_running[which][1])
            if number:
                processor.append((found[0][0], found[1][0]))
                clock.append((found[0][1], found[1][1]))
    report(f"folder of {given.images}, processor", processor)
    report(f"folder of {given.images}, clock", clock)
    if given.against:
        warm([given.against, HERE], 3 * given.rounds)


if __name__ == "__main__":
    main()
