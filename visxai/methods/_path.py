"""Shared code of the gradient methods: a sum of gradients over many inputs, never held at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from visxai.models.interface import Model
from visxai.models.rows import Rows
from visxai.target import Aim

Weigh = Callable[[Tensor, Tensor, Tensor], Tensor]


def gradient_sum(
    model: Model, rows: Rows, aim: Aim, weigh: Weigh | None = None
) -> tuple[Tensor, Tensor]:
    """Sum the gradients of every map over its turns.

    Args:
        model: The model.
        rows: The inputs: one row for each image and turn.
        aim: The target, settled on the images.
        weigh: A function of gradient (n, c, h, w), image (n,) and turn (n,) whose result is summed;
            None sums the gradients themselves.

    Returns:
        The sums (r, c, h, w), and the target's scalars (r, turns); float64 for a float64 model,
        otherwise float32.
    """
    like: dict[str, Any] = {"device": aim.rows.device, "dtype": torch.float32}
    total = torch.zeros((len(aim), *rows.shape), **like)
    values = torch.zeros((len(aim), rows.turns), **like)
    for block in model.gradients(rows, aim):
        if block.gradient.dtype != total.dtype:  # a float64 model: nothing is rounded to float32
            total, values = total.to(block.gradient), values.to(block.gradient)
        parts = block.gradient
        if weigh is not None:
            parts = weigh(parts, aim.rows[block.map], block.turn)
        values[block.map, block.turn] = block.value.to(values)
        # Map by map rather than index_add_, whose order on a GPU changes from run to run.
        for index, own in block.by_map(parts):
            total[index] += own.sum(0)
    return total, values
