"""What the sandbox costs worker processes: decoding and drawing with it and without, in turn.

    python benchmarks/sandbox.py [--images 96] [--rounds 7]

Each round starts a worker, decodes photographs of 1280 x 960 pixels and draws a map over each,
which is all that workers do in a folder run: a whole run, with its model, is diluted further.
Prints the processor seconds of the workers, starting included, which other work on the machine
moves less than the clock's, and the median and quartiles of the rounds' ratios.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from visxai.images.preprocess import Preprocess
from visxai.pipeline.tasks import Setup, decode, draw
from visxai.pipeline.workers import Workers
from visxai.record.image import ImageExplanation
from visxai.references import ModelRef


def photographs(folder: Path, count: int) -> list[Path]:
    generator = np.random.default_rng(0)
    paths = [folder / f"{index:04d}.jpg" for index in range(count)]
    for path in paths:
        small = Image.fromarray(generator.integers(0, 256, (24, 32, 3), dtype=np.uint8))
        small.resize((1280, 960), Image.Resampling.BICUBIC).save(path, quality=90)
    return paths


def run(paths: list[Path], out: Path) -> float:
    """The processor seconds of a worker that decodes and draws these photographs."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    values = np.random.default_rng(1).random((7, 7), np.float32)
    pool = Workers(Setup(Preprocess((224, 224)), writes=(str(out),)), 1)
    for path in paths:
        found = pool.result(pool.submit(decode, str(path)))
        model = ModelRef("model", "a" * 64, "resize")
        one = ImageExplanation(
            found.input, model, values, "grad_cam()", "top1", 1, "label", 0.5, 1.0
        )
        pool.result(pool.submit(draw, str(path), [(one, out / f"{path.stem}.jpg")]))
    pool.close()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=7)
    given = parser.parse_args()
    seconds: dict[str, list[float]] = {"0": [], "1": []}
    with tempfile.TemporaryDirectory() as place:
        paths = photographs(Path(place), given.images)
        for number in range(given.rounds + 1):
            # Turn about in each pair, so that a machine getting slower or faster cancels out.
            for switch in ("0", "1") if number % 2 else ("1", "0"):
                os.environ["VISXAI_SANDBOX"] = switch
                took = run(paths, Path(place) / "out")
                if number:  # the first pair warms up
                    seconds[switch].append(took)
    ratios = [on / off for off, on in zip(seconds["0"], seconds["1"], strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4)
    without, with_it = (statistics.median(seconds[switch]) for switch in "01")
    print(f"without {without:.2f} s, with it {with_it:.2f} s for {given.images} images")
    print(f"ratio {middle:.3f} (quartiles {low:.3f} to {high:.3f}) of {given.rounds} rounds")


if __name__ == "__main__":
    main()
