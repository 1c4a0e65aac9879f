"""What a classifier says of a text, in a form that is right or wrong.

Choice      the model chooses one of its classes
Presence    a class is there or not, by a threshold on its score: for independent classes
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from visxai.errors import Argument, ArgumentError, TargetError, UnknownName
from visxai.labels import class_finder, label_of
from visxai.target import Target
from visxai.text.engine import Engine

_YES, _NO = ("1", "true", "yes"), ("0", "false", "no")


@dataclass(frozen=True)
class Said:
    """What a model says of a text.

    Attributes:
        index: The answer's index.
        label: The answer's name.
        score: Its score.
    """

    index: int
    label: str
    score: float


@dataclass(frozen=True)
class Decision(ABC):
    """A question that a model answers about texts, one of several answers each.

    Attributes:
        engine: The engine.
    """

    engine: Engine

    @abstractmethod
    def answers(self, texts: Sequence[str]) -> list[Said]:
        """Ask the model about texts."""

    @abstractmethod
    def name(self, index: int) -> str:
        """Return an answer's name."""

    @abstractmethod
    def find(self, label: str | int) -> int:
        """Find the answer that a text's label names.

        Raises:
            ArgumentError: There is no such answer.
        """

    @abstractmethod
    def scores(self, texts: Sequence[str], index: int) -> Any:
        """Score an answer for each text, (n,)."""

    @abstractmethod
    def classes(self, given: Sequence[int]) -> list[int]:
        """Return the model's class that explains each answer."""


@dataclass(frozen=True)
class Choice(Decision):
    """The class that a model chooses."""

    def answers(self, texts: Sequence[str]) -> list[Said]:
        """Ask the model about texts."""
        return [Said(one.class_index, one.label, one.score) for one in self.engine.predict(texts)]

    def name(self, index: int) -> str:
        """Return an answer's name."""
        return label_of(self.engine.model.labels, index)

    def find(self, label: str | int) -> int:
        """Find the answer that a text's label names; see `Decision.find`."""
        return label if isinstance(label, int) else class_finder(self.engine.model.labels)(label)

    def scores(self, texts: Sequence[str], index: int) -> Any:
        """Score an answer for each text, (n,)."""
        return np.array(self.engine.score(texts, index))

    def classes(self, given: Sequence[int]) -> list[int]:
        """Return the model's class that explains each answer."""
        return list(given)


@dataclass(frozen=True)
class Presence(Decision):
    """Whether a text has a class: 1 where its score is above the threshold, else 0.

    Attributes:
        index: The class.
        threshold: The score above which it is there, 0 to 1.
    """

    index: int
    threshold: float = 0.5

    def answers(self, texts: Sequence[str]) -> list[Said]:
        """Ask the model about texts."""
        return [
            Said(there, self.name(there), score if there else 1 - score)
            for score in self.engine.score(texts, self.index)
            for there in [int(score > self.threshold)]
        ]

    def name(self, index: int) -> str:
        """Return an answer's name."""
        label = label_of(self.engine.model.labels, self.index)
        return label if index else f"not {label}"

    def find(self, label: str | int) -> int:
        """Find the answer that a text's label names; see `Decision.find`."""
        said = str(label).strip().casefold()
        for index, known in enumerate((_NO, _YES)):
            if said in (*known, self.name(index).casefold()):
                return index
        raise UnknownName("label", str(label), (self.name(1), self.name(0), *_YES, *_NO))

    def scores(self, texts: Sequence[str], index: int) -> Any:
        """Score an answer for each text, (n,)."""
        found = np.array(self.engine.score(texts, self.index))
        return found if index else 1 - found

    def classes(self, given: Sequence[int]) -> list[int]:
        """Return the model's class that explains each answer."""
        return [self.index] * len(given)


def decision_of(engine: Engine, target: str | int | None, threshold: float) -> Decision:
    """Make the decision that is judged.

    Args:
        engine: The engine.
        target: A class that is there or not, as "toxic" or "class=toxic"; None for the class that
            the model chooses.
        threshold: The score above which the class is there.

    Raises:
        ArgumentError: The model's classes are independent and none is named, or a class is named
            for a model whose scores are no probabilities.
        TargetError: The target isn't one class.
    """
    model = engine.model
    if target is None:
        if model.activation == "sigmoid":
            first = label_of(model.labels, 0)
            raise ArgumentError(
                expected=f"one class of {model.ref.name}, which decides each by itself",
                got="none",
                remedy=("choose one, as in ", Argument("target", f"class={first}")),
                field="target",
            )
        return Choice(engine)
    aimed = Target.of(target, model.labels)
    if aimed.kind != "class":
        raise TargetError(f"expected one class, got {target!r}: use class=toxic or the like")
    if model.activation == "none" or not 0 < threshold < 1:
        raise ArgumentError(
            expected="probabilities and a threshold between 0 and 1",
            got=f"the activation {model.activation} and {threshold}",
            remedy="name no class where the model chooses one, or pass activation='sigmoid'",
            field="threshold",
        )
    return Presence(engine, aimed.classes[0], threshold)
