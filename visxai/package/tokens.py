"""LeGrad in a packed model: what a forward leaves for it, and the map made of that.

LeGrad needs of every block no more than its attention and the few tokens that the head reads (see
`visxai.models.pytorch.shortened`), since its gradients stop at the block's own attention (see
`visxai.methods.legrad`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from visxai.models.pytorch.capture import first_tensor
from visxai.models.pytorch.model import TorchModel
from visxai.models.pytorch.shortened import Block


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
