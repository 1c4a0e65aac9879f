"""Insertion and deletion of maps by visxai, captum, torchcam and grad-cam, through one evaluator.

    python benchmarks/quality/insertion_deletion.py FOLDER --images 100

Every photograph is explained for the class that the default model sees in it. The maps of all
libraries are scored by the same code, with the same ranking of ties, steps and substitutes, so
their figures may be compared; those of other evaluators may not. `--steps` is 56, the published
224 cost four times as much. Figures go to benchmarks/results/insertion_deletion.json and .md, the
mean curves with them. Needs the extra `peers`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import experiment
import torch
from torch import Tensor

import visxai
from visxai import metrics
from visxai.engine.batch import tidy
from visxai.metrics.base import Case
from visxai.target import Target

OURS = (
    "grad_cam",
    "layer_cam",
    "saliency",
    "smooth_grad(copies=8)",
    "integrated_gradients",
    "occlusion(window=64, stride=32)",
    "rise(masks=256)",
    "lime(samples=256)",
)
Maker = Callable[[Tensor, list[int]], Tensor]


def makers(engine: visxai.Engine, ours: list[str], peers: bool) -> dict[str, Maker]:
    """What each contestant makes of inputs (b, 3, h, w) and their classes: maps (b, u, v)."""
    found: dict[str, Maker] = {}
    for spec in ours:
        method = experiment.method(spec)

        def own(x: Tensor, classes: list[int], method: Any = method) -> Tensor:
            return method(engine.model, x, Target.of(classes)).values

        found[f"visxai {spec}"] = own
    if not peers:
        return found
    import contestants

    def peer(call: Any, *before: Any, **options: Any) -> Maker:
        def maps(x: Tensor, classes: list[int]) -> Tensor:
            # A copy for each batch: peers leave hooks behind.
            module = copy.deepcopy(engine.model.module)
            return call(module, *before, x, classes, **options)()

        return maps

    layer = engine.model.layer(torch.zeros(1, 3, 224, 224, device=engine.device))
    return found | {
        "captum LayerGradCam": peer(contestants.captum_grad_cam, layer),
        "captum IntegratedGradients": peer(contestants.captum_integrated_gradients, together=16),
        "captum Occlusion": peer(contestants.captum_occlusion, window=64, stride=32, together=16),
        "torchcam GradCAM": peer(contestants.torchcam_grad_cam, layer),
        "grad-cam GradCAM": peer(contestants.pytorch_grad_cam, layer),
    }


def main() -> None:
    parser = experiment.parser(__doc__, newer=True)
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--steps", type=int, default=56)
    parser.add_argument("--batch", type=int, default=8, help="photographs at once")
    given = parser.parse_args()
    usual = (*experiment.NEWER, *experiment.NEWER_COSTLY) if given.newer else OURS
    count, steps, ours = (
        given.images, given.steps, [*experiment.CONTROLS, *(given.methods or usual)]
    )  # fmt: skip
    if given.quick:
        count, steps, ours = 2, 4, [*experiment.CONTROLS, "grad_cam"]
    engine = experiment.engine()
    contestants = makers(engine, ours, peers=not given.newer)
    engine.plan(experiment.method("random_map"), 2 * steps * count * len(contestants))
    x = experiment.photographs(engine, given.folder, count)
    parts = x.split(given.batch)
    classes = [engine.model.scores(part).argmax(1).tolist() for part in parts]
    judges = {name: metrics.load(f"{name}(steps={steps})") for name in ("insertion", "deletion")}
    values: dict[str, dict[str, list[float]]] = {name: {} for name in judges}
    curves: dict[str, dict[str, list[float]]] = {name: {} for name in judges}
    about = {"images": count, "steps": steps, "weights": engine.model.ref.weights_sha256}
    kept = experiment.Kept(given.kept, "insertion_deletion", about)

    def scored(make: Maker) -> dict[str, list[list[float]]]:
        found: dict[str, tuple[list[float], list[Tensor]]] = {key: ([], []) for key in judges}
        for part, labels in zip(parts, classes, strict=True):
            maps, _ = tidy(make(part, labels).detach())
            case = Case(engine.model, part, Target.of(labels), maps)
            for judge, metric in judges.items():
                scores = metric(case)
                found[judge][0].extend(scores.values.tolist())
                found[judge][1].append(scores.curves[judge].cpu())
        return {
            judge: [figures, [round(v, 4) for v in torch.cat(drawn).mean(0).tolist()]]
            for judge, (figures, drawn) in found.items()
        }

    for name, found in kept.each(contestants, scored):
        for judge, (figures, curve) in found.items():
            values[judge][name], curves[judge][name] = figures, curve
    tables = {
        f"{name} ({metric.better} is better)": experiment.compared(values[name], metric.better)
        for name, metric in judges.items()
    }
    results = {
        "images": len(x),
        "steps": steps,
        "accelerate": engine.accelerate,
        **dict(zip(judges, tables.values(), strict=True)),
        "curves": curves,
    }
    command = f"insertion_deletion.py FOLDER --images {count} --steps {steps}"
    experiment.save("insertion_deletion", given, results, tables, command)


if __name__ == "__main__":
    main()
