"""Extremal perturbation: the smooth mask of a given area that keeps the score highest.

    m_a = argmax over masks m of  y( b + m (x - b) ) / abs( y(x) - y(b) )  -  l R_a(m)

    R_a(m) = mean over cells i of  ( sort(m)_i - r_ai )^2,    m_u = smax over v of  k(u - v) p_v

y is the target's scalar, x the image, b the paint. r_a holds 0 in the first (1 - a) of all cells
and 1 in the others, so that R_a is zero exactly for a mask that is 1 on the share a of the
picture and 0 elsewhere. The mask is the smooth maximum smax (temperature 1/20) of bumps of the
height p_v in 0..1, k(d) = exp(-2 max(0, d / radius - 1)^2): flat on top, so that a mask may be
binary, and never finer than a bump. p is found by gradient ascent with momentum, its step divided
by each mask's largest gradient; l grows from 0 in equal steps to `penalty`, so that the score
leads first and the area is kept in the end. The map is the mean of the masks of all areas: what
even the smallest mask keeps stands highest.

    visxai.Engine().explain("cat.jpg", method="extremal_perturbation(areas=(0.05, 0.2))")

The masks of all images, classes and areas are found together. Maps lie in 0..1, at the resolution
of the masks' grid. `preserved` is the share of y(x) - y(b) that the masks keep, averaged over the
areas, `area_error` the largest difference between a mask's mean and its area. An ascent follows
the last bits of its gradients, so a map agrees between machines in what it shows, not in every
digit.

Cost: 2 + (steps + 1) areas forwards, steps areas backwards.
Source: Fong, Patrick & Vedaldi, Understanding deep networks via extremal perturbations and smooth
masks, ICCV 2019.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from visxai.methods._maps import baseline_like, upsample
from visxai.methods.base import Cost, Maps, Method
from visxai.models.interface import Model, Need
from visxai.models.rows import Rows
from visxai.target import Aim, Target

TEMPERATURE = 1 / 20  # of the smooth maximum, as published
MOMENTUM = 0.9


@dataclass(frozen=True, repr=False)
class ExtremalPerturbation(Method):
    """Masks of given areas that keep the score; see the module's docstring.

    Attributes:
        areas: Shares of the picture that the masks show, each between 0 and 1.
        steps: Steps of the ascent.
        grid: Cells a side of a mask.
        radius: Flat radius of a bump, as a share of the grid's side.
        rate: Step of the ascent in units of p; it falls to zero.
        penalty: Weight of the area in the last step.
        baseline: The paint in model space: a number, 'mean', 'blur' or a tensor.
    """

    areas: tuple[float, ...] = (0.05, 0.1, 0.2)
    steps: int = 100
    grid: int = 28
    radius: float = 0.05
    rate: float = 0.05
    penalty: float = 200.0
    baseline: float | str | Tensor = "blur"

    needs = Need.INPUT_GRADIENT

    def __post_init__(self) -> None:
        super().__post_init__()
        given: Any = self.areas
        if not isinstance(given, tuple):
            object.__setattr__(self, "areas", (given,))
        inside = bool(self.areas) and all(0 < area < 1 for area in self.areas)
        self._require(inside, "areas between 0 and 1", self.areas)
        self._require(self.steps >= 1, "at least 1 step", self.steps)
        self._require(self.grid >= 2, "a grid of at least 2 cells a side", self.grid)
        self._require(self.radius > 0, "a radius above 0", self.radius)
        self._require(self.rate > 0, "a rate above 0", self.rate)
        self._require(self.penalty >= 0, "a penalty of at least 0", self.penalty)

    @property
    def two_sided(self) -> bool:
        return False

    def __call__(self, model: Model, x: Tensor, target: Target) -> Maps:
        aim, clean = model.clean(x, target)
        each = aim.each()
        shown, paint = x[aim.rows], baseline_like(x, self.baseline).expand_as(x)[aim.rows]
        empty = model.values(Rows.of(paint), each)[:, 0]
        change = clean - empty
        count = len(self.areas)
        which = torch.arange(len(aim), device=x.device).repeat_interleave(count)
        scene = Scene(model, shown, paint, which, aim.each(which), change[which].abs())
        with torch.inference_mode(False), torch.no_grad():
            masks, moved = self.ascend(scene)
            kept = model.values(scene.rows(masks), scene.aim)[:, 0]
        maps = masks.reshape(-1, count, *masks.shape[1:]).mean(1)
        share = (kept - empty[which]) / _nonzero(change)[which]
        wanted = masks.new_tensor(self.areas).repeat(len(aim))
        off = (masks.mean((1, 2)) - wanted).abs().reshape(-1, count).amax(1)
        # Without any gradient the area alone would choose, and cells by their number.
        return Maps(
            maps * moved.reshape(-1, count).any(1)[:, None, None],
            {"preserved": share.reshape(-1, count).mean(1), "area_error": off},
        )

    def ascend(self, scene: Scene) -> tuple[Tensor, Tensor]:
        """Find the masks (n, grid, grid) of a scene, and (n,) whether any gradient led there."""
        n, cells, device = len(scene.which), self.grid * self.grid, scene.x.device
        bump = _bump(self.radius * self.grid, device)
        ones = [max(1, round(area * cells)) for area in self.areas]
        areas = torch.stack([torch.arange(cells, device=device) >= cells - one for one in ones])
        wanted = areas.float().repeat(n // len(ones), 1)
        heights = torch.full((n, 1, self.grid, self.grid), 0.5, device=device)
        velocity, moved = torch.zeros_like(heights), torch.zeros(n, device=device, dtype=torch.bool)
        for step in range(self.steps):
            with torch.enable_grad():
                leaf = heights.detach().requires_grad_()
                masks = smooth_maximum(leaf, bump)
                slope = scene.slope(masks.detach())
                over = (masks.flatten(1).sort(dim=1).values - wanted).square().mean(1).sum()
                loss = (masks * slope).sum() - self.penalty * step / self.steps * over
                (gradient,) = torch.autograd.grad(loss, leaf)
            moved |= slope.flatten(1).any(1)
            velocity = MOMENTUM * velocity + gradient / _peak(gradient)
            rate = self.rate * (1 - step / self.steps)
            heights = (heights + rate * velocity).clamp(0, 1)
        return smooth_maximum(heights, bump), moved

    def cost(self, model: Model, x: Tensor) -> Cost:
        count = len(self.areas)
        return Cost(forwards=2 + count * (self.steps + 1), backwards=count * self.steps)


@dataclass(frozen=True)
class Scene:
    """The images behind n masks, and what is read of them.

    Attributes:
        model: The model.
        x: The images (r, c, h, w), one for each map.
        paint: What hides them (r, c, h, w).
        which: The map (n,) of each mask.
        aim: The target, settled on one image for each mask.
        scale: The score's change (n,) that counts as 1.
    """

    model: Model
    x: Tensor
    paint: Tensor
    which: Tensor
    aim: Aim
    scale: Tensor

    def rows(self, masks: Tensor) -> Rows:
        """Build the images as seen through masks (n, u, v), one row for each."""
        size = tuple(self.x.shape[2:])

        def seen(image: Tensor, turn: Tensor) -> Tensor:
            shown = upsample(masks[image], size).unsqueeze(1).to(self.x)
            own = self.which[image]
            return torch.lerp(self.paint[own], self.x[own], shown)

        return Rows(len(self.which), 1, tuple(self.x.shape[1:]), seen)

    def slope(self, masks: Tensor) -> Tensor:
        """Differentiate the scaled scores with respect to masks (n, u, v)."""
        found = torch.zeros_like(masks)
        for block in self.model.gradients(self.rows(masks), self.aim):
            own = self.which[block.map]
            pixels = (block.gradient * (self.x[own] - self.paint[own])).sum(1)
            leaf = masks[block.map].requires_grad_()
            enlarged = upsample(leaf, tuple(self.x.shape[2:]))
            (slope,) = torch.autograd.grad(enlarged, leaf, pixels.to(leaf))
            found[block.map] = slope
        return found / _nonzero(self.scale)[:, None, None]


def smooth_maximum(heights: Tensor, bump: Tensor) -> Tensor:
    """Compute masks (n, u, v) from the heights (n, 1, u, v) of a bump (k, k) in every cell."""
    reach = bump.shape[0] // 2
    around = F.unfold(heights, bump.shape[0], padding=reach) * bump.flatten()[None, :, None]
    shares = (around / TEMPERATURE).softmax(1)
    return (shares * around).sum(1).reshape(len(heights), *heights.shape[2:])


def _bump(radius: float, device: torch.device) -> Tensor:
    """Draw a bump (k, k) of a flat radius in cells, cut where it is below 1 %."""
    reach = math.floor(2.5 * radius)
    at = torch.arange(-reach, reach + 1, device=device, dtype=torch.float32)
    far = torch.hypot(at[:, None], at) / radius
    return (-2 * (far - 1).clamp_min(0).square()).exp()


def _peak(values: Tensor) -> Tensor:
    return _nonzero(values.abs().amax((1, 2, 3), keepdim=True))


def _nonzero(values: Tensor) -> Tensor:
    return torch.where(values == 0, torch.ones_like(values), values)
