"""The base classes of metrics: frozen dataclasses whose call is a pure function of a case.

A case is what is judged: maps of a batch, with the model and the target they explain. A metric
states what it needs of a case and of a model, so that an evaluator runs only metrics that apply.

Figures don't depend on the batch size or the order of images: every metric draws from generators
of its own, all images share the draws, and ties in a ranking are broken by position alone.
"""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar, Literal, Protocol

import torch
from torch import Tensor

from visxai.errors import ArgumentError
from visxai.methods._maps import upsample
from visxai.methods.base import Method
from visxai.models.interface import Model, Need
from visxai.models.probe import Probe
from visxai.spec import Spec
from visxai.target import Aim, Target


class Ask(enum.Flag):
    """The parts of a case that a metric needs beside the model, the images and the target.

    Attributes:
        MAPS: The maps.
        METHOD: The method that made the maps.
        OBJECTS: The pixels of the objects.
        OTHERS: The maps of another method.
    """

    MAPS = enum.auto()
    METHOD = enum.auto()
    OBJECTS = enum.auto()
    OTHERS = enum.auto()

    def __str__(self) -> str:
        return ", ".join(str(flag.name).lower() for flag in Ask if flag in self)


@dataclass(frozen=True, eq=False)
class Case:
    """Maps of a batch, with what they explain.

    Attributes:
        model: The model.
        x: Images (b, 3, h, w) in model space, on the model's device.
        target: The target that is explained.
        maps: Maps (r, u, v) at native resolution, finite, one for each image and class that the
            target settles on.
        method: The method that made the maps, for metrics that explain other inputs or models.
        objects: The pixels of the target's object in the model's view (b, h, w), bool.
        others: Another method's maps (r, u', v').
    """

    model: Model
    x: Tensor
    target: Target
    maps: Tensor | None = None
    method: Method | None = None
    objects: Tensor | None = None
    others: Tensor | None = None

    @cached_property
    def probe(self) -> Probe:
        """Return the model wrapped so that its scores on the clean batch are computed only once."""
        return self.model if isinstance(self.model, Probe) else Probe(self.model, self.x)

    @property
    def plain(self) -> Model:
        """Return the model itself, for metrics that alter it or use other inputs."""
        return self.model._model if isinstance(self.model, Probe) else self.model

    @cached_property
    def aim(self) -> Aim:
        """Settle the target on the scores of the clean images."""
        return self.probe.aim(self.x, self.target)

    @cached_property
    def certainty(self) -> Aim:
        """Aim at the class's probability, as in a record's score.

        For a set of exclusive classes this is their summed probability, for other sets the largest;
        for a callable it is the callable's own value.
        """
        # Not `self` in the function: the case would hold itself, and its tensors, by its own aim.
        aim, model, kind, members = self.aim, self.probe, self.target.kind, [*self.target.classes]
        classes = aim.classes
        if classes is None:
            return aim

        def function(scores: Tensor, which: Tensor) -> Tensor:
            reported = model.probabilities(scores)
            if kind == "any" and model.activation == "softmax":
                return reported[:, members].sum(1)
            if kind == "any":
                return reported[:, members].amax(1)
            return reported.gather(1, classes[which].unsqueeze(1)).squeeze(1)

        return Aim(aim.rows, classes, function)

    def clean(self, aim: Aim) -> Tensor:
        """Evaluate `aim` on the clean images (r,)."""
        return aim(self.probe.scores(self.x)[aim.rows])

    @property
    def native(self) -> Tensor:
        """Return the maps (r, u, v) as float32, on the model's device."""
        assert self.maps is not None
        return self.maps.to(self.x.device).float()

    @cached_property
    def pixels(self) -> Tensor:
        """Upsample the maps to the images' pixels (r, h, w), as Engine.attribute does."""
        return upsample(self.native, tuple(self.x.shape[2:]))

    @cached_property
    def ranks(self) -> Tensor:
        """Rank the pixels of each map: (r, h, w) int32, 0 the most relevant."""
        return ranked(self.pixels)

    @property
    def inside(self) -> Tensor:
        """Return the object's pixels for each map: (r, h, w), bool."""
        assert self.objects is not None
        return self.objects.to(self.x.device)[self.aim.rows]


@dataclass(frozen=True)
class Scores:
    """The result of a metric for r maps.

    Attributes:
        values: The figure (r,), float32; NaN where it isn't defined.
        figures: Further figures by name, each (r,).
        curves: The curves that the figures come from, by name, each (r, points).
        axis: The abscissa of the curves (points,).
    """

    values: Tensor
    figures: Mapping[str, Tensor] = field(default_factory=dict)
    curves: Mapping[str, Tensor] = field(default_factory=dict)
    axis: Tensor | None = None


class Check(Protocol):
    """Anything that judges maps as they are made: a metric, or a combination of several."""

    def quality(self, case: Case) -> dict[str, Tensor]:
        """Compute the figures for the records of a case's maps, each (r,)."""


@dataclass(frozen=True, repr=False)
class Metric(Spec, ABC):
    """A quality metric.

    Subclasses are final and frozen, and state what they need of a case and of a model.

    Attributes:
        asks: The parts of a case that the metric needs.
        needs: What the model must offer.
        better: Whether a higher or a lower figure is better.
        per: What a figure belongs to: each map of the case, or each grid of images that the metric
            composes of the case's.
    """

    asks: ClassVar[Ask] = Ask.MAPS
    needs: ClassVar[Need] = Need(0)
    better: ClassVar[Literal["higher", "lower", "neither"]] = "higher"
    per: ClassVar[Literal["map", "grid"]] = "map"

    def __call__(self, case: Case) -> Scores:
        """Judge the maps of a case; the caller's grad mode doesn't matter.

        Raises:
            ArgumentError: The case or its model lacks something that the metric needs.
        """
        missing = self.missing(case)
        if missing:
            raise ArgumentError(f"expected a case with {missing} for {self.name()}, got none")
        with torch.inference_mode(False), torch.no_grad():
            return self.score(case)

    def quality(self, case: Case) -> dict[str, Tensor]:
        """Compute the figures for a record, each (r,), the value under the metric's own name."""
        scores = self(case)
        return {self.name(): scores.values, **scores.figures}

    @abstractmethod
    def score(self, case: Case) -> Scores:
        """Compute the figures of a case that has all that the metric needs; no graph is kept."""

    def forwards(self) -> int:
        """Estimate the forwards that a map costs, to decide whether acceleration pays."""
        return 1

    def missing(self, case: Case) -> str:
        """Describe in words what a case lacks for this metric; "" when it lacks nothing."""
        here = [flag for flag in Ask if getattr(case, str(flag)) is not None]
        asked = [str(flag) for flag in Ask if flag in self.asks and flag not in here]
        needed = self.needs & ~case.model.offers
        model = [f"a model that offers {needed}"] if needed else []
        return " and ".join([*asked, *model])


def ranked(maps: Tensor) -> Tensor:
    """Rank the pixels of maps (r, h, w).

    Returns:
        Ranks (r, h, w), int32, 0 for the largest value; of equal values the upper one comes first,
        in a row the left one, whatever the method.
    """
    flat = maps.flatten(1)
    order = flat.argsort(dim=1, descending=True, stable=True)
    places = torch.arange(flat.shape[1], device=maps.device, dtype=torch.int32)
    ranks = torch.empty_like(flat, dtype=torch.int32)
    return ranks.scatter_(1, order, places.expand_as(ranks)).reshape(maps.shape)


def area(curve: Tensor, axis: Tensor) -> Tensor:
    """Compute the area under curves by the trapezoid rule, on an axis scaled to length 1.

    Args:
        curve: Curves (r, points).
        axis: The abscissa (points,), ascending.

    Returns:
        Areas (r,), which are mean heights.
    """
    return torch.trapezoid(curve, axis.to(curve)) / (axis[-1] - axis[0]).to(curve)


def explained(method: Method, model: Model, x: Tensor, target: Target) -> Tensor:
    """Compute a method's maps (r, u, v), float32; set maps that aren't finite to zero."""
    values = method(model, x, target).values
    finite = values.isfinite().flatten(1).all(1)
    return torch.where(finite[:, None, None], values, torch.zeros_like(values)).float()


def rank_correlation(a: Tensor, b: Tensor) -> Tensor:
    """Compute Spearman's correlation (r,) of the rows of a and b (r, n).

    Equal values share their mean rank; the correlation is 0 where either row is constant.
    """
    x, y = (mean_ranks(rows) for rows in (a, b))
    product = x.square().sum(1).sqrt() * y.square().sum(1).sqrt()
    found = (x * y).sum(1) / product.clamp_min(1e-30)
    return torch.where(product > 0, found, torch.zeros_like(found)).float()


def mean_ranks(rows: Tensor) -> Tensor:
    """Rank the values of rows (r, n), equal values sharing their mean rank.

    Returns:
        Ranks (r, n), float64, scaled to -1..1 around 0, ascending with the values.
    """
    values, order = rows.sort(dim=1, stable=True)
    count = values.shape[1]
    places = torch.arange(count, device=rows.device).expand_as(order)
    new = torch.ones_like(values, dtype=torch.bool)
    new[:, 1:] = values[:, 1:] != values[:, :-1]
    first = torch.where(new, places, 0).cummax(1).values
    # A run of equal values ends before the first value of the next run.
    last = torch.where(new.roll(-1, 1), places, count).flip(1).cummin(1).values.flip(1)
    mean = (first + last).double() - (count - 1)
    return torch.empty_like(mean).scatter_(1, order, mean) / max(1, count - 1)
