"""Train and judge the credit model: seeds, calibration, AUC and Brier score with intervals.

    python examples/credit/train.py            judge, and write examples/credit/card.md anew
    python examples/credit/train.py --seeds 2 --draws 50 --card card.md

Five-fold cross-validation of all 1,000 loans, with ten seeds of folds and trees. A figure is the
mean over the seeds; its 95 % interval is a bootstrap over the loans, which the seeds share. The
same is done with the protected columns in the model, to see what leaving them out costs.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import xgboost

from visxai.tabular import Features, german_credit

HERE = Path(__file__).parent
THRESHOLD = 0.7  # of the score: from here on a loan is approved
# More in the account and more savings never lower the score, a longer loan never raises it.
MONOTONE = {"status": 1, "savings": 1, "duration": -1}


def split(table: pa.Table, seed: int, share: float = 0.7) -> tuple[pa.Table, pa.Table]:
    """Divide loans into those that a model may see, and others."""
    order = np.random.default_rng(seed).permutation(len(table))
    cut = int(share * len(table))
    return table.take(pa.array(np.sort(order[:cut]))), table.take(pa.array(np.sort(order[cut:])))


def train(table: pa.Table, seed: int, features: Features | None = None) -> Any:
    """Train a model of repayment; categories are positions among their ordered levels."""
    known = features or german_credit.features()
    model = xgboost.XGBClassifier(
        n_estimators=150,
        max_depth=3,
        learning_rate=0.06,
        subsample=0.8,
        colsample_bytree=0.6,
        min_child_weight=3,
        monotone_constraints=tuple(MONOTONE.get(name, 0) for name in known.names),
        random_state=seed,
        n_jobs=1,
    )
    return model.fit(known.matrix(table), np.array(table.column(german_credit.OUTCOME)))


def predicted(table: pa.Table, seed: int, features: Features) -> np.ndarray[Any, Any]:
    """Score each loan by a model that was trained on the other folds."""
    order = np.random.default_rng(seed).permutation(len(table))
    scores = np.empty(len(table))
    for fold in np.array_split(order, 5):
        others = np.setdiff1d(order, fold)
        model = train(table.take(pa.array(others)), seed, features)
        x = features.matrix(table.take(pa.array(fold)))
        scores[fold] = model.predict_proba(x)[:, 1]
    return scores


def auc(y: np.ndarray[Any, Any], scores: np.ndarray[Any, Any]) -> float:
    """Compute how often a repaid loan has the higher score; ties count half."""
    _, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[place]
    ones = int(y.sum())
    return float((ranks[y].sum() - ones * (ones + 1) / 2) / (ones * (len(y) - ones)))


def slope(y: np.ndarray[Any, Any], scores: np.ndarray[Any, Any]) -> float:
    """Fit P(repaid) = sigmoid(a + b logit(score)) by Newton's method, and return b."""
    x = np.stack([np.ones(len(y)), np.log(scores / (1 - scores))], 1)
    weights = np.array([0.0, 1.0])
    for _ in range(8):
        p = 1 / (1 + np.exp(-x @ weights))
        weights += np.linalg.solve((x * (p * (1 - p))[:, None]).T @ x, x.T @ (y - p))
    return float(weights[1])


def figures(y: np.ndarray[Any, Any], scores: np.ndarray[Any, Any]) -> dict[str, float]:
    """Compute the figures of a seed: AUC, Brier score, calibration and errors of decisions."""
    return {
        "auc": auc(y, scores),
        "brier": float(((scores - y) ** 2).mean()),
        "slope": slope(y, scores),
        "bias": float((scores - y).mean()),
        "error": float(((scores >= THRESHOLD) != y).mean()),
        "refused": float((scores < THRESHOLD).mean()),
    }


def judge(seeds: int, draws: int) -> dict[str, dict[str, list[float]]]:
    """Judge the model with and without the protected columns: figure, low and high end."""
    table = german_credit.load()
    y = np.array(table.column(german_credit.OUTCOME))
    without = german_credit.features()
    levels = german_credit.LEVELS
    whole = Features.of(
        {name: list(levels.get(name, {}).values()) for name in german_credit.COLUMNS}
    )
    every = {
        "without protected columns": np.stack([predicted(table, s, without) for s in range(seeds)]),
        "with protected columns": np.stack([predicted(table, s, whole) for s in range(seeds)]),
    }
    rng = np.random.default_rng(0)
    rows = [np.arange(len(y)), *(rng.integers(0, len(y), len(y)) for _ in range(draws))]
    found = {
        name: [_mean([figures(y[row], one[row]) for one in scores]) for row in rows]
        for name, scores in every.items()
    }
    a, b = found.values()
    found["difference"] = [{k: x[k] - z[k] for k in x} for x, z in zip(a, b, strict=True)]
    return {
        name: {
            key: [drawn[0][key], *np.quantile([one[key] for one in drawn[1:]], (0.025, 0.975))]
            for key in drawn[0]
        }
        for name, drawn in found.items()
    }


def _mean(told: list[dict[str, float]]) -> dict[str, float]:
    return {key: float(np.mean([one[key] for one in told])) for key in told[0]}


NAMES = {
    "auc": "AUC",
    "brier": "Brier score",
    "slope": "calibration slope (1 is right, below 1 too sure)",
    "bias": "mean score minus share repaid",
    "error": f"wrong decisions at the threshold {THRESHOLD}",
    "refused": "refused",
}


def card(found: dict[str, dict[str, list[float]]], seeds: int) -> str:
    """Write the model card as Markdown."""
    lines = [
        "| figure | without protected columns | with them | difference |",
        "|---|---|---|---|",
    ]
    for key, name in NAMES.items():
        cells = [
            f"{one[key][0]:.3f} ({one[key][1]:.3f} to {one[key][2]:.3f})" for one in found.values()
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    template = (HERE / "card.in.md").read_text("utf-8")
    return template.replace("{{figures}}", "\n".join(lines)).replace("{{seeds}}", str(seeds))


def main() -> None:
    """Judge the model and write its card."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--draws", type=int, default=400)
    parser.add_argument("--card", type=Path, default=HERE / "card.md")
    given = parser.parse_args()
    found = judge(given.seeds, given.draws)
    given.card.write_text(card(found, given.seeds), "utf-8")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
