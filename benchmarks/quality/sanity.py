"""Do maps change when what the model has learnt is destroyed? Model randomisation, all methods.

    python benchmarks/quality/sanity.py FOLDER --images 16
    python benchmarks/quality/sanity.py --images 50

The model's parameters are drawn anew part after part, from the scores down, as in the published
test (`--order bottom_up`: from the input up), and each image is explained again for the same class:
a folder's photographs by the default model; without a folder, digits by the digits transformer, for
the methods of transformers. Figure: the rank correlation with the first map, averaged over the
parts; the plot has it part by part. Lower is better; the controls that look at the image alone keep
1. Methods that need many forwards run at the budgets that their specs name. Figures go to
benchmarks/results/sanity.json and .md, the plot to sanity.svg (extra `bench`); those of digits to
digits_sanity.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import digits_perturbation
import experiment
import torch

from visxai import metrics
from visxai.methods.base import Method
from visxai.metrics.base import Case, explained
from visxai.models.probe import Probe
from visxai.target import Target


def plot(title: str, curves: Mapping[str, list[float]], path: Path) -> None:
    """Similarity by the share of parameters drawn anew: a line a method, the darker the closer, the
    ones that change most on top."""
    import matplotlib
    from matplotlib.figure import Figure

    ordered = sorted(curves.items(), key=lambda item: sum(item[1]))
    values = [points[1:] for _, points in ordered]  # the first is the map itself
    count = len(values[0])
    figure = Figure((2.2 + 0.7 * count, 1.1 + 0.2 * len(values)), layout="constrained")
    axis = figure.subplots()
    axis.imshow(values, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for line, points in enumerate(values):
        for column, value in enumerate(points):
            colour = "white" if value > 0.6 else "#333333"
            text = f"{value:.2f}".replace("-0.00", "0.00")
            axis.text(column, line, text, ha="center", va="center", fontsize=6.5, color=colour)
    names = [name.partition("(")[0] for name, _ in ordered]
    axis.set_yticks(range(len(names)), names, fontsize=7)
    shares = [f"{step / count:.0%}" for step in range(1, count + 1)]
    axis.set_xticks(range(count), shares, fontsize=7)
    axis.set_xlabel("tensors drawn anew", fontsize=7)
    axis.tick_params(length=0)
    for side in axis.spines.values():
        side.set_visible(False)
    figure.suptitle(f"{title}: rank correlation with the trained model's map", fontsize=8)
    with matplotlib.rc_context({"svg.hashsalt": "visxai", "svg.fonttype": "none"}):
        figure.savefig(path, metadata={"Date": None})


def main() -> None:
    parser = experiment.parser(__doc__, photographs="optional", newer=True)
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--stages", type=int, default=8)
    parser.add_argument("--order", choices=("top_down", "bottom_up"), default="top_down")
    parser.add_argument("--batch", type=int, default=8, help="images at once")
    given = parser.parse_args()
    if given.newer and given.folder is None:
        parser.error("expected a folder of photographs with --newer, got none")
    count, stages = (2, 2) if given.quick else (given.images, given.stages)
    metric = metrics.load(f"model_randomisation(stages={stages}, order={given.order!r})")
    # Not accelerated: the models change all the time.
    if given.folder is None:
        name, usual = "digits_sanity", digits_perturbation.transformer_methods()
        engine = experiment.engine("digits_vit", device="cpu", accelerate="off")
        canvases = digits_perturbation.canvases(count)
        x = engine.tensor([engine.prepare(canvas).pixels for canvas in canvases])
    else:
        name, usual = "sanity", [*experiment.CHEAP, *experiment.COSTLY]
        engine = experiment.engine(accelerate="off")
        x = experiment.photographs(engine, given.folder, count)
        if given.newer:
            usual = [*experiment.NEWER, *experiment.NEWER_COSTLY]
        if given.quick:
            usual = list(experiment.QUICK)

    def scored(method: Method) -> list[list[float]]:
        """A figure an image, and the similarity by part, averaged over images."""
        similar, figures = [], []
        for part in x.split(given.batch):
            target = Target.of(engine.model.scores(part).argmax(1).tolist())
            maps = explained(method, Probe(engine.model, part), part, target)
            scores = metric(Case(engine.model, part, target, maps, method))
            figures.extend(scores.values.tolist())
            similar.append(scores.curves["similarity"].cpu())
        return [figures, [round(v, 4) for v in torch.cat(similar).mean(0).tolist()]]

    about = {
        "images": len(x), "metric": repr(metric), "weights": engine.model.ref.weights_sha256
    }  # fmt: skip
    kept = experiment.Kept(given.kept, name, about)
    values: dict[str, list[float]] = {}
    curves: dict[str, list[float]] = {}
    contestants = experiment.contestants(given.methods or usual)
    for contestant, (figures, similar) in kept.each(contestants, scored):
        values[contestant], curves[contestant] = figures, similar
    model = engine.model.ref.name
    tables = {
        f"{model}: rank correlation with the trained model's map": experiment.compared(
            values, "lower"
        )
    }
    results: dict[str, Any] = {"metric": repr(metric), "images": len(x)}
    results |= {"methods": next(iter(tables.values())), "methods_similarity": curves}
    where = "FOLDER " if given.folder else ""
    command = f"sanity.py {where}--images {count} --stages {stages} --order {given.order}"
    results = experiment.save(name, given, results, tables, command)
    if not given.quick or given.out != experiment.measure.RESULTS:
        path = given.out / (f"{name}_newer.svg" if given.newer else f"{name}.svg")
        plot(model, results["methods_similarity"], path)


if __name__ == "__main__":
    main()
