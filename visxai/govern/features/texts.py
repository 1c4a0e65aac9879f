"""Features of a text's explanation: which words decide, and where in the text they stand.

With v_i the value of word i of n and  e_i = max(v_i, 0) / sum max(v, 0)  its share of the evidence:

    concentration   Gini coefficient of e:  sum_i (2 i - n - 1) e_(i) / n,  e sorted     0 to 1
    entropy         - sum_i e_i log e_i / log n                                          0 to 1
    half_area       the smallest part of the words that holds half of the evidence       0 to 0.5
    centre_x        sum_i e_i (i + 1/2) / n,  from the text's beginning to its end       0 to 1
    against         sum max(-v, 0) / sum |v|                                             0 to 1
    third_k         evidence in the k-th third of the words, k = 0, 1, 2                 0 to 1
    negation        evidence on words such as not, never and n't                         0 to 1
    symbols         evidence on words without a letter                                   0 to 1
    capitals        evidence on words in capitals, of two letters or more                0 to 1

A text without positive evidence has none of the features but `against`.

Cost: no model call.
"""

from __future__ import annotations

import math

import numpy as np

from visxai.govern.features import images
from visxai.govern.features.feature import Feature
from visxai.record.base import Explanation
from visxai.record.text import TextExplanation

NEGATIONS = frozenset(
    [
        "no",
        "not",
        "never",
        "none",
        "nobody",
        "nothing",
        "nowhere",
        "neither",
        "nor",
        "cannot",
        "without",
        "hardly",
    ]
)

FEATURES = (
    Feature("concentration", 0, 1, "how few words hold the evidence"),
    Feature("entropy", 0, 1, "how evenly the evidence is spread"),
    Feature("half_area", 0, 0.5, "the smallest part of the words with half of the evidence"),
    Feature("centre_x", 0, 1, "the evidence's centre, from beginning to end"),
    Feature("against", 0, 1, "evidence against the target, as a part of all"),
    *(Feature(f"third_{at}", 0, 1, f"evidence in third {at} of the words") for at in range(3)),
    Feature("negation", 0, 1, "evidence on negations"),
    Feature("symbols", 0, 1, "evidence on words without a letter"),
    Feature("capitals", 0, 1, "evidence on words in capitals"),
)


def measure(explanation: Explanation) -> dict[str, float]:
    """Measure a text's explanation; NaN where a feature isn't defined."""
    assert isinstance(explanation, TextExplanation)
    values = explanation.values.astype(np.float64)
    # A text is a map of one row, so what both have in common is measured alike.
    shared = images.of_map(values[None])
    found = {one.name: shared.get(one.name, math.nan) for one in FEATURES}
    positive = values.clip(min=0)
    if not math.isfinite(found["centre_x"]):
        return found
    share = positive / positive.sum()
    words = explanation.words
    thirds = images.stripes(len(words), 3) @ share
    found |= {f"third_{at}": float(thirds[at]) for at in range(3)}
    for name, chosen in (
        ("negation", [is_negation(word) for word in words]),
        ("symbols", [not any(c.isalpha() for c in word) for word in words]),
        ("capitals", [word.isupper() and sum(map(str.isalpha, word)) > 1 for word in words]),
    ):
        found[name] = float(share[np.array(chosen, bool)].sum())
    return found


def is_negation(word: str) -> bool:
    """Tell whether an English word negates: not, never, isn't."""
    folded = word.lower().replace("\u2019", "'").strip(".,;:!?\"'()")
    return folded in NEGATIONS or folded.endswith("n't")
