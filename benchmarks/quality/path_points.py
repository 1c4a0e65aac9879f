"""How near integrated gradients come to the best that points on their path can give.

    OMP_NUM_THREADS=2 python benchmarks/quality/path_points.py --images 16 [--seconds 220]

Crops of photographs that scikit-image brings, explained by the default model for the class that it
sees in them, with a grey (0) and a black (-1) baseline. The integrand m(a) is evaluated at a fine
grid of points, and the reference is its trapezoid. Any rule that adds up m at 30 of these points
with weights w has the squared error (w - r)' G (w - r), with G the products of all pairs of m and r
the reference's weights. So three errors are found, each over the reference's norm:

    reached   the adaptive schedule, steps=30
    placed    trapezoid at the 30 points that are best for this very image, which only one who has
              evaluated all of them knows (by dynamic programming, errors of intervals added up)
    weighted  the method's own 30 points with the weights that are best for this very image

No rule that places points or weighs them can come below the last two by much. `mean_slopes` is the
method's schedule of that name at 30 points, `default` at the 24 of the default, and `even` the
trapezoid at the same 30 points without the mean slopes. Images that the results have are kept, so
that a run may be ended and goes on; `--images 0 --speed 5` measures the speed of the defaults
alone, beside captum's. Writes benchmarks/results/path_points.json.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import visxai
from visxai.methods.integrated_gradients import ACCURATE, Samples, first_grid
from visxai.methods.integrated_gradients import Path as Line
from visxai.target import Target

sys.path.insert(0, str(Path(__file__).parents[1]))
import contestants as peers
import measure

SPEC = "integrated_gradients"
STEPS, LONGEST = 30, 40  # points of a rule, and the most grid points that an interval spans
BASELINES = {"grey": 0.0, "black": -1.0}


def trapezoid(alphas: Tensor) -> Tensor:
    """The trapezoid rule's weights (n,) at points (n,)."""
    h = alphas.diff() / 2
    zero = h.new_zeros(1)
    return torch.cat([h, zero]) + torch.cat([zero, h])


def errors(engine: visxai.Engine, x: Tensor, baseline: float, points: int) -> dict[str, float]:
    """The errors of one image x (1, 3, h, w)."""
    aim, _ = engine.model.clean(x, Target.of(int(engine.model.scores(x).argmax())))
    line = Line(x, torch.full_like(x, baseline), aim)
    fine = first_grid(line, points - 1)
    parts = [line.sample(engine.model, part) for part in fine.split(32, dim=1)]
    maps = torch.cat([part.maps for part in parts], 1)[0].flatten(1).double()
    reference = trapezoid(fine[0].double())
    true, gram = reference @ maps, maps @ maps.T
    samples = line.sample(engine.model, first_grid(line, ACCURATE.intervals))
    while (left := STEPS - samples.alphas.shape[1]) > 0:
        samples = samples.joined(line.sample(engine.model, samples.midpoints(ACCURATE, left)))
    reached = samples.trapezoid()[0].flatten().double()
    even = first_grid(line, STEPS - 1)
    weights = trapezoid(even[0].double())
    straight = line.sample(engine.model, even).maps[0].flatten(1).double()
    label = aim.classes.tolist() if aim.classes is not None else "top1"
    slopes, default = (
        engine.attribute(x, f"{SPEC}(baseline={baseline}{steps})", label).flatten().double()
        for steps in (f", steps={STEPS}", "")
    )
    found = {
        "reached": reached - true,
        "placed": placed(fine[0].double(), gram) @ maps - true,
        "weighted": weighted(samples, true) - true,
        "even": weights @ straight - true,
        "mean_slopes": slopes - true,
        "default": default - true,
    }
    return {name: round(float(error.norm() / true.norm()), 5) for name, error in found.items()}


def weighted(samples: Samples, true: Tensor) -> Tensor:
    """The best map (p,) that weights with a sum of 1 make of the samples."""
    maps = samples.maps[0].flatten(1).double()
    count = len(maps)
    system = torch.ones(count + 1, count + 1, dtype=maps.dtype)
    system[:count, :count], system[count, count] = maps @ maps.T, 0
    sides = torch.cat([maps @ true, maps.new_ones(1)])
    return torch.linalg.lstsq(system, sides).solution[:count] @ maps


def placed(alphas: Tensor, gram: Tensor) -> Tensor:
    """The weights (n,) of the trapezoid whose intervals' squared errors add up to the least."""
    a, products, count = alphas.numpy(), gram.numpy(), len(alphas)
    cost = np.full((count, count), np.inf)
    for first in range(count - 1):
        for last in range(first + 1, min(count, first + LONGEST)):
            own = alphas[first : last + 1]
            apart = -trapezoid(own).numpy()
            apart[[0, -1]] += (a[last] - a[first]) / 2
            cost[first, last] = apart @ products[first : last + 1, first : last + 1] @ apart
    best, came = np.full(count, np.inf), []
    best[0] = 0
    for _ in range(STEPS - 1):
        sums = best[:, None] + cost
        came.append(sums.argmin(0))
        best = sums.min(0)
    chosen = [count - 1]
    for before in reversed(came):
        chosen.append(int(before[chosen[-1]]))
    chosen.reverse()
    weights = torch.zeros_like(alphas)
    weights[chosen] = trapezoid(alphas[chosen])
    return weights


def speeds(engine: visxai.Engine, rounds: int) -> dict[str, Any]:
    """How many times as fast as captum's 50 points, with as many rows at once as is fastest for it,
    each is on one photograph, in turn."""
    x = engine.tensor([engine.prepare(measure.photographs(1)[0]).pixels])
    label = [int(engine.model.scores(x).argmax())]
    plain = visxai.Engine(precision="fp32", accelerate="off")
    module = plain.model.module  # type: ignore[attr-defined]
    works = {
        f"captum, {rows or 50} rows at once": peers.captum_integrated_gradients(
            module, x, label, rows
        )
        for rows in (None, 8, 16)
    }
    for name, one in (("plain", plain), ("accelerated", engine)):
        works[f"default, {name}"] = partial(one.attribute, x, SPEC, label)
        works[f"adaptive, {name}"] = partial(
            one.attribute, x, f"{SPEC}(schedule='adaptive')", label
        )
    seconds = measure.contest(works, rounds)
    best = min((name for name in works if "captum" in name), key=lambda name: min(seconds[name]))
    return {name: measure.ratio(seconds, name, best) for name in works}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--points", type=int, default=160, help="of the fine grid")
    parser.add_argument("--speed", type=int, default=0, help="rounds of timing")
    parser.add_argument("--seconds", type=float, default=3600.0, help="after which it ends")
    args = parser.parse_args()
    path, end = measure.RESULTS / "path_points.json", time.monotonic() + args.seconds
    found = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    rows, speed = found.get("errors", {}), found.get("speed", {})
    command = "OMP_NUM_THREADS=2 python benchmarks/quality/path_points.py --speed 5"

    def keep() -> None:
        told = {"points": args.points, "steps": STEPS, "mean": means(rows), "speed": speed}
        measure.save("path_points", {**told, "errors": rows}, command)

    # Gradients on a channels-last copy; nothing else of it is accelerated here.
    engine = visxai.Engine(precision="fp32", accelerate="onnx")
    if args.speed:
        speed = speeds(engine, args.speed)
        print(speed, flush=True)
        keep()
    for number, image in enumerate(measure.photographs(args.images)):
        for name, baseline in BASELINES.items():
            if f"{name}, {number}" not in rows and time.monotonic() < end:
                x = engine.tensor([engine.prepare(image).pixels])
                rows[f"{name}, {number}"] = errors(engine, x, baseline, args.points)
                print(name, number, rows[f"{name}, {number}"], flush=True)
                keep()
    print(json.dumps(means(rows), indent=1))


def means(rows: dict[str, dict[str, float]]) -> dict[str, Any]:
    """The mean of each error over the photographs, by baseline."""
    found: dict[str, Any] = {}
    for name in BASELINES:
        own = [row for key, row in rows.items() if key.startswith(name)]
        if own:
            found[name] = {
                what: round(float(np.mean([row[what] for row in own])), 4) for what in own[0]
            }
            found[name]["photographs"] = len(own)
    return found


if __name__ == "__main__":
    main()
