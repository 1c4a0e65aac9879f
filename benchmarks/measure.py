"""Where the benchmarks' results go; the measuring itself is `visxai.bench`'s."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from visxai.bench.measure import contest, environment, peak_increase, ratio, spread
from visxai.bench.report import table

__all__ = [
    "RESULTS",
    "contest",
    "environment",
    "peak_increase",
    "photographs",
    "ratio",
    "save",
    "spread",
    "table",
]

RESULTS = Path(__file__).parent / "results"
_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}


def save(name: str, results: Mapping[str, Any], command: str, folder: Path = RESULTS) -> Path:
    """Write FOLDER/NAME.json with the command and environment that made it."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    text = json.dumps(
        {"command": command, "environment": environment(), **results}, indent=1, sort_keys=False
    )
    path.write_text(text + "\n", "utf-8")
    return path


def photographs(count: int, folder: Path | None = None) -> list[Image.Image]:
    """`count` photographs: evenly spread over a folder's by name, or cut out of those that
    scikit-image brings."""
    if folder is not None:
        found = sorted(path for path in folder.iterdir() if path.suffix.lower() in _SUFFIXES)
        if not found:
            raise SystemExit(f"expected photographs in {folder}, found none")
        chosen = np.linspace(0, len(found) - 1, count).round().astype(int)
        return [Image.open(found[index]).convert("RGB") for index in chosen]
    from skimage import data

    whole = [getattr(data, name)() for name in ("astronaut", "coffee", "chelsea", "rocket")]
    random = np.random.default_rng(0)
    made = []
    for number in range(count):
        image = whole[number % len(whole)]
        side = int(random.integers(224, min(image.shape[:2])))
        top = int(random.integers(image.shape[0] - side + 1))
        left = int(random.integers(image.shape[1] - side + 1))
        made.append(Image.fromarray(image[top : top + side, left : left + side]))
    return made
