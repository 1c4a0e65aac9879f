"""What a model has learnt to see: a layer's concepts, where they lie and what they matter."""

from __future__ import annotations

from typing import TYPE_CHECKING

from visxai._lazy import hand_on

if TYPE_CHECKING:
    from visxai.concepts.class_concepts import craft
    from visxai.concepts.directions import Tcav, tcav
    from visxai.concepts.factorization import deep_feature_factorization
    from visxai.concepts.found import Concepts

__all__ = ["Concepts", "Tcav", "craft", "deep_feature_factorization", "tcav"]

__getattr__, __dir__ = hand_on(
    __name__,
    {
        "Concepts": "found",
        "Tcav": "directions",
        "craft": "class_concepts",
        "deep_feature_factorization": "factorization",
        "tcav": "directions",
    },
)
