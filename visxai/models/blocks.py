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


Chosen = Tensor | slice


def maps_of(aim: Aim, image: Tensor) -> list[tuple[Chosen, Tensor]]:
    """Return the maps that a block of rows serves, grouped for the backward passes.

    Each group holds a row at most once, so a single backward serves it; the number of groups is the
    largest number of maps that an image has.

    Args:
        aim: the target settled on the images.
        image: (n,) the image of each row.

    Returns:
        Pairs of row numbers and their maps, both (m,); a slice stands for all rows.
    """
    pairs: list[tuple[Chosen, Tensor]] = []
    if aim.each_has is not None:  # nothing is read off the device
        return [(slice(None), image * aim.each_has + turn) for turn in range(len(aim.passes))]
    for which in aim.passes:
        table = torch.full((aim.images_seen,), -1, device=image.device)
        table[aim.rows[which]] = which
        maps = torch.where(image < len(table), table[image.clamp(max=len(table) - 1)], -1)
        chosen = (maps >= 0).nonzero().squeeze(1)
        if len(chosen):
            pairs.append((chosen, maps[chosen]))
    return pairs


def runs_of(
    first: int, rows: int, turns: int, each_has: int, number: int
) -> tuple[tuple[int, int, int], ...]:
    """Return where each map's rows lie in a block of consecutive rows of images × turns.

    Args:
        first: the number of the block's first row.
        rows: the number of its rows.
        turns: the number of rows that each image has.
        each_has: the number of maps that each image has.
        number: which of each image's maps.

    Returns:
        (map, first, end) with rows of this block.
    """
    found = []
    for image in range(first // turns, -(-(first + rows) // turns)):
        low, high = image * turns - first, (image + 1) * turns - first
        found.append((image * each_has + number, max(0, low), min(rows, high)))
    return tuple(found)


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
    counts = {part.aim.each_has for part in parts}
    return Aim(
        torch.cat(rows),
        torch.cat(known) if known else None,
        function,
        each_has=counts.pop() if len(counts) == 1 else None,
    )
