"""Controls: maps that don't depend on the model, which every report adds to the methods'.

Technically they are methods, so that whatever evaluates methods evaluates them too; they
aren't explanations, so `visxai.methods` doesn't list them.

    controls.load("random_map")        controls.names()

Cost: one forward, for the target alone.
Source: this project; the centred one after Zhang et al., ECCV 2016.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import torch
from torch import Tensor

from visxai.errors import UnknownName
from visxai.methods.base import Cost, Maps, Method
from visxai.models.interface import Model, Need
from visxai.spec import built, parse
from visxai.target import Target


@dataclass(frozen=True, repr=False)
class RandomMap(Method):
    """Uniform draws in 0..1 on a grid of cells.

    They are drawn from `seed` and the image's own values: every image has another map, and the same
    map in every batch.

    Attributes:
        grid: Cells a side; None draws every pixel.
        seed: Seed of the draws.
    """

    grid: int | None = 7
    seed: int = 0

    needs = Need.SCORES

    @property
    def two_sided(self) -> bool:
        return False

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require(self.grid is None or self.grid >= 1, "a grid of at least 1 cell", self.grid)

    def __call__(self, model: Model, x: Tensor, target: Target) -> Maps:
        size = tuple(x.shape[2:]) if self.grid is None else (self.grid, self.grid)
        maps = []
        for image in x.float().cpu().numpy():
            seed = zlib.crc32(image.tobytes(), self.seed)
            maps.append(torch.rand(size, generator=torch.Generator().manual_seed(seed)))
        return Maps(torch.stack(maps).to(x.device)[model.aim(x, target).rows])

    def cost(self, model: Model, x: Tensor) -> Cost:
        return Cost(1)


@dataclass(frozen=True, repr=False)
class CentredGaussian(Method):
    """The Gaussian exp(-r^2 / 2) around the image's centre, r in units of `sigma` of each side.

    Attributes:
        sigma: Standard deviation as a share of each side.
    """

    sigma: float = 0.25

    needs = Need.SCORES

    @property
    def two_sided(self) -> bool:
        return False

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require(self.sigma > 0, "a sigma above 0", self.sigma)

    def __call__(self, model: Model, x: Tensor, target: Target) -> Maps:
        height, width = (
            (((torch.arange(side) + 0.5) / side - 0.5) / self.sigma).square()
            for side in x.shape[2:]
        )
        one = (-0.5 * (height.unsqueeze(1) + width)).exp().to(x.device)
        return Maps(one.repeat(len(model.aim(x, target)), 1, 1))

    def cost(self, model: Model, x: Tensor) -> Cost:
        return Cost(1)


_KNOWN: dict[str, type[Method]] = {one.name(): one for one in (CentredGaussian, RandomMap)}


def names() -> tuple[str, ...]:
    """List the names of the controls, sorted."""
    return tuple(sorted(_KNOWN))


def load(spec: str) -> Method:
    """Load a control from its spec string, as `visxai.methods.load` does with methods.

    Raises:
        UnknownName: The control or an option doesn't exist.
        ArgumentError: The spec can't be parsed, or an option's value is not allowed.
    """
    name, _, options = parse(spec, "control", "random_map(grid=7)")
    if name not in _KNOWN:
        raise UnknownName("control", name, names())
    return built(_KNOWN[name], options)
