"""Transformers in a packed model: of the blocks, only what the head reads of them.

A head that reads the class token has no use for the other tokens after the last block, and neither
has its gradient. All of a block but its attention treats each token by itself, so that a block runs
on a few rows alone when its attention is given:

    Z[rows] = block( X[rows], attention = softmax(q[rows] kᵀ) v )

LeGrad needs no more than that of every block, since its gradients stop at the block's own attention
(see `visxai.methods.legrad`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from visxai.models.pytorch.capture import find, first_tensor
from visxai.models.pytorch.model import TorchModel
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


class Sensitivity:
    """LeGrad in two parts: what a forward leaves for it, and the map made of that.

    Args:
        model: the network.
        x: two inputs (2, c, h, w).

    Attributes:
        module: the copy of the network that runs.
        head: from the tokens after the last block to the network's output.
    """

    def __init__(self, model: TorchModel, x: Tensor) -> None:
        self.tokens = model.tokens(x)
        self.module = model.copied()
        self.head = model.split(self.tokens.blocks[-1], x).head
        self._forward = model.forward
        self._blocks = [Block(self.module, name, self.tokens) for name in self.tokens.blocks]
        self._calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
        self._seen: list[Tensor] = []
        for block in self._blocks:
            block.part.forward = self._watched(block)

    def _watched(self, block: Block) -> Callable[..., Any]:
        """Return a block's forward that keeps what its gradient needs."""

        def forward(*args: Any, **kwargs: Any) -> Any:
            output, attention, value = block.whole(args, kwargs)
            self._calls.append((args, kwargs))
            self._seen += [block.tokens(args, kwargs), attention, value]
            return output

        return forward

    def __call__(self, x: Tensor) -> tuple[Tensor, ...]:
        """Compute of each block the tokens that enter it, its attention's outputs and values.

        Args:
            x: inputs (b, c, h, w).

        Returns:
            For each block (b, rows, c), (b, heads, rows, depth) and (b, heads, tokens, depth).
        """
        self._calls.clear()
        self._seen.clear()
        self._forward(x, self.module)
        return tuple(self._seen)

    def explain(
        self, choose: Callable[[Tensor], Tensor], seen: Sequence[Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Compute scores and maps of what a forward left, after one forward has run.

        Args:
            choose: from the scores (b, k) to 1 at each image's class and 0 elsewhere.
            seen: what the call of this object returned.

        Returns:
            Scores (b, k) and maps (b, u, v).
        """
        tokens, layers = self.tokens, len(self.tokens.blocks)
        before, outputs, values = seen[::3], seen[1::3], seen[2::3]
        with torch.enable_grad():
            leaves = [output.detach().requires_grad_() for output in outputs]
            after = [
                first_tensor(block.first(*call, own, leaf))
                for block, call, own, leaf in zip(
                    self._blocks, self._calls, before, leaves, strict=True
                )
            ]
            scores = self._forward(torch.cat([after[-1], *after[:-1]]), self.head)
        plain = scores[: scores.shape[0] // layers].detach()
        gradients = torch.autograd.grad(scores, leaves, choose(plain).repeat(layers, 1))
        total = torch.stack(
            [
                (gradient @ value.mT).relu().sum(2).mean(1)
                for gradient, value in zip(gradients, values, strict=True)
            ]
        ).sum(0)
        maps = total[:, tokens.prefix :] / tokens.count
        return plain, maps.reshape(-1, tokens.height, tokens.width)
