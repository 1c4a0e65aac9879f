"""The last block of a transformer, run on the tokens that the head reads and on no others.

A head that reads the class token has no use for the other tokens after the last block, and neither
has its gradient. All of a block but its attention treats each token by itself, so that a block runs
on a few rows alone when its attention is given:

    Z[rows] = block( X[rows], attention = softmax(q[rows] kᵀ) v )
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from visxai.models.pytorch.capture import find
from visxai.models.pytorch.modules import structural_copy
from visxai.models.pytorch.sdpa import attention_by
from visxai.models.views import Tokens


class Block:
    """A block of a transformer and its twin, which runs on the first few tokens.

    Args:
        module: the network, a copy of which nothing else makes use.
        name: the block's dotted name.
        tokens: the network's tokens.
    """

    def __init__(self, module: nn.Module, name: str, tokens: Tokens) -> None:
        self.part = find(module, name)
        self.twin = structural_copy(self.part)
        self.plain = self.part.forward
        self.count = tokens.count
        self.rows = max(tokens.read) + 1

    def whole(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[Any, Tensor, Tensor]:
        """Run the block on all tokens.

        Returns:
            Its output, and of its attention the output of the first rows (b, heads, rows, depth)
            and the values (b, heads, tokens, depth).
        """
        seen: list[tuple[Tensor, Tensor]] = []

        def attend(
            plain: Callable[..., Tensor],
            query: Tensor,
            key: Tensor,
            value: Tensor,
            attn_mask: Tensor | None = None,
            *options: Any,
            **named: Any,
        ) -> Tensor:
            mask = attn_mask
            if mask is not None and mask.shape[-2] == self.count:
                mask = mask[..., : self.rows, :]
            rows = plain(query[..., : self.rows, :], key, value, mask, *options, **named)
            seen.append((rows, value))
            return plain(query, key, value, attn_mask, *options, **named)

        with attention_by(attend, self.part):
            output = self.plain(*args, **kwargs)
        ((rows, value),) = seen
        return output, rows, value

    def tokens(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Tensor:
        """Return the first tokens (b, rows, c) of the block's input."""
        given: Tensor = next(value for value in (*args, *kwargs.values()) if self._fits(value))
        return given[:, : self.rows]

    def first(
        self, args: Sequence[Any], kwargs: Mapping[str, Any], tokens: Tensor, attention: Tensor
    ) -> Any:
        """Run the block on the first tokens, given what its attention gives them."""
        named = {key: tokens if self._fits(value) else value for key, value in kwargs.items()}
        with attention_by(lambda *_, **__: attention, self.twin):
            return self.twin(*(tokens if self._fits(value) else value for value in args), **named)

    def _fits(self, value: Any) -> bool:
        return isinstance(value, Tensor) and value.ndim == 3 and value.shape[1] == self.count


def shorten(module: nn.Module, tokens: Tokens) -> None:
    """Let a network compute of its last block the tokens that the head reads, and no others.

    Args:
        module: the network, which is changed.
        tokens: its tokens.
    """
    block = Block(module, tokens.blocks[-1], tokens)

    def forward(*args: Any, **kwargs: Any) -> Any:
        _, attention, _ = block.whole(args, kwargs)
        if attention.requires_grad:  # a graph began inside, and goes on to the scores
            torch.set_grad_enabled(True)
        return block.first(args, kwargs, block.tokens(args, kwargs), attention)

    block.part.forward = forward
