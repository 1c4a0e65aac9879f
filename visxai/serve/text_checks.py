"""The precise tier for texts: how far a map of words can be relied on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from visxai.metrics.base import rank_correlation
from visxai.record.text import TextExplanation
from visxai.serve.precise import Checked
from visxai.target import Target

if TYPE_CHECKING:
    from visxai.serve.texts import TextModerator


def check(
    moderator: TextModerator, text: str, target: str, method: str, fast: TextExplanation | None
) -> Checked[TextExplanation]:
    """Explain a text precisely, and check the explanation.

    Args:
        moderator: The moderator of texts.
        text: The text.
        target: What to explain.
        method: The method.
        fast: The fast tier's explanation, None where there is none.

    Returns:
        The explanation with `agreement` (rank correlation with the fast tier's words, -1 to 1) and
        `counterfactual` (the score before and after the words that carry half of the evidence are
        taken out, and their share of all words).
    """
    (made,) = moderator.explain([text], target, method)
    confidence: dict[str, Any] = dict(made.quality)
    if fast is not None and fast.input.spans == made.input.spans and len(made.values) > 1:
        confidence["agreement"] = _agreement(made, fast)
    if not made.degenerate and (hidden := strongest(made)):
        rest = without(made, hidden)
        (after,) = moderator.engine.score([rest], Target.of(target, moderator.engine.model.labels))
        confidence["counterfactual"] = {
            "area": len(hidden) / len(made.values),
            "before": float(made.score),
            "after": float(after),
        }
    return Checked(made, confidence)


def strongest(made: TextExplanation, share: float = 0.5) -> list[int]:
    """List the fewest words that carry a share of the evidence for the target, greatest first."""
    order = np.argsort(-made.values, kind="stable")
    values = made.values[order].clip(0).astype(np.float64)
    if not values.sum() > 0:
        return []
    count = int(np.searchsorted(values.cumsum(), share * values.sum() - 1e-9)) + 1
    return [int(index) for index in order[:count]]


def without(made: TextExplanation, words: Sequence[int]) -> str:
    """Return an explanation's text without some of its words."""
    gone, last, kept = {made.input.spans[index] for index in words}, 0, []
    for start, end in sorted(gone):
        kept.append(made.text[last:start])
        last = end
    return " ".join("".join([*kept, made.text[last:]]).split())


def _agreement(a: TextExplanation, b: TextExplanation) -> float:
    import torch

    rows = [torch.tensor(one.values)[None] for one in (a, b)]
    return float(rank_correlation(rows[0], rows[1])[0])
