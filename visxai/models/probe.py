"""A model for a single batch: clean scores are computed once, and lost rows are run again."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor, nn

from visxai.models.interface import AttentionGradient, Model, Need
from visxai.models.rerun import Found, Rerun
from visxai.models.rows import Rows
from visxai.models.views import (
    Activations,
    AtAttention,
    AtInput,
    AtLayer,
    AtLayers,
    Attended,
    Gradients,
    LayerMaps,
    Replay,
)
from visxai.references import ModelRef
from visxai.target import Aim, Target

if TYPE_CHECKING:
    from visxai.models.views import Tokens


class Probe(Model):
    """A model that caches a batch's scores and reruns in float32 what half precision lost.

    A probe lives as long as its batch, and nothing in it holds a graph.

    Args:
        model: the model that computes.
        x: the batch (b, 3, h, w).

    Attributes:
        reran: (b,) bool, whether anything of an image was run again since `fresh`.
    """

    def __init__(self, model: Model, x: Tensor) -> None:
        self._model = model
        self._x = x
        self._scores: Tensor | None = None
        self._aims: dict[Target, Aim] = {}
        self._graph = ""  # that made the batch's maps since `fresh`
        # Images whose cached scores were recomputed, then images of which anything was.
        self._rescored = torch.zeros(len(x), dtype=torch.bool, device=x.device)
        self.reran = self._rescored.clone()
        self.preprocess = model.preprocess
        self.labels = model.labels
        self.activation = model.activation
        self.device = model.device
        self.precision = model.precision
        self.precisions = model.precisions
        self.budget = model.budget

    @property
    def ref(self) -> ModelRef:  # type: ignore[override]
        return self._model.ref

    @property
    def offers(self) -> Need:  # type: ignore[override]
        return self._model.offers

    # ---- the batch's scores and aims ---------------------------------------------------------

    def fresh(self) -> Probe:
        """Return a probe for another method, with the scores cached and no row run again.

        Images whose cached scores were recomputed still count as run again.
        """
        return self._knowing(self._x, self._scores, self._rescored, self._aims)

    def part(self, keep: Tensor) -> tuple[Probe, Tensor]:
        """Return a probe of images `keep` (n,) alone, with their cached scores, and the inputs."""
        x = self._x[keep]
        scores = None if self._scores is None else self._scores[keep]
        return self._knowing(x, scores, self._rescored[keep], {}), x

    def _knowing(
        self, x: Tensor, scores: Tensor | None, rescored: Tensor, aims: dict[Target, Aim]
    ) -> Probe:
        """Return a probe of some inputs with these scores and aims in its cache."""
        probe = Probe(self._model, x)
        probe._scores, probe._aims = scores, dict(aims)
        probe._rescored, probe.reran = rescored, rescored.clone()
        return probe

    def scores(self, x: Tensor) -> Tensor:
        """Compute the logits (b, k); those of the batch itself are cached."""
        if x is not self._x:
            return self._rerun.scores(x)
        if self._scores is None:
            with self._learning() as rerun:
                self._scores = rerun.scores(x)
        return self._scores

    def aim(self, x: Tensor, target: Target) -> Aim:
        """Settle the target on the clean scores of x; aims of the batch itself are cached."""
        if x is not self._x:
            return super().aim(x, target)
        if target not in self._aims:
            self._aims[target] = super().aim(x, target)
        return self._aims[target]

    def in_precision(self, precision: str) -> Self:
        """Return a probe of the model in another precision, with an empty cache."""
        return type(self)(self._model.in_precision(precision), self._x)

    # ---- the model's quantities, lost rows run again ------------------------------------------

    def values(self, rows: Rows, aim: Aim) -> Tensor:
        return self._rerun.values(rows, aim)

    def gradients(self, rows: Rows, aim: Aim) -> Iterator[Gradients]:
        return self._rerun.gradients(rows, aim)

    def at_input(self, x: Tensor, target: Target) -> AtInput:
        return self._noted(x, target, lambda rerun: rerun.at_input(x, target))

    def at_layers(self, x: Tensor, target: Target, layers: Sequence[str] = ()) -> AtLayers:
        return self._noted(x, target, lambda rerun: rerun.at_layers(x, target, layers))

    def layer_maps(
        self,
        x: Tensor,
        target: Target,
        layers: Sequence[str],
        name: str,
        arithmetic: Callable[[Sequence[AtLayer]], Tensor],
    ) -> LayerMaps | None:
        if x is not self._x:
            return self._rerun.layer_maps(x, target, layers, name, arithmetic)
        with self._learning() as rerun:
            found = rerun.layer_maps(x, target, layers, name, arithmetic)
        if found is not None:
            self._scores, self._aims[target] = found.scores, found.aim
            self._graph = found.graph
        return found

    def activations(self, x: Tensor, target: Target, layers: Sequence[str] = ()) -> Activations:
        return self._noted(x, target, lambda rerun: rerun.activations(x, target, layers))

    def replay(self, x: Tensor, target: Target, layer: str = "") -> Replay:
        return self._noted(x, target, lambda rerun: rerun.replay(x, target, layer))

    def replayed(self, replay: Replay, rows: Rows) -> Tensor:
        return self._model.replayed(replay, rows)

    def attention(
        self,
        x: Tensor,
        target: Target,
        reduce: Callable[[Attended], Tensor],
        *,
        gradient: AttentionGradient = "scores",
        last: bool = False,
    ) -> AtAttention:
        return self._noted(
            x, target, lambda rerun: rerun.attention(x, target, reduce, gradient, last)
        )

    def attention_rows(
        self, rows: Rows, aim: Aim, reduce: Callable[[Attended], Tensor], *, last: bool = False
    ) -> tuple[Tensor, Tensor]:
        return self._rerun.attention_rows(rows, aim, reduce, last)

    def token_values(self, x: Tensor, keep: Tensor, aim: Aim) -> Tensor:
        return self._rerun.token_values(x, keep, aim)

    def through(
        self,
        x: Tensor,
        aim: Aim,
        run: Callable[[nn.Module, Tensor, Tensor], Tensor],
        maps: Tensor | None = None,
        *,
        prepared: bool = False,
    ) -> Tensor:
        return self._rerun.through(x, aim, run, maps, prepared=prepared)

    # ---- the model's properties ---------------------------------------------------------------

    def once(self, key: Hashable, find: Callable[[], str]) -> str:
        return self._model.once(key, find)

    def probabilities(self, scores: Tensor) -> Tensor:
        return self._model.probabilities(scores)

    def tokens(self, x: Tensor) -> Tokens:
        return self._model.tokens(x)

    def layer(self, x: Tensor) -> str:
        return self._model.layer(x)

    def layer_shape(self, x: Tensor, layer: str) -> tuple[int, int, int]:
        return self._model.layer_shape(x, layer)

    def head_weight(self, x: Tensor, classes: int) -> Tensor:
        return self._model.head_weight(x, classes)

    def remedy(self, missing: Need) -> str:
        return self._model.remedy(missing)

    def accelerated(self, needs: Need, graph: str = "") -> str:
        return self._model.accelerated(needs, graph or self._graph)

    # ---- notes ---------------------------------------------------------------------------------

    def _noted(self, x: Tensor, target: Target, call: Callable[[Rerun], Found]) -> Found:
        """Run a computation on x; on the batch itself, cache its scores and its aim."""
        if x is not self._x:
            return call(self._rerun)
        with self._learning() as rerun:
            found = call(rerun)
        self._scores, self._aims[target] = found.scores, found.aim
        return found

    @contextmanager
    def _learning(self) -> Iterator[Rerun]:
        """Yield a rerun that computes the batch's scores, and note which it had to recompute."""
        rescored: list[Tensor] = []
        yield Rerun(self._model, self._mark, rescored.append)
        self._rescored = torch.zeros_like(self._rescored)
        for images in rescored:
            self._mark(images)
            self._rescored = self._rescored.index_fill(0, images, True)

    @property
    def _rerun(self) -> Rerun:
        """Return the model with its reruns noted here.

        It is made for each call: kept, it and the probe would hold each other, and the tensors of
        the batch with them, until Python searches for cycles.
        """
        return Rerun(self._model, self._mark, lambda _: None)

    def _mark(self, images: Tensor) -> None:
        """Note that images (n,) ran again; indices beyond the batch are those of larger batches."""
        # Not in place: a probe may be made in inference mode and used outside it.
        self.reran = self.reran.index_fill(0, images[images < len(self.reran)], True)
