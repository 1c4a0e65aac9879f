"""Loading of models by name: the cards, and torchvision, timm, Hugging Face and ONNX by prefix.

    load("efficientnet_lite0")                 a card's model, its weights from a package
    load("torchvision:resnet50")               torchvision's weights and preprocessing
    load("timm:vit_small_patch16_224")         timm's weights and preprocessing
    load("hf:google/vit-base-patch16-224")     Hugging Face's; also a local folder
    load("onnx:model.onnx")                    a file, run by ONNX Runtime; model.toml beside it
                                               may describe it, as a card does
    load("keras:model.keras")                  a Keras model, on Keras' torch backend
    load("timm:resnet18", checkpoint="mine.safetensors", labels="labels.txt")

A card states everything about a named model: where the weights come from and their sha256, the
licence, the architecture, preprocessing, activation, CAM layer and labels.
"""

from __future__ import annotations

import os
import sys
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from visxai.errors import ArgumentError, ModelError, UnknownName
from visxai.foreign import shown
from visxai.labels import Labels, read_labels
from visxai.models import hubs
from visxai.models import weights as fetching
from visxai.models.cards import PREFIXES, Card, _preprocess, card, imagenet_labels
from visxai.models.checkpoint import read
from visxai.models.weights import bundled_file, packaged_file

if TYPE_CHECKING:
    import torch

    from visxai.models.interface import Model


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
    """Load a model by name.

    Args:
        name: a card's name, or a name with the prefix torchvision:, timm:, hf:, onnx: or keras:.
        weights: for torchvision, timm and Hugging Face: False leaves the weights random, for tests
            and benchmarks.
        checkpoint: for torchvision and timm: a file of weights to load instead of the library's.
            Its classifier determines the number of classes.
        build: for torchvision and timm: arguments of the architecture's constructor.
        labels: the classes' names in order, or a file with a name a line; they replace the model's
            own.
        device: where the model runs.
        given: preprocess, layer, activation, output (and layout for ONNX), which replace the
            model's own.

    Raises:
        UnknownName: no model has this name; the message lists the choices.
        ArgumentError: arguments don't fit the kind of model.
        ModelError: weights are missing, damaged or of another architecture.
        MissingExtra: a package that this kind of model needs isn't installed.
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
    if prefix == "keras":
        from visxai.models import keras
        from visxai.models.pytorch.model import TorchModel

        module, known = keras.load(Path(rest))
        known = {**known, **_beside(Path(rest)), **own}
        placed = module.to(device) if device is not None else module
        return TorchModel(placed, name=f"keras:{Path(rest).name}", **known)
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
    from visxai.models.pytorch.model import TorchModel

    known.update(own)
    return TorchModel(module.to(device) if device is not None else module, name=name, **known)


def _onnx(path: Path, name: str, device: Any, known: dict[str, Any]) -> Model:
    """Load the model in an ONNX file."""
    from visxai.models.onnx.model import load as load_onnx

    return load_onnx(path, name=name, device=device, **known)


def fetch(name: str, progress: Callable[[str], None] | None = None) -> Path:
    """Fetch the weights of a named model whose weights don't come with visxai.

    Args:
        name: a card's name.
        progress: called with a sentence for each step.

    Returns:
        Where the weights are kept.

    Raises:
        UnknownName: no card has this name.
        ArgumentError: the model's weights are installed already, and never fetched.
        ModelError: the download failed, or the file's sha256 isn't the card's.
    """
    source = card(name).source
    if "fetch" not in source:
        raise ArgumentError(
            f"expected a model whose weights are fetched apart, got {name}, whose weights are "
            f"installed: use it as visxai.Engine({name!r})"
        )
    return fetching.fetch(name, source, progress)


def describe(module: Any) -> dict[str, Any]:
    """Return what a module of the caller's own states about itself, as a model's arguments.

    Args:
        module: any module; those of timm, Hugging Face and torchvision's detectors and segmenters
            state something.

    Returns:
        Some of preprocess, labels, activation, layer and output; empty for any other module.
    """
    from visxai.models import detection

    timm_config = getattr(module, "pretrained_cfg", None)
    config = getattr(module, "config", None)
    if isinstance(timm_config, dict):
        return {"preprocess": hubs.timm_preprocess(module)}
    if config is not None and hasattr(config, "id2label"):
        return hubs.hugging_face_labels(config)
    return detection.describe(module)


def _beside(path: Path) -> dict[str, Any]:
    """Read what the card beside a file states about its model: model.toml describes model.onnx.

    Returns:
        The model's arguments that the card states; every field is optional, and so is the card.

    Raises:
        ModelError: the card can't be read.
    """
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
    """Build the model of a card; return the module and what the card states about it."""
    path = bundled_file(found.source) if "bundled" in found.source else packaged_file(found.source)
    module = _built(found)
    state = read(path)
    if found.build.get("keys") == "order":
        state = _renamed(state, module.state_dict(), found.name)
    # A file may hold tensors in any order of memory, which would change the last bits of sums.
    state = {key: value.contiguous() for key, value in state.items()}
    empty = next(module.parameters()).is_meta  # there is nothing yet that could be copied into
    module.load_state_dict(state, strict=True, assign=empty)
    return module.eval(), found.stated()


def _built(found: Card) -> Any:
    """Build the architecture that a card names; visxai's own have no memory for weights yet."""
    options = found.build.get("options", {})
    if found.build.get("visxai") == "efficientnet_lite":
        import torch

        from visxai.models.pytorch.efficientnet_lite import EfficientNetLite

        with torch.device("meta"):
            return EfficientNetLite(**options)
    import timm

    return timm.create_model(found.build["timm"], pretrained=False, **options)


def is_pipeline(source: Any) -> bool:
    """Return whether an object is a Hugging Face pipeline that classifies images."""
    module, processor = getattr(source, "model", None), getattr(source, "image_processor", None)
    return processor is not None and hasattr(module, "forward") and hasattr(module, "config")


def is_keras(source: Any) -> bool:
    """Return whether an object is a Keras model."""
    library = sys.modules.get("keras")
    return library is not None and isinstance(source, library.Model)


def _renamed(state: Mapping[str, Any], wanted: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Rename the weights to the architecture's own names, matched in order by suffix and shape."""
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


def wrap(model: Any, device: str | torch.device, given: dict[str, Any]) -> Model:
    """Wrap a module, a Hugging Face pipeline around one, or a function from pixels to scores."""
    from torch import nn

    from visxai.models.devices import pick_device
    from visxai.models.pytorch.model import TorchModel
    from visxai.models.pytorch.modules import unwrapped

    placed = None if device == "auto" else pick_device(device)
    known: dict[str, Any] = {}
    if is_keras(model):
        from visxai.models import keras

        model, known = keras.of(model)
        given = {**known, **{key: value for key, value in given.items() if value is not None}}
    if not isinstance(model, nn.Module) and is_pipeline(model):
        model, known = model.model, {"preprocess": model.image_processor}
    own = {key: value for key, value in given.items() if value is not None}
    if isinstance(model, nn.Module) or not callable(model) or isinstance(model, type):
        known = {**describe(unwrapped(model)), **known, **own}
        known["labels"] = read_labels(known.get("labels"))
        return TorchModel(model, device=placed, **known)
    from visxai.models.blackbox import BlackBox

    if "layer" in own:
        raise ArgumentError(
            "expected a function without layer=, since its layers can't be seen: pass the "
            "nn.Module itself for methods that look at one"
        )
    own["labels"] = read_labels(own.get("labels"))
    return BlackBox(model, device=placed, **own)
