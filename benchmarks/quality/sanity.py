"""Do maps change when what the model has learnt is destroyed? Model randomisation, all methods.

    python benchmarks/quality/sanity.py FOLDER --images 16

The default model's parameters are drawn anew part after part, from the scores down, as in the
published test (`--order bottom_up`: from the input up), and each photograph is explained again
for the same class. Figure: the rank correlation with the first map, averaged over the parts; the
plot has it part by part. Lower is better; the controls that look at the image alone keep 1. Methods
that need many forwards run at the budgets that their specs name. Figures go to
benchmarks/results/sanity.json and .md, the plot to sanity.svg (extra `bench`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import experiment
import torch

from visxai import metrics
from visxai.backends.base import Probe
from visxai.methods.base import Method
from visxai.metrics import Case
from visxai.metrics.base import explained
from visxai.target import Target


def plot(curves: dict[str, list[float]], path: Path) -> None:
    """Similarity by the share of parameters drawn anew: a line a method, the darker the closer,
    the ones that change most on top."""
    import matplotlib
    from matplotlib.figure import Figure

    ordered = sorted(curves.items(), key=lambda item: sum(item[1]))
    values = [points[1:] for _, points in ordered]  # the first is the map itself
    count = len(values[0])
    figure = Figure((2.2 + 0.55 * count, 0.9 + 0.2 * len(values)), layout="constrained")
    axis = figure.subplots()
    axis.imshow(values, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for line, points in enumerate(values):
        for column, value in enumerate(points):
            colour = "white" if value > 0.6 else "#333333"
            told = f"{value:.2f}".replace("-0.00", "0.00")
            axis.text(column, line, told, ha="center", va="center", fontsize=6.5, color=colour)
    names = [name.partition("(")[0] for name, _ in ordered]
    axis.set_yticks(range(len(names)), names, fontsize=7)
    shares = [f"{step / count:.0%}" for step in range(1, count + 1)]
    axis.set_xticks(range(count), shares, fontsize=7)
    axis.tick_params(length=0)
    axis.set_xlabel("tensors drawn anew", fontsize=7)
    axis.set_title("rank correlation with the trained model's map", fontsize=8)
    for side in axis.spines.values():
        side.set_visible(False)
    with matplotlib.rc_context({"svg.hashsalt": "visxai", "svg.fonttype": "none"}):
        figure.savefig(path, metadata={"Date": None})


def main() -> None:
    parser = experiment.parser(__doc__)
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--stages", type=int, default=8)
    parser.add_argument("--order", choices=("top_down", "bottom_up"), default="top_down")
    parser.add_argument("--batch", type=int, default=8, help="photographs at once")
    given = parser.parse_args()
    specs, count, stages = [*experiment.CHEAP, *experiment.COSTLY], given.images, given.stages
    if given.quick:
        specs, count, stages = list(experiment.QUICK), 2, 2
    engine = experiment.engine(accelerate="off")  # the model changes all the time
    x = experiment.photographs(engine, given.folder, count)
    metric = metrics.load(f"model_randomisation(stages={stages}, order={given.order!r})")
    chosen = [*experiment.CONTROLS, *(given.methods or specs)]
    told = experiment.Told(len(chosen))
    about = {"images": count, "metric": repr(metric), "weights": engine.model.ref.weights_sha256}
    kept = experiment.Kept(given.kept, "sanity", about)
    values: dict[str, list[float]] = {}
    curves: dict[str, list[float]] = {}
    for spec in chosen:
        method = experiment.method(spec)

        def scored(method: Method = method) -> list[list[float]]:
            similar, figures = [], []
            for part in x.split(given.batch):
                target = Target.of(engine.model.scores(part).argmax(1).tolist())
                maps = explained(method, Probe(engine.model, part), part, target)
                scores = metric(Case(engine.model, part, target, maps, method))
                figures.extend(scores.values.tolist())
                similar.append(scores.curves["similarity"].cpu())
            return [figures, [round(v, 4) for v in torch.cat(similar).mean(0).tolist()]]

        values[repr(method)], curves[repr(method)] = kept(repr(method), scored)
        told(spec)
    rows = experiment.compared(values, "lower")
    results: dict[str, Any] = {"images": len(x), "metric": repr(metric), "methods": rows}
    command = f"sanity.py FOLDER --images {count} --stages {stages} --order {given.order}"
    tables = {"Similarity to the randomised model's maps (lower is better)": rows}
    experiment.save("sanity", given, results | {"similarity": curves}, tables, command)
    if not given.quick or given.out != experiment.measure.RESULTS:
        plot(curves, given.out / "sanity.svg")


if __name__ == "__main__":
    main()
