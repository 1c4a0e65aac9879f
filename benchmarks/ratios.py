"""The latency grid as ratios to the plain eager forward of the same model and batch.

    pytest benchmarks --full -k "fp32 and not compile" --benchmark-json grid.json
    python benchmarks/ratios.py grid.json

Writes benchmarks/results/latency.json and latency.md: for each model and batch how many plain
forwards a call costs (medians; below 1 is cheaper than the forward), and how far its slow calls
(p95) are from its median. Absolute times mean nothing on another machine and are left out.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import measure


def cost(case: dict[str, Any], forward: dict[str, Any]) -> dict[str, Any]:
    """A case of the grid beside the plain forward of its group."""
    options, own = case["params"], case["extra_info"]
    return {
        **{name: options[name] for name in ("model", "method", "batch", "precision", "accelerate")},
        "forwards": round(case["stats"]["median"] / forward["stats"]["median"], 3),
        "p95_over_p50": round(own["p95_ms"] / own["p50_ms"], 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("grid", type=Path, help="what --benchmark-json wrote")
    args = parser.parse_args()
    cases = json.loads(args.grid.read_text("utf-8"))["benchmarks"]
    plain = {
        case["group"]: case
        for case in cases
        if case["params"]["method"] == "forward" and case["params"]["accelerate"] == "off"
    }
    rows = [cost(case, plain[case["group"]]) for case in cases if case["group"] in plain]
    command = "pytest benchmarks --full --benchmark-json grid.json; python benchmarks/ratios.py"
    measure.save("latency", {"unit": "plain eager forwards", "rows": rows}, command)
    table: dict[tuple[str, int], dict[str, Any]] = {}
    for row in rows:
        line = table.setdefault((row["model"], row["batch"]), {})
        kind = "" if row["accelerate"] == "off" else f", {row['accelerate']}"
        line[f"{row['method']}{kind}"] = row["forwards"]
    columns = sorted({name for line in table.values() for name in line} - {"forward"})
    told = measure.table(
        [
            {"model": model, "batch": batch} | {name: line.get(name, "") for name in columns}
            for (model, batch), line in sorted(table.items())
        ]
    )
    (measure.RESULTS / "latency.md").write_text(
        f"Plain eager forwards of the same batch that a call costs, medians.\n\n{told}\n", "utf-8"
    )
    print(told)


if __name__ == "__main__":
    main()
