"""The latency grid: seven models and four methods at three batch sizes, in every form on a CPU.

    OMP_NUM_THREADS=1 python benchmarks/grid.py run --seconds 220   # again until nothing is missing
    OMP_NUM_THREADS=1 python benchmarks/grid.py run --again 0.2     # and what others disturbed
    python benchmarks/grid.py left                                  # what is missing, and how long
    python benchmarks/grid.py table                                 # into docs/performance.md

A cell is a call of one method on a batch, in one precision and acceleration, timed in turn with the
plain eager float32 forward of the same batch; weights and images are random. `run` measures the
cells that benchmarks/results/grid.json lacks and writes each into it as soon as it is known, so it
may be ended at any moment. A process measures all cells of a model, the shortest first; calls under
10 s are warmed up and repeated. A call that would take over three minutes is left out by name. Each
cell keeps how many cores other programs kept busy meanwhile; `--again` measures those anew during
which they kept more than so many.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import measure

MODELS = (
    "efficientnet_lite0",
    "torchvision:mobilenet_v3_large",
    "timm:deit_tiny_patch16_224",
    "torchvision:resnet50",
    "torchvision:convnext_tiny",
    "torchvision:swin_t",
    "torchvision:vit_b_16",
)
KINDS = {"off": ("fp32", "bf16"), "onnx": ("fp32",), "compile": ("fp32", "bf16")}
BATCHES = {
    "grad_cam": (1, 8, 64),
    "legrad": (1, 8),
    "integrated_gradients": (1, 8),
    "occlusion": (1, 8),
}
# What prepares all that a method runs, in few rows.
BRIEF = {
    "occlusion": "occlusion(window=112, stride=112)",
    "integrated_gradients": "integrated_gradients(schedule='gauss_legendre', steps=2)",
}
LONGEST, SINGLE = 180.0, 10.0  # seconds of a call: over which it is left out, or timed but once
SECONDS, ROUNDS = 2.0, 9  # of timing shorter calls
START = 60.0  # seconds that loading a model and preparing a form may take
PAGE = Path(__file__).parents[1] / "docs" / "performance.md"
MARKS = ("<!-- the latency grid -->", "<!-- its end -->")


class Cell(NamedTuple):
    """A cell of the grid."""

    model: str
    kind: str
    precision: str
    method: str
    batch: int

    def __str__(self) -> str:
        return f"{self.model}, {self.kind}, {self.precision}: {self.method}, batch {self.batch}"


def short(model: str) -> str:
    """Return a model's name without its library."""
    return model.partition(":")[2] or model


def cells(model: str) -> Iterator[Cell]:
    """List the cells of a model."""
    for kind, precisions in KINDS.items():
        for precision in precisions:
            for method, batches in BATCHES.items():
                for batch in batches:
                    yield Cell(short(model), kind, precision, method, batch)


class Kept:
    """What is known of the grid, in the results' file.

    Attributes:
        rows: the cells that were measured.
        left_out: why other cells won't be.
    """

    def __init__(self, folder: Path = measure.RESULTS) -> None:
        self.folder, file = folder, folder / "grid.json"
        found = json.loads(file.read_text("utf-8")) if file.exists() else {}
        names = ("model", "accelerate", "precision", "method", "batch")
        self.rows: dict[Cell, dict[str, Any]] = {
            Cell(*(row[name] for name in names)): row for row in found.get("rows", ())
        }
        self.left_out: dict[str, str] = found.get("left_out", {})

    def missing(self, model: str, most: float) -> list[Cell]:
        """List a model's cells to measure, the shortest first.

        Args:
            model: the model.
            most: the cores that other programs may have kept busy during a cell that counts.
        """
        serves = [cell for cell in cells(model) if "needs" not in self.left_out.get(str(cell), "")]
        known = {cell for cell, row in self.rows.items() if most >= row.get("others", float("inf"))}
        wanted = [cell for cell in serves if cell not in (self.rows if most < 0 else known)]
        return sorted(wanted, key=lambda cell: (self.expected(cell), cell.batch))

    def expected(self, cell: Cell) -> float:
        """Estimate the seconds of a call by the cell itself or by a smaller batch; 0 is unknown."""
        if cell in self.rows:
            return float(self.rows[cell]["p50"])
        for other in sorted(self.rows, key=lambda one: -one.batch):
            if other._replace(batch=cell.batch) == cell and other.batch < cell.batch:
                return float(self.rows[other]["p50"]) * cell.batch / other.batch
        return 0.0

    def save(self) -> None:
        """Write what is known, whole at any moment."""
        told = {"longest_call_seconds": LONGEST, "left_out": self.left_out}
        told["rows"] = [self.rows[cell] for cell in sorted(self.rows)]
        command = "OMP_NUM_THREADS=1 python benchmarks/grid.py run"
        made = measure.save("grid.partial", told, command, self.folder)
        made.replace(self.folder / "grid.json")


def busy() -> tuple[float, float]:
    """Return the seconds that all cores have been busy, and those of this process."""
    own = sum(os.times()[:4])
    if platform.system() != "Linux":
        return own, own
    user, nice, system, _, _, irq, soft, *_ = map(int, Path("/proc/stat").read_text().split()[1:9])
    return (user + nice + system + irq + soft) / os.sysconf("SC_CLK_TCK"), own


def fill(folder: Path, model: str, most: float, end: float) -> None:
    """Measure a model's missing cells until a moment of the clock."""
    import torch

    from visxai.bench import cases
    from visxai.errors import ArgumentError
    from visxai.methods import load

    kept = Kept(folder)
    batches = (1, 8, 64)
    setup = cases.Setup(model, batches=batches, precision="fp32,bf16", weights=False)
    plain = setup.engine("off", "fp32")
    one = cases._inputs(plain, 1)
    forward = cases.work(plain, "forward", 1)
    forward()
    row = cases.timed(forward, plain.device)
    engines: dict[tuple[str, str], Any] = {("off", "fp32"): plain}
    for cell in kept.missing(model, most):
        method = load(cell.method)
        try:
            plain.check(method)
        except ArgumentError:
            kept.left_out[str(cell)] = f"{cell.method} needs {method.needs}"
            kept.save()
            continue
        cost = method.cost(plain.model, one)
        rows = cell.batch * (cost.forwards + 2 * cost.backwards)
        seconds = kept.expected(cell) or row * rows
        if seconds > LONGEST:
            kept.left_out[str(cell)] = f"a call would take about {seconds / 60:.1f} minutes"
            kept.save()
            continue
        form = cell.kind, cell.precision
        if time.monotonic() + seconds * 1.2 + (START if form not in engines else 0) > end:
            continue  # in another slice
        if form not in engines:
            engines[form] = setup.engine(*form)
        engine = engines[form]
        engine.attribute(one, BRIEF.get(cell.method, cell.method))
        call = cases.work(engine, cell.method, cell.batch)
        works = {"forward": cases.work(plain, "forward", cell.batch), "method": call}
        works["forward"]()
        once = cases.timed(call, plain.device) if seconds < SINGLE else seconds
        rounds = ROUNDS if once < SINGLE else 1
        limit: dict[str, Any] = {"limit": SECONDS, "fewest": 3 if once < 2 else 1}
        before, began = busy(), time.monotonic()
        timed = measure.contest(works, rounds, 0, **limit, device=plain.device)
        # One forward is too short to be compared with one long call.
        for _ in range(4 if rounds == 1 else 0):
            timed["forward"].append(cases.timed(works["forward"], plain.device))
        after, spent = busy(), time.monotonic() - began
        others = (after[0] - before[0]) - (after[1] - before[1])
        p50, p95 = (cases.percentile(timed["method"], share) for share in (0.5, 0.95))
        share = p50 / cases.percentile(timed["forward"], 0.5)
        kept = Kept(folder)  # another process may have measured meanwhile
        kept.rows[cell] = {
            "model": cell.model,
            "method": cell.method,
            "batch": cell.batch,
            "precision": cell.precision,
            "accelerate": cell.kind,
            "ran": engine.model.accelerated(method.needs),
            "rounds": len(timed["method"]),
            "p50": round(p50, 6),
            "p95": round(p95, 6),
            "threads": torch.get_num_threads(),
            "others": round(max(0.0, others / spent), 2),
            "forwards": float(f"{share:.3g}"),
        }
        kept.left_out.pop(str(cell), None)
        kept.save()
        print(f"{cell}: {p50:.3g} s, {share:.3g} forwards", flush=True)


def run(folder: Path, models: list[str], most: float, seconds: float) -> None:
    """Measure missing cells for some seconds, a process a model."""
    end = time.monotonic() + seconds
    for model in models:
        kept = Kept(folder)
        wanted = [c for c in kept.missing(model, most) if kept.expected(c) <= LONGEST]
        if wanted and time.monotonic() + START / 2 < end:
            call = [sys.executable, "-W", "ignore", __file__, "fill", "--models", model]
            call += ["--again", str(most), "--seconds", str(end - time.monotonic())]
            call += ["--folder", str(folder)]
            subprocess.run(call, check=True)


def left(folder: Path, models: list[str], most: float) -> None:
    """Tell what is missing, and about how long it takes."""
    kept, whole = Kept(folder), 0.0
    for model in models:
        wanted = [c for c in kept.missing(model, most) if kept.expected(c) <= LONGEST]
        calls = [kept.expected(cell) for cell in wanted]
        # The forwards beside them, warming up, and loading.
        seconds = sum(max(2.2 * SECONDS, 1.1 * s * (1 if s > SINGLE else 2.5)) for s in calls)
        seconds += START * len({(cell.kind, cell.precision) for cell in wanted}) / 2
        whole += seconds
        print(f"{model}: {len(wanted)} cells, about {seconds / 60:.0f} minutes")
    print(f"about {whole / 60:.0f} minutes in all")


def table(folder: Path) -> None:
    """Put a table of the cells into the page."""
    text = PAGE.read_text("utf-8")
    before, found, after = text.partition(MARKS[0])
    if not found:
        raise SystemExit(f"expected {MARKS[0]} in {PAGE}, found none")
    shown = format_rows(list(Kept(folder).rows.values()))
    made = f"{before}{MARKS[0]}\n\n{shown}\n\n{MARKS[1]}{after.partition(MARKS[1])[2]}"
    PAGE.write_text(made, "utf-8")


def format_rows(rows: list[dict[str, Any]]) -> str:
    """Format cells as Markdown: a line a model, method and batch size."""
    forms = [f"{kind}, {precision}" for kind in KINDS for precision in KINDS[kind]]
    lines: dict[tuple[str, str, int], dict[str, float]] = {}
    for row in rows:
        line = lines.setdefault((row["model"], row["method"], row["batch"]), {})
        line[f"{row['accelerate']}, {row['precision']}"] = row["forwards"]
    return measure.table(
        [
            {"model": model, "method": method, "batch": batch}
            | {form: f"{line[form]:g}" if form in line else "" for form in forms}
            for (model, method, batch), line in sorted(lines.items())
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("what", choices=("run", "left", "table", "fill"))
    parser.add_argument("--seconds", type=float, default=7200.0, help="of measuring")
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument(
        "--again",
        type=float,
        default=-1.0,
        metavar="CORES",
        help="measure cells anew during which other programs kept more cores busy",
    )
    parser.add_argument("--folder", type=Path, default=measure.RESULTS, help="of grid.json")
    args = parser.parse_args()
    models = args.models.split(",")
    if args.what == "fill":
        for model in models:
            fill(args.folder, model, args.again, time.monotonic() + args.seconds)
    elif args.what == "run":
        run(args.folder, models, args.again, args.seconds)
    elif args.what == "left":
        left(args.folder, models, args.again)
    else:
        table(args.folder)


if __name__ == "__main__":
    main()
