"""Folder runs made up for tests: photographs on disk and a store of explanations, no model."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from PIL import Image

from visxai.drawing import overlays
from visxai.errors import Failure
from visxai.images.sources import Found
from visxai.record import version1
from visxai.record.image import ImageExplanation
from visxai.references import ImageRef, ModelRef, Transform
from visxai.results.rows import row_of
from visxai.results.store import Store

SETTINGS = {
    "model": "m",
    "weights": "a" * 64,
    "methods": ["grad_cam()", "saliency()"],
    "target": "top1",
    "device": "cpu",
    "precision": "fp32",
    "chunk": 4,
    "max_pixels": 10**6,
    "overlays": {"format": "jpg", "colormap": None, "panel": False},
}


def photograph(path: Path, seed: int, size: tuple[int, int] = (96, 64)) -> Path:
    """A photograph-like file, of (width, height) pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (5, 6, 3), dtype=np.uint8)
    Image.fromarray(small).resize(size, Image.Resampling.BICUBIC).save(path, "PNG")
    return path


def explanation(path: Path, peak: tuple[int, int] = (2, 3), **changes: Any) -> ImageExplanation:
    """An explanation of a file whose evidence lies at one cell of a 7x7 map."""
    with Image.open(path) as image:
        width, height = image.size
    side = min(width, height)
    crop = ((width - side) // 2, (height - side) // 2, side, side)
    ys, xs = np.mgrid[:7, :7]
    values = np.exp(-((ys - peak[0]) ** 2 + (xs - peak[1]) ** 2) / 2.0)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    made = ImageExplanation(
        input=ImageRef(width, height, Transform((width, height), crop), digest, str(path)),
        model=ModelRef("m", "a" * 64, "no resize"),
        values=values.astype(np.float32),
        method="grad_cam()",
        target="top1",
        class_index=7,
        label="tabby",
        score=0.5,
        logit=1.5,
        layer="features.7",
        created="2026-01-01T00:00:00+00:00",
        seconds=0.01,
    )
    changes.setdefault("two_sided", version1.is_two_sided(changes.get("method", made.method)))
    return replace(made, **changes)


def fill(
    out: Path,
    made: Sequence[ImageExplanation],
    failed: Sequence[Failure] = (),
    state: str = "complete",
    expected: Mapping[str, str] = MappingProxyType({}),
    answers: Mapping[str, int] = MappingProxyType({}),
) -> Path:
    """A finished run of these explanations, one image a chunk of its own rows; expected: labels
    by path; answers: what each chunk counts of them."""
    by_path: dict[str, list[ImageExplanation]] = {}
    for one in made:
        by_path.setdefault(str(one.input.path), []).append(one)
    listed = [Found(path, str(Path(path).parent)) for path in by_path]
    listed += [Found(str(one.path), str(Path(str(one.path)).parent), one) for one in failed]
    with Store(out, SETTINGS, command="visxai explain in --out out") as store:
        store.add(listed)
        for chunk in store.pending():
            rows, wrong = [], []
            for given in store.inputs(chunk):
                if given.failure is not None:
                    wrong.append(given.failure)
                for number, one in enumerate(by_path.get(given.path, ())):
                    overlay = f"{given.name}.{number}.jpg"
                    (store.overlays / overlay).parent.mkdir(parents=True, exist_ok=True)
                    overlays.save(one.overlay(), store.overlays / overlay)
                    rows.append(row_of(one, overlay, expected.get(given.path)))
            store.commit(chunk, rows, wrong, answers)
        store.finish(state)
    return out
