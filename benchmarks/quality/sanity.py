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
from visxai.metrics import Case
from visxai.metrics.base import explained
from visxai.target import Target


def plot(curves: dict[str, list[float]], path: Path) -> None:
    """Similarity by the share of parameters drawn anew, a line a method."""
    from matplotlib.figure import Figure

    figure = Figure((9, 5), layout="constrained")
    axis = figure.subplots()
    styles = ("-", "--", "-.", ":")
    for number, (name, points) in enumerate(curves.items()):
        at = [step / (len(points) - 1) for step in range(len(points))]
        colour = f"C{number % 10}"
        axis.plot(at, points, styles[number // 10 % 4], color=colour, label=name.partition("(")[0])
    axis.set_xlabel("share of the parameters drawn anew")
    axis.set_ylabel("rank correlation with the map of the trained model")
    axis.grid(color="#ececec")
    figure.legend(loc="outside right upper", fontsize=8, frameon=False)
    figure.savefig(path)


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
    values: dict[str, list[float]] = {}
    curves: dict[str, list[float]] = {}
    for spec in chosen:
        method = experiment.method(spec)
        similar = []
        for part in x.split(given.batch):
            target = Target.of(engine.model.scores(part).argmax(1).tolist())
            maps = explained(method, Probe(engine.model, part), part, target)
            scores = metric(Case(engine.model, part, target, maps, method))
            values.setdefault(repr(method), []).extend(scores.values.tolist())
            similar.append(scores.curves["similarity"].cpu())
        curves[repr(method)] = [round(v, 4) for v in torch.cat(similar).mean(0).tolist()]
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
