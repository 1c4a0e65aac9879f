"""The latency grid's bookkeeping: which cells a run still has to measure."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

MODEL = "timm:deit_tiny_patch16_224"


@pytest.fixture(autouse=True)
def _benchmarks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))


def row(method: str, batch: int, p50: float, **more: Any) -> dict[str, Any]:
    of = {"model": "deit_tiny_patch16_224", "accelerate": "off", "precision": "fp32"}
    return {**of, "method": method, "batch": batch, "p50": p50, "forwards": 2 * batch, **more}


def test_a_run_goes_on_where_the_last_one_ended(tmp_path: Path) -> None:
    import grid

    rows = [row("occlusion", 1, 30.0), row("legrad", 1, 0.2, others=0.1)]
    (tmp_path / "grid.json").write_text(json.dumps({"rows": rows}), "utf-8")
    kept = grid.Kept(tmp_path)
    everything = list(grid.cells(MODEL))
    assert len(everything) == len(set(everything)) == 5 * 9
    loud, quiet, long = (
        grid.Cell("deit_tiny_patch16_224", "off", "fp32", method, batch)
        for method, batch in (("occlusion", 1), ("legrad", 1), ("occlusion", 8))
    )
    assert set(everything) - set(kept.missing(MODEL, -1)) == {loud, quiet}
    assert set(everything) - set(kept.missing(MODEL, 0.2)) == {quiet}
    # A batch of eight takes eight times as long: over three minutes, so it comes last.
    assert kept.expected(long) == 240 > grid.LONGEST
    assert kept.missing(MODEL, -1)[-1] == long
    served = quiet._replace(batch=8)
    kept.left_out[str(served)] = "legrad needs attention"
    kept.rows[long] = row("occlusion", 8, 100.0)
    kept.save()
    again = grid.Kept(tmp_path)
    assert again.rows == kept.rows
    assert set(everything) - set(again.missing(MODEL, -1)) == {loud, quiet, long, served}
    line = grid.format_rows(list(again.rows.values())).splitlines()[-1]
    assert line == "| deit_tiny_patch16_224 | occlusion | 8 | 16 |  |  |  |  |"
