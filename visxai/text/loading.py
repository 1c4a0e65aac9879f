"""Loading of text models by name.

load("toxicity")                          the model of a card in models/text
load("hf:FOLDER")                         a sequence classifier of Hugging Face, also by name
wrap(module, tokenizer=tokenizer)         a module of your own with a tokenizer of Hugging Face
wrap(lambda texts: scores)                any function, for methods that need scores alone
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from visxai.errors import ArgumentError, ModelError, require
from visxai.labels import Labels, read_labels
from visxai.models import hubs
from visxai.models.cards import folder
from visxai.models.checkpoint import read
from visxai.models.devices import pick_device
from visxai.models.interface import Activation
from visxai.text.bilstm import BiLSTM, KerasTokenizer
from visxai.text.callables import FunctionText
from visxai.text.cards import card
from visxai.text.model import TextModel
from visxai.text.network import TorchText
from visxai.text.rows import Format, Tokenizer
from visxai.text.words import Span

DEFAULT = "toxicity"
_HUGE = 10**9  # tokenizers without a limit name a number above this


def load(
    name: str,
    *,
    labels: Labels | None = None,
    activation: Activation | None = None,
    device: str | torch.device = "auto",
    batch_size: int = 64,
) -> TextModel:
    """Load a text model by name.

    Args:
        name: A card's name, or "hf:" and a folder or a name of Hugging Face.
        labels: Names of the classes, which replace the model's own.
        activation: What turns scores into probabilities, in place of the model's own.
        device: Where the model runs.
        batch_size: The most rows of usual length in one forward.

    Raises:
        UnknownName: No text model has this name.
        ModelError: The weights are missing or damaged.
        MissingExtra: transformers isn't installed.
    """
    given = read_labels(labels)
    placed = pick_device(device)
    if name.startswith("hf:"):
        return _hugging_face(name, given, activation, placed, batch_size)
    told = card(name)
    source = told["source"]
    weights = {key: value.float() for key, value in read(_checked(name, source, "weights")).items()}
    stored = json.loads(_checked(name, source, "words").read_text("utf-8"))
    keras = KerasTokenizer(stored["words"], stored["separators"])
    network = BiLSTM.like(weights)
    network.load_state_dict(weights)
    return TorchText(
        network,
        _whole_words(keras),
        Format(length=told["length"], fixed=True),
        name=name,
        labels=given or tuple(told["labels"]),
        activation=activation or told["activation"],
        prepared=f"known words in lower case, windows of {told['length']}, padded in front",
        device=placed,
        batch_size=batch_size,
    )


def _checked(name: str, source: dict[str, str], part: str) -> Path:
    """Return a file beside the card, after its sha256 is checked."""
    path = folder() / "text" / source[part]
    wanted = source[f"{part}_sha256"]
    data = path.read_bytes() if path.is_file() else b""
    if hashlib.sha256(data).hexdigest() != wanted:
        raise ModelError(
            f"expected {path} with sha256 {wanted} for {name}, got another file: reinstall visxai"
        )
    return path


def _whole_words(keras: KerasTokenizer) -> Tokenizer:
    def cut(texts: Sequence[str]) -> list[tuple[list[int], list[Span]]]:
        made = []
        for text in texts:
            found = keras(text)
            made.append(([one[0] for one in found], [(one[1], one[2]) for one in found]))
        return made

    return cut


def _hugging_face(
    name: str,
    labels: tuple[str, ...] | None,
    activation: Activation | None,
    device: torch.device,
    batch_size: int,
) -> TorchText:
    transformers = require("transformers", "hf", f"the model {name}")
    place, revision = hubs.pinned(name.removeprefix("hf:"))
    options: dict[str, Any] = {"trust_remote_code": False}
    if revision is not None:
        options["revision"] = revision
    with hubs.fetching(name, "name a local folder (hf:FOLDER)"):
        hubs.reach(None if os.path.isdir(place) else place)
        module = transformers.AutoModelForSequenceClassification.from_pretrained(place, **options)
        tokenizer = transformers.AutoTokenizer.from_pretrained(place, **options)
    return of_module(
        module,
        tokenizer,
        name=name,
        labels=labels,
        activation=activation,
        device=device,
        batch_size=batch_size,
    )


def of_module(
    module: nn.Module,
    tokenizer: Any,
    *,
    name: str = "",
    labels: tuple[str, ...] | None = None,
    activation: Activation | None = None,
    embedding: str | None = None,
    device: torch.device | None = None,
    batch_size: int = 64,
) -> TorchText:
    """Make a text model of a module and a fast tokenizer of Hugging Face.

    Args:
        module: Takes input_ids (n, T) and an attention_mask (n, T); returns scores (n, k), or an
            object with logits.
        tokenizer: A tokenizer of Hugging Face that knows the places of its pieces.
        name: The model's name; "" takes the class's.
        labels: Names of the classes; None takes the config's.
        activation: What turns scores into probabilities; None takes the config's, or softmax.
        embedding: The word embedding's dotted name; None finds it.
        device: Where it runs; None leaves it where it is.
        batch_size: The most rows of usual length in one forward.

    Raises:
        ArgumentError: The tokenizer doesn't know the places of its pieces.
    """
    if not getattr(tokenizer, "is_fast", False):
        raise ArgumentError(
            expected="a fast tokenizer of Hugging Face, which knows where its pieces lie",
            got=type(tokenizer).__name__,
            remedy="pass transformers.AutoTokenizer.from_pretrained(FOLDER)",
            field="tokenizer",
        )
    known = hubs.hugging_face_labels(getattr(module, "config", None))
    return TorchText(
        module,
        _pieces(tokenizer),
        _format(module, tokenizer),
        name=name or type(module).__name__,
        labels=labels or known.get("labels"),
        activation=activation or known.get("activation", "softmax"),
        prepared=type(tokenizer).__name__,
        embedding=embedding,
        device=device,
        batch_size=batch_size,
    )


def of_tower(
    tower: nn.Module,
    tokenizer: Any,
    *,
    name: str,
    device: str | torch.device = "auto",
    batch_size: int = 64,
) -> TorchText:
    """Make a text model, whose scores are embeddings, of an image-and-text model's text tower.

    CLIP reads a text off its end mark; SigLIP reads rows of full length off their last piece.

    Args:
        tower: Takes input_ids (n, T) and an attention_mask (n, T); returns embeddings (n, d). It
            has the tower's config.
        tokenizer: The model's fast tokenizer of Hugging Face.
        name: The model's name.
        device: "auto" leaves the tower where it is.
        batch_size: The most rows of usual length in one forward.

    Raises:
        ArgumentError: The tokenizer doesn't know the places of its pieces.
    """
    placed = None if device == "auto" else pick_device(device)
    made = of_module(
        tower, tokenizer, name=name, activation="none", device=placed, batch_size=batch_size
    )
    kind: Any = tower.config
    whole = str(kind.model_type).startswith("siglip")
    read: Literal["end", "last"] = "last" if whole else "end"
    length = kind.max_position_embeddings
    made.labels = None
    made.form = replace(made.form, length=length, fixed=whole, front=False, read=read)
    return made


def _pieces(tokenizer: Any) -> Tokenizer:
    def cut(texts: Sequence[str]) -> list[tuple[list[int], list[Span]]]:
        if not texts:
            return []
        found = tokenizer(
            list(texts),
            add_special_tokens=False,
            return_offsets_mapping=True,
            truncation=False,
            padding=False,
            verbose=False,
        )
        return [
            (list(ids), [(int(a), int(b)) for a, b in places])
            for ids, places in zip(found["input_ids"], found["offset_mapping"], strict=True)
        ]

    return cut


def _format(module: nn.Module, tokenizer: Any) -> Format:
    """Learn how a model wants its rows from its tokenizer and its config."""
    whole = list(tokenizer("a")["input_ids"])
    bare = list(tokenizer("a", add_special_tokens=False)["input_ids"])
    at = next((i for i in range(len(whole)) if whole[i : i + len(bare)] == bare), 0)
    config = getattr(module, "config", None)
    positions = getattr(config, "max_position_embeddings", None) or _HUGE
    shifted = getattr(config, "model_type", "") in ("roberta", "xlm-roberta", "camembert", "mpnet")
    if shifted:  # their positions are counted from the padding's number on
        positions -= (getattr(config, "pad_token_id", None) or 0) + 1
    length = min(tokenizer.model_max_length, positions)
    pad = tokenizer.pad_token_id
    if pad is None:
        pad = getattr(config, "pad_token_id", None) or 0
    masks = (tokenizer.mask_token_id, tokenizer.unk_token_id, pad)
    return Format(
        prefix=tuple(whole[:at]),
        suffix=tuple(whole[at + len(bare) :]),
        pad=int(pad),
        mask=int(next(one for one in masks if one is not None)),
        length=None if length >= _HUGE else int(length),
    )


def wrap(
    model: nn.Module | Callable[[list[str]], Any],
    *,
    tokenizer: Any = None,
    labels: Labels | None = None,
    activation: Activation | None = None,
    embedding: str | None = None,
    device: str | torch.device = "auto",
    batch_size: int = 64,
) -> TextModel:
    """Wrap a module with its tokenizer, or a function from texts to scores.

    Args:
        model: The module or the function.
        tokenizer: The module's tokenizer, of Hugging Face.
        labels: Names of the classes.
        activation: What turns scores into probabilities; None is softmax for a module and "none"
            for a function.
        embedding: The word embedding's dotted name; None finds it.
        device: "auto" leaves a module where it is.
        batch_size: The most rows of usual length in one forward.

    Raises:
        ArgumentError: A module came without a tokenizer, or a function with one.
    """
    named = read_labels(labels)
    if isinstance(model, nn.Module):
        if tokenizer is None:
            raise ArgumentError(
                expected="a tokenizer with a module",
                got="none",
                remedy="pass tokenizer=, or a function from texts to scores",
                field="tokenizer",
            )
        return of_module(
            model,
            tokenizer,
            labels=named,
            activation=activation,
            embedding=embedding,
            device=None if device == "auto" else pick_device(device),
            batch_size=batch_size,
        )
    if not callable(model) or tokenizer is not None:
        raise ArgumentError(
            expected="a name, a module with its tokenizer, or a function from texts to scores",
            got=type(model).__name__ + (" with a tokenizer" if tokenizer is not None else ""),
            remedy="see `visxai models` for names",
            field="model",
        )
    return FunctionText(
        model,
        name=f"callable:{getattr(model, '__name__', type(model).__name__)}",
        labels=named,
        activation=activation or "none",
        batch_size=batch_size,
    )
