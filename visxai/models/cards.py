"""The cards of named models: what each model is, and where its weights and preprocessing lie."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from visxai.errors import ModelError, UnknownName
from visxai.models import hubs
from visxai.schemas import mismatch

if TYPE_CHECKING:
    from visxai.images.preprocess import Preprocess

DEFAULT = "efficientnet_lite0"
PREFIXES = ("torchvision", "timm", "hf", "onnx", "keras")
OTHERS = "torchvision:NAME, timm:NAME, hf:NAME, onnx:FILE or keras:FILE"

_TEXT = {"type": "string"}
_NUMBERS = {"type": "array", "items": {"type": "number"}}
_SIDES = {"type": "array", "items": {"type": "integer"}}
_CARD = {
    "type": "object",
    "properties": {
        **dict.fromkeys(("summary", "licence", "activation", "layer"), _TEXT),
        "source": {"type": "object"},
        "build": {"type": "object"},
        "preprocess": {
            "type": "object",
            "properties": {
                **dict.fromkeys(("interpolation", "channels", "rounding", "side"), _TEXT),
                **dict.fromkeys(("mean", "std"), _NUMBERS),
                "size": _SIDES,
                "resize": {"type": ["integer", "array"], "items": {"type": "integer"}},
            },
            "required": ["size"],
            "additionalProperties": False,
        },
        "labels": {"type": ["string", "array"], "items": _TEXT},
    },
    "required": ["summary", "licence", "activation", "source", "build", "preprocess", "labels"],
    "additionalProperties": False,
}


@dataclass(frozen=True)
class Card:
    """A named model's card, as its TOML file states it.

    Attributes:
        name: the model's name, which is also the file's.
        summary: a sentence that describes the model.
        licence: the licence of the weights.
        source: where the weights come from, and their sha256.
        build: the architecture and the arguments of its constructor.
        preprocess: the arguments of `Preprocess`.
        activation: how scores become probabilities.
        layer: the layer whose activations a CAM reads; None leaves the choice to the model.
        labels: the names of the classes, in order.
    """

    name: str
    summary: str
    licence: str
    source: Mapping[str, Any]
    build: Mapping[str, Any]
    preprocess: Mapping[str, Any]
    activation: str
    layer: str | None
    labels: tuple[str, ...]

    @classmethod
    def of(cls, name: str, data: bytes) -> Card:
        """Read a card from the bytes of its TOML file.

        Args:
            name: the model's name.
            data: the file's content, UTF-8.

        Raises:
            ModelError: the content isn't TOML, or doesn't describe a whole model.
        """
        try:
            told = tomllib.loads(data.decode("utf-8"))
        except (ValueError, RecursionError) as error:
            raise ModelError(
                f"expected the card of {name} to be TOML, got something else ({error}): reinstall "
                "visxai"
            ) from None
        wrong = mismatch(told, _CARD)
        if wrong is not None:
            raise ModelError(
                f"expected the card of {name} to state a whole model, got one with {wrong} "
                "missing or wrong: reinstall visxai"
            )
        labels = told["labels"]
        if isinstance(labels, str):
            labels = _named(name, labels)
        return cls(
            name=name,
            summary=told["summary"],
            licence=told["licence"],
            source=told["source"],
            build=told["build"],
            preprocess=told["preprocess"],
            activation=told["activation"],
            layer=told.get("layer"),
            labels=tuple(labels),
        )

    def stated(self) -> dict[str, Any]:
        """Return what the card states about its model, as a model's arguments."""
        return {
            "preprocess": _preprocess(self.preprocess),
            "labels": self.labels,
            "activation": self.activation,
            "layer": self.layer,
        }


def _named(name: str, file: str) -> list[str]:
    """Read the labels in a file beside the cards, a label a line."""
    path = folder() / file
    if Path(file).name != file or not path.is_file():
        raise ModelError(
            f"expected the labels of {name} in a file beside its card, got {file!r}: reinstall "
            "visxai"
        )
    return path.read_text("utf-8").splitlines()


def folder() -> Path:
    """Return the cards' folder: beside the package in an installation, above it in a checkout.

    Raises:
        ModelError: neither folder exists.
    """
    here = Path(__file__).resolve().parents[1]
    for found in (here / "_models", here.parent / "models"):
        if found.is_dir():
            return found
    raise ModelError(
        f"expected the model cards in {here / '_models'}, found none: reinstall visxai"
    )


def _meant(name: str) -> list[str] | None:
    """Suggest complete names for a name that has no card; None where it resembles no other kind."""
    if name.lower().endswith(".onnx"):
        return [f"onnx:{name}"]
    if "/" in name:
        return [f"hf:{name}"]
    return hubs.prefixed(name) or None


@cache
def names() -> tuple[str, ...]:
    """Return the names of all cards, sorted."""
    return tuple(sorted(path.stem for path in folder().glob("*.toml")))


def card(name: str) -> Card:
    """Return the card of a named model.

    Raises:
        UnknownName: no card has this name; the message lists the choices.
        ModelError: the card is damaged.
    """
    if name not in names():
        raise UnknownName("model", name, names(), f"(of libraries: {OTHERS})", _meant(name))
    return Card.of(name, (folder() / f"{name}.toml").read_bytes())


def _preprocess(stated: Mapping[str, Any]) -> Preprocess:
    """Build the preprocessing that a card states."""
    from visxai.images.preprocess import Preprocess

    options: dict[str, Any] = dict(stated)  # Preprocess makes tuples of its lists
    return Preprocess(**options)


def without_preprocess(name: str) -> str:
    """Return the beginning of the error message for a model without preprocessing."""
    return (
        f"expected a preprocess for {name}, which has none of its own: pass "
        "preprocess=visxai.Preprocess(size=(224, 224), ...) to the engine (on the command line "
        "--size, --resize, --mean and --std; for onnx:model.onnx a card model.toml beside it does "
        "as well)"
    )


def imagenet_labels() -> list[str]:
    """Return the names of the 1000 classes of ImageNet-1k, in the usual order."""
    return (folder() / "imagenet1k.txt").read_text("utf-8").splitlines()
