"""`visxai explain` over a folder of hostile images: what crashes, what fails, what it costs.

    pip download --no-binary :all: --no-deps pillow      # its Tests/images holds some 1000 files
    python benchmarks/hostile.py pillow-13.0.0/Tests/images [--workers N] [--limit N]

Every file of the folder is given by name, whatever its ending. Exit code 0: the run ended by
itself, and each file is a row or a failure. Linux only, as memory is read from /proc.
"""

from __future__ import annotations

import argparse
import collections
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from visxai import results
from visxai.results import reading


def descendants(root: int) -> dict[int, int]:
    """The process and those below it, with the most memory (bytes, resident) each has had."""
    parents: dict[int, int] = {}
    peaks: dict[int, int] = {}
    for place in Path("/proc").glob("[0-9]*"):
        try:
            lines = dict(line.split(":", 1) for line in (place / "status").read_text().splitlines())
        except (OSError, ValueError):
            continue  # it has ended meanwhile
        if "VmHWM" in lines:
            parents[int(place.name)] = int(lines["PPid"])
            peaks[int(place.name)] = int(lines["VmHWM"].split()[0]) * 1024
    below = {root}
    while more := {pid for pid, parent in parents.items() if parent in below} - below:
        below |= more
    return {pid: peaks[pid] for pid in below & peaks.keys()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--timeout", type=float, default=20.0)
    parser.add_argument("--limit", type=int, help="only the first N files")
    given = parser.parse_args()
    files = sorted(path for path in given.folder.rglob("*") if path.is_file())[: given.limit]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        command = [sys.executable, "-m", "visxai", "explain", "-", "--out", str(out)]
        command += ["--workers", str(given.workers), "--timeout", str(given.timeout)]
        log = Path(folder) / "log"
        listing = Path(folder) / "list"
        listing.write_text("".join(f"{path.resolve()}\n" for path in files), "utf-8")
        began, peaks = time.perf_counter(), dict[int, int]()
        with log.open("w") as said, listing.open() as names:
            process = subprocess.Popen(command, stdin=names, stdout=said, stderr=said)
            while process.poll() is None:
                for pid, peak in descendants(process.pid).items():
                    peaks[pid] = max(peak, peaks.get(pid, 0))
                time.sleep(0.1)
        seconds = time.perf_counter() - began
        told = log.read_text("utf-8", "replace")
        about = reading.about(out) or {"counts": {}}
        failed = results.failures(out) if about["counts"] else []
        overlays = sum(path.is_file() for path in (out / "overlays").rglob("*"))
    counts = about["counts"]
    main_peak = peaks.pop(process.pid, 0)
    print(f"files     {len(files)} in {seconds:.0f} s, exit code {process.returncode}")
    print(f"counts    {counts}, {overlays} overlays")
    print(f"failures  {dict(collections.Counter(one.kind for one in failed))}")
    print(
        f"memory    {main_peak / 2**20:.0f} MiB, workers at most "
        f"{max(peaks.values(), default=0) / 2**20:.0f} MiB each; {len(peaks)} workers started"
    )
    for one in failed:
        if one.kind != "ImageError":
            print(f"  {one.kind}: {one.reason}")
    # A tar among them is as many images as it holds.
    whole = len(files) <= counts.get("images", 0) == counts["finished"] and "Traceback" not in told
    if not whole:
        print(told[-4000:])
    return 0 if whole and process.returncode in (0, 1) else 1


if __name__ == "__main__":
    sys.exit(main())
