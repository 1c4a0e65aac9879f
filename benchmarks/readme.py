"""Fills the README's table of speed from the figures that the benchmarks kept.

    python benchmarks/readme.py

A test holds the README to it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
PAGE = Path(__file__).parents[1] / "README.md"
START, END = "<!-- speed -->\n", "<!-- /speed -->"
_TIMES = "\u00d7"


def rows(results: Path = RESULTS) -> Iterator[tuple[str, str]]:
    """Yield what was measured, and how many times as fast it is here as with whom."""
    half, windows = _kept("half", results)["rows"], _kept("windows", results)["rows"]
    for model in ("resnet50", "mobilenet_v2"):
        told = [
            f"{_times(bar['reached']['minimum'])} {bar['of']}"
            for bar in half[model]["bars"]
            if bar["what"] == "grad_cam" and not bar["of"].startswith("forward")
        ]
        yield f"Grad-CAM, {model}, batch {half[model]['batch']}", ", ".join(told)
    for model, found in windows.items():
        times, peer = _times(found["bars"][0]["reached"]["minimum"]), found["bars"][0]["of"]
        yield f"occlusion, {model}", f"{times} {peer.split(',')[0]}"
    folder = _kept("folder_peers", results)
    what = f"{folder['images']} photographs by one command, start included"
    yield what, f"{_times(folder['ratio']['visxai'])} a script around grad-cam"
    names = {"integrated_gradients": "integrated gradients", "lime": "LIME"}
    for found in _kept("text", results):
        if found["model"] == "BiLSTM" and (name := names.get(found["method"])):
            what = f"{name}, {found['texts']} comments"
            yield what, f"{_times(found['ratio'])} {found['peer'].split(',')[0]}"


def gpu_rows(results: Path = RESULTS) -> Iterator[tuple[str, str]]:
    """Yield what `scripts/gpu` measured, if a run of it was kept (see `benchmarks/gpu.py`)."""
    file = results / "gpu" / "gpu.json"
    if not file.exists():
        return
    steps = {step["step"]: step["rows"] for step in json.loads(file.read_text("utf-8"))["steps"]}
    card = next((row["card"] for row in steps.get("card", ()) if "card" in row), "a GPU")
    for row in steps.get("grad_cam", ()):
        if (what := str(row.get("what", ""))).endswith("visxai bf16 compile") and "beside" in row:
            told = [part for part in row["beside"].split(", ") if _TIMES in part]
            yield f"Grad-CAM on one {card}, {what.partition(':')[0]}", ", ".join(told)


def table(results: Path = RESULTS) -> str:
    """Return the table in Markdown."""
    lines = ["| what | times as fast as |", "|---|---|"]
    return (
        "\n".join(
            [*lines, *(f"| {' | '.join(row)} |" for row in (*rows(results), *gpu_rows(results)))]
        )
        + "\n"
    )


def fill(text: str, results: Path = RESULTS) -> str:
    """Return a page with the table between its markers."""
    before, found, after = text.partition(START)
    if not found or END not in after:
        raise SystemExit(f"expected {START.strip()} and {END} in the page, found none")
    return f"{before}{START}{table(results)}{END}{after.partition(END)[2]}"


def _kept(name: str, results: Path) -> Any:
    return json.loads((results / f"{name}.json").read_text("utf-8"))


def _times(ratio: float) -> str:
    return f"{ratio:.1f} {_TIMES}"


if __name__ == "__main__":
    PAGE.write_text(fill(PAGE.read_text("utf-8")), "utf-8")
