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
from visxai.metrics import Case
from visxai.target import Target

SURE = 0.9


def main() -> None:
    parser = experiment.parser(__doc__)
    parser.add_argument("--images", type=int, default=200, help="photographs looked at")
    parser.add_argument("--grids", type=int, default=200, help="for the cheap methods")
    parser.add_argument("--few", type=int, default=25, help="grids for the others")
    given = parser.parse_args()
    cheap, costly = experiment.CHEAP, experiment.COSTLY
    images, grids, few, sure = given.images, given.grids, given.few, SURE
    if given.quick:
        cheap, costly, images, grids, few, sure = experiment.QUICK, (), 12, 4, 1, 0.3
    chosen = given.methods or [*experiment.CONTROLS, *cheap, *costly]
    engine = experiment.engine()
    x = experiment.photographs(engine, given.folder, images)
    certainty = torch.cat([engine.model.scores(part).softmax(1) for part in x.split(16)]).amax(1)
    pool = x[certainty >= sure]
    told = experiment.Told(2 * len(chosen))
    # Both metrics draw the same grids, and 25 grids are the first of 200.
    results: dict[str, Any] = {"images": len(pool), "sure": sure, "chance": 0.25}
    tables = {}
    for name in ("grid_pointing", "difull"):
        values = {}
        for spec in chosen:
            method = experiment.method(spec)
            count = few if spec in costly else grids
            metric = metrics.load(f"{name}(grids={count}, sure={sure})")
            case = Case(engine.model, pool, Target.of("top1"), method=method)
            values[repr(method)] = metric(case).values.tolist()
            told(f"{name} {spec}")
        results[name] = tables[name] = experiment.compared(values, "higher")
    command = f"grid_pointing.py FOLDER --images {images} --grids {grids} --few {few}"
    experiment.save("grid_pointing", given, results, tables, command)


if __name__ == "__main__":
    main()
