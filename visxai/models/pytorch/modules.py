"""The preparation of an nn.Module: unwrapping, copies, layer names, and reading its output."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import itertools
import operator
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from visxai.errors import ArgumentError, LayerError, ModelError
from visxai.models.pytorch.capture import find


def adapt(output: Any) -> Tensor:
    """Return the scores in a model's output: a tensor, a Hugging Face output, a dict or a tuple.

    A tensor is returned as it is; otherwise the fields logits, logits_per_image and scores are
    tried, then the first tensor (b, k).

    Raises:
        ModelError: the output holds no such tensor.
    """
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
    """Return the module inside torch.compile's and DataParallel's wrappers, which hooks need.

    Raises:
        ArgumentError: `module` isn't an nn.Module.
    """
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
    """Copy a module in eval mode over the same parameters and buffers.

    Inference tensors alone are copied, because they can't take part in a backward.

    Args:
        module: the caller's module, which stays as it is.
        device: where the copy shall lie; on another device its weights are copies too.

    Raises:
        ModelError: the module can't be copied.
    """
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
        if device is not None and first is not None and not _lies_on(first, device):
            private = copy.deepcopy(private).to(device)
    return private.eval()


def _lies_on(tensor: Tensor, device: str | torch.device) -> bool:
    """Return whether a tensor lies on a device; "cuda" is the current one of its kind."""
    wanted = torch.device(device)
    if wanted.type != tensor.device.type or wanted.type == "cpu":
        return wanted.type == tensor.device.type
    return torch.empty(0, device=wanted).device == tensor.device


def structural_copy(module: nn.Module) -> nn.Module:
    """Copy a module over the same parameters and buffers.

    Args:
        module: a module that no thread runs or hooks: a copy would keep what a forward in progress
            has hooked or left in attributes.

    Returns:
        A module of the same structure, mode and permanent hooks, which shares every parameter and
        buffer and nothing else.
    """
    shared: dict[int, Any] = {id(t): t for t in (*module.parameters(), *module.buffers())}
    with torch.inference_mode(False):
        return copy.deepcopy(module, shared)


Mark = tuple[tuple[int, ...], tuple[int, ...]]
_writes: Callable[[Tensor], int] = operator.attrgetter("_version")


class Weights:
    """The parameters and buffers of a module, and whether they still hold the same numbers.

    Every write that PyTorch counts is noticed: optimiser steps, `load_state_dict`, operations in
    place, and another tensor put into `.data`. Writes that it doesn't count are missed: in place
    through `.data` (`weight.data.mul_(2)`) or through a NumPy array of the same memory.

    Args:
        module: the module.
        sha256: the weights' sha256, where it is known already.
    """

    def __init__(self, module: nn.Module, sha256: str | None = None) -> None:
        self._module = module
        self._tensors = (*module.parameters(), *module.buffers())
        self._first = self.mark()
        self._known = None if sha256 is None else (self._first, sha256)
        self._lock = threading.Lock()

    def mark(self) -> Mark:
        """Return where each tensor lies and how often it was written; equal for equal weights.

        It is asked for before every forward, so it is read without a step of Python for each tensor
        where all tensors lie in plain memory and count their writes.

        Returns:
            The addresses and the numbers of writes of all parameters and buffers.
        """
        with contextlib.suppress(RuntimeError):
            return tuple(map(Tensor.data_ptr, self._tensors)), tuple(map(_writes, self._tensors))
        return (
            tuple(t.data_ptr() if t.layout == torch.strided else id(t) for t in self._tensors),
            tuple(-1 if t.is_inference() else t._version for t in self._tensors),
        )

    @property
    def original(self) -> bool:
        """Whether nothing was written since this object was made."""
        return self.mark() == self._first

    def sha256(self) -> str:
        """Return the weights' sha256 (see `weights_sha256`), computed again after a write.

        Returns:
            64 hexadecimal digits; until the first write those passed at construction, if any.
        """
        with self._lock:
            mark = self.mark()
            if self._known is None or self._known[0] != mark:
                self._known = (mark, weights_sha256(self._module))
            return self._known[1]


def weights_sha256(module: nn.Module) -> str:
    """Compute the sha256 of the names, types, shapes and bytes of all parameters and buffers.

    They are taken in the order of their names.

    Returns:
        64 hexadecimal digits.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        if not isinstance(tensor, Tensor):
            continue
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        plain = tensor.detach().cpu().contiguous()
        digest.update(plain.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def name_of(
    module: nn.Module, layer: str | nn.Module | Sequence[str | nn.Module] | None
) -> str | None:
    """Return the dotted name of a layer, or the names of several joined by "+".

    Args:
        module: the network.
        layer: the layer by name or as a module, or several; None gives None.

    Raises:
        UnknownName: the network has no layer of this name.
        LayerError: the layer isn't part of the network.
    """
    if layer is None:
        return None
    # nn.Sequential is a collection too, but also a layer itself, so only tuples and lists count.
    if isinstance(layer, (tuple, list)):
        return "+".join(str(name_of(module, one)) for one in layer) or None
    assert isinstance(layer, (str, nn.Module))
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
