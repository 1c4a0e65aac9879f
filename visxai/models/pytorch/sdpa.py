"""Reading attention out of a forward, without giving up the fused kernels.

    with record_attention(module) as calls:
        scores = module(x)
    calls[0].query, calls[0].output

torchvision, timm and Hugging Face all call `torch.nn.functional.scaled_dot_product_attention`, so
one wrapper around it serves them all. A fused kernel never forms the attention weights; what is
recorded are its inputs and output, from which they and their gradient follow:

    A = softmax(q kᵀ * scale + mask),    dy/dA = (dy/do) vᵀ

The function is global: it is wrapped under a lock while anybody records (the first saves, the last
restores), and each thread records into a list of its own.
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

# Attention weights held at once, in elements: 256 MB in float32. Heads beyond it wait their turn.
_MOST_WEIGHTS = 2**26

_lock = threading.Lock()
_users = 0
_plain: Callable[..., Tensor] = F.scaled_dot_product_attention
_thread = threading.local()


@dataclass(frozen=True)
class Call:
    """One call of attention by r rows: query, key, value, output (r, heads, tokens, depth).

    mask: (tokens, tokens) or broadcastable to (r, heads, tokens, tokens), True or 0 where a query
    may attend. gradient: dy/d output of the target's scalar, the same shape as output.
    """

    query: Tensor
    key: Tensor
    value: Tensor
    output: Tensor
    mask: Tensor | None = None
    causal: bool = False
    scale: float | None = None
    gradient: Tensor | None = None

    def of(self, rows: Tensor, gradient: Tensor | None) -> Call:
        """The call as rows `rows` (n,) made it, with the gradient at their outputs."""
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
        """Attention weights A (r, some heads, queries, keys) and dy/dA, float32 or wider, as many
        heads at a time as fit comfortably."""
        rows, heads, queries, _ = self.query.shape
        step = max(1, _MOST_WEIGHTS // max(1, rows * queries * self.key.shape[2]))
        for start in range(0, heads, step):
            part = slice(start, start + step)
            gradient = None
            if self.gradient is not None:
                gradient = _wide(self.gradient[:, part]) @ _wide(self.value[:, part]).mT
            yield self._weights(part), gradient

    def mean(self, form: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """The mean over heads of form(A, dy/dA), some heads at a time: (r, ...). Where no gradient
        was asked for, form gets A twice."""
        total = None
        for weights, gradient in self.heads():
            found = form(weights, weights if gradient is None else gradient).sum(1)
            total = found if total is None else total + found
        assert total is not None
        return total / self.query.shape[1]

    def rows(self, start: Tensor) -> tuple[Tensor, Tensor]:
        """start (r, queries) times A, and times dy/dA: both (r, heads, keys)."""
        weights, gradients = [], []
        for some, gradient in self.heads():
            weights.append(_row(start, some))
            gradients.append(weights[-1] if gradient is None else _row(start, gradient))
        return torch.cat(weights, 1), torch.cat(gradients, 1)

    def _weights(self, part: slice) -> Tensor:
        query, key = _wide(self.query[:, part]), _wide(self.key[:, part])
        scale = 1 / math.sqrt(query.shape[-1]) if self.scale is None else self.scale
        logits = query @ key.mT * scale
        if self.causal:
            above = torch.ones(logits.shape[-2:], dtype=torch.bool, device=logits.device).triu(1)
            logits = logits.masked_fill(above, -math.inf)
        if self.mask is not None:
            per_head = self.mask.ndim == 4 and self.mask.shape[1] > 1
            mask = self.mask[:, part] if per_head else self.mask
            if mask.dtype == torch.bool:
                logits = logits.masked_fill(~mask, -math.inf)
            else:
                logits = logits + _wide(mask)
        return logits.softmax(-1)


def _row(start: Tensor, matrices: Tensor) -> Tensor:
    """start (r, queries) times matrices (r, heads, queries, keys)."""
    return (start[:, None, None] @ matrices).squeeze(2)


@contextmanager
def record_attention(module: nn.Module, *, leaves: Collection[int] = ()) -> Iterator[list[Call]]:
    """Record this thread's attention calls in the forwards of `module` inside the block.

    leaves: the numbers of the calls whose output becomes a fresh leaf, where a graph starts and
    nothing below is saved; without any there is no graph. From the first leaf on, the recorded
    outputs can be differentiated at. The caller's grad mode comes back at the end.
    """
    calls: list[Call] = []

    def attend(*args: Any, **kwargs: Any) -> Tensor:
        output = _plain(*args, **kwargs)
        if len(calls) in leaves:
            output = output.detach().requires_grad_()
            torch.set_grad_enabled(True)
        calls.append(_call(output, *args, **kwargs))
        # A clone: work in place further on would otherwise overwrite what was recorded.
        return output.clone() if output.requires_grad else output

    previous = getattr(_thread, "attend", None)
    handles = off_the_fast_path(module)
    with torch.inference_mode(False), torch.no_grad(), _wrapped():
        _thread.attend = attend
        try:
            yield calls
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
    if enable_gqa and key.shape[1] != query.shape[1]:
        times = query.shape[1] // key.shape[1]
        key, value = key.repeat_interleave(times, 1), value.repeat_interleave(times, 1)
    mask = None if attn_mask is None else attn_mask.detach()
    return Call(query.detach(), key.detach(), value.detach(), output, mask, is_causal, scale)


def _dispatch(*args: Any, **kwargs: Any) -> Tensor:
    """What stands in for scaled_dot_product_attention while anybody records."""
    attend = getattr(_thread, "attend", None)
    return (_plain if attend is None else attend)(*args, **kwargs)


@contextmanager
def _wrapped() -> Iterator[None]:
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
    """Hook nn.MultiheadAttention so that it calls scaled_dot_product_attention without gradients.

    Its native kernel is only for query, key and value that are the same object; a view of the
    query is the same numbers, and no global switch is touched. nn.TransformerEncoderLayer leaves
    its own native kernel when a module inside it has a hook.
    """
    owner = threading.get_ident()

    # Another thread may call it, while it is set or removed, as a hook without keywords.
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
    """float32, or float64 as it is: what attention is formed in."""
    return value if value.dtype in (torch.float32, torch.float64) else value.float()
