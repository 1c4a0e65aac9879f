"""The layer that a CAM should read, and where the positions lie in a layer's output.

A forward on a single image records what every module outputs. From that follow the grid of
patches, the number of prefix tokens (class, registers), the layout of any layer, and the default
layer: for a CNN the last output that still has positions; for a transformer the first norm of the
last block, whose tokens the class token still reads.
"""

from __future__ import annotations

import math
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from visxai.errors import LayerError
from visxai.models.pytorch.capture import first_tensor

# Modules that only move, drop or pool positions: a CAM reads the layers before them.
_PASSIVE = re.compile(r"pool|dropout|droppath|identity|permute|flatten|padding", re.IGNORECASE)
_NORM = re.compile(r"norm", re.IGNORECASE)
_MOST_PREFIX_TOKENS = 16


@dataclass(frozen=True)
class Visit:
    """A module's first run: its name, its class and the shape of its first output tensor."""

    name: str
    kind: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Survey:
    """The result of an image's forward: the modules in the order they finished, and the patch size.

    Attributes:
        visits: each module's first run, in the order they finished.
        image: the image's (height, width) in pixels.
        patch: the patch size (height, width) in pixels, None where no convolution cuts patches.
    """

    visits: tuple[Visit, ...]
    image: tuple[int, int]
    patch: tuple[int, int] | None

    def order(self, name: str) -> int:
        """Return when layer `name` finished in the forward, as its number among the modules."""
        return next(number for number, visit in enumerate(self.visits) if visit.name == name)

    def layout(self, name: str) -> Layout:
        """Return the layout of a layer's output, for inputs of the survey's size.

        Raises:
            LayerError: the layer didn't run, or its output has no positions.
        """
        for visit in self.visits:
            if visit.name == name:
                return self._layout(visit.shape, name)
        raise LayerError(
            f"expected layer {name!r} to run in the forward, but it did not: "
            "choose a layer that the model calls"
        )

    def _layout(self, shape: tuple[int, ...], name: str) -> Layout:
        """Return the layout of an output of this shape; LayerError where it has no positions."""
        if len(shape) == 4:
            ratio = math.log(self.image[0] / self.image[1])
            _, a, b, c = shape
            first = abs(math.log(b / c) - ratio)
            last = abs(math.log(a / b) - ratio)
            return Layout("nhwc" if last < first and c > 1 else "nchw")
        if len(shape) == 3:
            # The survey has one image, so the axis of size 1 is the batch.
            axis = 1 if shape[0] == 1 else 0
            found = _grid(shape[axis], self.image, self.patch)
            if found is not None:
                return Layout("tokens" if axis == 1 else "tokens first", *found)
        raise LayerError(
            f"expected layer {name!r} to output positions, (b, c, h, w), (b, h, w, c) or "
            f"(b, tokens, c), got shape {shape}: choose an earlier layer"
        )

    def grid(self, tokens: int) -> tuple[int, int, int] | None:
        """Return (prefix tokens, height, width) of a sequence of patches; None for any other."""
        found = _grid(tokens, self.image, self.patch)
        return found if found and found[1] * found[2] > 1 else None

    def spatial(self, visit: Visit) -> bool:
        """Return whether a visit's output has more than one position."""
        try:
            layout = self._layout(visit.shape, visit.name)
        except LayerError:
            return False
        if layout.kind in ("nchw", "nhwc"):
            height, width = visit.shape[2:] if layout.kind == "nchw" else visit.shape[1:3]
            return height * width > 1 and height <= self.image[0] and width <= self.image[1]
        return layout.height * layout.width > 1

    def candidates(self) -> Iterator[str]:
        """Yield the layers that a CAM could read, the best first."""
        usable = [visit for visit in self.visits if visit.name and self.spatial(visit)]
        if usable and len(usable[-1].shape) == 3:
            yield from self._block_norms()
            # Without named blocks, as in a converted graph, the norms are the best guess.
            yield from (v.name for v in reversed(usable) if _NORM.search(v.kind))
        for visit in reversed(usable):
            if not _PASSIVE.search(visit.kind):
                yield visit.name

    def _block_norms(self) -> Iterator[str]:
        """Yield the first norm of the last block in each run of like blocks, longest run first."""
        runs: dict[tuple[str, str], list[str]] = {}
        for visit in self.visits:
            parent, _, _ = visit.name.rpartition(".")
            if len(visit.shape) == 3 and visit.name.rpartition(".")[2].rpartition("_")[2].isdigit():
                runs.setdefault((parent, visit.kind), []).append(visit.name)
        for names in sorted(runs.values(), key=len, reverse=True):
            if len(names) < 2:
                continue
            for visit in self.visits:
                inside = visit.name.startswith(f"{names[-1]}.")
                if inside and _NORM.search(visit.kind) and self.spatial(visit):
                    yield visit.name
                    break


@dataclass(frozen=True)
class Layout:
    """Where positions lie in a layer's output: an image of cells, or a sequence of tokens.

    Attributes:
        kind: "nchw", "nhwc", "tokens" (b, tokens, c) or "tokens first" (tokens, b, c).
        prefix: the number of tokens before the patches.
        height: the rows of the patch grid.
        width: the columns of the patch grid.
    """

    kind: str
    prefix: int = 0
    height: int = 0
    width: int = 0

    def maps(self, value: Tensor) -> Tensor:
        """Convert a layer's output to (batch, channels, u, v), without its prefix tokens.

        Raises:
            LayerError: the number of patches isn't the layout's.
        """
        if self.kind == "nchw":
            return value
        if self.kind == "nhwc":
            return value.permute(0, 3, 1, 2)
        if self.kind == "tokens first":
            value = value.transpose(0, 1)
        patches = value[:, self.prefix :].transpose(1, 2)
        if patches.shape[2] != self.height * self.width:
            raise LayerError(
                f"expected {self.height}x{self.width} patch tokens after {self.prefix} prefix "
                f"tokens, got {patches.shape[2]}: use the model's own input size"
            )
        return patches.reshape(*patches.shape[:2], self.height, self.width)

    def prefix_tokens(self, value: Tensor) -> Tensor:
        """Return a layer's prefix tokens (batch, prefix, channels), which `maps` drops."""
        if self.kind in ("nchw", "nhwc"):
            return value.new_empty(value.shape[0], 0, 0)
        if self.kind == "tokens first":
            value = value.transpose(0, 1)
        return value[:, : self.prefix].clone()

    def unmaps(self, maps: Tensor, like: Tensor) -> Tensor:
        """Invert `maps`: return a layer's output like `like`, with its positions set to `maps`."""
        return self.joined(maps, self.prefix_tokens(like))

    def joined(self, maps: Tensor, prefix: Tensor) -> Tensor:
        """Build a layer's output from its `maps` and its `prefix_tokens`."""
        if self.kind == "nchw":
            return maps
        if self.kind == "nhwc":
            return maps.permute(0, 2, 3, 1)
        tokens = torch.cat([prefix.to(maps.dtype), maps.flatten(2).transpose(1, 2)], 1)
        return tokens.transpose(0, 1) if self.kind == "tokens first" else tokens


def _grid(
    tokens: int, image: tuple[int, int], patch: tuple[int, int] | None
) -> tuple[int, int, int] | None:
    """Return (prefix, height, width) of a token sequence, None where no grid fits.

    Where the patch size is known the grid follows from it, halved as pyramids halve it; otherwise
    it is the grid of the image's aspect that leaves the fewest prefix tokens.
    """
    if patch is not None:
        height, width = image[0] // patch[0], image[1] // patch[1]
        if 0 <= tokens - height * width <= _MOST_PREFIX_TOKENS:
            return tokens - height * width, height, width
        for factor in (2, 4, 8, 16):
            # Odd grids are padded before they are merged, hence the ceiling.
            h, w = math.ceil(height / factor), math.ceil(width / factor)
            if tokens == h * w:
                return 0, h, w
        return None
    for prefix in range(min(_MOST_PREFIX_TOKENS, tokens - 1) + 1):
        height = round(math.sqrt((tokens - prefix) * image[0] / image[1]))
        if height and (tokens - prefix) % height == 0:
            width = (tokens - prefix) // height
            if height * image[1] == width * image[0]:
                return prefix, height, width
    return None


def survey(module: nn.Module, forward: Callable[[Tensor], Any], x: Tensor) -> Survey:
    """Run an image x (1, c, h, w) and record every module's output shape; leave no hook behind."""
    visits: dict[str, Visit] = {}
    patch: list[tuple[int, int]] = []
    owner = threading.get_ident()

    def hook_for(name: str) -> Callable[..., None]:
        def hook(part: nn.Module, args: Any, output: Any) -> None:
            if threading.get_ident() != owner:
                return
            try:
                shape = tuple(first_tensor(output, name).shape)
            except LayerError:
                return
            visits.setdefault(name, Visit(name, type(part).__name__, shape))
            if (
                not patch
                and isinstance(part, nn.Conv2d)
                and args
                and args[0].shape[1] == x.shape[1]
            ):
                stride = part.stride
                if part.kernel_size == stride and min(stride) > 1:
                    patch.append((int(stride[0]), int(stride[1])))

        return hook

    handles = []
    try:
        for name, part in module.named_modules():
            handles.append(part.register_forward_hook(hook_for(name)))
        with torch.inference_mode(False), torch.no_grad():
            forward(x)
    finally:
        for handle in handles:
            handle.remove()
    return Survey(
        tuple(visits.values()),
        (int(x.shape[2]), int(x.shape[3])),
        patch[0] if patch else None,
    )
