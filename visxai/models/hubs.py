"""Models by another library's name: torchvision, timm, Hugging Face.

Each loader returns the module and what is known about it: preprocessing, labels, activation, layer
and output. Weights come from the library or from a checkpoint of the caller's, or stay random.
`timm:NAME@REVISION` and `hf:NAME@REVISION` pin a commit, tag or branch of the hub. Code that a hub
keeps beside weights is never run.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from visxai.errors import ArgumentError, ModelError, UnknownName, require
from visxai.foreign import shown
from visxai.models import checkpoint as checkpoints

Known = dict[str, Any]


@dataclass(frozen=True)
class Request:
    """The model that a loader shall build.

    Attributes:
        name: the model's name in its library, without the prefix.
        weights: whether to load weights; False leaves them random.
        checkpoint: a file of weights that replaces the library's.
        build: arguments of the architecture's constructor.
        labels: the caller's labels, which for a CLIP-like model are its prompts.
    """

    name: str
    weights: bool = True
    checkpoint: str | os.PathLike[str] | None = None
    build: Mapping[str, Any] = field(default_factory=dict)
    labels: tuple[str, ...] | None = None


def prefixed(name: str) -> list[str]:
    """Return an architecture's name with the prefix of each library that has it.

    Example: "resnet50" becomes "torchvision:resnet50" and "timm:resnet50".
    """
    import timm as library

    found = [f"torchvision:{name}"] * (name in _torchvision_names())
    return found + [f"timm:{name}"] * library.is_model(name.partition(".")[0])


def _torchvision_names() -> list[str]:
    """Return the names of torchvision's classifiers, detectors and segmenters."""
    from torchvision import models as zoo

    parts = (zoo, zoo.detection, zoo.segmentation)
    return [one for part in parts for one in zoo.list_models(module=part)]


def torchvision(request: Request) -> tuple[Any, Known]:
    """Build a classifier, detector or segmenter of torchvision.

    Args:
        request: the model to build.

    Returns:
        The module, and what is known about it, as a model's arguments.

    Raises:
        UnknownName: torchvision has no such model.
        ArgumentError: the number of labels isn't the checkpoint's number of classes.
        ModelError: the weights can't be fetched, or the checkpoint doesn't fit.
    """
    from torchvision import models as zoo

    from visxai.models import detection

    name, served = request.name, _torchvision_names()
    if name not in served:
        raise UnknownName("torchvision model", name, served)
    chosen = zoo.get_model_weights(name).DEFAULT

    def build(**more: Any) -> Any:
        if request.weights and request.checkpoint is None:
            with fetching(f"torchvision:{name}", _OWN_WEIGHTS):
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
    """Build a classifier of timm.

    Args:
        request: the model to build.

    Returns:
        The module and its preprocessing, as a model's arguments.

    Raises:
        UnknownName: timm has no such model.
        ArgumentError: the revision can't be used, or the number of labels isn't the checkpoint's
            number of classes.
        ModelError: the weights can't be fetched, or the checkpoint doesn't fit.
    """
    import timm as library

    name, revision = pinned(request.name)
    if not name.startswith("hf-hub:") and not library.is_model(name.partition(".")[0]):
        raise UnknownName("timm model", name, library.list_models())
    given = f"{name}@{revision}" if revision and name.startswith("hf-hub:") else name
    held = _held(name, revision) if given == name else {}

    def build(**more: Any) -> Any:
        options = {**more, **request.build}
        if not request.weights or request.checkpoint is not None:
            return library.create_model(given, pretrained=False, **options)
        with fetching(f"timm:{request.name}", _OWN_WEIGHTS):
            if not options:  # options may name another source
                config = library.get_pretrained_cfg(name, allow_unregistered=True)
                reach(name.removeprefix("hf-hub:") if ":" in name else config and config.hf_hub_id)
            return library.create_model(given, pretrained=True, **held, **options)

    module = _fitted(request, build, 1000)
    return module, {"preprocess": timm_preprocess(module)}


def pinned(name: str) -> tuple[str, str | None]:
    """Split a name from the revision after its @; the name of an existing folder stays whole."""
    if os.path.isdir(name):
        return name, None
    plain, at, revision = name.partition("@")
    if at and not (plain and revision and "@" not in revision):
        raise ArgumentError(
            f"expected NAME@REVISION, got {shown(name)}: name one commit, tag or branch"
        )
    return plain, revision or None


def _held(name: str, revision: str | None) -> dict[str, Any]:
    """Return the arguments with which timm loads an architecture's weights at a revision."""
    import timm as library

    if revision is None:
        return {}
    config = library.get_pretrained_cfg(name, allow_unregistered=True)
    if not config or not config.hf_hub_id:
        raise ArgumentError(
            f"expected timm:{name} alone, got a revision too, but its weights lie in no repository "
            "of the hub: leave the revision out"
        )
    return {"pretrained_cfg_overlay": {"hf_hub_id": f"{config.hf_hub_id}@{revision}"}}


def timm_preprocess(module: Any) -> dict[str, Any]:
    """Return timm's data config of a module, at the input size that the module was built for."""
    import timm.data

    size = getattr(getattr(module, "patch_embed", None), "img_size", None)
    options = {"input_size": (3, *size)} if isinstance(size, tuple) else {}
    return dict(timm.data.resolve_data_config(options, model=module))


def hugging_face(request: Request) -> tuple[Any, Known]:
    """Build an image classifier, or a CLIP-like model with prompts as classes, by name or folder.

    Args:
        request: the model to build; for a CLIP-like model, its labels are the prompts.

    Returns:
        The module, and what is known about it, as a model's arguments.

    Raises:
        MissingExtra: transformers isn't installed.
        ArgumentError: the request has a checkpoint or build arguments, or lacks prompts.
        ModelError: the model can't be fetched.
    """
    name = request.name
    transformers = require("transformers", "hf", f"the model hf:{name}")
    if request.checkpoint is not None or request.build:
        raise ArgumentError(
            f"expected hf:{name} alone, got a checkpoint or build arguments too: save the model "
            "with save_pretrained() and name its folder"
        )
    with fetching(f"hf:{name}", "name a local folder (hf:FOLDER)"):
        return _hugging_face(request, transformers)


def _hugging_face(request: Request, transformers: Any) -> tuple[Any, Known]:
    """Build the model of a request; code beside its weights is never run."""
    name, revision = pinned(request.name)
    reach(None if os.path.isdir(name) else name)
    # Without trust_remote_code=False the library asks whether to run code beside the weights.
    options: dict[str, Any] = {"trust_remote_code": False}
    if revision is not None:
        options["revision"] = revision
    config = transformers.AutoConfig.from_pretrained(name, **options)
    both = hasattr(config, "text_config") and hasattr(config, "vision_config")
    kind = transformers.AutoModel if both else transformers.AutoModelForImageClassification
    if request.weights:
        module = kind.from_pretrained(name, **options)
    else:
        module = kind.from_config(config, trust_remote_code=False)
    preprocess = transformers.AutoImageProcessor.from_pretrained(name, **options)
    if not both:
        return module, {**hugging_face_labels(config), "preprocess": preprocess}
    from visxai.models.prompts import embed

    tokenizer = transformers.AutoTokenizer.from_pretrained(name, **options)
    prompts = request.labels or ()
    return embed(module, tokenizer, prompts, f"hf:{request.name}"), {
        "preprocess": preprocess,
        "labels": prompts,
        # SigLIP is trained to judge each pair of image and text by itself.
        "activation": "sigmoid" if config.model_type.startswith("siglip") else "softmax",
    }


def hugging_face_labels(config: Any) -> Known:
    """Return the labels and the activation that a Hugging Face config states."""
    known: Known = {}
    id2label = getattr(config, "id2label", None)
    if id2label:
        known["labels"] = [str(id2label[index]) for index in sorted(id2label)]
    if getattr(config, "problem_type", None) == "multi_label_classification":
        known["activation"] = "sigmoid"
    return known


# ---- the network -------------------------------------------------------------------------------

_OWN_WEIGHTS = "give weights of your own with --checkpoint FILE (checkpoint= in Python)"


@contextmanager
def fetching(name: str, instead: str) -> Iterator[None]:
    """Turn a library's error when it can't fetch a model into a ModelError of one sentence.

    Args:
        name: the model's name for the message.
        instead: what the caller can do without the network.
    """
    try:
        yield
    except OSError as error:
        first: BaseException = error
        while (below := first.__cause__ or first.__context__) is not None:
            first = below
        told = first.strerror if isinstance(first, OSError) else None
        reason = (told or str(first).strip() or type(first).__name__).splitlines()[0]
        raise ModelError(
            f"expected the weights of {name} on this machine or to be fetched, but that failed "
            f"({reason}): check the network and the name, or {instead}"
        ) from error


def reach(repository: str | None) -> None:
    """Raise OSError at once where a repository that isn't in the cache can't be reached.

    Its library alone would wait and try again for most of a minute.
    """
    if not repository:
        return
    import huggingface_hub as hub

    folder = hub.file_download.repo_folder_name(repo_id=repository, repo_type="model")
    if os.path.isdir(os.path.join(hub.constants.HF_HUB_CACHE, folder)):
        return
    try:
        hub.get_hf_file_metadata(hub.hf_hub_url(repository, "config.json"))
    except hub.errors.HfHubHTTPError:
        return  # the hub answered; the library reports what is missing
    except Exception as error:
        if "Timeout" not in type(error).__name__:  # a slow hub may answer the next request
            raise OSError(str(error)) from error


def _fitted(request: Request, build: Callable[..., Any], default: int) -> Any:
    """Build the module; a checkpoint brings its weights and its number of classes.

    Args:
        request: the model to build.
        build: the constructor, which accepts num_classes.
        default: the number of classes that the library's own weights have.
    """
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
    """Return whether a module still has the library's own classes."""
    if request.checkpoint is None:
        return True
    state = module.state_dict()
    return checkpoints.classes(state, state, default) == default
