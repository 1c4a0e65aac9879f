"""How often does a map pass the record's faithfulness check? Three methods and the controls.

    python benchmarks/quality/faithfulness.py FOLDER --images 100

The check that `explain(..., check="faithfulness")` writes into a record, at its defaults: insertion
less deletion of the map against the mean of 8 maps with the same values in other places. Figure:
the share of photographs whose map passes; the random map is its own permutations' equal and
passes about half the time. Figures go to benchmarks/results/faithfulness.json and .md.
"""

from __future__ import annotations

import experiment

from visxai import metrics
from visxai.methods.base import Method
from visxai.metrics.base import Case, explained
from visxai.models.probe import Probe
from visxai.target import Target

METHODS = ("grad_cam", "integrated_gradients", "occlusion(window=64, stride=32)")


def main() -> None:
    parser = experiment.parser(__doc__, newer=True)
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--batch", type=int, default=10, help="photographs at once")
    given = parser.parse_args()
    usual = (*experiment.NEWER, *experiment.NEWER_COSTLY) if given.newer else METHODS
    chosen, count = given.methods or usual, given.images
    if given.quick:
        chosen, count = ("grad_cam",), 2
    engine = experiment.engine()
    check = metrics.load_check("faithfulness")
    contestants = experiment.contestants(chosen)
    engine.plan(experiment.method("random_map"), check.forwards() * count * len(contestants))
    x = experiment.photographs(engine, given.folder, count)
    about = {"images": count, "check": repr(check), "weights": engine.model.ref.weights_sha256}
    kept = experiment.Kept(given.kept, "faithfulness", about)
    names = {"passed": "faithful", "value": "faithfulness", "controls": "faithfulness_controls"}
    values: dict[str, dict[str, list[float]]] = {name: {} for name in names}

    def scored(method: Method) -> dict[str, list[float]]:
        found: dict[str, list[float]] = {name: [] for name in names}
        for part in x.split(given.batch):
            target, probe = Target.of("top1"), Probe(engine.model, part)
            maps = explained(method, probe, part, target)
            quality = check.quality(Case(probe, part, target, maps, method))
            for name, figure in names.items():
                found[name].extend(quality[figure].float().tolist())
        return found

    for contestant, found in kept.each(contestants, scored):
        for name, figures in found.items():
            values[name][contestant] = figures
    tables = {name: experiment.compared(found, "higher") for name, found in values.items()}
    results = {"images": len(x), "check": repr(check), "accelerate": engine.accelerate, **tables}
    command = f"faithfulness.py FOLDER --images {count}"
    experiment.save("faithfulness", given, results, tables, command)


if __name__ == "__main__":
    main()
