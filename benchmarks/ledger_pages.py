"""How long do imports and the governance page take when much is on record?

    python benchmarks/ledger_pages.py [--rows 1000000] [--import-rows 20000] [--database URL]
        [--steps import,fill,pages] [--out benchmarks/results/ledger_pages.json]

import   a made-up folder run of 7 x 7 maps goes into a new database, under the audit chain
fill     the table of measures and the daily sums grow to --rows over 365 days, by the code that
         measured rows go through; these rows have no payload, of which a page reads 200 at most
pages    the page is made 20 times, as a service does (one model) and as a file (unverified)

Without --database a temporary SQLite file serves. The steps can be run one after the other on one
database, so that filling, which takes minutes, needn't be repeated.
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


def pages(log: Log) -> dict[str, Any]:
    """Seconds of 20 pages, and their size."""
    told: dict[str, Any] = {"rows": log.models()[0].n}
    for name, model in (("service", ""), ("file", None)):
        spent, text = [], ""
        for _ in range(20):
            began = time.perf_counter()
            text = govern.page(log, model=model)
            spent.append(time.perf_counter() - began)
        p50, p95 = (float(np.quantile(spent, one)) for one in (0.5, 0.95))
        told[name] = {"p50": p50, "p95": p95, "bytes": len(text)}
    return told


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--import-rows", type=int, default=20_000)
    parser.add_argument("--database")
    parser.add_argument("--steps", default="import,fill,pages")
    results = ROOT / "benchmarks" / "results" / "ledger_pages.json"
    parser.add_argument("--out", type=Path, default=results)
    asked = parser.parse_args()
    steps = asked.steps.split(",")
    with tempfile.TemporaryDirectory() as temporary:
        url = asked.database or f"sqlite:///{temporary}/log.db"
        kind = url.partition(":")[0]
        told: dict[str, Any] = {"machine": f"{platform.machine()}, {platform.system()}"}
        with Log(url) as log:
            if "import" in steps:
                out = run_of(Path(temporary) / "out", asked.import_rows)
                began = time.perf_counter()
                count = log.import_run(out)
                told["import"] = {"rows": count, "seconds": time.perf_counter() - began}
            if "fill" in steps:
                fill(log, max(0, asked.rows - log.models()[0].n))
            if "pages" in steps:
                told["pages"] = pages(log)
    print(json.dumps({kind: told}, indent=2))
    known = json.loads(asked.out.read_text("utf-8")) if asked.out.exists() else {}
    known["command"] = "python benchmarks/ledger_pages.py"
    known[kind] = known.get(kind, {}) | told
    asked.out.write_text(json.dumps(known, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
