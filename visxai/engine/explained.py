"""What the engine finds about one image: what it hands on to those who store and show it."""

from __future__ import annotations

from dataclasses import dataclass

from visxai.record.image import ImageExplanation
from visxai.record.scores import Scores
from visxai.references import ImageRef


@dataclass(frozen=True)
class Explained:
    """The engine's result for one image.

    Attributes:
        input: The image.
        explanations: Its explanations, in the order of the methods; empty if a gate excluded it.
        scores: The greatest scores that the model gives the image.
        right: Whether its label has the greatest score, None without a label.
    """

    input: ImageRef
    explanations: tuple[ImageExplanation, ...]
    scores: Scores
    right: bool | None = None
