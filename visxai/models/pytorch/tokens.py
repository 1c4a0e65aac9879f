"""The tokens of a transformer: its blocks, its patch grid, and the tokens that its head reads.

They are determined by two or three forwards of an image. A model qualifies when every
self-attention calls scaled_dot_product_attention over the same sequence, prefix tokens and then a
token for each patch. Windowed attention (Swin) doesn't qualify: it says nothing about tokens in
other windows.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from visxai.errors import LayerError, ModelError, OutOfMemory, VisxaiError
from visxai.images.preprocess import Preprocess
from visxai.models.budget import is_out_of_memory
from visxai.models.interface import Need
from visxai.models.pytorch.capture import capture, find, first_tensor, with_first_tensor
from visxai.models.pytorch.sdpa import Call, record_attention
from visxai.models.views import Tokens
from visxai.spec import PARSING

if TYPE_CHECKING:
    from visxai.models.pytorch.network import Network

_SDPA = "scaled_dot_product_attention"
# The head reads a token when the norm of its gradient exceeds this share of the largest norm.
_READ = 1e-4


def offered(model: Network) -> tuple[Need, str]:
    """Return what a model's tokens offer, and the remedy where they offer nothing.

    Where the input size isn't known beforehand, a module that seems to use attention is assumed to
    qualify; a later call on a model that doesn't raises ModelError.

    Raises:
        OutOfMemory: memory ran out, which says nothing about the model.
    """
    if not _attends(model.module):
        return Need(0), _remedy(model.module)
    size = _input_size(model)
    if size is None:
        return Need.ATTENTION | Need.TOKENS, ""
    try:
        found = model.tokens(torch.zeros(1, 3, *size, device=model.device))
    except OutOfMemory:  # says nothing about the model
        raise
    except (VisxaiError, RuntimeError):
        return Need(0), _remedy(model.module)
    return Need.ATTENTION | (Need.TOKENS if found.droppable else Need(0)), ""


def _attends(module: nn.Module) -> bool:
    """Return whether a part of a module seems to call scaled_dot_product_attention."""
    kinds: set[type[nn.Module]] = set()  # a class is read once, however many parts are of it
    for part in module.modules():
        if isinstance(part, nn.MultiheadAttention) or getattr(part, "fused_attn", None) is True:
            return True
        implementation = getattr(getattr(part, "config", None), "_attn_implementation", None)
        if implementation == "sdpa":
            return True
        if implementation is None and not hasattr(part, "fused_attn"):
            kinds.add(type(part))
    return any(_names_attention(kind) for kind in kinds)


def _names_attention(kind: type[nn.Module]) -> bool:
    """Return whether the source of a module's class calls scaled_dot_product_attention."""
    if kind.__module__.startswith("torch."):
        return False
    try:
        with PARSING:
            return _SDPA in inspect.getsource(kind)
    except (OSError, TypeError):
        return False


def _remedy(module: nn.Module) -> str:
    """Return how a module could be built so that its attention can be read, or ""."""
    if getattr(getattr(module, "config", None), "_attn_implementation", "sdpa") != "sdpa":
        return "build it with attn_implementation='sdpa'"
    parts = [part for part in module.modules() if getattr(part, "fused_attn", True) is False]
    if parts and not any("window" in type(part).__name__.lower() for part in parts):
        return "call timm.layers.set_fused_attn(True) before building it"
    return ""


def _input_size(model: Network) -> tuple[int, int] | None:
    """Return the (height, width) that a model states it expects; None where it doesn't."""
    if isinstance(model.preprocess, Preprocess):
        return model.preprocess.size
    module = model.module
    for holder, name in (
        (module, "image_size"),
        (getattr(module, "patch_embed", None), "img_size"),
        (getattr(module, "config", None), "image_size"),
    ):
        size = getattr(holder, name, None)
        if isinstance(size, int):
            return size, size
        if isinstance(size, (tuple, list)) and len(size) == 2:
            return int(size[0]), int(size[1])
    return None


def find_tokens(model: Network, x: Tensor) -> Tokens:
    """Determine the tokens of a model for inputs like x (1, 3, h, w).

    Raises:
        ModelError: the model doesn't attend over a single sequence of prefix and patch tokens.
    """
    calls, ranges = _trace(model, x)
    which = tuple(i for i, call in enumerate(calls) if call.query.shape[-2] == call.key.shape[-2])
    lengths = {tuple(calls[i].query.shape[:1] + calls[i].query.shape[2:3]) for i in which}
    grid = None
    if len(lengths) == 1 and all(calls[i].query.ndim == 4 for i in which):
        ((rows, count),) = lengths
        grid = model.survey(x).grid(count) if rows == 1 else None
    if grid is None:
        remedy = _remedy(model.module) or (
            "compute attention by calling torch.nn.functional.scaled_dot_product_attention over "
            "all tokens, or choose a method that needs no attention"
        )
        raise ModelError(
            f"expected {model.ref.name} to attend over one sequence of prefix and patch tokens by "
            f"{_SDPA}, got {len(calls)} calls of it in a forward and no such sequence: {remedy}"
        )
    blocks = tuple(_block(ranges, i, count) for i in which)
    prefix, height, width = grid
    found = Tokens(blocks, which, prefix, height, width, (), False)
    read = _read(model, x, found)
    found = Tokens(blocks, which, prefix, height, width, read, False)
    return Tokens(blocks, which, prefix, height, width, read, _droppable(model, x, found))


def _trace(
    model: Network, x: Tensor
) -> tuple[list[Call], list[tuple[str, int, int, tuple[int, ...]]]]:
    """Record the attention calls of a forward, and which of them each module makes.

    Returns:
        The calls, and for each module in the order of their starts: its name, the first of its
        calls, the end of its calls, and its output's shape.
    """
    ranges: list[tuple[str, int, int, tuple[int, ...]]] = []
    running: list[tuple[int, int]] = []
    owner = threading.get_ident()
    handles = []

    def before(_part: nn.Module, _args: Any) -> None:
        if threading.get_ident() == owner:
            running.append((len(ranges), len(calls)))
            ranges.append(("", 0, 0, ()))

    def after(name: str, output: Any) -> None:
        if threading.get_ident() != owner:
            return
        slot, first = running.pop()
        try:
            shape = tuple(first_tensor(output).shape)
        except LayerError:
            shape = ()
        ranges[slot] = (name, first, len(calls), shape)

    with record_attention(model.module) as calls:
        try:
            for name, part in model.module.named_modules():
                handles.append(part.register_forward_pre_hook(before))
                handles.append(
                    part.register_forward_hook(lambda _p, _a, out, name=name: after(name, out))
                )
            model.forward(x)
        finally:
            for handle in handles:
                handle.remove()
    return calls, ranges


def _block(ranges: list[tuple[str, int, int, tuple[int, ...]]], call: int, count: int) -> str:
    """Return the outermost module that makes this attention call alone and outputs tokens."""
    for name, first, end, shape in ranges:
        if name and (first, end) == (call, call + 1) and len(shape) == 3 and shape[1] == count:
            return name
    raise ModelError(
        f"expected attention call {call} to lie in a block that outputs (b, {count}, c), found "
        "none: build the model of one module a block"
    )


def _read(model: Network, x: Tensor, found: Tokens) -> tuple[int, ...]:
    """Return the tokens that the head reads.

    These are the prefix tokens that the scores' gradient reaches after the last block, or all
    patches where it reaches patches alone or can't be computed. Where it reaches no token at all,
    the first prefix token is assumed, if the model has any.
    """
    name = found.blocks[-1]
    patches = tuple(range(found.prefix, found.count))
    try:
        with capture(model.module, name, cut=True) as seen:
            scores = model.forward(x)
            value = (scores * torch.arange(1, scores.shape[1] + 1, device=x.device).sin()).sum()
            (gradient,) = torch.autograd.grad(value, [seen[name]])
    except (LayerError, RuntimeError) as error:
        if is_out_of_memory(error):
            raise
        return patches
    size = gradient[0].float().norm(dim=1)
    reached = (size > _READ * size.max()).nonzero().flatten().tolist()
    return tuple(token for token in reached if token < found.prefix) or (
        (0,) if found.prefix and not reached else patches
    )


def _droppable(model: Network, x: Tensor, found: Tokens) -> bool:
    """Return whether the model runs on half its patches.

    That requires that positions are added to the tokens before the first block.
    """
    half = torch.arange(0, found.height * found.width, 2, device=x.device)
    try:
        with record_attention(model.module) as calls, dropping(model.module, found, half[None]):
            model.forward(x)
    except Exception as error:  # whatever a model raises at a sequence it wasn't built for
        if is_out_of_memory(error):
            raise
        return False
    return all(calls[i].query.shape[2] == found.prefix + len(half) for i in found.calls)


@contextmanager
def dropping(module: nn.Module, tokens: Tokens, keep: Tensor) -> Iterator[None]:
    """Let this thread's forwards continue, from the first block, without some patches.

    Args:
        module: the network.
        tokens: its tokens.
        keep: indices (rows, kept) of the patches that stay; prefix tokens always stay.
    """
    prefix = torch.arange(tokens.prefix, device=keep.device).expand(len(keep), -1)
    index = torch.cat([prefix, keep + tokens.prefix], 1)

    def gathered(value: Tensor) -> Tensor:
        return value.gather(1, index.unsqueeze(2).expand(-1, -1, value.shape[2]))

    with _changing_input(module, tokens.blocks[0], tokens.count, gathered):
        yield


@contextmanager
def _changing_input(
    module: nn.Module, block: str, count: int, change: Callable[[Tensor], Tensor]
) -> Iterator[None]:
    """Change the tokens that enter a block, in this thread's forwards."""
    owner = threading.get_ident()

    # While it is set or removed, another thread may call it without keyword arguments.
    def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any] | None = None) -> Any:
        if threading.get_ident() != owner or kwargs is None:
            return None

        def one(value: Any) -> Any:
            fits = isinstance(value, Tensor) and value.ndim == 3 and value.shape[1] == count
            return change(value) if fits else value

        return tuple(map(one, args)), {name: one(value) for name, value in kwargs.items()}

    handle = find(module, block).register_forward_pre_hook(hook, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def separate(module: nn.Module, tokens: Tokens) -> Iterator[None]:
    """Let this thread's forward give the tokens after each block a gradient of their own.

    Every block runs on an input without a graph, and the head runs on the tokens after each block:
    it returns rows of scores for the last block, then for the first, the second, and so on.

    Args:
        module: the network.
        tokens: its tokens.
    """
    owner = threading.get_ident()
    states: list[Tensor] = []

    def after(_part: nn.Module, _args: Any, output: Any) -> Any:
        if threading.get_ident() != owner:
            return None
        states.append(first_tensor(output))
        if len(states) < len(tokens.blocks):
            return None
        return with_first_tensor(output, torch.cat([states[-1], *states[:-1]]))

    with ExitStack() as stack:
        for block in tokens.blocks:
            stack.enter_context(_changing_input(module, block, tokens.count, Tensor.detach))
            handle = find(module, block).register_forward_hook(after)
            stack.callback(handle.remove)
        stack.callback(states.clear)
        yield
