"""Do maps point at the image they explain? 2x2 grids, as one input (GridPG) and apart (DiFull).

    python benchmarks/quality/grid_pointing.py FOLDER

Grids are composed of the folder's photographs that the default model gives at least 0.9; the
class of one cell is explained. CAMs and methods of one backward are judged on 200 grids, the others
on the first 25 of them, at the budgets that their specs in the results name. Chance is 0.25.
DiFull's classes can be read in their own cell alone, so 1 is perfect there. Figures go to
benchmarks/results/grid_pointing.json and .md.
"""

from __future__ import annotations

from typing import Any

import experiment
import torch

from visxai import metrics
from visxai.errors import ModelError
from visxai.methods.base import Method
from visxai.metrics.base import Case, Metric
from visxai.target import Target

SURE = 0.9
METRICS = ("grid_pointing", "difull")


def main() -> None:
    parser = experiment.parser(__doc__, newer=True)
    parser.add_argument("--images", type=int, default=200, help="photographs looked at")
    parser.add_argument("--grids", type=int, default=200, help="for the cheap methods")
    parser.add_argument("--few", type=int, default=25, help="grids for the others")
    parser.add_argument("--batch", type=int, help="images at once; a grid counts for four")
    parser.add_argument("--metrics", nargs="+", default=METRICS, choices=METRICS)
    given = parser.parse_args()
    cheap, costly = experiment.CHEAP, experiment.COSTLY
    images, grids, few, sure = given.images, given.grids, given.few, SURE
    if given.quick:
        cheap, costly, images, grids, few, sure = experiment.QUICK, (), 12, 4, 1, 0.3
    if given.newer:
        cheap, costly = experiment.NEWER, experiment.NEWER_COSTLY
    chosen = [*experiment.CONTROLS, *(given.methods or (*cheap, *costly))]
    engine = experiment.engine(batch_size=given.batch)
    engine.plan(experiment.method("random_map"), 4 * grids * len(chosen))
    x = experiment.photographs(engine, given.folder, images)
    certainty = torch.cat([engine.model.scores(part).softmax(1) for part in x.split(16)]).amax(1)
    pool = x[certainty >= sure]
    about = {"images": len(pool), "sure": sure, "weights": engine.model.ref.weights_sha256}
    kept = experiment.Kept(given.kept, "grid_pointing", about)
    # Both metrics draw the same grids, and 25 grids are the first of 200. The dear methods come
    # last, so that a run that is cut has most of the table.
    pairs: dict[str, tuple[Metric, Method]] = {}
    for spec in chosen:
        method, count = experiment.method(spec), few if spec in costly else grids
        for name in given.metrics:
            metric = metrics.load(f"{name}(grids={count}, sure={sure})")
            pairs[f"{metric!r} {method!r}"] = (metric, method)

    def scored(pair: tuple[Metric, Method]) -> list[float] | str:
        metric, method = pair
        try:
            return metric(
                Case(engine.model, pool, Target.of("top1"), method=method)
            ).values.tolist()
        except ModelError as error:  # copies of a network don't offer all that it does
            return str(error)

    values: dict[str, dict[str, list[float]]] = {name: {} for name in given.metrics}
    refused: dict[str, str] = {}
    for key, found in kept.each(pairs, scored):
        metric, method = pairs[key]
        if isinstance(found, str):
            refused[f"{metric.name()} {method!r}"] = found
        else:
            values[metric.name()][repr(method)] = found
    tables = {name: experiment.compared(found, "higher") for name, found in values.items()}
    results: dict[str, Any] = {"images": len(pool), "sure": sure, "chance": 0.25, **tables}
    results["refused"] = refused
    command = f"grid_pointing.py FOLDER --images {images} --grids {grids} --few {few}"
    experiment.save("grid_pointing", given, results, tables, command)


if __name__ == "__main__":
    main()
