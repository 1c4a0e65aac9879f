"""Does a transformer still read a digit as pixels are blackened? All transformer methods.

    python benchmarks/quality/digits_perturbation.py --images 200

Held-out digits, one on a canvas, explained for the class that the digits transformer sees. From
10 to 90 % of the pixels are blackened, the most relevant first (positive: a good map makes the
accuracy fall) or last (negative: it lasts); figure: area under the accuracy, negative less
positive. The canvas is mostly dark, and blackening it there says little, so figures are compared
with the controls and with no other test. They go to benchmarks/results/digits_perturbation.json
and .md.
"""

from __future__ import annotations

import digits_vit
import experiment
import numpy as np

from visxai import methods, metrics
from visxai.methods.base import Method
from visxai.metrics.base import Case, explained
from visxai.models.interface import Need
from visxai.models.probe import Probe
from visxai.target import Target


def canvases(count: int) -> list[np.ndarray]:
    """`count` canvases with one held-out digit each, left and right in turn."""
    digits, _ = digits_vit.held_out()
    chosen = np.random.default_rng(0).permutation(len(digits))[:count]
    return [
        digits_vit.canvas(*((digits[i], None) if turn % 2 else (None, digits[i])), seed=turn)
        for turn, i in enumerate(chosen)
    ]


def transformer_methods() -> list[str]:
    """The methods that read attention or tokens, and those that are made for transformers too."""
    wanted = Need.ATTENTION | Need.TOKENS
    own = (name for name in methods.names() if methods.find(name).needs & wanted)
    return [*experiment.OF_TRANSFORMERS, *own]


def main() -> None:
    parser = experiment.parser(__doc__, photographs="none")
    parser.add_argument("--images", type=int, default=200)
    given = parser.parse_args()
    count = 8 if given.quick else given.images
    engine = experiment.engine("digits_vit", device="cpu", accelerate="off", batch_size=50)
    weights = engine.model.ref.weights_sha256
    kept = experiment.Kept(given.kept, "digits_perturbation", {"images": count, "weights": weights})
    x = engine.tensor([engine.prepare(canvas).pixels for canvas in canvases(count)])
    metric = metrics.load("perturbation")
    contestants = experiment.contestants(given.methods or transformer_methods())
    names = ("perturbation", "positive", "negative")
    values: dict[str, dict[str, list[float]]] = {name: {} for name in names}

    def scored(method: Method) -> dict[str, list[float]]:
        found: dict[str, list[float]] = {name: [] for name in names}
        for part in x.split(50):
            target = Target.of("top1")
            maps = explained(method, Probe(engine.model, part), part, target)
            scores = metric(Case(engine.model, part, target, maps, method))
            for name, figure in {"perturbation": scores.values, **scores.figures}.items():
                found[name].extend(figure.tolist())
        return found

    for contestant, found in kept.each(contestants, scored):
        for name, figures in found.items():
            values[name][contestant] = figures
    tables = {
        f"{name} ({better} is better)": experiment.compared(values[name], better)
        for name, better in zip(names, ("higher", "lower", "higher"), strict=True)
    }
    results = {
        "images": len(x),
        "weights_sha256": weights,
        **dict(zip(names, tables.values(), strict=True)),
    }
    command = f"digits_perturbation.py --images {count}"
    experiment.save("digits_perturbation", given, results, tables, command)


if __name__ == "__main__":
    main()
