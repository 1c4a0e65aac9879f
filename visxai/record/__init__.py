"""Records: the result of explaining an input, and how a record is stored."""

from __future__ import annotations

from typing import TYPE_CHECKING

from visxai._lazy import hand_on

if TYPE_CHECKING:
    from visxai.record.base import Explanation
    from visxai.record.collection import Explanations
    from visxai.record.columns import SCHEMA_VERSION, schema
    from visxai.record.image import ImageExplanation, Prediction
    from visxai.record.pair import PairExplanation
    from visxai.record.table import TableExplanation
    from visxai.record.text import TextExplanation

__all__ = [
    "SCHEMA_VERSION",
    "Explanation",
    "Explanations",
    "ImageExplanation",
    "PairExplanation",
    "Prediction",
    "TableExplanation",
    "TextExplanation",
    "schema",
]

__getattr__, __dir__ = hand_on(
    __name__,
    {
        "Explanation": "base",
        "Explanations": "collection",
        "SCHEMA_VERSION": "columns",
        "schema": "columns",
        "ImageExplanation": "image",
        "Prediction": "image",
        "PairExplanation": "pair",
        "TableExplanation": "table",
        "TextExplanation": "text",
    },
)
