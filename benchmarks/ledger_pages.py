"""How long do imports and the governance page take when much is on record?

    python benchmarks/ledger_pages.py [--rows 1000000] [--import-rows 20000] [--database URL]
        [--out benchmarks/results/ledger_pages.json]

Imports a made-up folder run of 7 x 7 maps into a new database (through the audit chain, measured),
then fills the table of measures and the daily sums up to --rows over 365 days, with the same code
that measured rows go through, and makes the page 20 times. Rows that are filled in have no payload
in the ledger; the page reads at most 200 payloads whatever the number of rows.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
import time
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import insert, select

from visxai import govern
from visxai.govern import tables
from visxai.govern.daily import add_sums
from visxai.govern.log import Log
from visxai.images.sources import Found
from visxai.record.image import ImageExplanation
from visxai.references import ImageRef, ModelRef, Transform
from visxai.results.rows import row_of
from visxai.results.store import Store

ROOT = Path(__file__).resolve().parents[1]
SETTINGS = {
    "model": "m",
    "weights": "a" * 64,
    "methods": ["grad_cam()"],
    "target": "top1",
    "device": "cpu",
    "precision": "fp32",
    "chunk": 1000,
    "max_pixels": 10**6,
    "overlays": None,
}


def run_of(folder: Path, count: int) -> Path:
    """A folder run of made-up explanations."""
    rng = np.random.default_rng(0)
    one = ImageExplanation(
        ImageRef(96, 96, Transform((96, 96), (0, 0, 96, 96)), "0" * 64, "a"),
        ModelRef("m", "a" * 64, "none"),
        rng.random((7, 7), dtype=np.float32),
        "grad_cam()",
        "top1",
        0,
        "class 0",
        0.5,
        0.0,
    )
    names = [f"/in/{at:06d}.png" for at in range(count)]
    with Store(folder, SETTINGS, command="visxai explain in") as store:
        store.add([Found(name, "/in") for name in names])
        done = 0
        for chunk in store.pending():
            rows = []
            for given in store.inputs(chunk):
                done += 1
                made = replace(
                    one,
                    input=replace(one.input, path=given.path, source_sha256=f"{done:064x}"),
                    values=rng.random((7, 7), dtype=np.float32),
                    label=f"class {done % 10}",
                    score=float(rng.random()),
                    created=f"2026-01-{1 + done % 28:02d}T10:00:00+00:00",
                )
                rows.append(row_of(made, None))
            store.commit(chunk, rows, [], {})
        store.finish("complete")
    return folder


def fill(log: Log, count: int) -> None:
    """Rows like the measured ones, over a year."""
    with log.ledger.database.reading() as connection:
        first = connection.execute(select(tables.measures).limit(5000))
        known = [dict(row._mapping) for row in first]
    done, rng = 0, np.random.default_rng(1)
    while done < count:
        rows = []
        for at in rng.integers(0, len(known), min(20_000, count - done)):
            day = np.datetime64("2025-01-01") + (done + len(rows)) * 365 // count
            new = {"explanation_id": uuid.uuid4().hex, "at": f"{day}T10:00:00.000000Z"}
            rows.append(known[at] | new)
        with log.ledger.database.writing() as connection:
            connection.execute(insert(tables.measures), rows)
            add_sums(connection, rows, 0)
        done += len(rows)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--import-rows", type=int, default=20_000)
    parser.add_argument("--database")
    results = ROOT / "benchmarks" / "results" / "ledger_pages.json"
    parser.add_argument("--out", type=Path, default=results)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        out = run_of(Path(temporary) / "out", asked.import_rows)
        url = asked.database or f"sqlite:///{temporary}/log.db"
        with Log(url) as log:
            began = time.perf_counter()
            count = log.import_run(out)
            imported = time.perf_counter() - began
            print(f"imported {count} in {imported:.1f} s", flush=True)
            fill(log, max(0, asked.rows - count))
            spent = []
            for _ in range(20):
                began = time.perf_counter()
                text = govern.page(log)
                spent.append(time.perf_counter() - began)
            told: dict[str, Any] = {
                "command": "python benchmarks/ledger_pages.py",
                "database": url.partition(":")[0],
                "machine": f"{platform.machine()}, {platform.system()}",
                "imported": count,
                "import_seconds": imported,
                "rows": log.models()[0].n,
                "page_bytes": len(text),
                "page_seconds": {
                    "p50": float(np.quantile(spent, 0.5)),
                    "p95": float(np.quantile(spent, 0.95)),
                },
            }
    print(json.dumps(told, indent=2))
    before = json.loads(asked.out.read_text("utf-8")) if asked.out.exists() else {}
    asked.out.write_text(json.dumps(before | {told["database"]: told}, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
