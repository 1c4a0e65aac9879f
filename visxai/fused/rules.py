"""Rules that make one score of two, and the Shapley values of two players.

    noisy_or    1 - (1 - p) (1 - q)     the chance of either, were they independent
    max         max(p, q)
    mean        w p + (1 - w) q         w is the image's weight

p is the image's score and q the text's, both from 0 to 1. With v(S) the fused score where only the
parts in S are shown, and a blank image or an empty text stands for the other:

    phi_image   = ( v(image) - v() + v(both) - v(text)  ) / 2
    phi_text    = ( v(text)  - v() + v(both) - v(image) ) / 2
    interaction =   v(both) - v(image) - v(text) + v()

They are exact, since two players have four coalitions, and phi_image + phi_text = v(both) - v().

Source: Shapley, A value for n-person games, 1953; Pearl, Probabilistic reasoning in intelligent
systems, 1988 (noisy-or); Grabisch & Roubens, An axiomatic approach to the concept of interaction
among players in cooperative games, 1999.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

RuleName = Literal["noisy_or", "max", "mean"]
RULES: tuple[RuleName, ...] = ("noisy_or", "max", "mean")


@dataclass(frozen=True)
class Rule:
    """A rule.

    Attributes:
        name: The rule.
        weight: The image's weight in the mean, 0 to 1.
    """

    name: RuleName = "noisy_or"
    weight: float = 0.5

    def __str__(self) -> str:
        return f"mean(image={self.weight:g})" if self.name == "mean" else self.name

    def __call__(self, image: float, text: float) -> float:
        """Fuse the scores of an image and a text, each from 0 to 1."""
        if self.name == "noisy_or":
            return 1 - (1 - image) * (1 - text)
        if self.name == "max":
            return max(image, text)
        return self.weight * image + (1 - self.weight) * text


class Shares(NamedTuple):
    """What two parts added to a score.

    Attributes:
        image: The image's Shapley value.
        text: The text's.
        interaction: What both add together beyond what each adds alone.
        base: The score without both.
    """

    image: float
    text: float
    interaction: float
    base: float


def shares(rule: Rule, image: float, text: float, blank: tuple[float, float]) -> Shares:
    """Divide a fused score among its parts.

    Args:
        rule: The rule.
        image: The image's score.
        text: The text's score.
        blank: The scores of a blank image and of an empty text.
    """
    both, none = rule(image, text), rule(*blank)
    alone, other = rule(image, blank[1]), rule(blank[0], text)
    return Shares(
        (alone - none + both - other) / 2,
        (other - none + both - alone) / 2,
        both - alone - other + none,
        none,
    )
