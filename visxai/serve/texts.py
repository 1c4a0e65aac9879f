"""Texts: decided on by rules of their own, explained by their words, and checked precisely."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from visxai.ledger import explanations
from visxai.ledger.canonical import canonical, sha256
from visxai.metrics.base import rank_correlation
from visxai.moderation import Decision, Policy, judge
from visxai.record.text import TextExplanation
from visxai.serve.precise import Checked
from visxai.target import Target
from visxai.text.engine import Engine
from visxai.text.pooling import Pooled

if TYPE_CHECKING:
    from visxai.serve.jobs import Job
    from visxai.serve.service import Service


class TextModerator:
    """Decides on texts by a policy, and explains them.

    Args:
        engine: The engine with the model.
        policy: The policy.
        method: The method that explains flagged texts.

    Attributes:
        model_key: The hash of the model, by which workers know their jobs.

    Raises:
        ArgumentError: The model can't serve the method.
        TargetError: A rule names a class that the model doesn't have.
    """

    def __init__(self, engine: Engine, policy: Policy, method: str) -> None:
        self.engine, self.policy, self.method = engine, policy, method
        self._gates = tuple(rule.gate(engine.model.labels) for rule in policy.rules)
        engine.methods(method)
        ref = engine.model.ref
        self.model_key = sha256(canonical([ref.weights_sha256, ref.preprocess, ref.name]))

    def decide(self, texts: Sequence[str]) -> list[Decision]:
        """Decide on texts with one forward, without explaining any."""
        pooled = Pooled.of(self.engine.model, self.engine.model.encode(list(texts)))
        columns = [pooled.reported(gate.target).tolist() for gate in self._gates]
        return [self.judge([column[row] for column in columns]) for row in range(len(texts))]

    def judge(self, scores: Sequence[float]) -> Decision:
        """Apply the policy to the scores of its rules, in their order."""
        return judge(self.policy, self._gates, scores)

    def explain(
        self, texts: Sequence[str], target: str, method: str | None = None
    ) -> list[TextExplanation]:
        """Explain texts for a target of one map a text.

        Args:
            texts: The texts.
            target: What to explain, such as `Decision.target`.
            method: The method; None is the moderator's own.

        Returns:
            One explanation a text.
        """
        return self.engine.explain(list(texts), method or self.method, target)


def check(service: Service, moderator: TextModerator, text: str, job: Job) -> Checked:
    """Explain a text precisely, and check the explanation.

    Args:
        service: The service.
        moderator: The moderator of texts.
        text: The text.
        job: The job; `supersedes` in its spec names the fast tier's explanation.

    Returns:
        The explanation with `agreement` (rank correlation with the fast tier's words, -1 to 1) and
        `counterfactual` (the score before and after the words that carry half of the evidence are
        taken out, and their share of all words).
    """
    target = str(job.spec["target"])
    (made,) = moderator.explain([text], target, str(job.spec["method"]))
    confidence: dict[str, Any] = dict(made.quality)
    fast = _fast(service, job)
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


def _fast(service: Service, job: Job) -> TextExplanation | None:
    id = job.spec.get("supersedes")
    if id is None:
        return None
    with service.database.reading() as connection:
        found = explanations.get(connection, str(id), job.tenant)
    if found is None or found.record is None:
        return None
    return TextExplanation.from_dict(found.record)
