"""DiFull: grid pointing where the other cells are known not to matter.

    value = sum_(p in the class's cell) max(M_p, 0) / sum_p max(M_p, 0)

As grid_pointing, but each cell has a copy of the whole network to itself, head included, and the
explained logit is the class's in its own cell's copy: no other cell can change it, so all evidence
outside is wrong, and the perfect value is 1. For input gradients, layer_cam and hires_cam the
outside is exactly 0; grad_cam pools its weights over all cells, which this measures. Each cell of
a map is upsampled alone, so that nothing is interpolated across the cells' borders.

The copies share their weights: cells run as a batch of their own, and the layer that a CAM reads
is presented to it with all cells joined.

    metrics.load("difull(cells=2, grids=200)")

Methods that read attention or tokens of a transformer can't be judged so: its copies never see
each other's tokens.

Cost: `grids` times the method on inputs cells^2 times as large, and one forward an image.
Source: Rao et al., Towards better understanding attribution methods, CVPR 2022.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from visxai.errors import ArgumentError
from visxai.methods._maps import upsample
from visxai.methods.base import Method
from visxai.metrics._grids import OverGrids, cut, joined
from visxai.metrics._inside import share_inside
from visxai.metrics.base import Case, Scores, explained
from visxai.models.interface import Need
from visxai.models.probe import Probe
from visxai.models.pytorch.capture import find, first_tensor, with_first_tensor
from visxai.models.pytorch.layers import Layout
from visxai.models.pytorch.model import TorchModel
from visxai.target import Target


@dataclass(frozen=True, repr=False)
class Difull(OverGrids):
    """Share of positive evidence in the only cell that matters; see the module's docstring."""

    needs = Need.MODULE

    def score(self, case: Case) -> Scores:
        assert case.method is not None
        grids, plain = self.arrange(case.probe, case.x), case.plain
        assert isinstance(plain, TorchModel)
        scores = case.probe.scores(case.x)
        wanted = (grids.cell * scores.shape[1] + grids.wanted).tolist()
        model, method = disconnected(plain, case.method, case.x, self.cells)
        shares = []
        for start, stop in self.parts(model):
            x = grids.pixels(start, stop)
            maps = explained(method, Probe(model, x), x, Target.of(wanted[start:stop]))
            inside = grids.inside(start, stop)
            shares.append(share_inside(apart(maps, self.cells, tuple(x.shape[2:])), inside))
        return Scores(torch.cat(shares))


def apart(maps: Tensor, cells: int, size: tuple[int, ...]) -> Tensor:
    """Upsample maps (r, u, v) of grids to (r, *size), each cell alone if cells divide the map."""
    if maps.shape[1] % cells or maps.shape[2] % cells:
        return upsample(maps, size)
    each = cut(maps.unsqueeze(1), cells).squeeze(1)
    return joined(upsample(each, (size[0] // cells, size[1] // cells)).unsqueeze(1), cells)[:, 0]


def disconnected(
    model: TorchModel, method: Method, x: Tensor, cells: int
) -> tuple[TorchModel, Method]:
    """Build a model of grids whose cells don't see each other, and a method that reads its layers.

    Args:
        model: The model of a single cell.
        method: The method that is judged.
        x: Images (b, 3, h, w) of a cell's size.
        cells: Cells a side.

    Returns:
        The model, whose score cell * classes + class is the score of the class in that cell, and
        the method for it.

    Raises:
        ArgumentError: The method needs attention or tokens.
    """
    if method.needs & (Need.ATTENTION | Need.TOKENS):
        raise ArgumentError(
            f"expected a method of scores, gradients or layers for difull, but {method.name()} "
            "needs attention or tokens: use grid_pointing"
        )
    names = (method.layer_of(model, x) or "").split("+")
    layouts = {name: model.layout(name, x) for name in names if name}
    module = Disconnected(model, layouts, cells)
    if getattr(method, "layer", None) is not None:
        method = replace(method, layer=None)  # type: ignore[call-arg]
    seen = "+".join(f"seen.{number}" for number in range(len(layouts)))
    found = model.with_module(module, seen or None).with_output(lambda scores: scores)
    found.labels = None  # its outputs are the classes of all cells
    # Forwards without a graph don't need the joined layers: the model itself runs the cells, in
    # its accelerated form where it has one.
    found.runtime = lambda grids: model.scores(cut(grids, cells)).reshape(len(grids), -1)
    return found, method


class Disconnected(nn.Module):
    """A network that runs on every cell of a grid (n, 3, cells * h, cells * w) separately.

    Attributes:
        inner: The network of a cell.
        seen: Modules that output the read layers of all cells, each joined to maps
            (n, channels, cells * u, cells * v).
        cells: Cells a side.
    """

    def __init__(self, model: TorchModel, layouts: dict[str, Layout], cells: int) -> None:
        super().__init__()
        self.inner = model.copied()
        self.seen = nn.ModuleList(nn.Identity() for _ in layouts)
        self.cells = cells

        def read(output: Any) -> Tensor:
            return model.logits(output)

        # A deep copy of this module shares a function, but would copy a bound method with its
        # model and the model's locks.
        self._output = read
        for number, (name, layout) in enumerate(layouts.items()):
            find(self.inner, name).register_forward_hook(_Joining(self, number, layout))

    def forward(self, x: Tensor) -> Tensor:
        """Compute the scores of all cells (n, cells * cells * classes)."""
        scores = self._output(self.inner(cut(x, self.cells)))
        return scores.reshape(len(x), -1)


class _Joining:
    """A hook that joins the cells of a layer for the method, and passes them on separately."""

    def __init__(self, whole: Disconnected, number: int, layout: Layout) -> None:
        self.whole, self.number, self.layout = whole, number, layout

    def __call__(self, _: nn.Module, args: Any, output: Any) -> Any:
        value = first_tensor(output)
        maps, prefix = self.layout.maps(value), self.layout.prefix_tokens(value)
        cells = self.whole.cells
        seen = self.whole.seen[self.number](joined(maps, cells))
        return with_first_tensor(output, self.layout.joined(cut(seen, cells), prefix))
