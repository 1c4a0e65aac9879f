"""Do the stages of a folder run overlap? Wall time against what it can't be below.

    python benchmarks/overlap.py [--photographs FOLDER] [--images 256] [--rounds 3]

The bound is the larger of the slowest stage alone and all CPU seconds over the cores. The stages
alone come from the same run done in one process without overlap (`workers=0`), the seconds of
decoding and drawing divided by the cores that would share them. CPU seconds are those of the
overlapped run itself, its workers included: what is above the bound is time in which a core had
nothing to do. Beside it stands the same with the CPU seconds of the run in one process: that also
counts what working at the same time costs, the start of workers, passing pixels between processes
and caches that two processes share. Runs take turns. Results: benchmarks/results/overlap.json.
"""

from __future__ import annotations

import argparse
import io
import os
import resource
import tempfile
import time
from pathlib import Path

import measure

import visxai
from visxai import pipeline

ALONE = ("decode", "compute", "draw", "write")


def files(folder: Path, count: int, photographs: Path | None) -> None:
    """`count` photographs as files, no two of the same bytes."""
    for number, image in enumerate(measure.photographs(count, photographs)):
        encoded = io.BytesIO()
        image.save(encoded, "JPEG", quality=92, comment=f"{number}".encode())
        (folder / f"{number:05d}.jpg").write_bytes(encoded.getvalue())


def cpu() -> float:
    """CPU seconds of this process and its ended children so far."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def run(engine: visxai.Engine, source: Path, workers: int | None) -> dict[str, float]:
    """Wall and CPU seconds of one run, and those of its stages."""
    with tempfile.TemporaryDirectory(prefix="visxai-overlap-") as scratch:
        began, used = time.perf_counter(), cpu()
        outcome = pipeline.explain([source], Path(scratch) / "out", engine, workers=workers)
        wall = time.perf_counter() - began
    assert outcome.complete
    return {**outcome.seconds, "wall": wall, "cpu": cpu() - used}


def bound(alone: dict[str, float], cpu: float, cores: int) -> dict[str, float]:
    """Seconds that each stage needs at least, and all the work at least."""
    shared = {"decode": cores, "draw": cores}
    found = {stage: alone.get(stage, 0.0) / shared.get(stage, 1) for stage in ALONE}
    return found | {"cpu over cores": cpu / cores}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--photographs", type=Path, help="a folder; default: scikit-image's")
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    idle, all_costs, walls, serial = [], [], [], []
    with tempfile.TemporaryDirectory(prefix="visxai-overlap-") as source:
        files(Path(source), args.images, args.photographs)
        engine = visxai.Engine(precision="fp32", accelerate="onnx")
        run(engine, Path(source), 0)  # prepares
        for _ in range(args.rounds):
            alone, together = (run(engine, Path(source), workers) for workers in (0, None))
            own, single = (bound(alone, one["cpu"], cores) for one in (together, alone))
            idle.append(together["wall"] / max(own.values()))
            all_costs.append(together["wall"] / max(single.values()))
            serial.append(alone["wall"] / together["wall"])
            walls.append(round(together["wall"], 2))
            told = ", ".join(f"{stage} {seconds:.2f}" for stage, seconds in own.items())
            print(
                f"{walls[-1]} s: {idle[-1]:.3f} of the bound ({told}), {all_costs[-1]:.3f} with "
                f"the CPU seconds of one process, which takes {alone['wall']:.2f} s",
                flush=True,
            )
    result = {
        "images": args.images,
        "wall_over_bound": measure.spread(idle),
        "wall_over_bound_of_one_process": measure.spread(all_costs),
        "times_as_fast_as_one_process": measure.spread(serial),
        "wall_seconds": walls,
    }
    measure.save("overlap", result, f"python benchmarks/overlap.py --images {args.images}")
    print(f"wall time over its bound: {result['wall_over_bound']}, to stay below 1.15")


if __name__ == "__main__":
    main()
