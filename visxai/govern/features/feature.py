"""What a feature of explanations is called, its range, and what it says."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Feature:
    """A number that describes an explanation.

    Attributes:
        name: Its name, also that of its column.
        low: The least value it can have.
        high: The greatest value it can have.
        meaning: What it says, in one phrase.
    """

    name: str
    low: float
    high: float
    meaning: str
