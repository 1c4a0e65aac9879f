"""The measurements on a GPU, rehearsed on a CPU: nothing is lost by a failure or a timeout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from argparse import Namespace
from itertools import count
from pathlib import Path
from typing import Any

import pytest

import visxai
from visxai.errors import OutOfMemory

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def _benchmarks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))


def test_a_rehearsal_runs_every_step_and_loses_nothing(tmp_path: Path) -> None:
    from benchmarks import gpu

    names = [step.name for step in gpu.STEPS]
    planted = [*names[:2], "fails", "hangs", *names[2:]]
    command = [sys.executable, "-m", "benchmarks.gpu", "--device", "cpu", "--quick"]
    command += ["--out", str(tmp_path), "--only", ",".join(planted), "--budget", "500"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    told = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert told.returncode == 0, told.stderr
    report = json.loads((tmp_path / "gpu.json").read_text("utf-8"))
    log = (tmp_path / "gpu.log").read_text("utf-8")
    states = {step["step"]: step["status"] for step in report["steps"]}
    assert states == {**dict.fromkeys(names, "ok"), "fails": "failed", "hangs": "timeout"}, log
    rows = {step["step"]: step["rows"] for step in report["steps"]}
    assert all(rows.values())
    assert rows["fails"][0]["what"] == "before the failure"
    assert rows["hangs"][0]["what"] == "before the timeout"
    (failed,) = [step for step in report["steps"] if step["step"] == "fails"]
    assert failed["error"][-1] == "RuntimeError: planted failure"
    assert not [row for found in rows.values() for row in found if row.get("reached") == "failed"]
    assert len(list(tmp_path.iterdir())) <= 8
    lines = told.stdout.strip().splitlines()
    assert lines[0].startswith("no card: rehearsed on a CPU")
    assert len(lines) <= 35
    assert (tmp_path / "gpu.md").read_text("utf-8").startswith(f"# {lines[0]}")
    assert (
        "torch"
        not in subprocess.run(
            [sys.executable, "-c", "import benchmarks.gpu, sys; print([*sys.modules])"],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
        )
        .stdout.replace("'", " ")
        .split()
    )


def test_a_chosen_python_is_not_replaced(tmp_path: Path) -> None:
    for chosen in (tmp_path / "no python", Path("/bin/false")):
        told = subprocess.run(
            [ROOT / "scripts" / "gpu", "--out", tmp_path / "out"],
            env={**os.environ, "PYTHON": str(chosen)},
            capture_output=True,
            text=True,
        )
        assert told.returncode == 2
        assert told.stderr == (
            f"expected a Python with torch, got {chosen}: set PYTHON to one that has it\n"
        )
        assert not (tmp_path / "out").exists()


def rehearsed(tmp_path: Path) -> tuple[Any, Path]:
    from benchmarks import gpu_steps

    rows = tmp_path / "rows"
    return gpu_steps.Bench(Namespace(device="cpu", quick=True, rows=rows)), rows


def test_the_first_step_lists_what_was_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from benchmarks import gpu_steps

    bench, rows = rehearsed(tmp_path)
    plain = visxai.Engine.attribute

    def refusing(self: visxai.Engine, x: Any, method: Any, *rest: Any) -> Any:
        if "saliency" in repr(method):
            raise OutOfMemory("no room")
        return plain(self, x, method, *rest)

    monkeypatch.setattr(visxai.Engine, "attribute", refusing)
    monkeypatch.setattr(gpu_steps.methods, "names", lambda: ["grad_cam", "saliency"])
    gpu_steps.smoke(bench)
    for line in rows.read_text("utf-8").splitlines():
        row = json.loads(line)
        assert (row["reached"], row["unit"]) == (1, "of 2")
        assert row["beside"].startswith("refused: saliency: OutOfMemory: no room; most waits")


def test_maps_are_compared_with_float32_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from benchmarks import gpu_steps

    bench, rows = rehearsed(tmp_path)
    plain, calls = visxai.Engine.attribute, count()

    def failing(self: visxai.Engine, *given: Any) -> Any:
        if next(calls) == 0:
            raise RuntimeError("the first fails")
        return plain(self, *given)

    monkeypatch.setattr(visxai.Engine, "attribute", failing)
    for name in ("forwards", "peers"):
        monkeypatch.setattr(gpu_steps, name, lambda *_: {})
    monkeypatch.setattr(gpu_steps, "report", lambda *_: None)
    gpu_steps.grad_cam(bench)
    told = [json.loads(line) for line in rows.read_text("utf-8").splitlines()]
    assert told[0]["reached"] == "failed"
    maps = [row["reached"] for row in told if row["what"].endswith(": map")]
    assert maps == ["not compared"] * 3


def test_a_page_says_not_measured_until_it_is(tmp_path: Path) -> None:
    from benchmarks import gpu

    page, kept = tmp_path / "page.md", tmp_path / "kept"
    page.write_text(f"Before.\n\n{gpu.MARKS[0]}\nold\n{gpu.MARKS[1]}\n\nAfter.\n", "utf-8")
    gpu.fill(page, kept)
    assert "Not measured" in page.read_text("utf-8")
    kept.mkdir()
    step = {"step": "card", "status": "ok", "seconds": 1}
    rows = [{"card": "a card"}, {"what": "copy", "reached": 3, "unit": "GB/s"}]
    (kept / "gpu.json").write_text(
        json.dumps({"device": "cuda", "steps": [{**step, "rows": rows}]}), "utf-8"
    )
    gpu.fill(page, kept)
    text = page.read_text("utf-8")
    assert "On one a card:" in text
    assert "| card | copy | 3 | GB/s |  |" in text
    assert "old" not in text
    assert text.startswith("Before.")
    assert text.endswith("After.\n")


def test_the_readme_has_rows_of_a_gpu_once_they_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import readme

    assert list(readme.gpu_rows(tmp_path)) == []
    beside = "2.71 \u00d7 eager fp32, 0.93 \u00d7 best forward, peak 9 MiB, reserved 20"
    rows = [
        {"what": "resnet50 b64: visxai bf16 compile", "reached": 9, "beside": beside},
        {"what": "visxai bf16 compile, b64: map", "reached": "1e-3"},
    ]
    steps = [{"step": "card", "rows": [{"card": "a card"}]}, {"step": "grad_cam", "rows": rows}]
    (tmp_path / "gpu").mkdir()
    (tmp_path / "gpu" / "gpu.json").write_text(json.dumps({"steps": steps}), "utf-8")
    (row,) = readme.gpu_rows(tmp_path)
    assert row == (
        "Grad-CAM on one a card, resnet50 b64",
        "2.71 \u00d7 eager fp32, 0.93 \u00d7 best forward",
    )
