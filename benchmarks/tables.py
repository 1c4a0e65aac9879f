"""Tables: what explaining a million rows costs, and how near estimates come to exact values.

    OMP_NUM_THREADS=1 python benchmarks/tables.py rows     a million rows of 20 features
    OMP_NUM_THREADS=1 python benchmarks/tables.py folder   the same rows by the command line
    OMP_NUM_THREADS=1 python benchmarks/tables.py error    LIME and Kernel SHAP beside exact values

`rows` writes a Parquet file, trains a model of XGBoost, and explains block by block in turn: by
`Engine.stream`, which reads the file, scores and explains, and by XGBoost's `pred_contribs` alone
on the same rows, which lie in memory already. Resident memory is read after each block, with what
the allocator keeps given back. `folder` runs `visxai explain` over the file, with a record for
each row on disk, and reads that process's resident memory twice a second. `error` explains rows of
German Credit against a background.

Writes benchmarks/results/tables_rows.json, tables_folder.json and tables_error.json.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import measure
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xgboost

from visxai import tabular
from visxai.tabular import german_credit

FEATURES = 20


def resident() -> float:
    """This process's resident memory in MiB, once the allocator has given back what it can."""
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20


def write(path: Path, rows: int, block: int) -> None:
    """Write rows of normal numbers, block by block."""
    rng = np.random.default_rng(0)
    schema = pa.schema([(f"f{at}", pa.float64()) for at in range(FEATURES)])
    with pq.ParquetWriter(path, schema) as file:
        for start in range(0, rows, block):
            x = rng.normal(size=(min(block, rows - start), FEATURES))
            file.write_table(pa.table(list(x.T), schema=schema))


def million(rows: int, trees: int, depth: int, block: int) -> dict[str, Any]:
    """Explain a file of rows by the engine and by `pred_contribs` alone, in turn."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(20_000, FEATURES))
    y = x[:, 0] + x[:, 1] * x[:, 2] - x[:, 3] + rng.logistic(size=len(x)) > 0
    model = xgboost.XGBClassifier(n_estimators=trees, max_depth=depth, n_jobs=1).fit(x, y)
    names = [f"f{at}" for at in range(FEATURES)]
    engine = tabular.Engine(model, features=names)
    booster = model.get_booster()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.parquet"
        write(path, rows, block)
        times: dict[str, list[float]] = {"engine": [], "pred_contribs": []}
        memory, missed = [], 0.0
        stream = engine.stream(path, block)
        explained = 0
        while True:
            began = time.perf_counter()
            found = next(stream, None)
            seconds = time.perf_counter() - began
            if found is None:
                break
            times["engine"].append(seconds)
            explained += len(found.scores)
            missed = max(missed, float(found.additivity.max()))
            plain = engine.matrix(found.table)
            began = time.perf_counter()
            told = booster.predict(xgboost.DMatrix(plain), pred_contribs=True)
            times["pred_contribs"].append(time.perf_counter() - began)
            assert np.array_equal(told[:, :-1], found.values.astype(np.float32))
            del found, plain, told
            memory.append(resident())
    speed = np.array(times["pred_contribs"]) / np.array(times["engine"])
    return {
        "rows": explained,
        "features": FEATURES,
        "trees": trees,
        "depth": depth,
        "block": block,
        "seconds": {name: sum(one) for name, one in times.items()},
        "rows_per_second": {name: explained / sum(one) for name, one in times.items()},
        # Blocks are paired, so a machine that is shared slows both.
        "speed_of_pred_contribs": {
            "whole": sum(times["pred_contribs"]) / sum(times["engine"]),
            "quartiles": np.quantile(speed, (0.25, 0.5, 0.75)).tolist(),
        },
        "worst_additivity": missed,
        "resident_mib": {
            "after_a_tenth": memory[len(memory) // 10],
            "at_the_end": memory[-1],
            "most": max(memory[len(memory) // 10 :]),
        },
    }


def folder(rows: int, trees: int, depth: int, block: int) -> dict[str, Any]:
    """Explain a file of rows by the command line, and watch the process's memory."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(20_000, FEATURES))
    y = x[:, 0] + x[:, 1] * x[:, 2] - x[:, 3] + rng.logistic(size=len(x)) > 0
    model = xgboost.XGBClassifier(n_estimators=trees, max_depth=depth, n_jobs=1).fit(x, y)
    engine = tabular.Engine(model, features=[f"f{at}" for at in range(FEATURES)], threshold=0.5)
    with tempfile.TemporaryDirectory() as place:
        write(Path(place) / "rows.parquet", rows, block)
        tabular.save_engine(engine, Path(place) / "model.json")
        words = ["explain", "rows.parquet", "--model", "model.json", "--out", "out"]
        began = time.perf_counter()
        run = subprocess.Popen(
            [sys.executable, "-m", "visxai", *words], cwd=place, stdout=subprocess.DEVNULL
        )
        memory: list[tuple[int, float]] = []  # finished rows, MiB
        told = Path(place) / "out" / "run.json"
        while run.poll() is None:
            time.sleep(0.5)
            try:
                status = Path(f"/proc/{run.pid}/status").read_text()
                done = json.loads(told.read_text())["counts"]["finished"]
            except (OSError, ValueError):
                continue
            if found := re.search(r"VmRSS:\s+(\d+) kB", status):
                memory.append((done, int(found[1]) / 1024))
        seconds = time.perf_counter() - began
        assert run.returncode == 0
        counts = json.loads(told.read_text())["counts"]
    early = next(size for done, size in memory if done >= rows // 10)
    return {
        "rows": counts["maps"],
        "features": FEATURES,
        "seconds": seconds,
        "resident_mib": {
            "after_a_tenth": early,
            "at_the_end": memory[-1][1],
            "most": max(size for _, size in memory),
        },
    }


def errors(rows: int, seeds: int) -> dict[str, Any]:
    """Compare estimates with exact values on German Credit."""
    table, features = german_credit.load(), german_credit.features()
    model = xgboost.XGBClassifier(n_estimators=100, max_depth=3, learning_rate=0.1, n_jobs=1)
    model.fit(features.matrix(table), np.array(table.column(german_credit.OUTCOME)))
    scores = tabular.Engine(model, features=features).predict(table)
    background = tabular.Background.approved_near(table, scores, 0.7, most=50)
    some = table.take(pa.array(np.flatnonzero(scores < 0.7)[:rows]))
    held = len(background.table)

    def explain(method: str) -> tuple[np.ndarray[Any, Any], float]:
        engine = tabular.Engine(model, background, features, method=method)
        began = time.perf_counter()
        values = np.concatenate([block.values for block in engine.stream(some)])
        return values, (time.perf_counter() - began) / rows

    exact, seconds = explain("interventional_tree_shap")
    found: dict[str, Any] = {
        "exact": {"method": "interventional_tree_shap", "milliseconds": 1000 * seconds}
    }
    specs = {f"kernel_shap(samples={n})": n * held for n in (64, 256, 1024, 2048)}
    specs |= {f"lime(samples={n})": n for n in (200, 1000, 5000, 20000)}
    top = np.argsort(-np.abs(exact), 1)[:, :4]
    for spec, cost in specs.items():
        drawn, taken = [], []
        for seed in range(seeds):
            values, spent = explain(f"{spec[:-1]}, seed={seed})")
            drawn.append(values)
            taken.append(spent)
        off = [np.abs(one - exact).sum() / np.abs(exact).sum() for one in drawn]
        same = [
            np.mean([len(set(a) & set(b)) / 4 for a, b in zip(top, four, strict=True)])
            for four in (np.argsort(-np.abs(one), 1)[:, :4] for one in drawn)
        ]
        spread = np.stack(drawn).std(0).sum() / np.abs(exact).sum()
        found[spec] = {
            "model_rows": cost,
            "milliseconds": 1000 * float(np.min(taken)),
            "error": float(np.mean(off)),
            "same_four": float(np.mean(same)),
            "spread_over_seeds": float(spread),
        }
    return {"rows": rows, "background": held, "seeds": seeds, "methods": found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("rows", "folder", "error"))
    parser.add_argument("--rows", type=int)
    parser.add_argument("--trees", type=int, default=50)
    parser.add_argument("--depth", type=int, default=4)
    parser.add_argument("--block", type=int, default=16384)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=measure.RESULTS)
    given = parser.parse_args()
    if given.what in ("rows", "folder"):
        measured = million if given.what == "rows" else folder
        found = measured(given.rows or 1_000_000, given.trees, given.depth, given.block)
    else:
        found = errors(given.rows or 20, given.seeds)
    path = measure.save(
        f"tables_{given.what}",
        found,
        f"OMP_NUM_THREADS=1 python benchmarks/tables.py {given.what}",
        given.out,
    )
    print(path.read_text("utf-8"))


if __name__ == "__main__":
    main()
