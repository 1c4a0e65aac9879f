"""Does a transformer's map lie on the digit that was asked for?

    python benchmarks/quality/digits_vit.py [--pairs 200] [--out benchmarks/results/digits_vit.json]

Two held-out digits of different classes stand side by side, and the map of one of them is asked for
by its class. Share: of the map's positive evidence on the asked digit's half; 0.5 is chance. Asked
for once left and once right, so that a fixed preference for a side averages out. Told apart: how
often a half holds more when its own digit is asked for than when the other is. Means over pairs,
with bootstrap 95 % intervals of the share. Rollout and the controls don't ask for a class: what one
question gives them the other takes, so they keep 0.5.
"""

from __future__ import annotations

import argparse
import json
import platform
from pathlib import Path
from typing import Any

import numpy as np

import visxai
from visxai.methods.base import Method
from visxai.metrics import controls

ROOT = Path(__file__).resolve().parents[2]
HEIGHT, WIDTH, DIGIT = 24, 48, 21
METHODS = (
    "chefer",
    "legrad",
    "beyond_intuition",
    "grad_cam",
    "recipro_cam",
    "cdam",
    "grad_eclip",
    "attention_cam",
    "token_drop",
    "attention_rollout",
)


def held_out() -> tuple[np.ndarray, np.ndarray]:
    """The digits (n, 8, 8) in 0..1 that the model never saw, and their labels (n,)."""
    with np.load(ROOT / "tests" / "data" / "digits.npz", allow_pickle=False) as data:
        return data["pixels"] / 16, data["labels"].astype(int)


def canvas(left: np.ndarray | None, right: np.ndarray | None, seed: int) -> np.ndarray:
    """A canvas (24, 48, 3) uint8 with faint noise and a digit (8, 8) on either half."""
    from PIL import Image

    random = np.random.default_rng(seed)
    drawn = random.random((HEIGHT, WIDTH)) * 0.15
    for digit, start in ((left, 0), (right, WIDTH // 2)):
        if digit is None:
            continue
        image = Image.fromarray(np.uint8(digit * 255)).resize((DIGIT, DIGIT), Image.BILINEAR)
        top, across = random.integers(HEIGHT - DIGIT + 1), random.integers(WIDTH // 2 - DIGIT + 1)
        spot = drawn[top : top + DIGIT, start + across : start + across + DIGIT]
        np.maximum(spot, np.asarray(image) / 255, out=spot)
    return np.repeat(np.uint8(drawn * 255)[:, :, None], 3, axis=2)


def pairs(count: int, seed: int = 0) -> tuple[list[np.ndarray], np.ndarray]:
    """Canvases of two digits of different classes, and the classes (count, 2), left and right."""
    digits, labels = held_out()
    random = np.random.default_rng(seed)
    canvases, classes = [], []
    while len(canvases) < count:
        a, b = random.integers(len(labels), size=2)
        if labels[a] != labels[b]:
            canvases.append(canvas(digits[a], digits[b], seed + len(canvases)))
            classes.append((labels[a], labels[b]))
    return canvases, np.array(classes)


def share(values: np.ndarray, side: int) -> float:
    """The share of a map's positive evidence on the left (0) or right (1) half."""
    positive = np.maximum(values, 0)
    middle = values.shape[1] // 2
    half = positive[:, :middle] if side == 0 else positive[:, middle:]
    total = float(positive.sum())
    return float(half.sum()) / total if total > 0 else 0.5


def shares(engine: visxai.Engine, method: str | Method, count: int, seed: int = 0) -> np.ndarray:
    """For each pair the mean share of the two questions (count,)."""
    canvases, classes = pairs(count, seed)
    found = np.zeros((count, 2))
    for side in (0, 1):
        target = [int(label) for label in classes[:, side]]
        results = engine.explain(canvases, method=method, target=target)
        found[:, side] = [share(result.values, side) for result in results]
    return found.mean(1)


def told_apart(values: np.ndarray) -> float:
    """How often a pair's share is above a half; a tie counts for one half.

    The mean of both shares is above 0.5 just when each half gains by being asked for.
    """
    tied = np.abs(values - 0.5) < 1e-6
    return float(np.where(tied, 0.5, values > 0.5).mean())


def interval(values: np.ndarray, draws: int = 2000, seed: int = 0) -> tuple[float, float]:
    """Bootstrap 95 % interval of the mean."""
    random = np.random.default_rng(seed)
    index = random.integers(len(values), size=(draws, len(values)))
    low, high = np.quantile(values[index].mean(1), (0.025, 0.975))
    return float(low), float(high)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pairs", type=int, default=200)
    parser.add_argument(
        "--out", type=Path, default=ROOT / "benchmarks" / "results" / "digits_vit.json"
    )
    given = parser.parse_args()
    engine = visxai.Engine("digits_vit", device="cpu", precision="fp32", batch_size=50)
    methods = {name: name for name in METHODS} | {n: controls.load(n) for n in controls.names()}
    measured = {name: shares(engine, method, given.pairs) for name, method in methods.items()}
    rows: dict[str, Any] = {}
    print(f"{'method':<20} share   95 % interval    told apart")
    for method, values in measured.items():
        low, high = interval(values)
        mean, apart = float(values.mean()), told_apart(values)
        rows[method] = {"mean": mean, "low": low, "high": high, "told_apart": apart}
        print(f"{method:<20} {mean:.3f}   {low:.3f} to {high:.3f}   {apart:.3f}")
    given.out.parent.mkdir(parents=True, exist_ok=True)
    report = {
        "figure": "share of positive evidence on the asked digit's half",
        "pairs": given.pairs,
        "model": engine.model.ref.name,
        "weights_sha256": engine.model.ref.weights_sha256,
        "python": platform.python_version(),
        "methods": rows,
    }
    given.out.write_text(json.dumps(report, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
