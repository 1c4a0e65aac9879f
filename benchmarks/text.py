"""Explaining texts beside captum, a plain loop and lime, in one run on one core.

    python benchmarks/text.py [--hf FOLDER] [--quick] [--only toxicity|hf]

200 sentences of examples/text/reviews.csv are explained with the packaged `toxicity`. captum's
LayerIntegratedGradients runs at the best of several batches, over the same network as PyTorch's
layers run it; a plain loop scores each text without each word, one at a time; lime's text explainer
gets the network's scores in batches, with as many samples. `--hf` adds a sequence classifier of
Hugging Face for integrated gradients, such as examples/text/sentiment.py leaves in its folder;
there interpreto and transformers-interpret run too where they are installed. These take other lines
or other points, so that only captum's values are compared. "the network alone" is its forward and
backward for every point and nothing else: the share of visxai's time that no code around it saves.

Values are compared first. `difference` is max|a - b| / max|b| of a text: its median and greatest
over texts. `toxicity` takes the greatest state of each feature over the text, so where two states
are nearly the same one rounding decides which of them has the slope: a text in hundreds may differ
there. Contestants run in turn; ratios are of their least seconds. Results go to
benchmarks/results/text.json and text.md. It takes about three minutes on a quiet core.
"""

from __future__ import annotations

import argparse
import csv
import importlib.util
import json
import time
import warnings
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import visxai
from visxai.text.network import TorchText

ROOT = Path(__file__).parents[1]
STEPS, SAMPLES, ROUNDS = 32, 200, 2
BATCHES = ((1, None), (8, None), (32, 256), (64, 64))  # texts, and captum's internal batch
ALONE = "the network alone"
Contestant = Callable[[], list[Any]]


def texts(count: int) -> list[str]:
    """Take sentences from reviews of restaurants and films."""
    with (ROOT / "examples/text/reviews.csv").open(encoding="utf-8", newline="") as file:
        rows = [row["text"] for row in csv.DictReader(file) if row["kind"] != "product"]
    return rows[:: len(rows) // count][:count]


def clocked(contestants: dict[str, Contestant], rounds: int) -> dict[str, float]:
    """Run contestants in turn and keep the least seconds of each."""
    found = dict.fromkeys(contestants, np.inf)
    for _ in range(rounds):
        for name, run in contestants.items():
            began = time.perf_counter()
            run()
            found[name] = min(found[name], time.perf_counter() - began)
    return found


def difference(ours: list[Any], theirs: list[Any]) -> tuple[float, float]:
    """Compare maps: the median and the greatest difference."""
    apart = [
        float(np.abs(a - b).max() / max(np.abs(b).max(), 1e-9))
        for a, b in zip(ours, theirs, strict=True)
    ]
    return float(np.median(apart)), max(apart)


def whole(model: TorchText, block: Any) -> Tensor:
    """Return a block's pieces with the padding that visxai leaves out."""
    ids: Tensor = torch.nn.functional.pad(block.ids, (block.lead, 0), value=model.form.pad)
    return ids


def words_of(engine: Any, many: list[str]) -> list[Any]:
    """List the one window of each text."""
    return [one.windows[0] for one in engine.model.encode(many)]


def captum(engine: Any, many: list[str], batch: int, inner: int | None) -> list[Any]:
    """Run captum over texts in their order of length, and add up pieces by words."""
    from captum.attr import LayerIntegratedGradients

    model: TorchText = engine.model
    held = words_of(engine, many)

    def forward(ids: Tensor, mask: Tensor) -> Tensor:
        output = model._module(ids, attention_mask=mask) if model._masked else model._module(ids)
        scores: Tensor = getattr(output, "logits", output)
        return scores

    asked = LayerIntegratedGradients(forward, model._embedding)
    order = sorted(range(len(held)), key=lambda i: len(held[i].ids))
    found: dict[int, Any] = {}
    for start in range(0, len(order), batch):
        some = order[start : start + batch]
        block = model._block(some, [window.ids for window in held])
        ids, inside = whole(model, block), block.inside()
        inside = torch.nn.functional.pad(inside, (block.lead, 0))
        values = asked.attribute(
            ids,
            baselines=torch.where(inside, model.form.pad, ids),
            target=0,
            additional_forward_args=(block.mask.long(),),
            n_steps=STEPS,
            method="gausslegendre",
            internal_batch_size=inner,
        )
        for row, part in zip(
            block.rows, block.content(values.sum(2)[:, block.lead :]), strict=True
        ):
            found[row] = held[row].sums(part)
    return [found[row] for row in range(len(held))]


def exact(engine: Any, many: list[str]) -> list[Any]:
    """Run captum over texts in float64: what both float32 runs are rounded from."""
    wide = visxai.text.Engine("toxicity", device="cpu")
    wide.model._module.double()
    return captum(wide, many, 32, 256)


def loop(engine: Any, many: list[str]) -> list[Any]:
    """Score each text without each of its words, one forward each."""
    model: TorchText = engine.model
    found = []
    with torch.no_grad():
        for window in words_of(engine, many):
            rows = [window.ids, *(window.ids[window.owner != w] for w in range(len(window)))]
            scores = np.array(
                [float(model._module(whole(model, model._block([0], [one])))[0, 0]) for one in rows]
            )
            found.append(scores[0] - scores[1:])
    return found


def interpreto(folder: str, many: list[str], batch: int) -> list[Any]:
    """Run interpreto over texts, in its own points on a line from an embedding of zeros."""
    from interpreto import IntegratedGradients

    module, tokenizer = loaded(folder)
    asked = IntegratedGradients(
        model=module, tokenizer=tokenizer, batch_size=batch, n_perturbations=STEPS
    )
    found: list[Any] = asked.explain(
        model_inputs=many, targets=torch.zeros(len(many), 1, dtype=torch.long)
    )
    return found


def transformers_interpret(folder: str, many: list[str], inner: int | None) -> list[Any]:
    """Run transformers-interpret over texts, one at a time, at the sum of all embeddings."""
    from transformers_interpret import SequenceClassificationExplainer

    asked = SequenceClassificationExplainer(*loaded(folder))
    return [asked(one, index=0, internal_batch_size=inner, n_steps=STEPS) for one in many]


@cache
def loaded(folder: str) -> tuple[Any, Any]:
    """Load a sequence classifier of Hugging Face and its tokenizer."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    module = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    return module, AutoTokenizer.from_pretrained(folder)


def others(folder: str, many: list[str]) -> dict[str, Contestant]:
    """Return interpreto and transformers-interpret at several batches, where they are installed."""
    runs: dict[str, Contestant] = {}
    if importlib.util.find_spec("interpreto"):
        for batch in (1, 4, 32):
            runs[f"interpreto, {batch} rows"] = partial(interpreto, folder, many, batch)
    if importlib.util.find_spec("transformers_interpret"):
        for inner in (8, None):
            named = f"transformers-interpret, {inner or 'all'} rows"
            runs[named] = partial(transformers_interpret, folder, many, inner)
    return runs


def network_alone(engine: Any, many: list[str]) -> list[Any]:
    """Run the network forward and back for every point, and do nothing else."""
    model: TorchText = engine.model
    rows = [window.ids for window in words_of(engine, many) for _ in range(STEPS)]
    found = []
    for block in model.blocks(rows):
        leaf = model._embedding(block.ids).detach().requires_grad_()
        found.append(torch.autograd.grad(model._scored(block, leaf)[:, 0].sum(), leaf)[0])
    return found


def lime(engine: Any, many: list[str]) -> list[Any]:
    """Run lime's text explainer, its function scoring in batches of 64 with the network."""
    from lime.lime_text import LimeTextExplainer

    model: TorchText = engine.model

    def probabilities(altered: list[str]) -> Any:
        rows = [one.windows[0].ids for one in model.encode(altered)]
        parts = []
        with torch.no_grad():
            for start in range(0, len(rows), 64):
                some = rows[start : start + 64]
                block = model._block(range(len(some)), some)
                parts.append(model._module(whole(model, block)).sigmoid())
        toxic = torch.cat(parts)[:, :1]
        return torch.cat([1 - toxic, toxic], 1).numpy()

    explainer = LimeTextExplainer(random_state=0)
    return [
        explainer.explain_instance(one, probabilities, num_features=100, num_samples=SAMPLES)
        for one in many
    ]


def own(engine: Any, many: list[str], method: str) -> list[Any]:
    """Explain texts with visxai, each value at a word that the model reads."""
    records = engine.explain(many, method, 0)
    held = words_of(engine, many)
    return [record.values[window.words] for record, window in zip(records, held, strict=True)]


def contest(engine: Any, many: list[str], rounds: int, folder: str = "") -> dict[str, Any]:
    """Compare integrated gradients with captum's and, on an encoder, with those of others."""
    method = f"integrated_gradients(steps={STEPS})"
    same = difference(own(engine, many, method), captum(engine, many, 32, 256))
    peers = {
        f"captum, {batch} texts, {inner or 'all'} rows": lambda b=batch, i=inner: captum(  # type: ignore[misc]
            engine, many, b, i
        )
        for batch, inner in BATCHES
    }
    runs: dict[str, Contestant] = {"visxai": lambda: own(engine, many, method), **peers}
    runs[ALONE] = lambda: network_alone(engine, many)
    if folder:
        runs |= others(folder, many)
    seconds = clocked(runs, rounds)
    made = row("integrated_gradients", engine, len(many), seconds, same)
    if not folder:
        wide = exact(engine, many)
        found = {"visxai": own(engine, many, method), "captum": captum(engine, many, 32, 256)}
        made["from_float64"] = {name: difference(one, wide) for name, one in found.items()}
    return made


def row(
    method: str,
    engine: Any,
    count: int,
    seconds: dict[str, float],
    same: tuple[float, float] | None,
) -> dict[str, Any]:
    """Make a row of the results."""
    ours, alone = seconds.pop("visxai"), seconds.pop(ALONE, None)
    peer = min(seconds, key=lambda name: seconds[name])
    return {
        "method": method,
        "model": type(engine.model._module).__name__,
        "texts": count,
        "visxai": ours,
        "peer": peer,
        "seconds": seconds[peer],
        "all": seconds,
        "ratio": seconds[peer] / ours,
        "network": None if alone is None else alone / ours,
        "difference": same,
    }


def main(folder: str | None, quick: bool, only: str | None) -> None:
    """Run the contests and write the results; those of the other model stay."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    rounds = 1 if quick else ROUNDS
    out = ROOT / "benchmarks/results"
    rows = [] if only == "hf" else packaged(quick, rounds)
    if folder is not None and only != "toxicity":
        engine = visxai.text.Engine(f"hf:{folder}", device="cpu")
        rows.append(contest(engine, texts(4 if quick else 12), min(rounds, 2), folder))
    for one in rows:
        print(json.dumps(one))
    if quick:
        return
    if only is not None:
        made = {one["model"] for one in rows}
        before = json.loads((out / "text.json").read_text("utf-8"))
        rows = sorted(
            [*rows, *(one for one in before if one["model"] not in made)],
            key=lambda one: one["model"],
        )
    (out / "text.json").write_text(json.dumps(rows, indent=1) + "\n", "utf-8")
    write(out / "text.md", rows)


def packaged(quick: bool, rounds: int) -> list[dict[str, Any]]:
    """Run the contests on the packaged `toxicity`."""
    many, few = texts(8 if quick else 200), texts(4 if quick else 20)
    engine = visxai.text.Engine("toxicity", device="cpu")
    engine.explain(few, f"integrated_gradients(steps=2),lime(samples={SAMPLES})")
    rows = [contest(engine, many, rounds)]
    same = difference(own(engine, many, "leave_one_out"), loop(engine, many))
    runs: dict[str, Contestant] = {
        "visxai": lambda: own(engine, many, "leave_one_out"),
        "a forward a word": lambda: loop(engine, many),
    }
    rows.append(row("leave_one_out", engine, len(many), clocked(runs, rounds), same))
    runs = {
        "visxai": lambda: own(engine, few, f"lime(samples={SAMPLES})"),
        "lime": lambda: lime(engine, few),
    }
    rows.append(row("lime", engine, len(few), clocked(runs, rounds), None))
    return rows


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write the results as a table."""
    lines = [
        "| method | model | texts | visxai | fastest other | ratio | the network alone | "
        "difference: median, most |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for one in rows:
        same = one["difference"]
        differs = "other samples" if same is None else f"{same[0]:.0e}, {same[1]:.0e}"
        alone = "" if one.get("network") is None else f"{one['network']:.0%} of visxai's"
        lines.append(
            f"| `{one['method']}` | {one['model']} | {one['texts']} | {one['visxai']:.2f} s | "
            f"{one['peer']}: {one['seconds']:.2f} s | {one['ratio']:.1f} × | "
            f"{alone} | {differs} |"
        )
    for one in rows:
        if told := one.get("from_float64"):
            apart = "; ".join(f"{name} {a:.0e}, {b:.0e}" for name, (a, b) in told.items())
            lines += ["", f"From captum in float64 on {one['model']}, median and most: {apart}."]
    lines += ["", "Everybody on the encoder, seconds:", ""]
    for one in rows:
        if one["model"] != "BiLSTM":
            lines += [f"- {name}: {value:.2f}" for name, value in one["all"].items()]
    path.write_text("\n".join(lines) + "\n", "utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Speed of explaining texts")
    parser.add_argument("--hf", metavar="FOLDER")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", choices=("toxicity", "hf"), help="the contests of one model")
    given = parser.parse_args()
    main(given.hf, given.quick, given.only)
