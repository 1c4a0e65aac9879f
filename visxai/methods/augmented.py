"""Augmented: another method's maps averaged over flipped, scaled and noisy copies of the image.

    M = mean over variants v of  v^-1 ( map of method at v(x) )

A variant mirrors the image (`flip`), resizes its content about the centre while the input keeps
its size (`scales`: 1.25 enlarges the centre, below 1 the edges are repeated around), and adds
normal noise of `noise` times the image's range of values (`copies` draws). Its map is transformed
back to the original frame, at the method's resolution, before it is averaged; where an enlarged
variant doesn't cover a place, the other scales' mean is used. All variants explain the classes
that the clean image settles, and all images share the draws, made from `seed`. Maps are averaged
as they are, unscaled; quality figures belong to single variants and aren't kept.

With `flip` the map of a mirrored image is the mirrored map, whatever the network. Around
saliency(signed=True), noise alone is SmoothGrad.

    visxai.Engine().explain("cat.jpg", method="augmented(method='grad_cam', scales=(1.0, 1.25))")

It needs of a model what the method inside needs.

Cost: the method's own, times scales, times copies, times two with flip; and one forward more
where no variant is the image itself.
Source: Smilkov et al., SmoothGrad, 2017 (noise); test-time augmentation as in Gildenblat,
pytorch-grad-cam, 2021 (flips).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from visxai import methods
from visxai.methods.base import Cost, Maps, Method
from visxai.methods.grad_cam import GradCam
from visxai.methods.smooth_grad import Noise
from visxai.models.interface import Model
from visxai.target import Settled, Target


@dataclass(frozen=True, repr=False)
class Augmented(Method):
    """A method averaged over augmented images; see the module's docstring.

    Attributes:
        method: The method that is augmented: a spec string, or a method.
        flip: Whether to add the mirrored image to every variant.
        scales: Sizes of the content relative to the image's, at least one of them at most 1, so
            that no pixel is left out.
        noise: Standard deviation of the noise, relative to each image's range of values.
        copies: Noise draws for each scale.
        seed: Seed of the noise.
    """

    method: str | Method = "grad_cam"
    flip: bool = True
    scales: tuple[float, ...] = (1.0,)
    noise: float = 0.0
    copies: int = 1
    seed: int = 0

    needs = GradCam.needs  # the default method's; an instance has those of its own method

    @property
    def two_sided(self) -> bool:
        return self.inner.two_sided

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "scales", tuple(map(float, self.scales)))
        fits = bool(self.scales) and 0 < min(self.scales) <= 1
        self._require(fits, "scales above 0, at least one of them at most 1", self.scales)
        self._require(self.noise >= 0, "noise of at least 0", self.noise)
        self._require(self.copies >= 1, "at least 1 copy", self.copies)
        self._require(
            self.noise > 0 or self.copies == 1, "one copy where there is no noise", self.copies
        )
        object.__setattr__(self, "needs", self.inner.needs)

    @property
    def inner(self) -> Method:
        """Return the method that is augmented."""
        return methods.load(self.method)

    def __repr__(self) -> str:
        options = ", ".join(
            f"{name}={getattr(self, name)!r}"
            for name in ("flip", "scales", "noise", "copies", "seed")
        )
        return f"{self.name()}(method={str(self.inner)!r}, {options})"

    __str__ = __repr__

    def __call__(self, model: Model, x: Tensor, target: Target) -> Maps:
        inner = self.inner
        # The plain image goes first: the other variants explain the classes that it settles.
        plain = inner(model, x, target).values if self._has_plain else None
        settled = Settled.on_aim(target, model.aim(x, target))
        total, seen = torch.zeros(()), torch.zeros(())
        for scale in self.scales:
            here = torch.zeros(())
            for number, (turned, flipped) in enumerate(self._variants(x, scale)):
                if plain is not None and scale == 1 and number == 0:
                    values = plain
                else:
                    values = inner(model, turned, settled).values
                # A mirrored pair is added first, so that its sum doesn't depend on the order.
                here = here.to(values) + (values.flip(-1) if flipped else values)
            count = self.copies * (1 + self.flip)
            back = zoomed(here.unsqueeze(1), 1 / scale).squeeze(1) / count
            reach = _reach(back, scale)
            total, seen = total.to(back) + back * reach, seen.to(back) + reach
        return Maps(total / seen)

    @property
    def _has_plain(self) -> bool:
        return self.noise == 0 and 1.0 in self.scales

    def _variants(self, x: Tensor, scale: float) -> Iterator[tuple[Tensor, bool]]:
        """Yield the variants of one scale, each with whether it is mirrored."""
        resized = zoomed(x, scale)
        noise = Noise.of(x, self.copies, self.noise, self.seed) if self.noise else None
        images = torch.arange(len(x), device=x.device)
        for copy in range(self.copies):
            for flipped in (False, True) if self.flip else (False,):
                turned = resized.flip(-1) if flipped else resized
                if noise is not None:
                    turned = turned + noise(images, torch.full_like(images, copy))
                yield turned, flipped

    def cost(self, model: Model, x: Tensor) -> Cost:
        one = self.inner.cost(model, x)
        count = len(self.scales) * self.copies * (1 + self.flip)
        return Cost(
            forwards=count * one.forwards + (not self._has_plain),
            backwards=count * one.backwards,
            heads=count * one.heads,
        )

    def layer_of(self, model: Model, x: Tensor) -> str | None:
        return self.inner.layer_of(model, x)


def zoomed(x: Tensor, scale: float) -> Tensor:
    """Resize the content of x (b, c, h, w) about the centre: bilinear, edges repeated, size kept.

    Args:
        x: The batch.
        scale: The size of the content relative to its present one; above 1 enlarges it.
    """
    if scale == 1 or not len(x):
        return x
    matrix = x.new_tensor([[1 / scale, 0, 0], [0, 1 / scale, 0]]).expand(len(x), 2, 3)
    grid = F.affine_grid(matrix, list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, "bilinear", padding_mode="border", align_corners=False)


def _reach(maps: Tensor, scale: float) -> Tensor:
    """Mark (u, v) the cells whose centres a variant of this scale covers: 1 inside, else 0."""
    inside = []
    for size in maps.shape[-2:]:
        centre = (2 * torch.arange(size, device=maps.device) + 1) / size - 1
        inside.append((centre * scale).abs() <= 1)
    return (inside[0].unsqueeze(1) & inside[1]).to(maps)
