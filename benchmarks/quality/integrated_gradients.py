"""How accurate integrated gradients are for their price, on photographs: visxai beside captum.

    python benchmarks/quality/integrated_gradients.py FOLDER --images 64

Every photograph is explained for the class that the default model sees in it, by captum's default
(50 Gauss-Legendre points), by visxai's default and by its fast tier at two tolerances. Map error:
relative L2 of the map (the signed sum over channels) against `--points` Gauss-Legendre points.
Completeness: the part of the score's change that the map's sum misses, over that change (at least
0.01). Evaluations: forwards with a backward. Speed is timed on one batch, the contestants in turn.

The references take most of the time; `--references FOLDER` keeps them for the next run. Figures go
to benchmarks/results/integrated_gradients.json.

    python benchmarks/quality/integrated_gradients.py FOLDER --both --points 192 --references KEPT

measures the default and the adaptive schedule with a grey (0) and a black (-1) baseline, against
the trapezoid of as many points, finer near the baseline; the figures of the other run are kept, as
are those of photographs that were measured before, so that it may be ended and goes on.
"""

from __future__ import annotations

import argparse
import json
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
from visxai.methods.integrated_gradients import Path as Line
from visxai.methods.integrated_gradients import first_grid, trapezoid
from visxai.target import Target

sys.path.insert(0, str(Path(__file__).parents[1]))
import measure

DEFAULT, ADAPTIVE = "integrated_gradients", "integrated_gradients(schedule='adaptive')"
OURS = (
    DEFAULT,
    ADAPTIVE,
    "integrated_gradients(tolerance=0.05)",
    "integrated_gradients(tolerance=0.1)",
)
CAPTUM = "captum, 50 Gauss-Legendre points"
STEPS = 50
BASELINES = {"grey": 0.0, "black": -1.0}
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


def fine(engine: visxai.Engine, x: Tensor, label: int, baseline: float, file: Path) -> Tensor:
    """The map (h, w) by a fine trapezoid, kept in a file whose name ends in its points."""
    if not file.exists():
        aim, _ = engine.model.clean(x, Target.of(label))
        line = Line(x, torch.full_like(x, baseline), aim)
        alphas = first_grid(line, int(file.stem.rpartition("-")[2]) - 1)
        found = line.integral(engine.model, alphas, trapezoid(alphas))[0]
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_suffix(".part.npy")
        np.save(part, found.cpu().numpy())
        part.rename(file)
    return torch.from_numpy(np.load(file))


def both(engine: visxai.Engine, paths: list[Path], args: argparse.Namespace) -> None:
    """Measure the default and the adaptive schedule with both baselines, image by image."""
    path = measure.RESULTS / "integrated_gradients.json"
    kept = json.loads(path.read_text("utf-8"))
    rows: dict[str, dict[str, list[float]]] = kept.get("baselines", {}).get("errors", {})
    for photograph in paths:
        for name, baseline in BASELINES.items():
            key, file = f"{name}, {photograph.stem}", f"{photograph.stem}-{name}-{args.points}.npy"
            if key in rows or (args.kept_only and not (args.references / file).exists()):
                continue
            x = engine.tensor([engine.prepare(photograph).pixels])
            label = int(engine.model.scores(x).argmax())
            true = fine(engine, x, label, baseline, args.references / file)
            rows[key] = {}
            for spec in (DEFAULT, ADAPTIVE):
                options = spec.removeprefix(DEFAULT).strip("()")
                full = f"{DEFAULT}({options + ', ' if options else ''}baseline={baseline})"
                found = engine.explain(photograph, full, label)[0]
                apart = (torch.tensor(found.values) - true).norm() / true.norm()
                told = (float(apart), found.quality["completeness"], found.quality["evaluations"])
                rows[key][spec] = [round(value, 5) for value in told]
            print(key, rows[key], flush=True)
            save_both(kept, rows, args.points)
    save_both(kept, rows, args.points)


def save_both(kept: dict[str, Any], rows: dict[str, Any], points: int) -> None:
    """Write the figures of both baselines beside those of the other run."""
    names = ("map error", "completeness error", "evaluations")
    told: dict[str, Any] = {"points": points, "photographs": len(rows) // len(BASELINES)}
    for name in BASELINES:
        own = [row for key, row in rows.items() if key.startswith(name)]
        if not own:
            continue
        told[name] = {
            spec: summary({what: [row[spec][n] for row in own] for n, what in enumerate(names)})
            for spec in (DEFAULT, ADAPTIVE)
        }
    told["command"] = f"integrated_gradients.py FOLDER --both --points {points} --references KEPT"
    rest = {key: value for key, value in kept.items() if key not in ("command", "environment")}
    measure.save(
        "integrated_gradients", rest | {"baselines": told | {"errors": rows}}, kept["command"]
    )


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
    parser.add_argument("--both", action="store_true", help="a grey and a black baseline")
    parser.add_argument("--kept-only", action="store_true", help="only where a reference is kept")
    parser.add_argument("--batch", type=int, default=4, help="photographs in the timed batch")
    parser.add_argument("--rounds", type=int, default=7, help="of timing; 0 leaves it out")
    args = parser.parse_args()
    engine = visxai.Engine(precision="fp32", accelerate="onnx" if args.both else "auto")
    paths = photographs(args.folder, args.images)
    if args.both:
        both(engine, paths, args)
        return
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
    about: dict[str, Any] = {"images": len(paths), "points": args.points}
    path = measure.RESULTS / "integrated_gradients.json"
    if path.exists() and (other := json.loads(path.read_text("utf-8")).get("baselines")):
        about["baselines"] = other  # of a run with --both, which is one of its own
    measure.save("integrated_gradients", {**about, **results}, command)


if __name__ == "__main__":
    main()
