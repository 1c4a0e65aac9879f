"""The card of a fused model: an image model, a text model and the rule that joins their scores.

    label = "harmful"
    rule = "noisy_or"           # or max, or mean

    [image]
    model = "nsfw"              # as visxai.Engine takes it
    target = "class=nsfw"
    method = "grad_cam"         # may be left out
    weight = 0.5                # of the rule mean, may be left out

    [text]
    model = "toxicity"          # as visxai.text.Engine takes it
    target = "class=toxic"

What is fused are the scores that both models report, from 0 to 1.
"""

from __future__ import annotations

import os
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from visxai.errors import ModelError
from visxai.foreign import shown
from visxai.fused.rules import RULES, Rule
from visxai.schemas import mismatch

_WORD = {"type": "string"}
_PART: dict[str, Any] = {
    "type": "object",
    "properties": dict.fromkeys(("model", "target", "method"), _WORD),
    "required": ["model", "target"],
    "additionalProperties": False,
}
_WEIGHT = {"weight": {"type": "number", "minimum": 0, "maximum": 1}}
_CARD = {
    "type": "object",
    "properties": {
        "label": _WORD,
        "rule": {"enum": list(RULES)},
        "summary": _WORD,
        "image": {**_PART, "properties": {**_PART["properties"], **_WEIGHT}},
        "text": _PART,
    },
    "required": ["label", "image", "text"],
    "additionalProperties": False,
}


@dataclass(frozen=True)
class Part:
    """What a card says about one of the two models.

    Attributes:
        model: The model's name.
        target: What is scored, of one class or a set.
        method: The method that explains it.
    """

    model: str
    target: str
    method: str


@dataclass(frozen=True)
class Card:
    """A fused model.

    Attributes:
        label: What the fused score is a score of.
        image: The image model.
        text: The text model.
        rule: The rule that joins their scores.
        name: The model's name.
    """

    label: str
    image: Part
    text: Part
    rule: Rule = field(default_factory=Rule)
    name: str = "fused"

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Card:
        """Read a card from a TOML file.

        Raises:
            ModelError: The file can't be read, or states no whole model.
        """
        place = Path(path)
        try:
            told: Any = tomllib.loads(place.read_text("utf-8"))
            wrong = mismatch(told, _CARD)
        except (OSError, ValueError, RecursionError) as error:
            told, wrong = {}, str(error)
        if wrong is not None:
            raise ModelError(
                f"expected a card of a fused model with label, [image] and [text] in "
                f"{shown(place)}, got one with {wrong} missing or wrong: see docs/fused.md"
            )
        return cls(
            told["label"],
            _part(told["image"], "grad_cam"),
            _part(told["text"], "integrated_gradients"),
            Rule(told.get("rule", "noisy_or"), float(told["image"].get("weight", 0.5))),
            place.stem,
        )


def _part(told: dict[str, str], method: str) -> Part:
    return Part(told["model"], told["target"], told.get("method", method))


def is_card(name: str) -> bool:
    """Tell whether a model's name is the file of a fused model's card."""
    if not name.endswith(".toml") or not os.path.isfile(name):
        return False
    try:
        told = tomllib.loads(Path(name).read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(told.get("image"), dict) and isinstance(told.get("text"), dict)
