"""Partition SHAP: Owen values over a hierarchy of image cells, refined where they are large.

    v(N) for a node N with halves L, R, in a context c of what else is shown:
    d_c(L) = ( f(c + L) - f(c) )     R absent, half the weight
           + ( f(c + N) - f(c + R) ) R present, half the weight,    and likewise R

The image is halved along its longer axis, again and again, down to single cells of a
(grid, grid) raster. Each node divides the score that showing it adds, in each context, between
its halves, as Shapley values of two players; so values are exact Owen values where the tree was
followed to its cells, and sum to f(x) - f(b) wherever it was left. A node in its context costs
two forwards (c + L and c + R); the node with the largest weighted change is opened next, up to
`max_evaluations` forwards in all. A node that is never opened spreads its value evenly over its
cells.

    visxai.Engine().explain("cat.jpg", method="partition_shap(max_evaluations=2000)")

The precise tier for appeals: no draws, sums exactly, and forwards go where the evidence is. The
order of opening is computed on the host, a few nodes a round; each map has an order of its own.

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

OPENED = 8  # nodes that a map opens in a round, with two forwards each


class Box(NamedTuple):
    """A rectangle of cells: rows top..bottom, columns left..right, ends excluded."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def size(self) -> int:
        """Count the cells."""
        return (self.bottom - self.top) * (self.right - self.left)

    @property
    def cells(self) -> tuple[slice, slice]:
        """Return the box as an index of an array (rows, columns)."""
        return slice(self.top, self.bottom), slice(self.left, self.right)

    def halves(self) -> tuple[Box, Box]:
        """Cut the box in two along its longer axis, along its rows when both are equal."""
        top, bottom, left, right = self
        if bottom - top >= right - left:
            middle = (top + bottom) // 2
            return Box(top, middle, left, right), Box(middle, bottom, left, right)
        middle = (left + right) // 2
        return Box(top, bottom, left, middle), Box(top, bottom, middle, right)


class Node(NamedTuple):
    """A box in a context.

    Attributes:
        box: The cells that are shown or not.
        context: The cells shown beside the box (rows, columns), bool.
        without: The score of the context alone.
        with_box: The score of the context with the box.
        weight: The share of the context among all contexts of the box.
    """

    box: Box
    context: np.ndarray
    without: float
    with_box: float
    weight: float

    @property
    def value(self) -> float:
        """Return the weighted change of the score that showing the box makes."""
        return (self.with_box - self.without) * self.weight


class Search:
    """The best-first refinement of one map.

    Attributes:
        values: The attribution of each cell so far (rows, columns).
        left: The forwards that are left.
    """

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
            # Nodes with equal changes are opened in the order in which they were added.
            heapq.heappush(self._queue, (-abs(node.value), self._count, node))
            self._count += 1

    def take(self) -> list[Node]:
        """Take the nodes to open in this round from the queue; none when the search is done."""
        count = min(OPENED, self.left // 2, len(self._queue))
        self.left -= 2 * count
        return [heapq.heappop(self._queue)[2] for _ in range(count)]

    def open(self, node: Node, first: float, second: float) -> None:
        """Split a node into its halves, given the scores of its context with each half alone.

        Args:
            node: The node.
            first: The score with the first half.
            second: The score with the second half.
        """
        one, two = node.box.halves()
        half = node.weight / 2
        with_one, with_two = shows(node.context, one), shows(node.context, two)
        self._add(Node(one, node.context, node.without, first, half))
        self._add(Node(one, with_two, second, node.with_box, half))
        self._add(Node(two, node.context, node.without, second, half))
        self._add(Node(two, with_one, first, node.with_box, half))

    def finish(self) -> np.ndarray:
        """Spread unopened nodes evenly over their cells, and return the map (rows, columns)."""
        for _, _, node in self._queue:
            self.values[node.box.cells] += node.value / node.box.size
        return self.values


@dataclass(frozen=True, repr=False)
class PartitionShap(Masked):
    """Owen values of the image's cells; see the module's docstring.

    Attributes:
        max_evaluations: Most forwards for each map, the image and the paint included.
        grid: Cells a side.
    """

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
        """Return the raster of the image, no finer than its pixels."""
        return Box(0, min(self.grid, x.shape[2]), 0, min(self.grid, x.shape[3]))


def shows(context: np.ndarray, box: Box) -> np.ndarray:
    """Return a copy of the context with the box shown too."""
    out = context.copy()
    out[box.cells] = True
    return out


def rounds(searches: list[Search]) -> Iterator[list[tuple[int, Node]]]:
    """Yield, round after round, the nodes to open, each with the index of its search."""
    while nodes := [
        (number, node) for number, search in enumerate(searches) for node in search.take()
    ]:
        yield nodes


@cache
def openings(box: Box) -> int:
    """Count the nodes to open at and below a box, each once for each of its contexts."""
    if box.size == 1:
        return 0
    return 1 + 2 * sum(openings(half) for half in box.halves())
