"""Models by another library's name: torchvision, timm, Hugging Face.

Each loader gives the module and what is known about it: preprocessing, labels, activation, layer
and output. Weights come from the library, from a checkpoint of the caller's, or stay random.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from visxai import checkpoint as checkpoints
from visxai.errors import ArgumentError, UnknownName, require

Known = dict[str, Any]


@dataclass(frozen=True)
class Request:
    """What is asked of a loader.

    weights: False leaves them random; checkpoint: a file of them instead; build: arguments of the
    architecture's constructor; labels: the caller's, which for a CLIP-like model are its prompts.
    """

    name: str
    weights: bool = True
    checkpoint: str | os.PathLike[str] | None = None
    build: Mapping[str, Any] = field(default_factory=dict)
    labels: tuple[str, ...] | None = None


def torchvision(request: Request) -> tuple[Any, Known]:
    """A classifier, detector or segmenter of torchvision."""
    from torchvision import models as zoo

    from visxai.backends import detection

    name = request.name
    served = [
        one
        for part in (zoo, zoo.detection, zoo.segmentation)
        for one in zoo.list_models(module=part)
    ]
    if name not in served:
        raise UnknownName("torchvision model", name, served)
    chosen = zoo.get_model_weights(name).DEFAULT

    def build(**more: Any) -> Any:
        if request.weights and request.checkpoint is None:
            return zoo.get_model(name, weights=chosen, **request.build)
        if name not in zoo.list_models(module=zoo):
            more = {"weights_backbone": None, **more}
        return zoo.get_model(name, weights=None, **{**more, **request.build})

    categories = chosen.meta.get("categories", ())
    module = _fitted(request, build, len(categories))
    known: Known = {"preprocess": chosen.transforms(), **detection.describe(module)}
    if "num_classes" not in request.build and _keeps_classes(request, module, len(categories)):
        known["labels"] = categories
    return module, known


def timm(request: Request) -> tuple[Any, Known]:
    """A classifier of timm."""
    import timm as library

    name = request.name
    if not name.startswith("hf-hub:") and not library.is_model(name.partition(".")[0]):
        raise UnknownName("timm model", name, library.list_models())

    def build(**more: Any) -> Any:
        pretrained = request.weights and request.checkpoint is None
        return library.create_model(name, pretrained=pretrained, **{**more, **request.build})

    module = _fitted(request, build, 1000)
    return module, {"preprocess": timm_preprocess(module)}


def timm_preprocess(module: Any) -> dict[str, Any]:
    """timm's data config of a module, at the input size it was built for."""
    import timm.data

    size = getattr(getattr(module, "patch_embed", None), "img_size", None)
    options = {"input_size": (3, *size)} if isinstance(size, tuple) else {}
    return dict(timm.data.resolve_data_config(options, model=module))


def hugging_face(request: Request) -> tuple[Any, Known]:
    """An image classifier, or a CLIP-like model with prompts as classes, by name or folder."""
    name = request.name
    transformers = require("transformers", "hf", f"the model hf:{name}")
    if request.checkpoint is not None or request.build:
        raise ArgumentError(
            f"expected hf:{name} alone, got a checkpoint or build arguments too: save the model "
            "with save_pretrained() and name its folder"
        )
    config = transformers.AutoConfig.from_pretrained(name)
    both = hasattr(config, "text_config") and hasattr(config, "vision_config")
    kind = transformers.AutoModel if both else transformers.AutoModelForImageClassification
    module = kind.from_pretrained(name) if request.weights else kind.from_config(config)
    preprocess = transformers.AutoImageProcessor.from_pretrained(name)
    if not both:
        return module, {**hugging_face_labels(config), "preprocess": preprocess}
    from visxai.backends.prompts import embed

    tokenizer = transformers.AutoTokenizer.from_pretrained(name)
    prompts = request.labels or ()
    return embed(module, tokenizer, prompts, f"hf:{name}"), {
        "preprocess": preprocess,
        "labels": prompts,
        # SigLIP is trained to judge each pair of image and text by itself.
        "activation": "sigmoid" if config.model_type.startswith("siglip") else "softmax",
    }


def hugging_face_labels(config: Any) -> Known:
    """Labels and activation that a Hugging Face config states."""
    known: Known = {}
    id2label = getattr(config, "id2label", None)
    if id2label:
        known["labels"] = [str(id2label[index]) for index in sorted(id2label)]
    if getattr(config, "problem_type", None) == "multi_label_classification":
        known["activation"] = "sigmoid"
    return known


# ---- checkpoints -------------------------------------------------------------------------------


def _fitted(request: Request, build: Callable[..., Any], default: int) -> Any:
    """The module, with the checkpoint's weights and number of classes where there is one."""
    module = build()
    if request.checkpoint is None:
        return module
    default = getattr(module, "num_classes", None) or default
    wanted = module.state_dict()
    state = checkpoints.fit(checkpoints.read(request.checkpoint), wanted)
    count = checkpoints.classes(state, wanted, default)
    if count not in (None, default) and "num_classes" not in request.build:
        module = build(num_classes=count)
    checkpoints.load_into(module, state, request.name)
    if request.labels is not None and count is not None and len(request.labels) != count:
        raise ArgumentError(
            f"expected {count} labels for the checkpoint's {count} classes, got "
            f"{len(request.labels)}: pass one label a class, in order"
        )
    return module


def _keeps_classes(request: Request, module: Any, default: int) -> bool:
    """Whether a module still has the library's own classes."""
    if request.checkpoint is None:
        return True
    state = module.state_dict()
    return checkpoints.classes(state, state, default) == default
