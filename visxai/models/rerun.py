"""The recomputation in float32 of what half precision lost.

Half precision loses a row in two ways: its gradient is all zero (below fp16's smallest number, or
rounded away), or a score, value, activation or gradient isn't finite (above fp16's 65504). The
lost rows alone are run again, so that no map depends on its neighbours in the batch. What float32
loses too is left as float32 computes it.

A target is settled on the scores after those that weren't finite were recomputed. The rest is
rerun for the target as it was settled, so a rerun changes the class of no map.
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
    AtInput,
    AtLayer,
    AtLayers,
    Attended,
    Gradients,
    LayerMaps,
    Replay,
)
from visxai.target import Aim, Settled, Target

Found = TypeVar("Found", AtInput, AtLayers, LayerMaps, AtAttention, Activations, Replay)


@dataclass(frozen=True)
class Pairs:
    """The lost pairs of map and turn among some rows, and the rows to run for them.

    A row is run once, whichever maps it serves.

    Attributes:
        map: (n,) the map of each pair.
        turn: (n,) the turn of each pair.
        index: (n,) where each pair stood among those lost.
        rows: the inputs to run, each with a single turn.
        aim: the aim of the n pairs over these rows.
    """

    map: Tensor
    turn: Tensor
    index: Tensor
    rows: Rows
    aim: Aim

    @classmethod
    def of(cls, rows: Rows, aim: Aim, which: Tensor, turn: Tensor) -> Pairs:
        """Collect the pairs (which[i], turn[i]) of the maps of `aim` and the turns of `rows`."""
        number = aim.rows[which] * rows.turns + turn
        inputs, place = torch.unique(number, return_inverse=True)
        order = place.argsort(stable=True)
        again = rows.pairs(inputs // rows.turns, inputs % rows.turns)
        aimed = aim.at(which[order], place[order])
        return cls(which[order], turn[order], order, again, aimed)


@dataclass(frozen=True)
class Images(Generic[Found]):
    """The images (n,) of a batch that were run again, and the merge with the other images.

    Attributes:
        new: what the rerun computed of these images.
        scores: (b, k) of the whole batch.
        aim: the target settled on these scores.
        images: (n,) the images' indices in the batch.
        before: (r,) the images of the maps that half precision computed.
    """

    new: Found
    scores: Tensor
    aim: Aim
    images: Tensor
    before: Tensor

    def by_map(self, old: Tensor, new: Tensor) -> Tensor:
        """Merge values of all maps: old (r, ...) of the other images, new of these images."""
        fresh = torch.isin(self.aim.rows, self.images)
        # Keeps the old layout in memory: values of another layout are summed in another order.
        whole = torch.empty_like(old, dtype=new.dtype)
        if len(old) != len(fresh):
            whole = new.new_empty((len(fresh), *new.shape[1:]))
        whole[~fresh] = old[~torch.isin(self.before, self.images)].to(new)
        whole[fresh] = new
        return whole

    def by_image(self, old: Tensor, new: Tensor) -> Tensor:
        """Merge values of all images: old (b, ...) of the others, new (n, ...) of these images."""
        whole = old.to(new.dtype, copy=True)
        whole[self.images] = new
        return whole


@dataclass(frozen=True)
class Rerun:
    """A model whose lost rows are run again in float32.

    Each method computes what the model's method of the same name does.

    Attributes:
        model: the model that computes first.
        note: called with the images (n,) of what ran again, numbered as in `Aim.origin`.
        rescored: called with the images (n,) of the current batch whose scores were recomputed.
    """

    model: Model
    note: Callable[[Tensor], None]
    rescored: Callable[[Tensor], None]

    @property
    def exact(self) -> Model | None:
        """The model that computes the lost rows; None where the model itself is as exact."""
        return None if self.model.precision == "fp32" else self.model.in_precision("fp32")

    # ---- images of a batch ------------------------------------------------------------------

    def scores(self, x: Tensor) -> Tensor:
        """Compute the logits (b, k), those that weren't finite in float32."""
        scores = self.model.scores(x)
        return scores if self.exact is None else self._finite(self.exact, x, scores)[0]

    def _finite(self, exact: Model, x: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
        """Recompute the scores (b, k) of x that aren't finite.

        Returns:
            All scores (b, k), and the images (n,) whose scores were recomputed.
        """
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
        """Run again the images of a batch that half precision lost.

        Args:
            x: the batch (b, 3, h, w).
            target: the target, settled anew where scores were recomputed.
            found: what the model computed of the batch.
            lost: returns the images (n,) that were lost; those without finite scores are added.
            run: run(model, images, target) computes the same of some images.

        Returns:
            The images that ran again; None where no image was lost or the model is exact.
        """
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

    def at_input(self, x: Tensor, target: Target) -> AtInput:
        """Compute the gradient at the input; see `Model.at_input`."""
        found = self.model.at_input(x, target)

        def lost() -> Tensor:
            return found.aim.rows[vanished(found.gradient)]

        again = self._images(x, target, found, lost, lambda m, part, t: m.at_input(part, t))
        if again is None:
            return found
        gradient = again.by_map(found.gradient, again.new.gradient)
        return AtInput(again.scores, again.aim, gradient)

    def at_layers(self, x: Tensor, target: Target, layers: Sequence[str]) -> AtLayers:
        """Compute activations and gradients at layers; see `Model.at_layers`."""
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

    def layer_maps(
        self,
        x: Tensor,
        target: Target,
        layers: Sequence[str],
        name: str,
        arithmetic: Callable[[Sequence[AtLayer]], Tensor],
    ) -> LayerMaps | None:
        """Compute maps of layers where one graph serves; see `Model.layer_maps`."""
        found = self.model.layer_maps(x, target, layers, name, arithmetic)
        if found is None:
            return None

        def exactly(model: Model, part: Tensor, aimed: Target) -> LayerMaps:
            at = model.at_layers(part, aimed, layers)
            return LayerMaps(at.scores, at.aim, arithmetic(at.layers), "")

        again = self._images(x, target, found, lambda: found.aim.rows[~finite(found.maps)], exactly)
        if again is None:
            return found
        maps = again.by_map(found.maps, again.new.maps)
        return LayerMaps(again.scores, again.aim, maps, found.graph)

    def activations(self, x: Tensor, target: Target, layers: Sequence[str]) -> Activations:
        """Compute the activations of layers; see `Model.activations`."""
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
        """Prepare a replay; only what lies below the layer can be lost, as heads run in float32."""
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
        """Reduce the attention of images; see `Model.attention`."""

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
        """Compute the target's scalars with some patches alone; see `Model.token_values`."""
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
        *,
        prepared: bool,
    ) -> Tensor:
        """Run a function on the network itself; see `Model.through`."""
        found = self.model.through(x, aim, run, maps, prepared=prepared)
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
        """Compute the target's scalars (maps, turns) at rows of inputs; see `Model.values`."""
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
        """Reduce the attention of rows of inputs; see `Model.attention_rows`."""
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
        """Compute the gradients of the target at rows of inputs; see `Model.gradients`."""
        for block in self.model.gradients(rows, aim):
            if self.exact is not None:
                self._mend(self.exact, rows, aim, block)
            yield block

    def _mend(self, exact: Model, rows: Rows, aim: Aim, block: Gradients) -> None:
        """Replace the values of a block that half precision lost by those of float32, in place."""
        lost = (vanished(block.gradient) | ~block.value.isfinite()).nonzero().squeeze(1)
        again = self._pairs(rows, aim, block.map[lost], block.turn[lost])
        if again is not None:
            for new in exact.gradients(again.rows, again.aim):
                at = lost[again.index[new.map]]
                block.gradient[at] = new.gradient.to(block.gradient)
                block.value[at] = new.value.to(block.value)

    def _pairs(self, rows: Rows, aim: Aim, which: Tensor, turn: Tensor) -> Pairs | None:
        """Collect the lost pairs (which[i], turn[i]) to run again; None where there are none."""
        if not len(which):
            return None
        again = Pairs.of(rows, aim, which, turn)
        self.note(again.aim.origin)
        return again
