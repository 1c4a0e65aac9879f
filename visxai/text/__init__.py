"""Texts: which words made the model say that?

engine = visxai.text.Engine("toxicity")
engine.explain(["You are an idiot"], target="class=toxic")
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from visxai._lazy import hand_on

if TYPE_CHECKING:
    from visxai.text import methods
    from visxai.text.cards import names
    from visxai.text.debugging import debug
    from visxai.text.engine import Engine

__all__ = ["Engine", "debug", "methods", "names"]

__getattr__, __dir__ = hand_on(
    __name__,
    {
        "Engine": "engine",
        "debug": "debugging",
        "methods": "",
        "names": "cards",
    },
)
