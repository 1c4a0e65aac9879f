"""The one place where what half precision lost is computed again in float32.

Half precision loses a row in two ways: its gradient is all zero (below fp16's smallest number, or
rounded away), or a score, value, activation or gradient isn't finite (above fp16's 65504). The
lost rows alone are run again, so that no map depends on its neighbours in the batch. What float32
loses too stays as float32 has it.

A target settles on scores of which those that weren't finite came again. The rest is run again
for the target as it was settled, so a rerun changes the class of no map.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

from visxai.models.interface import AttentionGradient, Model, finite
from visxai.models.rows import Rows, vanished
from visxai.models.views import (
    Activations,
    AtAttention,
    AtLayer,
    AtLayers,
    Attended,
    Gradients,
    Replay,
)
from visxai.target import Aim, Settled, Target

Found = TypeVar("Found", AtLayers, AtAttention, Activations, Replay)


@dataclass(frozen=True)
class Pairs:
    """Lost pairs map (n,), turn (n,) of some rows, and the rows that serve them: an input once,
    whichever maps it serves. index (n,): where each pair stood among those lost."""

    map: Tensor
    turn: Tensor
    index: Tensor
    rows: Rows
    aim: Aim

    @classmethod
    def of(cls, rows: Rows, aim: Aim, which: Tensor, turn: Tensor) -> Pairs:
        """The pairs (which[i], turn[i]) of the maps of `aim` and the turns of `rows`."""
        number = aim.rows[which] * rows.turns + turn
        inputs, place = torch.unique(number, return_inverse=True)
        order = place.argsort(stable=True)
        again = rows.pairs(inputs // rows.turns, inputs % rows.turns)
        aimed = aim.at(which[order], place[order])
        return cls(which[order], turn[order], order, again, aimed)


@dataclass(frozen=True)
class Images(Generic[Found]):
    """Images (n,) of a batch that were run again: `new` is what came of them; scores (b, k) and
    aim are the whole batch's, and `before` (r,) the images of the maps that half precision had."""

    new: Found
    scores: Tensor
    aim: Aim
    images: Tensor
    before: Tensor

    def by_map(self, old: Tensor, new: Tensor) -> Tensor:
        """Values of all maps: old ones (r, ...) of the other images, new ones of these."""
        fresh = torch.isin(self.aim.rows, self.images)
        # Of the old layout in memory: another one is summed in another order.
        whole = torch.empty_like(old, dtype=new.dtype)
        if len(old) != len(fresh):
            whole = new.new_empty((len(fresh), *new.shape[1:]))
        whole[~fresh] = old[~torch.isin(self.before, self.images)].to(new)
        whole[fresh] = new
        return whole

    def by_image(self, old: Tensor, new: Tensor) -> Tensor:
        """Values (b, ...) of all images: new ones of these."""
        whole = old.to(new.dtype, copy=True)
        whole[self.images] = new
        return whole


@dataclass(frozen=True)
class Rerun:
    """A model whose lost rows are run again.

    note: is told the images (n,) of what ran again, as `Aim.origin` has them. rescored: is told
    the images (n,) of the batch asked about whose scores came again.
    """

    model: Model
    note: Callable[[Tensor], None]
    rescored: Callable[[Tensor], None]

    @property
    def exact(self) -> Model | None:
        """What computes the lost rows; None where the model itself is as exact."""
        return None if self.model.precision == "fp32" else self.model.in_precision("fp32")

    # ---- images of a batch ------------------------------------------------------------------

    def scores(self, x: Tensor) -> Tensor:
        scores = self.model.scores(x)
        return scores if self.exact is None else self._finite(self.exact, x, scores)[0]

    def _finite(self, exact: Model, x: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
        """Scores (b, k) of x, and the images (n,) whose scores weren't finite and came again."""
        images = (~finite(scores)).nonzero().squeeze(1)
        if len(images):
            self.rescored(images)
            scores = scores.index_copy(0, images, exact.scores(x[images]).to(scores))
        return scores, images

    def _images(
        self,
        x: Tensor,
        target: Target,
        found: Found,
        lost: Callable[[], Tensor],
        run: Callable[[Model, Tensor, Target], Found],
    ) -> Images[Found] | None:
        """The images of x that lost() (n,) names, by run(model, images, target); None for none."""
        exact = self.exact
        if exact is None:
            return None
        scores, again = self._finite(exact, x, found.scores)
        images = torch.unique(torch.cat([again, lost()]))
        if not len(images):
            return None
        aim = found.aim
        if len(again):
            aim = target.aim(scores, self.model.probabilities(scores))
        part = aim.images(images)
        self.note(part.origin)
        new = run(exact, x[images], Settled.on_aim(target, part))
        return Images(new, scores, aim, images, found.aim.rows)

    def at_layers(self, x: Tensor, target: Target, layers: Sequence[str]) -> AtLayers:
        found = self.model.at_layers(x, target, layers)

        def lost() -> Tensor:
            parts = [vanished(at.gradient) | ~finite(at.activation) for at in found.layers]
            return found.aim.rows[torch.stack(parts).any(0)]

        again = self._images(
            x, target, found, lost, lambda m, part, t: m.at_layers(part, t, layers)
        )
        if again is None:
            return found
        merged = tuple(
            AtLayer(
                old.name,
                again.by_map(old.activation, new.activation),
                again.by_map(old.gradient, new.gradient),
            )
            for old, new in zip(found.layers, again.new.layers, strict=True)
        )
        return AtLayers(again.scores, again.aim, merged)

    def activations(self, x: Tensor, target: Target, layers: Sequence[str]) -> Activations:
        found = self.model.activations(x, target, layers)

        def lost() -> Tensor:
            return torch.stack([~finite(at) for at in found.layers]).any(0).nonzero().squeeze(1)

        again = self._images(
            x, target, found, lost, lambda m, part, t: m.activations(part, t, layers)
        )
        if again is None:
            return found
        pairs = zip(found.layers, again.new.layers, strict=True)
        merged = tuple(again.by_image(old, new) for old, new in pairs)
        return Activations(again.scores, again.aim, merged)

    def replay(self, x: Tensor, target: Target, layer: str) -> Replay:
        """Heads compute in float32 always: only what lies below the layer can be lost."""
        found = self.model.replay(x, target, layer)
        again = self._images(
            x,
            target,
            found,
            lambda: (~finite(found.activation)).nonzero().squeeze(1),
            lambda m, part, t: m.replay(part, t, layer),
        )
        if again is None:
            return found
        classes, heads, images = again.scores.shape[1], (found.head, again.new.head), again.images

        def head(image: Tensor, activation: Tensor) -> Tensor:
            fresh = torch.isin(image, images)
            scores = again.scores.new_empty(len(image), classes)
            for run, mine in zip(heads, (~fresh, fresh), strict=True):
                at = image[mine]
                if len(at):
                    at = at if run is found.head else torch.searchsorted(images, at)
                    scores[mine] = run(at, activation[mine]).to(scores)
            return scores

        activation = again.by_image(found.activation, again.new.activation)
        return Replay(found.name, again.scores, again.aim, activation, head)

    def attention(
        self,
        x: Tensor,
        target: Target,
        reduce: Callable[[Attended], Tensor],
        gradient: AttentionGradient,
        last: bool,
    ) -> AtAttention:
        def run(model: Model, part: Tensor, target: Target) -> AtAttention:
            return model.attention(part, target, reduce, gradient=gradient, last=last)

        found = run(self.model, x, target)

        def lost() -> Tensor:
            return found.aim.rows[found.vanished | ~finite(found.values) | ~finite(found.norms)]

        again = self._images(x, target, found, lost, run)
        if again is None:
            return found
        values, norms, gone = (
            again.by_map(getattr(found, name), getattr(again.new, name))
            for name in ("values", "norms", "vanished")
        )
        return AtAttention(again.scores, again.aim, values, norms, found.tokens, gone)

    def token_values(self, x: Tensor, keep: Tensor, aim: Aim) -> Tensor:
        found = self.model.token_values(x, keep, aim)
        if self.exact is None or bool(found.isfinite().all()):
            return found
        images = torch.unique(aim.rows[~finite(found)])
        part = aim.images(images)
        self.note(part.origin)
        found[torch.isin(aim.rows, images)] = self.exact.token_values(x[images], keep, part)
        return found

    def through(
        self,
        x: Tensor,
        aim: Aim,
        run: Callable[[nn.Module, Tensor, Tensor], Tensor],
        maps: Tensor | None,
    ) -> Tensor:
        found = self.model.through(x, aim, run, maps)
        if self.exact is None:
            return found
        lost = vanished(found).nonzero().squeeze(1)
        if not len(lost):
            return found
        again = lost if maps is None else maps[lost]
        self.note(aim.origin[again])
        return found.index_copy(0, lost, self.exact.through(x, aim, run, again).to(found))

    # ---- rows of images x turns -------------------------------------------------------------

    def values(self, rows: Rows, aim: Aim) -> Tensor:
        found = self.model.values(rows, aim)
        if self.exact is None:
            return found
        again = self._pairs(rows, aim, *(~found.isfinite()).nonzero(as_tuple=True))
        if again is not None:
            found[again.map, again.turn] = self.exact.values(again.rows, again.aim)[:, 0]
        return found

    def attention_rows(
        self, rows: Rows, aim: Aim, reduce: Callable[[Attended], Tensor], last: bool
    ) -> tuple[Tensor, Tensor]:
        found, gone = self.model.attention_rows(rows, aim, reduce, last=last)
        if self.exact is None:
            return found, gone
        lost = gone | ~found.isfinite().flatten(2).all(2)
        again = self._pairs(rows, aim, *lost.nonzero(as_tuple=True))
        if again is not None:
            new = self.exact.attention_rows(again.rows, again.aim, reduce, last=last)
            for whole, part in zip((found, gone), new, strict=True):
                whole[again.map, again.turn] = part[:, 0].to(whole)
        return found, gone

    def gradients(self, rows: Rows, aim: Aim) -> Iterator[Gradients]:
        for block in self.model.gradients(rows, aim):
            if self.exact is not None:
                self._mend(self.exact, rows, aim, block)
            yield block

    def _mend(self, exact: Model, rows: Rows, aim: Aim, block: Gradients) -> None:
        """Put what float32 gives into a block where half precision lost it."""
        lost = (vanished(block.gradient) | ~block.value.isfinite()).nonzero().squeeze(1)
        again = self._pairs(rows, aim, block.map[lost], block.turn[lost])
        if again is not None:
            for new in exact.gradients(again.rows, again.aim):
                at = lost[again.index[new.map]]
                block.gradient[at] = new.gradient.to(block.gradient)
                block.value[at] = new.value.to(block.value)

    def _pairs(self, rows: Rows, aim: Aim, which: Tensor, turn: Tensor) -> Pairs | None:
        """The lost pairs (which[i], turn[i]) to run again, if there are any."""
        if not len(which):
            return None
        again = Pairs.of(rows, aim, which, turn)
        self.note(again.aim.origin)
        return again
