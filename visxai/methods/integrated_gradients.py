"""Integrated gradients: the score's change along a straight path, shared out among the pixels.

    M = sum over channels of  (x - b) * integral over a in [0, 1] of  dy/dx ( b + a (x - b) )

The sum of the map is y(x) - y(b): completeness. Its relative error is recorded for every map, as
abs(sum M - dy) / max(abs(dy), 0.01). A small completeness error does not make an accurate map:
the integrand m(a) jumps wherever the path crosses a kink of the network, most of all near b.

* schedule='mean_slopes' (default, where the network allows it): parts of the path between `steps`
  fixed points, finer near b. In each part an activation function has its mean slope from one point
  to the next, instead of its slope at a point, so that jumps at kinks average out: DeepLIFT along
  the path. The map adds up to the score's change but for rounding, and with as many gradients comes
  about twice as near to the integral as the adaptive schedule. All points of an image are in memory
  at once.
* schedule='adaptive': trapezoids, first on a grid that is finer near b, then bisected,
  each image by itself, until `steps` points are used. Between two points h apart the integrand
  wanders like a Brownian bridge, so an interval adds h^2 norm(m_i+1 - m_i)^2 / 12 to the squared
  error of the map; the part of the score's change that it fails to explain is known exactly. The
  intervals where both, relative to norm(M) and to dy, add up to the most are split. The root of
  the expected squared error over norm(M) is recorded as `map_error`: the map's relative L2 error,
  estimated.
* tolerance=0.1: the fast tier. The same, but an image stops when its completeness error was
  within the tolerance twice in succession, and leaves the batch. An image that hasn't reached it
  after `max_steps` points is marked converged=false.
* schedule='gauss_legendre': `steps` fixed points, as captum's default.

schedule='auto' takes mean slopes in 24 points where all else that the network does is linear:
convolutions, batch norms, sums, means and maxima, with activation functions that are PyTorch
modules (ResNet, MobileNet V2, EfficientNet-Lite). For other networks (attention, layer norms,
squeeze and excitation, functions instead of modules, other runtimes), for targets `any=` and
functions, in half precision, and for a map that misses more than 5 % of the score's change it takes
the adaptive schedule in 30. The quality figure `mean_slopes` says which.

    visxai.Engine().explain("cat.jpg", method="integrated_gradients(steps=30)")

Cost: 1 + steps forwards, steps backwards; gauss_legendre: 2 + steps forwards, steps backwards;
tolerance: 1 + n forwards, n backwards, n up to max_steps, recorded as `evaluations`.
Source: Sundararajan et al., Axiomatic attribution for deep networks, ICML 2017.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from visxai.methods import _mean_slopes
from visxai.methods._maps import baseline_like
from visxai.methods._path import gradient_sum
from visxai.methods.base import Cost, Maps, Method
from visxai.models.interface import Model, Need
from visxai.models.rows import Rows
from visxai.target import Aim, Target

SMALLEST_CHANGE = 0.01  # completeness is relative to at least this change of the score
STEPS, SLOPES_STEPS = 30, 24  # points by default, without and with mean slopes
LOOSE = 0.05  # a chosen map by mean slopes that misses more is made anew: rounding stays below
GRADING = 0.1  # the first grid is even in log(a + GRADING): scores change most near the baseline


class Plan(NamedTuple):
    """The settings of a bisection; the plans below were chosen by measurement on photographs.

    Attributes:
        intervals: Intervals of the first grid.
        growth: A round adds one point for every `growth` points that exist.
        weight: Factor of an interval's missed change beside its map error.
    """

    intervals: int
    growth: int
    weight: float


ACCURATE = Plan(intervals=12, growth=4, weight=0.25)
FAST = Plan(intervals=8, growth=6, weight=1.0)


@dataclass(frozen=True)
class Path:
    """A straight path from the baseline to x for each of r maps.

    Attributes:
        x: The images (r, c, h, w), one for each map.
        baseline: The baselines (r, c, h, w).
        aim: The target, settled on one image for each map.
    """

    x: Tensor
    baseline: Tensor
    aim: Aim

    def at(self, alphas: Tensor) -> Rows:
        """Build the points alphas (r, n), in 0..1, of every path as rows."""
        difference = self.x - self.baseline

        def build(image: Tensor, turn: Tensor) -> Tensor:
            a = alphas[image, turn].reshape(-1, 1, 1, 1)
            return self.baseline[image] + a * difference[image]

        return Rows(self.x.shape[0], alphas.shape[1], tuple(self.x.shape[1:]), build)

    def integral(self, model: Model, alphas: Tensor, weights: Tensor) -> Tensor:
        """Sum the integrand over points, with weights.

        Args:
            model: The model.
            alphas: Points (r, n) in 0..1.
            weights: Weights (r, n) of the points.

        Returns:
            Maps (r, h, w).
        """
        total, _ = gradient_sum(
            model,
            self.at(alphas),
            self.aim,
            lambda gradient, image, turn: weights[image, turn].reshape(-1, 1, 1, 1) * gradient,
        )
        return ((self.x - self.baseline) * total).sum(1)

    def sample(self, model: Model, alphas: Tensor) -> Samples:
        """Evaluate the score and the integrand at the points alphas (r, n)."""
        count, n = alphas.shape
        values = alphas.new_empty(count, n)
        maps = self.x.new_empty(count, n, *self.x.shape[2:])
        difference = self.x - self.baseline
        for block in model.gradients(self.at(alphas), self.aim):
            values[block.map, block.turn] = block.value.to(values)
            maps[block.map, block.turn] = (difference[block.map] * block.gradient).sum(1).to(maps)
        return Samples(alphas, values, maps)

    def part(self, keep: Tensor) -> Path:
        """Select the paths of the maps whose indices are `keep` (n,)."""
        return Path(self.x[keep], self.baseline[keep], self.aim.each(keep))


@dataclass(frozen=True)
class Samples:
    """Points on r paths, sorted by alpha.

    Attributes:
        alphas: The points (r, n), in 0..1.
        values: The scores at the points (r, n).
        maps: The integrands at the points (r, n, h, w).
    """

    alphas: Tensor
    values: Tensor
    maps: Tensor

    def trapezoid(self) -> Tensor:
        """Integrate the integrands by the trapezoid rule: maps (r, h, w)."""
        return torch.einsum("rn,rnuv->ruv", trapezoid(self.alphas), self.maps)

    def errors(self) -> tuple[Tensor, Tensor]:
        """Estimate the errors of each interval, both (r, n - 1).

        Returns:
            The expected squared error of the map over the map's squared norm, and the missed part
            of the score's change over that change.
        """
        h = self.alphas.diff(dim=1)
        # In a loop: all differences together would be another copy of the integrands.
        jumps = [
            (self.maps[:, i + 1] - self.maps[:, i]).square().sum((1, 2)) for i in range(h.shape[1])
        ]
        norm = self.trapezoid().square().sum((1, 2)).clamp_min(1e-30).unsqueeze(1)
        sums = self.maps.sum((2, 3))
        missed = self.values.diff(dim=1) - h / 2 * (sums[:, 1:] + sums[:, :-1])
        change = (self.values[:, -1:] - self.values[:, :1]).abs().clamp_min(SMALLEST_CHANGE)
        return h.square() * torch.stack(jumps, 1) / (12 * norm), missed / change

    def midpoints(self, plan: Plan, most: int) -> Tensor:
        """Choose the middles (r, m), m at most `most`, of the intervals with the largest errors."""
        expected, missed = self.errors()
        count = min(most, max(2, self.alphas.shape[1] // plan.growth))
        error = expected + (plan.weight * missed).square()
        # A stable sort, so that equal errors are split in the same order on every device.
        worst = error.argsort(dim=1, descending=True, stable=True)[:, :count]
        return (self.alphas.gather(1, worst) + self.alphas.gather(1, worst + 1)) / 2

    def joined(self, other: Samples) -> Samples:
        """Merge two sets of samples, sorted by alpha."""
        alphas, order = torch.cat([self.alphas, other.alphas], 1).sort(dim=1, stable=True)
        row = torch.arange(len(order), device=order.device).unsqueeze(1)
        values = torch.cat([self.values, other.values], 1)[row, order]
        return Samples(alphas, values, torch.cat([self.maps, other.maps], 1)[row, order])

    def quality(self, maps: Tensor, clean: Tensor) -> dict[str, Tensor]:
        """Compute the quality figures, each (r,), of the maps made of these samples.

        Args:
            maps: The maps (r, h, w).
            clean: The scores of the images (r,).
        """
        expected, _ = self.errors()
        return {
            "completeness": incompleteness(maps, clean - self.values[:, 0]),
            "map_error": expected.sum(1).sqrt(),
            "evaluations": torch.full_like(clean, self.alphas.shape[1]),
        }

    def part(self, keep: Tensor) -> Samples:
        """Select the samples of the maps where the mask `keep` (r,) is true."""
        return Samples(self.alphas[keep], self.values[keep], self.maps[keep])


@dataclass(frozen=True, repr=False)
class IntegratedGradients(Method):
    """Path-integrated gradients; see the module's docstring.

    Attributes:
        steps: Points on the path; by default 24 with mean slopes, 30 otherwise.
        schedule: 'auto', 'mean_slopes', 'adaptive' or 'gauss_legendre'.
        baseline: Start of the path in model space: a number, 'mean', 'blur' or a tensor.
        tolerance: Completeness error at which an image of the fast tier stops; None for a path
            of `steps` points.
        max_steps: Most points of an image in the fast tier; by default 256 beside a tolerance.
    """

    steps: int | None = None
    schedule: Literal["auto", "mean_slopes", "adaptive", "gauss_legendre"] = "auto"
    baseline: float | str | Tensor = 0.0
    tolerance: float | None = None
    max_steps: int | None = None

    needs = Need.INPUT_GRADIENT

    def __post_init__(self) -> None:
        super().__post_init__()
        known = ("auto", "mean_slopes", "adaptive", "gauss_legendre")
        self._require(self.schedule in known, f"a schedule of {' or '.join(known)}", self.schedule)
        least = 1 if self.schedule == "gauss_legendre" else 2
        given = self.steps is None or self.steps >= least
        self._require(given, f"at least {least} steps", self.steps)
        if self.tolerance is None:
            self._require(self.max_steps is None, "max_steps only beside tolerance", self.max_steps)
            return
        self._require(self.tolerance > 0, "a tolerance above 0", self.tolerance)
        self._require(self.schedule == "auto", "no schedule beside tolerance", self.schedule)
        if self.max_steps is None:
            object.__setattr__(self, "max_steps", 256)
        least = FAST.intervals + 1
        most = self.max_steps or 0
        self._require(most >= least, f"max_steps of at least {least}", self.max_steps)

    def __repr__(self) -> str:
        if self.tolerance is None:
            return super().__repr__()
        # The fast tier has neither a number of steps nor a schedule.
        return (
            f"{self.name()}(tolerance={self.tolerance!r}, max_steps={self.max_steps!r}, "
            f"baseline={self.baseline!r})"
        )

    def __call__(self, model: Model, x: Tensor, target: Target) -> Maps:
        aim, clean = model.clean(x, target)
        baseline = baseline_like(x, self.baseline).expand_as(x)
        path = Path(x[aim.rows], baseline[aim.rows], aim.each())
        if self.tolerance is not None:
            return self._until_complete(model, path, clean)
        if self.schedule == "gauss_legendre":
            return self._fixed(model, path, clean)
        if len(clean) and self._takes_mean_slopes(model, x, target.kind):
            return self._by_slopes(model, path, clean)
        return self._adaptive(model, path, clean)

    def _adaptive(self, model: Model, path: Path, clean: Tensor) -> Maps:
        """Integrate by trapezoids, whose intervals are bisected where they err most."""
        steps = self.steps or STEPS
        samples = path.sample(model, first_grid(path, min(ACCURATE.intervals, steps - 1)))
        while (left := steps - samples.alphas.shape[1]) > 0:
            new = path.sample(model, samples.midpoints(ACCURATE, left))
            samples = samples.joined(new)
        maps = samples.trapezoid()
        quality = samples.quality(maps, clean)
        if self.schedule == "auto":
            quality["mean_slopes"] = torch.zeros_like(clean, dtype=torch.bool)
        return Maps(maps, quality)

    def _takes_mean_slopes(self, model: Model, x: Tensor, kind: str | None) -> bool:
        """Determine whether mean slopes are asked for, or chosen for the model and the target.

        Raises:
            ModelError: They are asked for, and the model or the target doesn't allow them.
        """
        if self.schedule not in ("auto", "mean_slopes"):
            return False
        obstacle = _mean_slopes.obstacle(model, x, kind)
        if obstacle and self.schedule == "mean_slopes":
            raise _mean_slopes.refusal(model, obstacle)
        return not obstacle

    def _by_slopes(self, model: Model, path: Path, clean: Tensor) -> Maps:
        """Integrate by mean slopes; maps that don't add up, by 'auto', by the adaptive schedule.

        Raises:
            ModelError: They were asked for, and the network doesn't allow them at these images.
        """
        steps = self.steps or SLOPES_STEPS
        points = first_grid(path, steps - 1)[0]
        try:
            maps, start = _mean_slopes.integral(model, path.x, path.baseline, path.aim, points)
        except _mean_slopes.Bent as error:
            if self.schedule == "mean_slopes":
                raise _mean_slopes.refusal(model, str(error)) from error
            return self._adaptive(model, path, clean)
        quality = {
            "completeness": incompleteness(maps, clean - start),
            "evaluations": torch.full_like(clean, steps),
            "mean_slopes": torch.ones_like(clean, dtype=torch.bool),
        }
        loose = ~(quality["completeness"] <= LOOSE)
        if self.schedule == "mean_slopes" or not loose.any():
            return Maps(maps, quality)
        keep = loose.nonzero().squeeze(1)
        other = self._adaptive(model, path.part(keep), clean[keep])
        maps[keep] = other.values
        for name, figure in quality.items():
            figure[keep] = other.quality[name]
        return Maps(maps, quality)

    def _until_complete(self, model: Model, path: Path, clean: Tensor) -> Maps:
        """Bisect each image until it is complete enough, and take it out of the batch then."""
        assert self.tolerance is not None
        assert self.max_steps is not None
        samples = path.sample(model, first_grid(path, FAST.intervals))
        maps = samples.maps.new_zeros(len(clean), *path.x.shape[2:])
        quality: dict[str, Tensor] = {}
        passed = torch.zeros(len(clean), dtype=torch.long, device=clean.device)
        still = torch.arange(len(clean), device=clean.device)
        while len(still):
            found = samples.trapezoid()
            maps[still] = found
            for name, figure in samples.quality(found, clean[still]).items():
                quality.setdefault(name, figure.clone())[still] = figure
            good = quality["completeness"][still] <= self.tolerance
            passed[still] = torch.where(good, passed[still] + 1, 0)
            left = self.max_steps - samples.alphas.shape[1]
            keep = passed[still] < 2
            if left == 0 or not keep.any():
                break
            samples, still = samples.part(keep), still[keep]
            new = path.part(still).sample(model, samples.midpoints(FAST, left))
            samples = samples.joined(new)
        return Maps(maps, {**quality, "converged": passed >= 2})

    def _fixed(self, model: Model, path: Path, clean: Tensor) -> Maps:
        """Integrate with Gauss-Legendre points, the same for every image."""
        steps = self.steps or STEPS
        nodes, weights = np.polynomial.legendre.leggauss(steps)
        shape = (len(clean), steps)
        maps = path.integral(
            model,
            path.x.new_tensor((nodes + 1) / 2).expand(shape),
            path.x.new_tensor(weights / 2).expand(shape),
        )
        start = model.values(path.at(path.x.new_zeros(len(clean), 1)), path.aim)[:, 0]
        quality = {
            "completeness": incompleteness(maps, clean - start),
            "evaluations": torch.full_like(clean, steps),
        }
        return Maps(maps, quality)

    def cost(self, model: Model, x: Tensor) -> Cost:
        steps = self.max_steps or self.steps or STEPS
        unset = self.tolerance is None and self.steps is None
        if unset and self._takes_mean_slopes(model, x, None):
            steps = SLOPES_STEPS
        start = self.schedule == "gauss_legendre"  # the baseline's score, by a forward of its own
        return Cost(forwards=1 + start + steps, backwards=steps)


def first_grid(path: Path, intervals: int) -> Tensor:
    """Build the first alphas (r, intervals + 1), from 0 to 1, dense near 0 as GRADING sets."""
    t = torch.linspace(0, 1, intervals + 1, dtype=torch.float64)
    alphas = GRADING * ((1 + 1 / GRADING) ** t - 1)
    return alphas.to(path.x).expand(len(path.x), intervals + 1)


def trapezoid(alphas: Tensor) -> Tensor:
    """Compute the trapezoid rule's weights (r, n) at points (r, n)."""
    h = alphas.diff(dim=1) / 2
    zero = h.new_zeros(len(h), 1)
    return torch.cat([h, zero], 1) + torch.cat([zero, h], 1)


def incompleteness(maps: Tensor, change: Tensor) -> Tensor:
    """Compute the relative error (r,) of sums: abs(sum - change) / max(abs(change), 0.01).

    Args:
        maps: Maps (r, h, w), each with its sum.
        change: The score's change from the baseline to the image (r,).
    """
    return (maps.sum((1, 2)) - change).abs() / change.abs().clamp_min(SMALLEST_CHANGE)
