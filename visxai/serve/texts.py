"""Texts: decided on by rules of their own, and explained by their words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from visxai.ledger.canonical import canonical, sha256
from visxai.moderation import Decision, Policy, judge
from visxai.record.text import TextExplanation
from visxai.text.engine import Engine
from visxai.text.pooling import Pooled

if TYPE_CHECKING:
    from visxai.serve.config import Config


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

    @classmethod
    def open(cls, config: Config) -> TextModerator:
        """Load the model that the settings name.

        Raises:
            VisxaiError: It can't be loaded, or doesn't fit the settings.
        """
        settings, policy = config.text, config.text_rules()
        assert settings is not None
        assert policy is not None
        engine = Engine(settings.model, device=settings.device, batch_size=config.limits.batch)
        engine.methods(settings.precise)
        return cls(engine, policy, settings.fast)

    def decide(self, data: Sequence[bytes]) -> list[Decision]:
        """Decide on texts, in UTF-8, with one forward, without explaining any."""
        texts = [one.decode("utf-8") for one in data]
        pooled = Pooled.of(self.engine.model, self.engine.model.encode(texts))
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
