"""How long a fresh process takes: PyTorch alone, an engine, one photograph, a wrong command.

    python benchmarks/start.py [--rounds 5] [--against TREE]

Each is a process of its own, in turns, so that a busy moment meets all alike; the first round warms
the disk's cache and isn't counted. --against takes the same commands from another checkout too.
Bytecode is kept beside neither tree, as pip compiles what it installs. It prints a table for
docs/performance.md: the least and the median seconds by the clock.
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

ROOT = Path(__file__).resolve().parents[1]
PHOTOGRAPH = ROOT / "visxai" / "images" / "example" / "espresso.jpg"
ENGINE = ["-c", "import visxai; visxai.Engine()"]
EXPLAIN = ["-m", "visxai", "explain", str(PHOTOGRAPH), "--fresh", "--out"]
WRONG = ["-m", "visxai", "explain", str(PHOTOGRAPH.parent), "--method", "gradcm"]


def seconds(words: list[str], tree: Path, folder: Path) -> float:
    """Run Python with these words on a tree's package; return the seconds that it took."""
    plain = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    settings = {"PYTHONPATH": str(tree), "PYTHONPYCACHEPREFIX": str(folder / "bytecode")}
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, *words], env=plain | settings, cwd=folder, capture_output=True, text=True
    )
    if done.returncode not in (0, 2):
        raise SystemExit(done.stderr)
    return time.perf_counter() - began


def main() -> None:
    """Measure in turns, and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--against", type=Path, metavar="TREE", help="another checkout")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        runs: dict[str, tuple[list[str], Path]] = {"import torch": (["-c", "import torch"], ROOT)}
        for tree in filter(None, (asked.against, ROOT)):
            mark = "" if tree == ROOT else f" ({tree.name})"
            out = str(folder / f"out{mark}")
            runs |= {
                f"visxai.Engine(){mark}": (ENGINE, tree.resolve()),
                f"visxai explain one.jpg{mark}": ([*EXPLAIN, out], tree.resolve()),
                f"visxai explain FOLDER --method gradcm{mark}": (WRONG, tree.resolve()),
            }
        taken: dict[str, list[float]] = {run: [] for run in runs}
        for number in range(asked.rounds + 1):
            for run, (words, tree) in runs.items():
                spent = seconds(words, tree, folder)
                taken[run] += [spent] if number else []
    print("| process | least | median |\n|---|---|---|")
    for run, times in taken.items():
        print(f"| `{run}` | {min(times):.2f} s | {statistics.median(times):.2f} s |")


if __name__ == "__main__":
    main()
