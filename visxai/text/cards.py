"""Cards of the text models that come with visxai, read without PyTorch."""

from __future__ import annotations

import tomllib
from functools import cache
from typing import Any

from visxai.errors import ModelError, UnknownName
from visxai.models.cards import folder
from visxai.schemas import mismatch

_WORD = {"type": "string"}
_CARD = {
    "type": "object",
    "properties": {
        **dict.fromkeys(("summary", "licence", "activation"), _WORD),
        "labels": {"type": "array", "items": _WORD},
        "length": {"type": "integer", "minimum": 1},
        "source": {
            "type": "object",
            "properties": dict.fromkeys(
                ("weights", "words", "weights_sha256", "words_sha256"), _WORD
            ),
            "required": ["weights", "words", "weights_sha256", "words_sha256"],
        },
    },
    "required": ["summary", "licence", "activation", "labels", "length", "source"],
}


@cache
def names() -> tuple[str, ...]:
    """List the names of the text models with a card, sorted."""
    return tuple(sorted(path.stem for path in (folder() / "text").glob("*.toml")))


def card(name: str) -> dict[str, Any]:
    """Read the card of a named text model.

    Raises:
        UnknownName: No text model has this name.
        ModelError: The card is damaged.
    """
    if name not in names():
        raise UnknownName("text model", name, names(), "(or hf:FOLDER, of Hugging Face)")
    try:
        told = tomllib.loads((folder() / "text" / f"{name}.toml").read_text("utf-8"))
        wrong = mismatch(told, _CARD)
    except ValueError as error:
        told, wrong = {}, str(error)
    if wrong is not None:
        raise ModelError(
            f"expected the card of {name} to state a whole text model, got one with {wrong} "
            "missing or wrong: reinstall visxai"
        )
    return told
