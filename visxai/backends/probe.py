"""A model as one batch sees it: what is known stays known, what half precision lost comes again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from visxai.backends.base import (
    Activations,
    AtAttention,
    AtLayers,
    Attended,
    AttentionGradient,
    Gradients,
    Model,
    Replay,
    Rows,
    vanished,
)
from visxai.target import Aim, Target

if TYPE_CHECKING:
    from visxai.backends.tokens import Tokens


class Probe(Model):
    """A model as one batch sees it: the clean scores are computed once, whoever asks first.

    Half precision that gives a zero or non-finite gradient is computed again in float32, and
    `reran` says so. Lives as long as the batch; nothing in it holds a graph.
    """

    def __init__(self, model: Model, x: Tensor) -> None:
        self._model = model
        self._x = x
        self._scores: Tensor | None = None
        self._aims: dict[Target, Aim] = {}
        self.reran = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def part(self, keep: Tensor) -> tuple[Probe, Tensor]:
        """The probe of images `keep` (n,) alone and their inputs; what is known stays known."""
        x = self._x[keep]
        probe = Probe(self._model, x)
        probe._scores = None if self._scores is None else self._scores[keep]
        return probe, x

    def scores(self, x: Tensor) -> Tensor:
        if x is not self._x:
            return self._model.scores(x)
        if self._scores is None:
            self._scores = self._model.scores(x)
        return self._scores

    def aim(self, x: Tensor, target: Target) -> Aim:
        if x is not self._x:
            return super().aim(x, target)
        if target not in self._aims:
            self._aims[target] = super().aim(x, target)
        return self._aims[target]

    def probabilities(self, scores: Tensor) -> Tensor:
        return self._model.probabilities(scores)

    def values(self, rows: Rows, aim: Aim) -> Tensor:
        return self._model.values(rows, aim)

    def layer(self, x: Tensor) -> str:
        return self._model.layer(x)

    def layer_shape(self, x: Tensor, layer: str) -> tuple[int, int, int]:
        return self._model.layer_shape(x, layer)

    def head_weight(self, x: Tensor, classes: int) -> Tensor:
        return self._model.head_weight(x, classes)

    def activations(self, x: Tensor, target: Target, layers: Sequence[str] = ()) -> Activations:
        found = self._model.activations(x, target, layers)
        self._note(x, target, found)
        return found

    def replay(self, x: Tensor, target: Target, layer: str = "") -> Replay:
        found = self._model.replay(x, target, layer)
        self._note(x, target, found)
        return found

    def replayed(self, replay: Replay, rows: Rows) -> Tensor:
        return self._model.replayed(replay, rows)

    def through(
        self, x: Tensor, aim: Aim, run: Callable[[nn.Module, Tensor, Tensor], Tensor]
    ) -> Tensor:
        found = self._model.through(x, aim, run)
        if self.precision != "fp32" and bool(vanished(found).any()):
            self.reran = True
            found = self._model.in_precision("fp32").through(x, aim, run)
        return found

    def gradients(self, rows: Rows, aim: Aim) -> Iterator[Gradients]:
        for block in self._model.gradients(rows, aim):
            if self.precision == "fp32" or not vanished(block.gradient).any():
                yield block
                continue
            self.reran = True
            again = rows.pairs(aim.rows[block.map], block.turn)
            for found in self._model.in_precision("fp32").gradients(again, aim.each(block.map)):
                yield Gradients(
                    block.map[found.map], block.turn[found.map], found.gradient, found.value
                )

    def at_layers(self, x: Tensor, target: Target, layers: Sequence[str] = ()) -> AtLayers:
        found = self._model.at_layers(x, target, layers)
        if self.precision != "fp32" and any(
            bool(vanished(at.gradient).any()) for at in found.layers
        ):
            self.reran = True
            found = self._model.in_precision("fp32").at_layers(x, target, layers)
        self._note(x, target, found)
        return found

    def tokens(self, x: Tensor) -> Tokens:
        return self._model.tokens(x)

    def attention(
        self,
        x: Tensor,
        target: Target,
        reduce: Callable[[Attended], Tensor],
        *,
        gradient: AttentionGradient = "scores",
        last: bool = False,
    ) -> AtAttention:
        found = self._model.attention(x, target, reduce, gradient=gradient, last=last)
        if self.precision != "fp32" and bool(found.vanished.any()):
            self.reran = True
            plain = self._model.in_precision("fp32")
            found = plain.attention(x, target, reduce, gradient=gradient, last=last)
        self._note(x, target, found)
        return found

    def attention_rows(
        self, rows: Rows, aim: Aim, reduce: Callable[[Attended], Tensor], *, last: bool = False
    ) -> tuple[Tensor, Tensor]:
        found, lost = self._model.attention_rows(rows, aim, reduce, last=last)
        if self.precision != "fp32" and bool(lost.any()):
            self.reran = True
            plain = self._model.in_precision("fp32")
            found, lost = plain.attention_rows(rows, aim, reduce, last=last)
        return found, lost

    def token_values(self, x: Tensor, keep: Tensor, aim: Aim) -> Tensor:
        return self._model.token_values(x, keep, aim)

    def _note(
        self, x: Tensor, target: Target, found: AtLayers | Activations | Replay | AtAttention
    ) -> None:
        if x is self._x:
            self._scores = found.scores
            self._aims[target] = found.aim
