"""Grids of images that the model classifies with confidence, for the grid pointing metrics."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from visxai.errors import ArgumentError, ModelError
from visxai.metrics.base import Ask, Metric
from visxai.models.interface import Model
from visxai.models.pytorch.model import TorchModel


@dataclass(frozen=True)
class Grids:
    """Grids (g of them) of side x side images of distinct classes.

    Attributes:
        pool: The images (b, 3, h, w) in model space.
        members: The image in each cell (g, side * side), row by row.
        classes: The class of each image (b,), as the model predicts it.
        cell: The cell whose class is explained, for each grid (g,).
        side: Cells a side.
    """

    pool: Tensor
    members: Tensor
    classes: Tensor
    cell: Tensor
    side: int

    def __len__(self) -> int:
        return len(self.members)

    @property
    def wanted(self) -> Tensor:
        """Return the class that is explained in each grid (g,)."""
        return self.classes[self.members.gather(1, self.cell.unsqueeze(1)).squeeze(1)]

    def pixels(self, start: int, stop: int) -> Tensor:
        """Compose the grids start..stop as inputs (n, 3, side * h, side * w)."""
        cells = self.pool[self.members[start:stop]]
        return joined(cells.flatten(0, 1), self.side)

    def inside(self, start: int, stop: int) -> Tensor:
        """Mark the explained cells of grids start..stop: (n, side * h, side * w), bool."""
        height, width = self.pool.shape[2:]
        one = F.one_hot(self.cell[start:stop], self.side**2).reshape(-1, self.side, self.side)
        return one.bool().repeat_interleave(height, 1).repeat_interleave(width, 2)


def cut(x: Tensor, side: int) -> Tensor:
    """Cut grids (n, c, side * h, side * w) into cells (n * side * side, c, h, w), row by row."""
    n, c, height, width = x.shape
    cells = x.reshape(n, c, side, height // side, side, width // side)
    return cells.permute(0, 2, 4, 1, 3, 5).flatten(0, 2)


def joined(cells: Tensor, side: int) -> Tensor:
    """Join cells (n * side * side, c, h, w) to grids (n, c, side * h, side * w); invert `cut`."""
    _, c, height, width = cells.shape
    grids = cells.reshape(-1, side, side, c, height, width).permute(0, 3, 1, 4, 2, 5)
    return grids.reshape(-1, c, side * height, side * width)


@dataclass(frozen=True, repr=False)
class OverGrids(Metric):
    """A metric over grids composed of the case's images; see grid_pointing's docstring.

    Attributes:
        cells: Cells a side of a grid, at least 2.
        sure: Probability from which an image's predicted class counts, from 0 to below 1.
        grids: Number of grids.
        seed: Seed of the grids.
    """

    cells: int = 2
    sure: float = 0.9
    grids: int = 200
    seed: int = 0

    asks = Ask.METHOD
    better = "higher"
    per = "grid"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require(self.cells >= 2, "at least 2 cells a side", self.cells)
        self._require(0 <= self.sure < 1, "sure between 0 and 1", self.sure)
        self._require(self.grids >= 1, "at least 1 grid", self.grids)

    def arrange(self, model: Model, x: Tensor) -> Grids:
        """Draw the grids from a pool of images, whatever their order.

        Args:
            model: The model, whose predictions give the classes.
            x: Images (b, 3, h, w) in model space.

        Raises:
            ArgumentError: The model is sure of images of too few classes.
        """
        certainty, classes = model.probabilities(model.scores(x)).max(1)
        able = [i for i, p in enumerate(certainty.tolist()) if p >= self.sure]
        digests = {i: hashlib.sha256(x[i].cpu().numpy().tobytes()).digest() for i in able}
        of_class: dict[int, list[int]] = {}
        for i in sorted(able, key=lambda i: digests[i]):
            of_class.setdefault(int(classes[i]), []).append(i)
        wanted, known = self.cells**2, sorted(of_class)
        if len(known) < wanted:
            raise ArgumentError(
                f"expected images of {wanted} classes that the model gives at least {self.sure}, "
                f"got {len(known)} of {len(x)} images: pass more images, or a lower sure="
            )
        generator = torch.Generator().manual_seed(self.seed)
        members = []
        for _ in range(self.grids):
            chosen = torch.randperm(len(known), generator=generator)[:wanted].tolist()
            draws = torch.rand(wanted, generator=generator).tolist()
            ranks = [of_class[known[which]] for which in chosen]
            members.append([r[int(d * len(r))] for r, d in zip(ranks, draws, strict=True)])
        cell = torch.arange(self.grids) % wanted
        return Grids(x, torch.tensor(members).to(x.device), classes, cell.to(x.device), self.cells)

    def parts(self, model: Model) -> Iterator[tuple[int, int]]:
        """Yield spans (start, stop) of grids to explain together: cells that fit a batch."""
        size = max(1, model.budget.limit // self.cells**2)
        for start in range(0, self.grids, size):
            yield start, min(self.grids, start + size)


def fitted(model: Model, x: Tensor, side: int) -> Model:
    """Adapt a model to inputs `side` times as large as x.

    A transformer's position embedding is resampled on a private copy; a model that takes any size
    is returned as it is.

    Args:
        model: The model.
        x: Images (b, c, h, w) of the model's usual size.
        side: The factor of height and width.

    Raises:
        ModelError: The model can't take inputs of that size.
    """
    size = (x.shape[2] * side, x.shape[3] * side)
    larger = x.new_zeros(1, x.shape[1], *size)
    if not isinstance(model, TorchModel):
        return _tried(model, larger)
    module = model.copied()
    positions = getattr(getattr(module, "encoder", None), "pos_embedding", None)
    if hasattr(module, "set_input_size"):  # timm
        module.set_input_size(img_size=size)  # type: ignore[operator]
    elif isinstance(positions, nn.Parameter) and hasattr(module, "image_size"):  # torchvision
        module.image_size = size[0]  # type: ignore[assignment]
        module.encoder.pos_embedding = _resampled(positions, side)  # type: ignore[union-attr]
    elif hasattr(getattr(module, "config", None), "patch_size"):  # Hugging Face
        # Its forward resamples the embedding if this option is set.
        module.register_forward_pre_hook(
            lambda _, args, named: (args, {**named, "interpolate_pos_encoding": True}),
            with_kwargs=True,
        )
    else:
        return _tried(model, larger)
    return _tried(model.with_module(module), larger)


def _resampled(positions: Tensor, side: int) -> nn.Parameter:
    """Resample position embeddings (1, prefix + n * n, c) for a grid `side` times as fine."""
    grid = math.isqrt(positions.shape[1])
    prefix = positions[:, : positions.shape[1] - grid**2]
    image = positions[:, prefix.shape[1] :].transpose(1, 2).reshape(1, -1, grid, grid)
    finer = F.interpolate(image, scale_factor=side, mode="bicubic", align_corners=False)
    return nn.Parameter(torch.cat([prefix, finer.flatten(2).transpose(1, 2)], 1))


def _tried(model: Model, x: Tensor) -> Model:
    try:
        model.scores(x)
    except Exception as error:
        size = f"{x.shape[2]}x{x.shape[3]}"
        raise ModelError(
            f"expected {model.ref.name} to take grids of {size} pixels, but it can't "
            f"({type(error).__name__}): use difull, or a model that takes any size"
        ) from error
    return model
