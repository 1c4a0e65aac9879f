"""A folder of 20,000 small images through `visxai explain`, killed once on the way.

    python benchmarks/overnight.py [--images 20000] [--workers 2]

The command runs as anyone would start it. At two fifths the whole process group gets SIGKILL; the
same command then goes on. The resident memory of the process and its workers is read all the time;
growth is the median of the last tenth of the second run against its second tenth. Checked at the
end: a row for every image and none twice, every part readable, the planted broken files among the
failures, nothing left half written; then the gallery is built. Results go to
benchmarks/results/overnight.json. About 6 minutes on two quiet cores.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import measure
import numpy as np
import pyarrow.parquet as pq
from PIL import Image

BROKEN = 5


def pictures(folder: Path, count: int) -> None:
    """Distinct small JPEGs in folders of a thousand; a few are no images at all."""
    for number in range(count):
        path = folder / f"{number // 1000:03d}" / f"{number:06d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        if number % (count // BROKEN) == count // BROKEN - 1:
            path.write_bytes(b"\xff\xd8 no image")
            continue
        generator = np.random.default_rng(number)
        noise = generator.integers(0, 256, (6, 6, 3), dtype=np.uint8)
        side = int(generator.integers(64, 129))
        Image.fromarray(noise).resize((side, 96), Image.Resampling.BICUBIC).save(path)


def resident(group: int) -> float:
    """MiB that the processes of a group hold in memory."""
    total = 0.0
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            # The name may hold spaces; what follows its closing bracket doesn't.
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            if int(fields[2]) == group:
                total += int(fields[21]) * os.sysconf("SC_PAGE_SIZE") / 2**20
        except (OSError, IndexError):
            continue
    return total


def watched(
    command: list[str], out: Path, stop: Callable[[int], bool]
) -> tuple[int | None, float, list[tuple[int, float]]]:
    """Run a command until it ends or `stop`, asked with the images finished, says to kill it.

    Returns its exit status (None: killed), its seconds, and (images finished, MiB) by the second.
    """
    began = time.perf_counter()
    log = (out.parent / "log").open("ab")
    process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    curve = []
    while process.poll() is None:
        time.sleep(1)
        done = finished(out)
        curve.append((done, resident(process.pid)))
        if stop(done):
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return None, time.perf_counter() - began, curve
    return process.returncode, time.perf_counter() - began, curve


def finished(out: Path) -> int:
    try:
        return int(json.loads((out / "run.json").read_text("utf-8"))["counts"]["finished"])
    except (OSError, ValueError, KeyError):
        return 0


def growth(curve: list[tuple[int, float]]) -> tuple[float, float]:
    """MiB in the second and in the last tenth of a run."""
    held = [mib for _, mib in curve]
    tenth = max(1, len(held) // 10)
    return statistics.median(held[tenth : 2 * tenth]), statistics.median(held[-2 * tenth : -1])


def checked(out: Path, count: int) -> dict[str, Any]:
    """What OUT holds, asserted whole."""
    rows = pq.read_table(out / "explanations", columns=["path", "map"])
    paths = rows.column("path").to_pylist()
    assert len(paths) == len(set(paths)) == count - BROKEN, (len(paths), len(set(paths)))
    assert rows.column("map").null_count == 0
    failures = pq.read_table(out / "failures.parquet").num_rows
    assert failures == BROKEN, failures
    left = [path for path in out.rglob(".*") if path.name.endswith(".part")]
    assert not left, left
    overlays = sum(1 for path in (out / "overlays").rglob("*") if path.is_file())
    assert overlays == count - BROKEN, overlays
    return {"rows": len(paths), "failures": failures, "overlays": overlays}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--images", type=int, default=20000)
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="visxai-overnight-") as scratch:
        folder, out = Path(scratch) / "photos", Path(scratch) / "out"
        pictures(folder, args.images)
        command = [sys.executable, "-m", "visxai", "explain", str(folder), "--out", str(out)]
        command += ["--workers", str(args.workers)]
        status, before, _ = watched(command, out, lambda done: done >= 0.4 * args.images)
        assert status is None, "the run ended before it could be killed"
        kept = finished(out)
        print(f"killed after {before:.0f} s with {kept} images finished", flush=True)
        status, after, curve = watched(command, out, lambda _: False)
        assert status == 1, f"expected 1, as some images failed, got {status}"
        found = checked(out, args.images)
        began = time.perf_counter()
        subprocess.run([sys.executable, "-m", "visxai", "report", str(out)], check=True)
        report = time.perf_counter() - began
        early, late = growth(curve)
        rate = (args.images - kept) / after
        result = {
            "images": args.images,
            "kept_at_the_kill": kept,
            **found,
            "images_per_second": round(rate, 1),
            "mib_second_tenth": round(early),
            "mib_last_tenth": round(late),
            "report_seconds": round(report, 1),
        }
        print(json.dumps(result, indent=1))
        measure.save("overnight", result, "python benchmarks/overnight.py")


if __name__ == "__main__":
    main()
