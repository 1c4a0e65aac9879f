"""The latency grid: seven models and four methods at three batch sizes, in every form on a CPU.

    OMP_NUM_THREADS=2 python benchmarks/grid.py run --seconds 220    # again until nothing is left
    python benchmarks/grid.py table                       # into the results and docs/performance.md

Every part is a `visxai bench` of one model, accelerated in one way, in float32 and bfloat16: random
weights and images, each method in turn with the plain eager float32 forward of the same batch. A
call that would take longer than the last of LONGEST seconds is left out by name, and so is a part
that takes longer than PART: short calls are measured first, and long ones when all of them are.
Parts are kept in a folder, so the grid may be run in slices. Writes benchmarks/results/grid.json.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

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
KINDS = {"off": "fp32,bf16", "onnx": "fp32", "compile": "fp32,bf16"}
LONGEST, PART = (10, 60), 180  # seconds of a call, and of a part
PAGE = Path(__file__).parents[1] / "docs" / "performance.md"
START, END = "<!-- the latency grid -->", "<!-- its end -->"
FOLDER = Path(tempfile.gettempdir()) / "visxai-grid"


def command(model: str, kind: str, longest: int, out: Path) -> list[str]:
    """The command that measures a part."""
    given = ["--model", model, "--precision", KINDS[kind], "--accelerate", kind]
    given += ["--batch-sizes", "1,8,64", "--longest", str(longest), "--rounds", "2"]
    given += ["--seconds", "2", "--random-weights", "--no-memory", "--out", str(out)]
    if longest > LONGEST[0]:
        given += ["--methods", "integrated_gradients,occlusion", "--batch-sizes", "1,8"]
        given += ["--rounds", "1", "--seconds", "0.1"]
    return [sys.executable, "-W", "ignore", "-m", "visxai", "bench", *given]


def run(folder: Path, seconds: float) -> None:
    """Measure the parts that the folder lacks, for some seconds."""
    end = time.monotonic() + seconds
    folder.mkdir(parents=True, exist_ok=True)
    for longest, kind, model in itertools.product(LONGEST, KINDS, MODELS):
        out = folder / f"{model.partition(':')[2] or model}-{kind}-{longest:02}.json"
        left = end - time.monotonic()
        if out.exists() or left < PART / 6:
            continue
        began, busy = time.monotonic(), os.getloadavg()[0]
        call = command(model, kind, longest, out)
        part: dict[str, Any] = {"model": model, "kind": kind, "load": round(busy, 1)}
        try:
            subprocess.run(call, check=True, timeout=min(PART, left))
            part = json.loads(out.read_text("utf-8")) | part
        except subprocess.TimeoutExpired:
            if left < PART:  # again in the next slice
                continue
            part["left_out"] = {"calls that were to be measured": f"they took over {PART} s"}
        out.write_text(json.dumps(part))
        print(f"{model}, {kind}: {time.monotonic() - began:.0f} s", flush=True)


def table(folder: Path) -> None:
    """Join the parts into the results, and put a table of them into the page."""
    parts = [json.loads(path.read_text("utf-8")) for path in sorted(folder.glob("*.json"))]
    rows: dict[tuple[Any, ...], dict[str, Any]] = {}
    left_out: dict[str, str] = {}
    for part in parts:
        name = part["model"].partition(":")[2] or part["model"]
        cases = part.get("cases", ())
        plain = {one["batch"]: one["p50"] for one in cases if one["method"] == "forward"}
        for case in cases:
            method = case["method"].partition("(")[0]
            if method == "forward" or (case["batch"] > 8 and method != "grad_cam"):
                continue
            row = {"model": name, "method": method}
            row |= {key: case[key] for key in ("batch", "precision", "accelerate", "ran", "rounds")}
            row |= {"p50": case["p50"], "p95": case["p95"], "load": part["load"]}
            row["forwards"] = float(f"{case['p50'] / plain[case['batch']]:.3g}")
            rows[name, method, case["batch"], case["precision"], case["accelerate"]] = row
            left_out.pop(f"{name}, {part['kind']}: {method}, batch {case['batch']}", None)
        for what, why in part["left_out"].items():
            if "batch 64" not in what or what.startswith("grad_cam"):
                brief = what.partition("(")[0] + what.rpartition(")")[2] * ("(" in what)
                left_out[f"{name}, {part['kind']}: {brief}"] = why.split(", but ")[-1].partition(
                    ":"
                )[0]
    run_parts = {(part["model"], part["kind"]) for part in parts}
    for model, kind in itertools.product(MODELS, KINDS):
        if (model, kind) not in run_parts:
            left_out[f"{model.partition(':')[2] or model}, {kind}"] = "no time was left for it"
    told = {"longest_call_seconds": LONGEST[-1], "left_out": left_out}
    measure.save(
        "grid",
        {**told, "rows": list(rows.values())},
        "OMP_NUM_THREADS=2 python benchmarks/grid.py run; python benchmarks/grid.py table",
    )
    text = PAGE.read_text("utf-8")
    before, found, after = text.partition(START)
    if not found:
        raise SystemExit(f"expected {START} in {PAGE}, found none")
    lines = f"{START}\n\n{shown(list(rows.values()))}\n\n{END}"
    PAGE.write_text(f"{before}{lines}{after.partition(END)[2]}", "utf-8")


def shown(rows: list[dict[str, Any]]) -> str:
    """Format the grid as Markdown: a line a model, method and batch size."""
    forms = [
        f"{kind}, {precision}"
        for kind, precisions in KINDS.items()
        for precision in precisions.split(",")
    ]
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
    parser.add_argument("what", choices=("run", "table"))
    parser.add_argument("--seconds", type=float, default=3600.0, help="of running parts")
    parser.add_argument(
        "--parts", type=Path, default=FOLDER, help="the folder that keeps the parts"
    )
    args = parser.parse_args()
    if args.what == "run":
        run(args.parts, args.seconds)
    else:
        table(args.parts)


if __name__ == "__main__":
    main()
