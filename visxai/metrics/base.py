"""What a metric is: a frozen dataclass whose call is a pure function of a case.

A case is what is judged: maps of a batch, with the model and the target they explain. A metric
states what it asks of a case and needs of a model, so that an evaluator runs what it can.

Figures don't depend on the batch size or the order of images: draws come from generators of
their own and are shared by all images, and ties in a ranking are broken by position alone.
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
    """What a metric asks of a case beside the model, the images and the target."""

    MAPS = enum.auto()
    METHOD = enum.auto()
    OBJECTS = enum.auto()
    OTHERS = enum.auto()

    def __str__(self) -> str:
        return ", ".join(str(flag.name).lower() for flag in Ask if flag in self)


@dataclass(frozen=True, eq=False)
class Case:
    """Maps of a batch, and what they explain.

    model; x (b, 3, h, w) in model space, on the model's device; target. maps (r, u, v): one a map
    of the aimed target, at native resolution, finite. method: what made them, for metrics that
    explain other inputs or models. objects (b, h, w), bool: where the target's object is, in the
    model's view. others (r, u', v'): another method's maps.
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
        """The model as this batch sees it: its clean scores are computed once."""
        return self.model if isinstance(self.model, Probe) else Probe(self.model, self.x)

    @property
    def plain(self) -> Model:
        """The model itself, for metrics that alter it or show it other inputs."""
        return self.model._model if isinstance(self.model, Probe) else self.model

    @cached_property
    def aim(self) -> Aim:
        """The target settled on the clean images, at the scores."""
        return self.probe.aim(self.x, self.target)

    @cached_property
    def certainty(self) -> Aim:
        """The aim at what the model reports: the class's probability, as in a record's score.

        Of a set of exclusive classes it is their sum, otherwise the strongest; a callable's own
        value.
        """
        aim, model, members = self.aim, self.probe, list(self.target.classes)
        classes = aim.classes
        if classes is None:
            return aim

        def function(scores: Tensor, which: Tensor) -> Tensor:
            reported = model.probabilities(scores)
            if self.target.kind == "any" and model.activation == "softmax":
                return reported[:, members].sum(1)
            if self.target.kind == "any":
                return reported[:, members].amax(1)
            return reported.gather(1, classes[which].unsqueeze(1)).squeeze(1)

        return Aim(aim.rows, classes, function)

    def clean(self, aim: Aim) -> Tensor:
        """`aim` (r,) at the clean images."""
        return aim(self.probe.scores(self.x)[aim.rows])

    @property
    def native(self) -> Tensor:
        """The maps (r, u, v), float32."""
        assert self.maps is not None
        return self.maps.to(self.x.device).float()

    @cached_property
    def pixels(self) -> Tensor:
        """The maps (r, h, w) at the images' pixels, upsampled as Engine.attribute does."""
        return upsample(self.native, tuple(self.x.shape[2:]))

    @cached_property
    def ranks(self) -> Tensor:
        """(r, h, w) int32: each pixel's place in its map's order, 0 the most relevant."""
        return ranked(self.pixels)

    @property
    def inside(self) -> Tensor:
        """(r, h, w), bool: the object's pixels, for each map."""
        assert self.objects is not None
        return self.objects.to(self.x.device)[self.aim.rows]


@dataclass(frozen=True)
class Scores:
    """What a metric found of r maps.

    values (r,), float32: the figure; NaN where it isn't defined. figures: others beside it, each
    (r,). curves: what it was made from, each (r, points), over `axis` (points,).
    """

    values: Tensor
    figures: Mapping[str, Tensor] = field(default_factory=dict)
    curves: Mapping[str, Tensor] = field(default_factory=dict)
    axis: Tensor | None = None


class Check(Protocol):
    """What judges maps as they are made: a metric, or something that asks several."""

    def quality(self, case: Case) -> dict[str, Tensor]:
        """Figures for the records of a case's maps, each (r,)."""


@dataclass(frozen=True, repr=False)
class Metric(Spec, ABC):
    """A quality metric. Subclasses are final, frozen, and state what they ask and need.

    better: whether a higher or a lower figure is better. per: what a figure belongs to, each map
    of the case or each grid of images that the metric composed of the case's.
    """

    asks: ClassVar[Ask] = Ask.MAPS
    needs: ClassVar[Need] = Need(0)
    better: ClassVar[Literal["higher", "lower", "neither"]] = "higher"
    per: ClassVar[Literal["map", "grid"]] = "map"

    def __call__(self, case: Case) -> Scores:
        """The figures of a case's maps, in any grad mode of the caller's."""
        missing = self.missing(case)
        if missing:
            raise ArgumentError(f"expected a case with {missing} for {self.name()}, got none")
        with torch.inference_mode(False), torch.no_grad():
            return self.score(case)

    def quality(self, case: Case) -> dict[str, Tensor]:
        """The figures for a record, each (r,), the value under the metric's own name."""
        scores = self(case)
        return {self.name(): scores.values, **scores.figures}

    @abstractmethod
    def score(self, case: Case) -> Scores:
        """The figures, for a case that has what was asked for; no graph is kept."""

    def forwards(self) -> int:
        """About how many forwards a map costs, for deciding whether to prepare faster ones."""
        return 1

    def missing(self, case: Case) -> str:
        """What a case lacks for this metric, in words; "" when nothing."""
        here = [flag for flag in Ask if getattr(case, str(flag)) is not None]
        asked = [str(flag) for flag in Ask if flag in self.asks and flag not in here]
        needed = self.needs & ~case.model.offers
        model = [f"a model that offers {needed}"] if needed else []
        return " and ".join([*asked, *model])


def ranked(maps: Tensor) -> Tensor:
    """(r, h, w) int32 ranks of maps (r, h, w), 0 the largest; of equal values the upper one, in a
    row the left one, comes first, whatever the method."""
    flat = maps.flatten(1)
    order = flat.argsort(dim=1, descending=True, stable=True)
    places = torch.arange(flat.shape[1], device=maps.device, dtype=torch.int32)
    ranks = torch.empty_like(flat, dtype=torch.int32)
    return ranks.scatter_(1, order, places.expand_as(ranks)).reshape(maps.shape)


def area(curve: Tensor, axis: Tensor) -> Tensor:
    """(r,) the trapezoid area under curve (r, points) over axis (points,), for an axis of length
    1: the mean height."""
    return torch.trapezoid(curve, axis.to(curve)) / (axis[-1] - axis[0]).to(curve)


def explained(method: Method, model: Model, x: Tensor, target: Target) -> Tensor:
    """A method's maps (r, u, v), float32; a map that isn't finite is zero, as in a record."""
    values = method(model, x, target).values
    finite = values.isfinite().flatten(1).all(1)
    return torch.where(finite[:, None, None], values, torch.zeros_like(values)).float()


def rank_correlation(a: Tensor, b: Tensor) -> Tensor:
    """Spearman's correlation (r,) of the rows of a and b (r, n), equal values sharing their mean
    rank; 0 where either is constant."""
    x, y = (mean_ranks(rows) for rows in (a, b))
    product = x.square().sum(1).sqrt() * y.square().sum(1).sqrt()
    found = (x * y).sum(1) / product.clamp_min(1e-30)
    return torch.where(product > 0, found, torch.zeros_like(found)).float()


def mean_ranks(rows: Tensor) -> Tensor:
    """(r, n) float64: ranks in -1..1 around 0, equal values sharing their mean rank."""
    values, order = rows.sort(dim=1, stable=True)
    count = values.shape[1]
    places = torch.arange(count, device=rows.device).expand_as(order)
    new = torch.ones_like(values, dtype=torch.bool)
    new[:, 1:] = values[:, 1:] != values[:, :-1]
    first = torch.where(new, places, 0).cummax(1).values
    # A run of equals ends before the next one's first.
    last = torch.where(new.roll(-1, 1), places, count).flip(1).cummin(1).values.flip(1)
    mean = (first + last).double() - (count - 1)
    return torch.empty_like(mean).scatter_(1, order, mean) / max(1, count - 1)
