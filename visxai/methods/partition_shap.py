"""Partition SHAP: Owen values over a hierarchy of image cells, refined where they are large.

    v(N) for a node N with halves L, R, in a context c of what else is shown:
    d_c(L) = ( f(c + L) - f(c) )     R absent, half the weight
           + ( f(c + N) - f(c + R) ) R present, half the weight,    and likewise R

The image is halved along its longer axis, again and again, down to single cells of a
(grid, grid) raster. Each node shares out what its showing adds, in each context, between its
halves, as Shapley values of two players; so values are exact Owen values where the tree was
followed to its cells, and sum to f(x) - f(b) wherever it was left. A node in its context costs
two forwards (c + L and c + R); the one with the largest weighted change is next,
`max_evaluations` in all. A node that is never opened spreads its value evenly over its cells.

    visxai.Engine().explain("cat.jpg", method="partition_shap(max_evaluations=2000)")

The precise tier for appeals: no draws, sums exactly, and forwards go where the evidence is. The
order of opening is found on the host, a few nodes a round; each map has an order of its own.

Cost: one forward of the image, one of the paint, and up to max_evaluations - 2 more for each map.
Source: Owen, Values of games with a priori unions, 1977; the image partition explainer of
Lundberg & Lee's package, whose exhaustive values these equal.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from visxai.methods._masked import Masked, cells, shown
from visxai.methods.base import Cost, Maps
from visxai.models.interface import Model
from visxai.target import Target

OPENED = 8  # nodes a map opens in one round, 16 forwards


class Box(NamedTuple):
    """A rectangle of cells: rows top..bottom, columns left..right, ends excluded."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def size(self) -> int:
        return (self.bottom - self.top) * (self.right - self.left)

    @property
    def cells(self) -> tuple[slice, slice]:
        return slice(self.top, self.bottom), slice(self.left, self.right)

    def halves(self) -> tuple[Box, Box]:
        """The two halves along the longer axis, rows first when both are equal."""
        top, bottom, left, right = self
        if bottom - top >= right - left:
            middle = (top + bottom) // 2
            return Box(top, middle, left, right), Box(middle, bottom, left, right)
        middle = (left + right) // 2
        return Box(top, bottom, left, middle), Box(top, bottom, middle, right)


class Node(NamedTuple):
    """A box in a context: shown (grid, grid) bool without the box, the score without and with."""

    box: Box
    context: np.ndarray
    without: float
    with_box: float
    weight: float

    @property
    def value(self) -> float:
        return (self.with_box - self.without) * self.weight


class Search:
    """The best-first refinement of one map."""

    def __init__(self, root: Node, evaluations: int) -> None:
        self.values = np.zeros(root.context.shape)
        self.left = evaluations
        self._queue: list[tuple[float, int, Node]] = []
        self._count = 0
        self._add(root)

    def _add(self, node: Node) -> None:
        if node.box.size == 1:
            self.values[node.box.cells] += node.value
        else:
            # Equal changes are opened in the order they were met.
            heapq.heappush(self._queue, (-abs(node.value), self._count, node))
            self._count += 1

    def take(self) -> list[Node]:
        """The nodes to open in this round; none when all is done."""
        count = min(OPENED, self.left // 2, len(self._queue))
        self.left -= 2 * count
        return [heapq.heappop(self._queue)[2] for _ in range(count)]

    def open(self, node: Node, first: float, second: float) -> None:
        """Share out a node, given the scores with its first and its second half alone."""
        one, two = node.box.halves()
        half = node.weight / 2
        with_one, with_two = shows(node.context, one), shows(node.context, two)
        self._add(Node(one, node.context, node.without, first, half))
        self._add(Node(one, with_two, second, node.with_box, half))
        self._add(Node(two, node.context, node.without, second, half))
        self._add(Node(two, with_one, first, node.with_box, half))

    def finish(self) -> np.ndarray:
        """The map (grid, grid): what was never opened is spread evenly over its cells."""
        for _, _, node in self._queue:
            self.values[node.box.cells] += node.value / node.box.size
        return self.values


@dataclass(frozen=True, repr=False)
class PartitionShap(Masked):
    """Owen values of the image's cells; see the module's docstring."""

    max_evaluations: int = 1000
    grid: int = 32

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require(self.max_evaluations >= 4, "at least 4 evaluations", self.max_evaluations)
        self._require(self.grid >= 1, "a grid of at least 1 cell a side", self.grid)

    def __call__(self, model: Model, x: Tensor, target: Target) -> Maps:
        aim, clean = self.clean(model, x, target)
        whole = self._whole(x)
        labels = cells(tuple(x.shape[2:]), (whole.bottom, whole.right)).to(x.device)
        empty = np.zeros((whole.bottom, whole.right), dtype=bool)
        nothing = torch.zeros(1, 1, whole.size, device=x.device)
        painted = self.responses(model, x, aim, 1, shown(labels, nothing))[:, 0]
        searches = [
            Search(Node(whole, empty, without, with_all, 1.0), self.max_evaluations - 2)
            for without, with_all in zip(painted.tolist(), clean.tolist(), strict=True)
        ]
        for nodes in rounds(searches):
            owner = torch.tensor([number for number, _ in nodes], device=x.device)
            masks = np.stack(
                [shows(node.context, half) for _, node in nodes for half in node.box.halves()]
            )
            presence = torch.from_numpy(masks).to(x.device).reshape(len(nodes), 2, whole.size)
            images = aim.rows[owner]
            found = self.responses(
                model, x[images], aim.each(owner), 2, shown(labels, presence.float())
            )
            for (number, node), (first, second) in zip(nodes, found.tolist(), strict=True):
                searches[number].open(node, first, second)
        maps = np.stack([search.finish() for search in searches]) if searches else empty[None][:0]
        return Maps(torch.from_numpy(maps).to(x.device, torch.float32))

    def cost(self, model: Model, x: Tensor) -> Cost:
        most = 2 * openings(self._whole(x))
        return Cost(2 + min((self.max_evaluations - 2) // 2 * 2, most))

    def _whole(self, x: Tensor) -> Box:
        """The raster of the image: no finer than its pixels."""
        return Box(0, min(self.grid, x.shape[2]), 0, min(self.grid, x.shape[3]))


def shows(context: np.ndarray, box: Box) -> np.ndarray:
    """The context with the box shown too."""
    out = context.copy()
    out[box.cells] = True
    return out


def rounds(searches: list[Search]) -> Iterator[list[tuple[int, Node]]]:
    """Round after round, the nodes to open and the search each belongs to."""
    while nodes := [
        (number, node) for number, search in enumerate(searches) for node in search.take()
    ]:
        yield nodes


@cache
def openings(box: Box) -> int:
    """How many nodes, each in each of its contexts, there are to open below and with a box."""
    if box.size == 1:
        return 0
    return 1 + 2 * sum(openings(half) for half in box.halves())
