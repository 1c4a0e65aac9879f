"""How accurate integrated gradients are for their price, on photographs: visxai beside captum.

    python benchmarks/quality/integrated_gradients.py FOLDER --images 64

Every photograph is explained for the class that the default model sees in it, by captum's default
(50 Gauss-Legendre points), by visxai's default and by its fast tier at two tolerances. Map error:
relative L2 of the map (the signed sum over channels) against `--points` Gauss-Legendre points.
Completeness: the part of the score's change that the map's sum misses, over that change (at least
0.01). Evaluations: forwards with a backward. Speed is timed on one batch, the contestants in turn.

The references take most of the time; `--references FOLDER` keeps them for the next run. Figures go
to benchmarks/results/integrated_gradients.json.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from captum.attr import IntegratedGradients as Captum
from torch import Tensor

import visxai
from visxai.evaluate import statistics

sys.path.insert(0, str(Path(__file__).parents[1]))
import measure

OURS = (
    "integrated_gradients",
    "integrated_gradients(tolerance=0.05)",
    "integrated_gradients(tolerance=0.1)",
)
CAPTUM = "captum, 50 Gauss-Legendre points"
STEPS = 50
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}


def photographs(folder: Path, count: int) -> list[Path]:
    """`count` photographs, evenly spread over those of the folder by name."""
    found = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    if not found:
        raise SystemExit(f"expected photographs in {folder}, found none")
    chosen = np.linspace(0, len(found) - 1, min(count, len(found))).round().astype(int)
    return [found[index] for index in chosen]


def contestants(engine: visxai.Engine) -> dict[str, Callable[[Tensor, list[int]], Tensor]]:
    """What each makes of inputs (b, 3, h, w) and their classes: maps (b, h, w)."""
    module = engine.model.module

    def captum(x: Tensor, classes: list[int]) -> Tensor:
        return Captum(module).attribute(x, target=classes, n_steps=STEPS).sum(1).detach()

    def ours(spec: str) -> Callable[[Tensor, list[int]], Tensor]:
        return lambda x, classes: engine.attribute(x, spec, classes)

    return {CAPTUM: captum} | {spec: ours(spec) for spec in OURS}


def reference(
    engine: visxai.Engine, path: Path, x: Tensor, label: int, points: int, kept: Path | None
) -> Tensor:
    """The map (h, w) by many points, from the folder `kept` if it is there."""
    file = None if kept is None else kept / f"{path.stem}-{points}.npy"
    if file is not None and file.exists():
        return torch.from_numpy(np.load(file))
    spec = f"integrated_gradients(steps={points}, schedule='gauss_legendre')"
    found = engine.attribute(x, spec, [label])[0]
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        np.save(file, found.cpu().numpy())
    return found.cpu()


def figures(engine: visxai.Engine, paths: list[Path], args: argparse.Namespace) -> dict[str, Any]:
    """Every contestant's errors and evaluations over the photographs."""
    found: dict[str, dict[str, list[float]]] = {}
    makers = contestants(engine)
    for number, path in enumerate(paths):
        x = engine.tensor([engine.prepare(path).pixels])
        scores = engine.model.scores(x)[0]
        label = int(scores.argmax())
        change = float(scores[label] - engine.model.scores(torch.zeros_like(x))[0, label])
        true = reference(engine, path, x, label, args.points, args.references)
        for name, make in makers.items():
            evaluations = float(STEPS)
            if name == CAPTUM:
                made = make(x, [label])[0].cpu()
            else:
                explanation = engine.explain(path, name, label)[0]
                made = torch.tensor(explanation.values)
                evaluations = explanation.quality["evaluations"]
            entry = found.setdefault(
                name, {"map error": [], "completeness error": [], "evaluations": []}
            )
            entry["map error"].append(float((made - true).norm() / true.norm()))
            missed = abs(float(made.sum()) - change) / max(abs(change), 0.01)
            entry["completeness error"].append(missed)
            entry["evaluations"].append(evaluations)
        last = {
            name: [round(values[-1], 3) for values in entry.values()]
            for name, entry in found.items()
        }
        print(f"{number + 1} of {len(paths)}: {last}", file=sys.stderr, flush=True)
    return {name: summary(entry) for name, entry in found.items()}


def summary(entry: dict[str, list[float]]) -> dict[str, Any]:
    """Median, mean with its bootstrap 95 % interval, and 90th percentile of each figure."""
    found = {}
    for figure, values in entry.items():
        (mean,) = statistics.intervals(np.array(values)[:, None])
        told = {
            "median": float(np.median(values)),
            "mean": mean.value,
            "low": mean.low,
            "high": mean.high,
            "p90": float(np.quantile(values, 0.9)),
        }
        found[figure] = {name: round(value, 4) for name, value in told.items()}
    return found


def speeds(engine: visxai.Engine, paths: list[Path], rounds: int) -> dict[str, Any]:
    """How many times as fast as captum each contestant is on one batch."""
    x = engine.tensor([engine.prepare(path).pixels for path in paths])
    classes = engine.model.scores(x).argmax(1).tolist()
    works = {
        name: (lambda make=make: make(x, classes)) for name, make in contestants(engine).items()
    }
    seconds = measure.contest(works, rounds)
    return {name: measure.ratio(seconds, name, CAPTUM) for name in works}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path, help="a folder of photographs")
    parser.add_argument("--images", type=int, default=64, help="how many are judged")
    parser.add_argument("--points", type=int, default=1000, help="of the reference")
    parser.add_argument("--references", type=Path, help="a folder that keeps the references")
    parser.add_argument("--batch", type=int, default=4, help="photographs in the timed batch")
    parser.add_argument("--rounds", type=int, default=7, help="of timing; 0 leaves it out")
    args = parser.parse_args()
    engine = visxai.Engine(precision="fp32")
    paths = photographs(args.folder, args.images)
    results = figures(engine, paths, args)
    if args.rounds:
        batch = photographs(args.folder, args.batch)
        for name, ratio in speeds(engine, batch, args.rounds).items():
            results[name]["speed"] = ratio
    print(
        measure.table(
            [
                {
                    "": name,
                    "evaluations": entry["evaluations"]["mean"],
                    **{
                        f"{figure}, {part}": entry[figure][part]
                        for figure in ("map error", "completeness error")
                        for part in ("median", "mean", "p90")
                    },
                    "speed": entry.get("speed", {}).get("median", "not measured"),
                }
                for name, entry in results.items()
            ]
        )
    )
    command = f"integrated_gradients.py FOLDER --images {len(paths)} --points {args.points}"
    about = {"images": len(paths), "points": args.points}
    measure.save("integrated_gradients", {**about, **results}, command)


if __name__ == "__main__":
    main()
