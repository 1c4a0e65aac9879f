"""What scoring maps costs beside its forwards: insertion and deletion, 5 methods, 100 photographs.

    python benchmarks/quality/throughput.py FOLDER --images 100

Some 56,000 forwards of the default model in its accelerated form. In turn with the evaluator, a
few photographs at a time, the same form runs on batches that are ready, as many rows at once as
the evaluator's forwards have. Figure: the evaluator's forwards a second over those; ranking
pixels, building inputs and reading scores are what it can lose, and making the maps isn't counted.
Quartiles are over the turns. Figures go to benchmarks/results/throughput.json.
"""

from __future__ import annotations

import time
from typing import Any

import experiment
import measure
from torch import Tensor

from visxai import metrics
from visxai.metrics.base import Case, explained
from visxai.models.probe import Probe
from visxai.target import Target

METHODS = (
    "grad_cam",
    "layer_cam",
    "saliency",
    "input_x_gradient",
    "occlusion(window=64, stride=32)",
)
SHARE = 8  # the ready batches have one row for so many of the evaluator's


def main() -> None:
    parser = experiment.parser(__doc__)
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--steps", type=int, default=56)
    parser.add_argument("--batch", type=int, default=4, help="photographs at once")
    parser.add_argument("--seconds", type=float, help="no turn begins later; --kept goes on there")
    given = parser.parse_args()
    count, steps, batch = given.images, given.steps, given.batch
    if given.quick:
        count, steps, batch = 4, 4, 2
    engine = experiment.engine(accelerate="onnx")
    x = experiment.photographs(engine, given.folder, count)
    methods = [experiment.method(spec) for spec in given.methods or METHODS]
    judges = [metrics.load(f"{name}(steps={steps})") for name in ("insertion", "deletion")]
    forwards_of_map = 2 * (steps - 1)
    parts = x.split(batch)
    ready = x[:16] if len(x) >= 16 else x.repeat(-(-16 // len(x)), 1, 1, 1)[:16]
    ready = ready[: engine.model.budget.limit].contiguous()
    turns = max(1, batch * len(methods) * forwards_of_map // (SHARE * len(ready)))

    def maps_of(part: Tensor, target: Target) -> list[Tensor]:
        return [explained(method, Probe(engine.model, part), part, target) for method in methods]

    def judge(part: Tensor, target: Target, maps: list[Tensor]) -> int:
        for one in maps:
            case = Case(engine.model, part, target, one)
            for metric in judges:
                metric(case)
        return len(maps) * len(part) * forwards_of_map

    def plain() -> int:
        for _ in range(turns):
            engine.model.scores(ready)
        return turns * len(ready)

    def rate(work: Any, *arguments: Any) -> tuple[int, float]:
        began = time.perf_counter()
        done = work(*arguments)
        return done, time.perf_counter() - began

    target = Target.of("top1")
    warm = parts[0][:1]
    judge(warm, target, maps_of(warm, target)[:1])  # prepares the accelerated form
    plain()
    told = experiment.Told(len(parts))
    about = {"images": count, "steps": steps, "batch": batch, "methods": list(map(repr, methods))}
    kept = experiment.Kept(given.kept, "throughput", about)

    def measured_on(number: int) -> dict[str, tuple[int, float]]:
        maps = maps_of(parts[number], target)
        works = [("evaluator", judge, (parts[number], target, maps)), ("model", plain, ())]
        ordered = works if number % 2 == 0 else works[::-1]
        return {name: rate(work, *arguments) for name, work, arguments in ordered}

    measured: dict[str, list[tuple[int, float]]] = {"evaluator": [], "model": []}
    began = time.perf_counter()
    for number in range(len(parts)):
        if given.seconds is not None and time.perf_counter() - began > given.seconds:
            raise SystemExit(f"{number} of {len(parts)} turns are done: run it again with --kept")
        for name, found in kept(str(number), lambda number=number: measured_on(number)).items():
            measured[name].append(found)
        told("turns")
    rates = {name: [done / s for done, s in found] for name, found in measured.items()}
    shares = [a / b for a, b in zip(rates["evaluator"], rates["model"], strict=True)]
    results = {
        "images": len(x),
        "methods": [repr(method) for method in methods],
        "metrics": [repr(metric) for metric in judges],
        "accelerate": engine.accelerate,
        "rows at once": len(ready),
        "forwards": sum(done for done, _ in measured["evaluator"]),
        "seconds": round(sum(s for _, s in measured["evaluator"]), 1),
        "forwards a second": {name: measure.spread(found, 1) for name, found in rates.items()},
        "ratio": measure.spread(shares),
    }
    for name, value in results.items():
        print(f"{name}: {value}")
    if not given.quick or given.out != measure.RESULTS:
        command = f"throughput.py FOLDER --images {count} --steps {steps}"
        measure.save("throughput", results, command, given.out)


if __name__ == "__main__":
    main()
