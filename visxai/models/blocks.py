"""Aims over blocks of rows: the maps that a block serves, and the joint aim of several blocks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from visxai.target import Aim


class Aimed(Protocol):
    """A block of images: its scores (b, k), and the aim settled on them."""

    @property
    def scores(self) -> Tensor: ...
    @property
    def aim(self) -> Aim: ...


def maps_of(aim: Aim, image: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Return the maps that a block of rows serves, grouped for the backward passes.

    Each group holds a row at most once, so a single backward serves it; the number of groups is the
    largest number of maps that an image has.

    Args:
        aim: the target settled on the images.
        image: (n,) the image of each row.

    Returns:
        Pairs (row numbers, their maps), both (m,).
    """
    pairs = []
    for which in aim.passes:
        table = torch.full((int(aim.rows.max()) + 1,), -1, device=image.device)
        table[aim.rows[which]] = which
        maps = torch.where(image < len(table), table[image.clamp(max=len(table) - 1)], -1)
        chosen = (maps >= 0).nonzero().squeeze(1)
        if len(chosen):
            pairs.append((chosen, maps[chosen]))
    return pairs


def joined_aim(parts: Sequence[Aimed]) -> Aim:
    """Join the aims of consecutive blocks of images into the aim of the whole batch."""
    rows, classes, start = [], [], 0
    for part in parts:
        rows.append(part.aim.rows + start)
        classes.append(part.aim.classes)
        start += part.scores.shape[0]
    bounds = [0]
    for part in parts:
        bounds.append(bounds[-1] + len(part.aim))

    def function(scores: Tensor, which: Tensor) -> Tensor:
        out = scores.new_empty(len(which))
        for part, low, high in zip(parts, bounds, bounds[1:], strict=False):
            mine = ((which >= low) & (which < high)).nonzero().squeeze(1)
            out = out.index_put((mine,), part.aim(scores[mine], which[mine] - low).to(out.dtype))
        return out

    known = [c for c in classes if c is not None]
    return Aim(torch.cat(rows), torch.cat(known) if known else None, function)
