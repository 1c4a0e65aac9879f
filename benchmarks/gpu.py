"""The measurements on a GPU, in one run of fixed length that loses nothing it has measured.

    scripts/gpu wheels                     # once, where there is a network: fills .whl/
    scripts/gpu --out DIR --budget 440     # on the machine with the GPU, without a network
    python -m benchmarks.gpu --device cpu --quick --out DIR       # a rehearsal, every line of it
    python -m benchmarks.gpu table         # writes the table of docs/performance.md

Every step is a process of its own, in a session of its own, which is killed as a group when its
time is over. After each step DIR/gpu.json and DIR/gpu.md hold what is known so far, so an end at
any moment keeps what was measured before. Steps and what they measure: `benchmarks/gpu_steps.py`.
This module never imports PyTorch: what breaks there must not end the run.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
KEPT = ROOT / "benchmarks" / "results" / "gpu"
PAGE = ROOT / "docs" / "performance.md"
MARKS = ("<!-- the table of benchmarks.gpu -->", "<!-- its end -->")
LINES = 35  # that are printed at the end
_GRACE = 3.0  # seconds that the writing of results may take


@dataclass(frozen=True)
class Step:
    """A step, by its name in `gpu_steps`, and the seconds that it may take."""

    name: str
    cap: float


# The most valuable first: time may be over before the last.
STEPS = (
    Step("card", 25),
    Step("smoke", 40),
    Step("contracts", 55),
    Step("agreement", 40),
    Step("grad_cam", 110),
    Step("perturbation_and_paths", 50),
    Step("folder", 50),
    Step("legrad", 40),
    Step("memory", 25),
    Step("grid", 600),
)
# What a rehearsal plants between the others: both must leave them alone.
PLANTED = (Step("fails", 25), Step("hangs", 4))
BACKGROUND = "precompile"


def run(step: Step, options: argparse.Namespace, left: float, log: Path) -> dict[str, Any]:
    """Run a step until its cap or the end of the budget; return its state and its rows."""
    patience = 6 if options.quick and step in STEPS else 1  # a rehearsal's machine may be busy
    limit = min(patience * step.cap, left)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="visxai-gpu-") as scratch:
        rows = Path(scratch) / "rows.jsonl"
        process = start(step.name, options, rows, log)
        try:
            code = process.wait(limit)
            status = "ok" if code == 0 else "failed"
        except subprocess.TimeoutExpired:
            status = "timeout"
        finally:
            end(process)
        found = [json.loads(line) for line in lines(rows)]
    told: dict[str, Any] = {
        "step": step.name,
        "status": status,
        "seconds": round(time.monotonic() - began, 1),
        "rows": found,
    }
    if status == "failed":
        told["error"] = log.read_text("utf-8", "replace").rstrip().splitlines()[-12:]
    return told


def start(name: str, options: argparse.Namespace, rows: Path, log: Path) -> subprocess.Popen[bytes]:
    """Start a step in a session of its own; what it prints goes to the log."""
    command = [sys.executable, "-m", "benchmarks.gpu_steps", name, "--rows", str(rows)]
    command += ["--device", options.device, *(["--quick"] if options.quick else [])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    with log.open("ab") as out:
        out.write(f"\n==== {name}\n".encode())
        out.flush()
        return subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=out, stderr=out, start_new_session=True
        )


def end(process: subprocess.Popen[bytes]) -> None:
    """Kill a step's whole session, if anything of it still runs."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def lines(path: Path) -> list[str]:
    """The whole lines of a file that may end in the middle of one."""
    if not path.exists():
        return []
    return [line for line in path.read_text("utf-8").split("\n")[:-1] if line]


def write(report: dict[str, Any], out: Path) -> None:
    """Write the report as JSON and as Markdown, each whole at any moment."""
    for name, text in (
        ("gpu.json", json.dumps(report, indent=1) + "\n"),
        ("gpu.md", markdown(report)),
    ):
        partial = out / f".{name}"
        partial.write_text(text, "utf-8")
        partial.replace(out / name)


def card(report: dict[str, Any]) -> str:
    """The card's name, or what stood in for one."""
    for step in report["steps"]:
        for row in step["rows"]:
            if "card" in row:
                return str(row["card"])
    return f"unknown card ({report['device']})"


def table(report: dict[str, Any]) -> list[str]:
    """The rows with a figure, as the lines of a Markdown table."""
    told = ["| step | what | reached | unit | beside it |", "|---|---|---|---|---|"]
    for step in report["steps"]:
        if step["status"] != "ok":
            told.append(f"| {step['step']} | {step['status']} after {step['seconds']} s | | | |")
        for row in step["rows"]:
            if "what" in row:
                cells = (step["step"], row["what"], row["reached"], row.get("unit", ""))
                told.append(f"| {' | '.join(map(str, cells))} | {row.get('beside', '')} |")
    return told


def markdown(report: dict[str, Any]) -> str:
    """The report for people."""
    heading = f"# {card(report)}"
    states = ", ".join(f"{step['step']} {step['status']}" for step in report["steps"])
    versions = [
        row["versions"] for step in report["steps"] for row in step["rows"] if "versions" in row
    ]
    told = [heading, f"Steps: {states}.", "\n".join(table(report))]
    if versions:
        told.append(", ".join(f"{name} {version}" for name, version in versions[0].items()))
    errors = [step for step in report["steps"] if step.get("error")]
    told += [f"## {step['step']}\n\n    " + "\n    ".join(step["error"]) for step in errors]
    return "\n\n".join(told) + "\n"


def fill(page: Path = PAGE, kept: Path = KEPT) -> str:
    """Put the kept report's table into a page, or "not measured" while there is none."""
    text = page.read_text("utf-8")
    before, _, rest = text.partition(MARKS[0])
    _, _, after = rest.partition(MARKS[1])
    told = "Not measured: no run of `scripts/gpu` on a GPU has been kept yet."
    file = kept / "gpu.json"
    if file.exists():
        report = json.loads(file.read_text("utf-8"))
        told = f"On one {card(report)}:\n\n" + "\n".join(table(report))
    page.write_text(f"{before}{MARKS[0]}\n\n{told}\n\n{MARKS[1]}{after}", "utf-8")
    return told


def main(arguments: Sequence[str] | None = None) -> int:
    if list(arguments or sys.argv[1:]) == ["table"]:
        print(fill())
        return 0
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="where the report goes")
    parser.add_argument("--budget", type=float, default=440, help="seconds for all steps")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quick", action="store_true", help="tiny models: a rehearsal")
    parser.add_argument("--only", help="names of steps, commas between them")
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    log = options.out / "gpu.log"
    log.write_bytes(b"")
    began = time.monotonic()
    report: dict[str, Any] = {"device": options.device, "quick": options.quick, "steps": []}
    known = {step.name: step for step in (*STEPS, *PLANTED)}
    names = options.only.split(",") if options.only else [step.name for step in STEPS]
    background = None
    try:
        if not options.quick:
            background = start(BACKGROUND, options, options.out / ".precompiled", log)
        for name in names:
            left = options.budget - (time.monotonic() - began) - _GRACE
            if left < 2:
                told: dict[str, Any] = {"step": name, "status": "skipped", "seconds": 0, "rows": []}
            else:
                told = run(known[name], options, left, log)
            report["steps"].append(told)
            report["seconds"] = round(time.monotonic() - began, 1)
            write(report, options.out)
    finally:
        if background is not None:
            end(background)
        (options.out / ".precompiled").unlink(missing_ok=True)
    print("\n".join([card(report), *table(report)][:LINES]), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
