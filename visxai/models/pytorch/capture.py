"""Capturing, and cutting, what flows through a module during a forward.

    with capture(model, "layer4", cut=True) as seen:
        scores = model(x)
    grad, = torch.autograd.grad(scores[:, 3].sum(), seen["layer4"])

With `cut`, the forward runs without a graph up to the first captured layer; there a fresh leaf
starts a graph, so nothing below is saved and no parameter's `.grad` or `requires_grad` changes.
The layer's consumers get a clone of the leaf: an in-place ReLU after it would otherwise overwrite
the activation that was captured.

Hooks act only in the thread that set them, so several threads may capture from the same module, and
all hooks are removed when the block ends, also after an exception.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from visxai.errors import LayerError, UnknownName


class Captured(dict[str, Tensor]):
    """The captured outputs by layer name, in the order the layers ran."""

    def __missing__(self, name: str) -> Tensor:
        raise LayerError(
            f"expected layer {name!r} to run in the forward, but it did not: "
            "choose a layer that the model calls"
        )


@contextmanager
def capture(module: nn.Module, *layers: str, cut: bool = False) -> Iterator[Captured]:
    """Capture the outputs of `layers` (dotted names) for the forwards inside the block.

    The block runs outside inference mode and without gradients below the cut, whatever mode the
    caller is in.

    Args:
        module: the network.
        layers: the layers' names.
        cut: whether gradients start at the captured layers (see above); otherwise outputs are
            recorded without a graph.

    Yields:
        The outputs by layer name, which the forwards fill.

    Raises:
        UnknownName: a layer doesn't exist.
        LayerError: a layer runs twice, or is read but didn't run.
    """
    seen = Captured()
    owner = threading.get_ident()
    modules = [find(module, name) for name in layers]

    def hook_for(name: str) -> Callable[..., Any]:
        def hook(_module: nn.Module, _args: Any, output: Any) -> Any:
            if threading.get_ident() != owner:
                return None
            if name in seen:
                raise LayerError(
                    f"expected layer {name!r} to run once in a forward, but it ran again: "
                    "choose a layer that isn't shared"
                )
            value = first_tensor(output, name)
            if not cut:
                seen[name] = value.detach().clone()
                return None
            if value.requires_grad:  # above an earlier cut: already part of the graph
                seen[name] = value
            else:
                seen[name] = value.detach().clone().requires_grad_()
            torch.set_grad_enabled(True)
            return with_first_tensor(output, seen[name].clone())

        return hook

    handles = []
    with torch.inference_mode(False), torch.no_grad():
        try:
            for name, part in zip(layers, modules, strict=True):
                handles.append(part.register_forward_hook(hook_for(name)))
            yield seen
        finally:
            for handle in handles:
                handle.remove()


def find(module: nn.Module, name: str) -> nn.Module:
    """Return the submodule called `name`.

    Raises:
        UnknownName: the module has no such submodule; the message lists the nearest names.
    """
    try:
        if name:
            return module.get_submodule(name)
    except AttributeError:
        pass
    # The last names first: a long list is cut after the first few.
    known = [one for one, _ in module.named_modules() if one]
    raise UnknownName("layer", name, known[::-1])


def first_tensor(output: Any, name: str = "") -> Tensor:
    """Return the tensor of a layer's output: itself, or the first in a tuple, list or dict.

    Args:
        output: what the layer returned.
        name: the layer's name for the message.

    Raises:
        LayerError: the output holds no tensor.
    """
    if isinstance(output, Tensor):
        return output
    items: Sequence[Any] = ()
    if isinstance(output, dict):
        items = list(output.values())
    elif isinstance(output, (tuple, list)):
        items = output
    for item in items:
        if isinstance(item, Tensor):
            return item
    raise LayerError(
        f"expected layer {name!r} to output a tensor, got {type(output).__name__}: "
        "choose a layer inside it"
    )


def with_first_tensor(output: Any, value: Tensor) -> Any:
    """Return `output` with its first tensor replaced by `value`, in the same structure."""
    if isinstance(output, Tensor):
        return value
    if isinstance(output, dict):
        key = next(key for key, item in output.items() if isinstance(item, Tensor))
        copied = type(output)(output)
        copied[key] = value
        return copied
    index = next(i for i, item in enumerate(output) if isinstance(item, Tensor))
    items = [*output[:index], value, *output[index + 1 :]]
    return type(output)(*items) if hasattr(output, "_fields") else type(output)(items)
