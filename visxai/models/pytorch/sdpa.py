"""Attention recorded during a forward, without giving up the fused kernels.

    with record_attention(module) as calls:
        scores = module(x)
    calls[0].query, calls[0].output

torchvision, timm and Hugging Face all call `torch.nn.functional.scaled_dot_product_attention`, so a
single wrapper around it suffices for all of them. A fused kernel never forms the attention weights;
its inputs and output are recorded, from which the weights and their gradient follow:

    A = softmax(q kᵀ * scale + mask),    dy/dA = (dy/do) vᵀ

The function is global: it is wrapped under a lock while any thread records (the first thread saves
it, the last restores it), and each thread records into a list of its own.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# Attention weights held at once, in elements: 256 MB in float32. More heads are computed in turn.
_MOST_WEIGHTS = 2**26

_lock = threading.Lock()
_users = 0
_plain: Callable[..., Tensor] = F.scaled_dot_product_attention
_thread = threading.local()


@dataclass(frozen=True)
class Call:
    """A call of attention by r rows.

    Attributes:
        query: (r, heads, queries, depth).
        key: (r, heads, keys, depth).
        value: (r, heads, keys, depth).
        output: (r, heads, queries, depth).
        mask: (queries, keys) or broadcastable to (r, heads, queries, keys): boolean and True where
            a query may attend, or a number that is added to the logits.
        causal: whether a query attends to the keys up to its own position alone.
        scale: the factor of the logits; None is 1 / sqrt(depth).
        gradient: the gradient of the target's scalar at the output, of the output's shape.
    """

    query: Tensor
    key: Tensor
    value: Tensor
    output: Tensor
    mask: Tensor | None = None
    causal: bool = False
    scale: float | None = None
    gradient: Tensor | None = None

    def of(self, rows: Tensor | slice, gradient: Tensor | None) -> Call:
        """Select rows `rows` (n,) of the call, with the gradient at their outputs."""
        mask = self.mask
        if mask is not None and mask.ndim == 4 and mask.shape[0] > 1:
            mask = mask[rows]
        return replace(
            self,
            query=self.query[rows],
            key=self.key[rows],
            value=self.value[rows],
            output=self.output[rows],
            mask=mask,
            gradient=gradient,
        )

    def heads(self) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Compute attention weights and their gradients, some heads at a time.

        Yields:
            A and dy/dA, both (r, some heads, queries, keys), float32 or wider, of at most
            `_MOST_WEIGHTS` elements or a single head; dy/dA is None where the call has no gradient.
        """
        rows, heads, queries, _ = self.query.shape
        step = max(1, _MOST_WEIGHTS // max(1, rows * queries * self.key.shape[2]))
        for start in range(0, heads, step):
            part = slice(start, start + step)
            gradient = None
            if self.gradient is not None:
                gradient = _wide(self.gradient[:, part]) @ _wide(self.value[:, part]).mT
            yield self._weights(part), gradient

    def mean(self, form: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """Compute the mean over heads of form(A, dy/dA), some heads at a time.

        Args:
            form: from A and dy/dA, both (r, some heads, queries, keys), to (r, some heads, ...).
                Where the call has no gradient, both arguments are A.

        Returns:
            (r, ...).
        """
        total = None
        for weights, gradient in self.heads():
            found = form(weights, weights if gradient is None else gradient).sum(1)
            total = found if total is None else total + found
        assert total is not None
        return total / self.query.shape[1]

    def rows(self, start: Tensor) -> tuple[Tensor, Tensor]:
        """Multiply `start` (r, queries) by A, and by dy/dA: both (r, heads, keys).

        Where the call has no gradient, both results are those of A.
        """
        weights, gradients = [], []
        for some, gradient in self.heads():
            weights.append(_row(start, some))
            gradients.append(weights[-1] if gradient is None else _row(start, gradient))
        return torch.cat(weights, 1), torch.cat(gradients, 1)

    def _weights(self, part: slice) -> Tensor:
        """Compute the attention weights A (r, some heads, queries, keys) of a slice of heads."""
        query, key, mask = _wide(self.query[:, part]), _wide(self.key[:, part]), self.mask
        if mask is not None and mask.ndim == 4 and mask.shape[1] > 1:
            mask = mask[:, part]
        return _weights(query, key, mask, self.causal, self.scale)


def _weights(
    query: Tensor, key: Tensor, mask: Tensor | None, causal: bool, scale: float | None
) -> Tensor:
    """Compute the attention weights (r, heads, queries, keys) of a call; see `Call`."""
    logits = query @ key.mT * (1 / math.sqrt(query.shape[-1]) if scale is None else scale)
    if causal:
        above = torch.ones(logits.shape[-2:], dtype=torch.bool, device=logits.device).triu(1)
        logits = logits.masked_fill(above, -math.inf)
    if mask is not None and mask.dtype == torch.bool:
        logits = logits.masked_fill(~mask, -math.inf)
    elif mask is not None:
        logits = logits + mask.to(logits.dtype)
    return logits.softmax(-1)


def _row(start: Tensor, matrices: Tensor) -> Tensor:
    """Multiply `start` (r, queries) by matrices (r, heads, queries, keys): (r, heads, keys)."""
    return (start[:, None, None] @ matrices).squeeze(2)


@contextmanager
def record_attention(module: nn.Module, *, leaves: Collection[int] = ()) -> Iterator[list[Call]]:
    """Record this thread's attention calls in the forwards of `module` inside the block.

    The caller's grad mode is restored at the end.

    Args:
        module: the network.
        leaves: the numbers of the calls whose output becomes a fresh leaf, where a graph starts and
            nothing below is saved; without any there is no graph. From the first leaf on, gradients
            can be taken at the recorded outputs.

    Yields:
        The calls in order, which the forwards fill.
    """
    calls: list[Call] = []

    def attend(plain: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
        output = None
        if torch.is_grad_enabled() and len(calls) not in leaves:
            output = _by_products(*args, **kwargs)
        if output is None:
            output = plain(*args, **kwargs)
        if len(calls) in leaves:
            output = output.detach().requires_grad_()
            torch.set_grad_enabled(True)
        calls.append(_call(output, *args, **kwargs))
        # A clone: work in place further on would otherwise overwrite what was recorded.
        return output.clone() if output.requires_grad else output

    with attention_by(attend, module), torch.no_grad():
        yield calls


@contextmanager
def attention_by(attend: Callable[..., Tensor], *modules: nn.Module) -> Iterator[None]:
    """Let this thread's forwards of `modules` call `attend` in place of attention inside the block.

    Args:
        attend: a function of scaled_dot_product_attention and its arguments.
        modules: the networks, which avoid their native kernels inside the block.
    """
    previous = getattr(_thread, "attend", None)
    handles = [handle for module in modules for handle in off_the_fast_path(module)]
    with torch.inference_mode(False), _wrapped():
        _thread.attend = attend
        try:
            yield
        finally:
            _thread.attend = previous
            for handle in handles:
                handle.remove()


def _call(
    output: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Call:
    """Build the record of a call from the arguments of scaled_dot_product_attention."""
    if enable_gqa and key.shape[1] != query.shape[1]:
        times = query.shape[1] // key.shape[1]
        key, value = key.repeat_interleave(times, 1), value.repeat_interleave(times, 1)
    mask = None if attn_mask is None else attn_mask.detach()
    return Call(query.detach(), key.detach(), value.detach(), output, mask, is_causal, scale)


def _by_products(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor | None:
    """Compute scaled_dot_product_attention by two matrix products, where that is faster.

    PyTorch's fused kernel takes three times as long for a forward and a backward in half precision
    on a CPU, where products run in matrix units. None where the fused kernel serves better.
    """
    narrow = query.dtype in (torch.bfloat16, torch.float16) and query.device.type == "cpu"
    if not narrow or dropout_p or enable_gqa:
        return None
    return _weights(query, key, attn_mask, is_causal, scale) @ value


def _dispatch(*args: Any, **kwargs: Any) -> Tensor:
    """Replace scaled_dot_product_attention while any thread records."""
    attend = getattr(_thread, "attend", None)
    return _plain(*args, **kwargs) if attend is None else attend(_plain, *args, **kwargs)


@contextmanager
def _wrapped() -> Iterator[None]:
    """Wrap scaled_dot_product_attention while any thread is inside."""
    global _users, _plain
    with _lock:
        if _users == 0:
            _plain = F.scaled_dot_product_attention
            F.scaled_dot_product_attention = _dispatch
        _users += 1
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if _users == 0:
                F.scaled_dot_product_attention = _plain


def off_the_fast_path(module: nn.Module) -> list[Any]:
    """Add hooks with which nn.MultiheadAttention calls scaled_dot_product_attention.

    Without gradients it would run a native kernel, but only when query, key and value are the same
    object. The hook replaces the query by a view of it, which holds the same numbers, so no global
    switch is touched. nn.TransformerEncoderLayer avoids its own native kernel when a module inside
    it has a hook.

    Returns:
        The hooks' handles.
    """
    owner = threading.get_ident()

    # While it is set or removed, another thread may call it without keyword arguments.
    def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any] | None = None) -> Any:
        if threading.get_ident() != owner or kwargs is None:
            return None
        if args:
            return (args[0].view_as(args[0]), *args[1:]), kwargs
        return args, {**kwargs, "query": kwargs["query"].view_as(kwargs["query"])}

    return [
        part.register_forward_pre_hook(hook, with_kwargs=True)
        for part in module.modules()
        if isinstance(part, nn.MultiheadAttention)
    ]


def _wide(value: Tensor) -> Tensor:
    """Convert to float32 and keep float64: the types that attention weights are computed in."""
    return value if value.dtype in (torch.float32, torch.float64) else value.float()
