"""Moderation as a plain object: decide on images by a policy, and explain those that are flagged.

    policy = Policy("photos-1", (Rule("cats", "cats=any:281,282,285>0.3"),))
    moderator = Moderator(Engine(), policy)
    for outcome in moderator.moderate(["cat.jpg", "house.jpg"]):
        print(outcome.decision, outcome.score, outcome.explanation)

The service uses the same object, so embedding it into a program of one's own gives the same
decisions and explanations.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from visxai.errors import ArgumentError, Failure, TargetError

if TYPE_CHECKING:
    from visxai.engine.engine import Engine
    from visxai.engine.gate import Gate
    from visxai.images.prepared import Prepared
    from visxai.ledger.envelope import Envelope
    from visxai.record.image import ImageExplanation

FLAG, PASS = "flag", "pass"


@dataclass(frozen=True)
class Rule:
    """One reason to flag an item.

    Attributes:
        category: The name of what it is about, as people see it.
        when: The condition on the scores, such as "class=nsfw>0.5" or "cats=any:281,282>0.3".
        severity: How urgent a review is, 0 to 3.
        ground: The sentence of the terms or the law that it enforces, for statements of reasons.
    """

    category: str
    when: str
    severity: int = 1
    ground: str = ""

    def __post_init__(self) -> None:
        """Check the fields; raise ArgumentError for the first that is wrong."""
        if not self.category.strip() or len(self.category) > 200:
            raise ArgumentError(
                expected="a category of 1 to 200 characters",
                got=f"{len(self.category)}",
                remedy="name what the rule is about",
                field="category",
            )
        if self.severity not in (0, 1, 2, 3):
            raise ArgumentError(
                expected="a severity of 0 to 3",
                got=repr(self.severity),
                remedy="use 3 for the most urgent",
                field="severity",
            )

    def check(self) -> None:
        """Check the condition's form, before a model is loaded.

        Raises:
            TargetError: It is no condition on scores.
        """
        from visxai.engine.gate import check_form

        if self.when in ("wrong", "right"):
            raise TargetError(
                expected="a condition on scores such as class=nsfw>0.5",
                got=repr(self.when),
                remedy="a policy has no labelled images",
                field="when",
            )
        check_form(only=self.when)

    def gate(self, labels: Sequence[str] | None) -> Gate:
        """Parse the condition.

        Args:
            labels: The model's labels.

        Raises:
            TargetError: It is no condition on scores.
        """
        from visxai.engine.gate import Gate

        self.check()
        return Gate.of(self.when, labels)


@dataclass(frozen=True)
class Policy:
    """What is flagged.

    Attributes:
        name: Its name and version, which records carry.
        rules: Its rules; of those that apply, the one with the highest severity decides, and among
            those the one with the highest score.
    """

    name: str
    rules: tuple[Rule, ...]

    def __post_init__(self) -> None:
        """Check that there are rules of different categories; raise ArgumentError otherwise."""
        names = [rule.category for rule in self.rules]
        if not names or len(set(names)) < len(names):
            raise ArgumentError(
                expected="one or more rules, each of another category",
                got=", ".join(names) or "none",
                remedy="join conditions on one category with any:",
                field="rules",
            )

    def rule(self, category: str | None) -> Rule | None:
        """Return the rule of a category, None where there is none."""
        return next((rule for rule in self.rules if rule.category == category), None)


@dataclass(frozen=True)
class Decision:
    """What a policy says of an item.

    Attributes:
        decision: "flag" or "pass".
        category: The category of the rule that decided; for "pass" of the one that came nearest.
        score: The score that this rule compares, as the model reports it.
        threshold: What it is compared with.
        scores: The score of every rule, by category.
        severity: The deciding rule's severity, 0 for "pass".
        target: What an explanation explains.
    """

    decision: str
    category: str
    score: float
    threshold: float
    scores: Mapping[str, float]
    severity: int
    target: str

    @property
    def flagged(self) -> bool:
        """Whether the item is flagged."""
        return self.decision == FLAG


@dataclass(frozen=True)
class Outcome(Decision):
    """A decision with its explanation.

    Attributes:
        explanation: Why the model gave the score, None for an item that passed.
        policy: The name of the policy.
    """

    explanation: ImageExplanation | None = None
    policy: str = ""

    def envelope(self, **more: Any) -> Envelope:
        """Make the envelope with which the explanation goes on record.

        Args:
            **more: Further fields of `visxai.ledger.Envelope`, such as tenant or item_id.
        """
        from visxai.ledger.envelope import Envelope

        told = {"policy": self.policy, "threshold": self.threshold, "decision": self.decision}
        return Envelope(**{**told, **more})


def judge(policy: Policy, gates: Sequence[Gate], scores: Sequence[float]) -> Decision:
    """Apply a policy to the scores of its rules.

    Args:
        policy: The policy.
        gates: The parsed condition of each rule.
        scores: The score of each rule, in their order.
    """
    rules = list(zip(policy.rules, gates, scores, strict=True))
    flagged = [
        one for one in rules if (one[2] > one[1].limit) == one[1].above and one[2] != one[1].limit
    ]
    # The nearest miss tells most where nothing is flagged.
    rule, gate, score = (
        max(flagged, key=lambda one: (one[0].severity, one[2]))
        if flagged
        else max(rules, key=lambda one: (one[2] - one[1].limit) * (1 if one[1].above else -1))
    )
    told = {one.category: float(value) for one, _, value in rules}
    return Decision(
        FLAG if flagged else PASS,
        rule.category,
        float(score),
        gate.limit,
        told,
        rule.severity if flagged else 0,
        str(gate.target),
    )


@dataclass(frozen=True)
class Moderator:
    """Decides on images by a policy, and explains what it flags.

    It may be used from several threads at once.

    Attributes:
        engine: The engine with the model.
        policy: The policy.
        method: The method that explains flagged images.

    Raises:
        ArgumentError: The model can't serve the method.
        TargetError: A rule names a class that the model doesn't have.
    """

    engine: Engine
    policy: Policy
    method: str = "grad_cam"
    _gates: tuple[Gate, ...] = field(default=(), init=False, repr=False)

    def __post_init__(self) -> None:
        """Parse the rules for the model's labels."""
        from visxai.engine.engine import load_methods

        labels = self.engine.model.labels
        gates = tuple(rule.gate(labels) for rule in self.policy.rules)
        object.__setattr__(self, "_gates", gates)
        for method in load_methods(self.method):
            self.engine.check(method)

    def moderate(self, images: Iterable[Any]) -> list[Outcome | Failure]:
        """Decide on images, and explain those that are flagged.

        Args:
            images: Images as for `Engine.explain`.

        Returns:
            One outcome an image, in order, or the failure of an image that can't be read.
        """
        found: list[Outcome | Failure] = []
        batch: list[Prepared | Failure] = []
        for image in images:
            batch.append(self.engine.prepare(image, "record"))
            if len(batch) == self.engine.batch_size:
                found += self.moderate_prepared(batch)
                batch = []
        return found + self.moderate_prepared(batch)

    def moderate_prepared(self, batch: Sequence[Prepared | Failure]) -> list[Outcome | Failure]:
        """Decide on prepared images, and explain those that are flagged.

        Args:
            batch: Prepared images, and failures in the places of those that can't be read.

        Returns:
            One outcome or failure for each place.
        """
        decisions = iter(self.decide([item for item in batch if not isinstance(item, Failure)]))
        found = [item if isinstance(item, Failure) else next(decisions) for item in batch]
        wanted = [
            (item, decision)
            for item, decision in zip(batch, found, strict=True)
            if isinstance(decision, Decision) and not isinstance(item, Failure)
        ]
        explained = iter(self._explain(wanted))
        return [
            one
            if isinstance(one, Failure)
            else Outcome(
                **{**one.__dict__, "explanation": next(explained), "policy": self.policy.name}
            )
            for one in found
        ]

    def decide(self, batch: Sequence[Prepared]) -> list[Decision]:
        """Decide on prepared images with one forward, without explaining any.

        Args:
            batch: Prepared images.

        Returns:
            One decision an image.
        """
        from visxai.engine.batch import reported

        if not batch:
            return []
        x = self.engine.tensor([item.pixels for item in batch])
        probe = self.engine.probe(x)
        columns = [reported(probe, x, gate.target).tolist() for gate in self._gates]
        return [self.judge([column[row] for column in columns]) for row in range(len(batch))]

    def judge(self, scores: Sequence[float]) -> Decision:
        """Apply the policy to the scores of its rules.

        Args:
            scores: The score of each rule, in their order.
        """
        return judge(self.policy, self._gates, scores)

    def _explain(
        self, wanted: Sequence[tuple[Prepared, Decision]]
    ) -> list[ImageExplanation | None]:
        """Explain the flagged images of a batch, those of one rule together."""
        found: dict[int, ImageExplanation] = {}
        for category in dict.fromkeys(one.category for _, one in wanted if one.flagged):
            places = [
                place
                for place, (_, one) in enumerate(wanted)
                if one.flagged and one.category == category
            ]
            made = self.explain([wanted[p][0] for p in places], wanted[places[0]][1].target)
            found.update(zip(places, made, strict=True))
        return [found.get(place) for place in range(len(wanted))]

    def explain(
        self, batch: Sequence[Prepared], target: str, method: str | None = None, check: Any = None
    ) -> list[ImageExplanation]:
        """Explain prepared images for a target of one map an image.

        Args:
            batch: Prepared images.
            target: What to explain, such as `Decision.target`.
            method: The method; None is the moderator's own.
            check: A loaded metric whose figures go into the records' quality.

        Returns:
            One explanation an image.
        """
        from visxai.engine.engine import load_methods
        from visxai.target import Target

        began = time.perf_counter()
        parsed = Target.of(target, self.engine.model.labels)
        loaded = load_methods(method or self.method)[:1]
        results = self.engine.explain_prepared(batch, loaded, parsed, None, check)
        share = (time.perf_counter() - began) / max(1, len(batch))
        found = []
        for one in results:
            assert not isinstance(one, Failure)
            found.append(replace(one.explanations[0], seconds=share))
        return found
