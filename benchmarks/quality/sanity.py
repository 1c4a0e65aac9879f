"""Do maps change when what the model has learnt is destroyed? Model randomisation, all methods.

    python benchmarks/quality/sanity.py FOLDER --images 16

The model's parameters are drawn anew part after part, from the scores down, as in the published
test (`--order bottom_up`: from the input up), and each image is explained again for the same class:
photographs by the default model, for the methods of transformers digits by the digits transformer.
Figure: the rank correlation with the first map, averaged over the parts; the plot has it part by
part. Lower is better; the controls that look at the image alone keep 1. Methods that need many
forwards run at the budgets that their specs name. Figures go to benchmarks/results/sanity.json and
.md, the plot to sanity.svg (extra `bench`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import digits_perturbation
import experiment
import torch
from torch import Tensor

import visxai
from visxai import metrics
from visxai.methods.base import Method
from visxai.metrics.base import Case, Metric, explained
from visxai.models.probe import Probe
from visxai.target import Target

Similar = tuple[dict[str, list[float]], dict[str, list[float]]]


def similarities(
    engine: visxai.Engine,
    x: Tensor,
    specs: Sequence[str],
    metric: Metric,
    kept: experiment.Kept,
    told: experiment.Told,
    batch: int,
) -> Similar:
    """Each method's figure an image, and its similarity by part, averaged over images."""
    values: dict[str, list[float]] = {}
    curves: dict[str, list[float]] = {}
    for spec in specs:
        method = experiment.method(spec)

        def scored(method: Method = method) -> list[list[float]]:
            similar, figures = [], []
            for part in x.split(batch):
                target = Target.of(engine.model.scores(part).argmax(1).tolist())
                maps = explained(method, Probe(engine.model, part), part, target)
                scores = metric(Case(engine.model, part, target, maps, method))
                figures.extend(scores.values.tolist())
                similar.append(scores.curves["similarity"].cpu())
            return [figures, [round(v, 4) for v in torch.cat(similar).mean(0).tolist()]]

        values[repr(method)], curves[repr(method)] = kept(repr(method), scored)
        told(spec)
    return values, curves


def plot(groups: Mapping[str, Mapping[str, list[float]]], path: Path) -> None:
    """Similarity by the share of parameters drawn anew: a panel a model, a line a method, the
    darker the closer, the ones that change most on top."""
    import matplotlib
    from matplotlib.figure import Figure

    heights = [len(curves) for curves in groups.values()]
    count = len(next(iter(next(iter(groups.values())).values()))) - 1  # the first is the map itself
    size = (2.2 + 0.7 * count, 0.8 + 0.2 * sum(heights) + 0.3 * len(heights))
    figure = Figure(size, layout="constrained")
    axes = figure.subplots(len(groups), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axis, (title, curves) in zip(axes, groups.items(), strict=True):
        ordered = sorted(curves.items(), key=lambda item: sum(item[1]))
        values = [points[1:] for _, points in ordered]
        axis.imshow(values, cmap="Blues", vmin=0, vmax=1, aspect="auto")
        for line, points in enumerate(values):
            for column, value in enumerate(points):
                colour = "white" if value > 0.6 else "#333333"
                text = f"{value:.2f}".replace("-0.00", "0.00")
                axis.text(column, line, text, ha="center", va="center", fontsize=6.5, color=colour)
        names = [name.partition("(")[0] for name, _ in ordered]
        axis.set_yticks(range(len(names)), names, fontsize=7)
        axis.set_xticks([])
        axis.tick_params(length=0)
        axis.set_title(title, fontsize=8)
        for side in axis.spines.values():
            side.set_visible(False)
    shares = [f"{step / count:.0%}" for step in range(1, count + 1)]
    axes[-1].set_xticks(range(count), shares, fontsize=7)
    axes[-1].set_xlabel("tensors drawn anew", fontsize=7)
    figure.suptitle("rank correlation with the trained model's map", fontsize=9)
    with matplotlib.rc_context({"svg.hashsalt": "visxai", "svg.fonttype": "none"}):
        figure.savefig(path, metadata={"Date": None})


def main() -> None:
    parser = experiment.parser(__doc__)
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--digits", type=int, default=50, help="for the transformer's methods")
    parser.add_argument("--stages", type=int, default=8)
    parser.add_argument("--order", choices=("top_down", "bottom_up"), default="top_down")
    parser.add_argument("--batch", type=int, default=8, help="images at once")
    given = parser.parse_args()
    specs, count, digits, stages = (
        [*experiment.CHEAP, *experiment.COSTLY], given.images, given.digits, given.stages
    )  # fmt: skip
    if given.quick:
        specs, count, digits, stages = list(experiment.QUICK), 2, 2, 2
    of_transformers = digits_perturbation.transformer_methods()
    if given.newer:
        specs = ["grad_cam", *experiment.NEWER]
        of_transformers = ["grad_cam", "cdam", "recipro_cam"]
    metric = metrics.load(f"model_randomisation(stages={stages}, order={given.order!r})")
    # Not accelerated: the models change all the time.
    convolutional = experiment.engine(accelerate="off")
    transformer = experiment.engine("digits_vit", device="cpu", accelerate="off")
    canvases = digits_perturbation.canvases(digits)
    subjects = {
        "methods": (
            convolutional,
            experiment.photographs(convolutional, given.folder, count),
            [*experiment.CONTROLS, *(given.methods or specs)],
        ),
        "transformers": (
            transformer,
            transformer.tensor([transformer.prepare(canvas).pixels for canvas in canvases]),
            [*experiment.CONTROLS, *of_transformers],
        ),
    }
    told = experiment.Told(sum(len(chosen) for *_, chosen in subjects.values()))
    results: dict[str, Any] = {"metric": repr(metric), "images": count, "digits": digits}
    tables, curves = {}, {}
    for name, (engine, x, chosen) in subjects.items():
        weights = engine.model.ref.weights_sha256
        about = {"images": len(x), "metric": repr(metric), "weights": weights}
        kept = experiment.Kept(given.kept, f"sanity_{name}", about)
        values, similar = similarities(engine, x, chosen, metric, kept, told, given.batch)
        title = f"{engine.model.ref.name}: rank correlation with the trained model's map"
        tables[title] = results[name] = experiment.compared(values, "lower")
        curves[engine.model.ref.name] = results[f"{name}_similarity"] = similar
    command = f"sanity.py FOLDER --images {count} --stages {stages} --order {given.order}"
    experiment.save("sanity", given, results, tables, command)
    if not given.quick or given.out != experiment.measure.RESULTS:
        plot(curves, given.out / ("sanity_newer.svg" if given.newer else "sanity.svg"))


if __name__ == "__main__":
    main()
