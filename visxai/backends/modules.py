"""What an nn.Module needs before it is explained: unwrapped, copied, named, its output read."""

from __future__ import annotations

import copy
import hashlib
import itertools
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from visxai.capture import find
from visxai.errors import ArgumentError, LayerError, ModelError


def adapt(output: Any) -> Tensor:
    """The scores in what a model returns: a tensor, a Hugging Face output, a dict or a tuple."""
    if isinstance(output, Tensor):
        return output
    for name in ("logits", "logits_per_image", "scores"):
        value = output.get(name) if isinstance(output, Mapping) else getattr(output, name, None)
        if isinstance(value, Tensor):
            return value
    items = output.values() if isinstance(output, Mapping) else output
    if isinstance(items, (tuple, list)) or isinstance(output, Mapping):
        for item in items:
            if isinstance(item, Tensor) and item.ndim == 2:
                return item
    raise ModelError(
        f"expected the model to output scores (batch, classes), got {type(output).__name__}: "
        "pass output=, a function from the model's output to scores"
    )


def unwrapped(module: nn.Module) -> nn.Module:
    """The module inside torch.compile's and DataParallel's wrappers: hooks need the plain one."""
    if not isinstance(module, nn.Module):
        raise ArgumentError(
            f"expected a model's name or an nn.Module, got {type(module).__name__}: "
            "see `visxai models` for names"
        )
    while True:
        inner = getattr(module, "_orig_mod", None)
        if inner is None and isinstance(module, nn.DataParallel):
            inner = module.module
        if not isinstance(inner, nn.Module):
            return module
        module = inner


def private_copy(module: nn.Module, device: str | torch.device | None) -> nn.Module:
    """A copy in eval mode that shares all parameters and buffers; copied only to change device."""
    shared: dict[int, Any] = {}
    with torch.inference_mode(False):
        for tensor in [*module.parameters(), *module.buffers()]:
            # An inference tensor can't be saved for a backward; only a copy can.
            shared[id(tensor)] = tensor.clone() if tensor.is_inference() else tensor
        try:
            private = copy.deepcopy(module, shared)
        except Exception as error:
            raise ModelError(
                f"expected a module that can be copied, but {type(module).__name__} can't "
                f"({error}): remove what can't be copied from its attributes"
            ) from error
        first = next(itertools.chain(private.parameters(), private.buffers()), None)
        if device is not None and first is not None and first.device != torch.device(device):
            private = copy.deepcopy(private).to(device)
    return private.eval()


def weights_sha256(module: nn.Module) -> str:
    """sha256 over the names, types, shapes and bytes of all parameters and buffers, in order."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        if not isinstance(tensor, Tensor):
            continue
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        plain = tensor.detach().cpu().contiguous()
        digest.update(plain.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def name_of(module: nn.Module, layer: str | nn.Module | None) -> str | None:
    """The dotted name of a layer given as name or module; UnknownName or LayerError where the model
    has none such."""
    if layer is None:
        return None
    if isinstance(layer, str):
        for part in layer.split("+"):
            find(module, part)
        return layer
    names: dict[int, str] = {id(part): name for name, part in module.named_modules()}
    if id(layer) in names:
        return names[id(layer)]
    raise LayerError(
        f"expected a layer of the model, got a {type(layer).__name__} that isn't part of it: "
        "pass the layer's dotted name"
    )
