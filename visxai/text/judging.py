"""Figures that judge explanations of texts, by what their first words do to the score.

    comprehensiveness = mean over k of  p(x) - p(x without its first k words)      more is better
    sufficiency       = mean over k of  p(x) - p(the first k words of x alone)     less is better

p is the label's score as the model reports it, and words come in the order of their values, those
for the label first. k goes through 10, 20, ... 50 per cent of the words that the model sees,
rounded up. Words are deleted, or replaced by the model's mask: neither text looks like those that
the model was trained on, each in its own way, so figures are given for both.

    faithfulness      = comprehensiveness - sufficiency, of deletion
    faithful          = faithfulness > mean of the same with the words in random orders

is the check of a single explanation: `visxai explain comments.csv --check faithfulness`.

Cost: 20 altered texts for the figures, 10 for each order of the check.
Source: DeYoung et al., ERASER: a benchmark to evaluate rationalized NLP models, ACL 2020; the
random orders are this project's.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visxai.errors import ArgumentError
from visxai.record.text import TextExplanation
from visxai.text.model import Encoded, Keep, Replacement, TextModel

CHECK = "faithfulness"
REPLACEMENTS: tuple[Replacement, ...] = ("delete", "mask")
_SHARES = (0.1, 0.2, 0.3, 0.4, 0.5)
_CONTROLS = 8  # random orders of the check

Order = NDArray[np.int64]


def judge(
    model: TextModel, explanations: Sequence[TextExplanation]
) -> list[dict[str, float | None]]:
    """Compute comprehensiveness and sufficiency under both replacements.

    Args:
        model: The model that was explained.
        explanations: Explanations of one class each.

    Returns:
        For each explanation its figures, such as "comprehensiveness_mask"; None where the model
        sees no word of the text.

    Raises:
        ArgumentError: An explanation isn't of one class.
    """
    texts = _encoded(model, explanations)
    jobs = [(text, one, [_order(one, text)]) for text, one in zip(texts, explanations, strict=True)]
    found: list[dict[str, float | None]] = [{} for _ in jobs]
    for how in REPLACEMENTS:
        for figures, told in zip(found, _curves(model, jobs, how), strict=True):
            for name, value in zip(("comprehensiveness", "sufficiency"), told, strict=True):
                figures[f"{name}_{how}"] = None if value is None else float(value[0])
    return found


def check(model: TextModel, explanations: Sequence[TextExplanation]) -> list[dict[str, Any]]:
    """Check whether each explanation's order of words beats random orders.

    Args:
        model: The model that was explained.
        explanations: Explanations of one class each.

    Returns:
        For each explanation `faithfulness`, `faithfulness_controls` (the mean of random orders) and
        `faithful`, which a flat explanation never is; none where the model sees no word.

    Raises:
        ArgumentError: An explanation isn't of one class.
    """
    texts = _encoded(model, explanations)
    jobs = []
    for text, one in zip(texts, explanations, strict=True):
        order = _order(one, text)
        generator = np.random.default_rng(zlib.crc32(one.text.encode()))
        random = [generator.permutation(seen(text)) for _ in range(_CONTROLS)]
        jobs.append((text, one, [order, *random]))
    found: list[dict[str, Any]] = []
    for (_, one, _), (comprehensive, sufficient) in zip(
        jobs, _curves(model, jobs, "delete"), strict=True
    ):
        if comprehensive is None or sufficient is None:
            found.append({})
            continue
        values = comprehensive - sufficient
        controls = float(values[1:].mean())
        found.append(
            {
                "faithfulness": float(values[0]),
                "faithfulness_controls": controls,
                "faithful": bool(values[0] > controls) and not one.degenerate,
            }
        )
    return found


def seen(text: Encoded) -> Order:
    """Return the words of a text that the model sees, in order."""
    return np.unique(np.concatenate([window.words for window in text.windows]))


def _encoded(model: TextModel, explanations: Sequence[TextExplanation]) -> list[Encoded]:
    for one in explanations:
        several = one.target.startswith(("any=", "diff=")) or "=any:" in one.target
        if one.class_index is None or several:
            raise ArgumentError(
                expected="explanations of one class each",
                got=f"one of {one.target}",
                remedy="explain top1, class=... or above=... to judge words by the class's score",
                field="target",
            )
    return model.encode([one.text for one in explanations])


def _order(one: TextExplanation, text: Encoded) -> Order:
    """Order the words that the model sees, those for the label first."""
    words = seen(text)
    return words[np.argsort(-one.values[words], kind="stable")]


def _curves(
    model: TextModel,
    jobs: Sequence[tuple[Encoded, TextExplanation, Sequence[Order]]],
    how: Replacement,
) -> list[tuple[Any, Any]]:
    """Compute comprehensiveness and sufficiency of each order: arrays (orders,), None of none."""
    asked = []
    for text, one, orders in jobs:
        keep = np.ones((2 * len(orders) * len(_SHARES), len(text.spans)), bool)
        row = 0
        for order in orders:
            for share in _SHARES:
                first = order[: math.ceil(share * len(order) - 1e-9)]
                keep[row, first] = False
                keep[row + 1] = ~keep[row]
                row += 2
        asked.append((text, keep, one.class_index or 0))
    found: list[tuple[Any, Any]] = []
    for (_, one, orders), scores in zip(jobs, _scores(model, asked, how), strict=True):
        if not len(orders[0]):
            found.append((None, None))
            continue
        drops = one.score - scores.reshape(len(orders), len(_SHARES), 2).mean(1)
        found.append((drops[:, 0], drops[:, 1]))
    return found


def _scores(
    model: TextModel, asked: Sequence[tuple[Encoded, Keep, int]], how: Replacement
) -> list[NDArray[np.float64]]:
    """Score altered texts for a class of each, as the model reports it: (m,) for each text."""
    if not asked:
        return []
    rows = [
        row
        for text, keep, _ in asked
        for window in text.windows
        for row in model.altered(window, keep[:, window.words], how)
    ]
    scores, found, at = model.score(rows), [], 0
    for text, keep, index in asked:
        size = len(text.windows) * len(keep)
        parts = scores[at : at + size].reshape(len(text.windows), len(keep), -1)
        at += size
        # As `Pooled` does: independent classes take the greatest score of the windows.
        pooled = parts.amax(0) if model.activation == "sigmoid" else parts.mean(0)
        found.append(model.probabilities(pooled)[:, index].double().cpu().numpy())
    return found
