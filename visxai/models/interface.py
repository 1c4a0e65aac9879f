"""What a method may ask of a model.

Every quantity is asked for in rows: images × turns (path points, windows, masks), built block by
block when their turn comes, so a method never holds more inputs than fit. When memory runs out a
block is halved and tried again, and the size that worked is remembered.
"""

from __future__ import annotations

import copy
import enum
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Literal, Self, TypeVar

import torch
from torch import Tensor, nn

from visxai.errors import ArgumentError, ModelError
from visxai.images.preprocess import Opaque, Preprocess
from visxai.models.budget import RowBudget, is_out_of_memory
from visxai.models.pytorch.exact import exact_float32
from visxai.models.rows import Rows
from visxai.models.views import Activations, AtAttention, AtLayers, Attended, Gradients, Replay
from visxai.references import ModelRef
from visxai.target import Aim, Target

if TYPE_CHECKING:
    from visxai.models.views import Tokens

Activation = Literal["softmax", "sigmoid", "none"]
AttentionGradient = Literal["none", "scores", "blocks"]
T = TypeVar("T")


class Need(enum.Flag):
    """What a method needs of a model, and what a model offers."""

    SCORES = enum.auto()
    INPUT_GRADIENT = enum.auto()
    LAYER_GRADIENT = enum.auto()
    LAYER_SCORES = enum.auto()
    ATTENTION = enum.auto()
    TOKENS = enum.auto()
    MODULE = enum.auto()
    LAYER_ACTIVATION = enum.auto()

    def __str__(self) -> str:
        return ", ".join(str(flag.name).lower().replace("_", " ") for flag in Need if flag in self)


def _writes(batch: Tensor | None) -> int:
    """How often a batch was written into, as far as that is counted."""
    return 0 if batch is None or batch.is_inference() else batch._version


def finite(values: Tensor) -> Tensor:
    """(n,) whether a row's values are all finite."""
    return values.isfinite().flatten(1).all(1)


class Model(ABC):
    """A frozen network in eval mode with its preprocessing, labels and identity.

    Inputs x are float tensors (b, 3, h, w) in model space (normalised), on the model's device.
    Backends implement what they offer; the rest says which model is needed.
    """

    ref: ModelRef
    preprocess: Preprocess | Opaque | None
    labels: Sequence[str] | None
    activation: Activation
    offers: Need
    device: torch.device
    precision: str
    precisions: tuple[str, ...]  # what `precision` may be
    budget: RowBudget

    @abstractmethod
    def scores(self, x: Tensor) -> Tensor:
        """Logits (b, k), float32, without a graph."""

    @abstractmethod
    def values(self, rows: Rows, aim: Aim) -> Tensor:
        """The target's scalars (maps, turns), float32, without a graph: one forward a row."""

    def gradients(self, rows: Rows, aim: Aim) -> Iterator[Gradients]:
        """Gradients of the target at the inputs, block by block: one forward a row, and one
        backward for each map of the row's image."""
        raise self._lacks("gradients at the input")

    def at_layers(self, x: Tensor, target: Target, layers: Sequence[str] = ()) -> AtLayers:
        """Activations and gradients at `layers` (default: the model's own choice): one forward
        without a graph below the first of them, and a backward from the score down to it."""
        raise self._lacks("gradients at a layer")

    def activations(self, x: Tensor, target: Target, layers: Sequence[str] = ()) -> Activations:
        """Activations alone at `layers` (default: the model's own choice): one forward."""
        raise self._lacks("activations of a layer")

    def replay(self, x: Tensor, target: Target, layer: str = "") -> Replay:
        """A layer (default: the model's own choice) and the network above it: one forward."""
        raise self._lacks("scores from a layer")

    def replayed(self, replay: Replay, rows: Rows) -> Tensor:
        """The target's scalars (maps, turns), float32, for rows of activations at the replay's
        layer: one head a row, and nothing below the layer."""
        raise self._lacks("scores from a layer")

    def tokens(self, x: Tensor) -> Tokens:
        """Blocks, prefix tokens and patch grid of a transformer for inputs like x."""
        raise self._lacks("attention")

    def attention(
        self,
        x: Tensor,
        target: Target,
        reduce: Callable[[Attended], Tensor],
        *,
        gradient: AttentionGradient = "scores",
        last: bool = False,
    ) -> AtAttention:
        """What `reduce` makes, block by block, of the attention of all layers (or the last one):
        one forward, and unless gradient="none" a backward from the score down to the first.

        gradient: "scores" of the target of the scores; "blocks" at each layer of the target of
        what the head makes of the tokens right after that layer's block.
        """
        raise self._lacks("attention")

    def attention_rows(
        self, rows: Rows, aim: Aim, reduce: Callable[[Attended], Tensor], *, last: bool = False
    ) -> tuple[Tensor, Tensor]:
        """The same for rows: (maps, turns, ...), and (maps, turns) whether a gradient vanished."""
        raise self._lacks("attention")

    def token_values(self, x: Tensor, keep: Tensor, aim: Aim) -> Tensor:
        """The target's scalars (maps, turns), float32, when only the patches keep (turns, kept)
        and the prefix tokens enter the first block: one forward a row."""
        raise self._lacks("token subsets")

    @property
    def channels(self) -> int:
        """The channels of its input: 3, unless more is known."""
        return 3

    def remedy(self, missing: Need) -> str:
        """How the model could be built to offer what it lacks, or ""."""
        return ""

    def layer_shape(self, x: Tensor, layer: str) -> tuple[int, int, int]:
        """(channels, u, v) of a layer for inputs like x."""
        raise self._lacks("layers")

    def head_weight(self, x: Tensor, classes: int) -> Tensor:
        """The weights (classes, features) of the last linear layer, one row a class."""
        raise self._lacks("a linear layer of classes")

    def through(
        self,
        x: Tensor,
        aim: Aim,
        run: Callable[[nn.Module, Tensor, Tensor], Tensor],
        maps: Tensor | None = None,
    ) -> Tensor:
        """run(network, inputs (n, 3, h, w), map (n,)) -> (n, ...), over blocks of one row a map,
        joined: for methods that hook modules themselves. maps: (m,) those meant, default all.

        network(inputs, map) gives the target's scalars (n, 1), float32. It is a copy that nobody
        else sees (its weights are shared), so that whatever is hooked goes with it, and its
        activations don't work in place.
        """
        raise self._lacks("its module")

    def accelerated(self, needs: Need) -> str:
        """What runs methods with `needs`, in words, for the record."""
        return "off"

    def in_precision(self, precision: str) -> Self:
        """The same model computing in another precision; weights and budgets are shared."""
        other = copy.copy(self)
        other.precision = precision
        return other

    def probabilities(self, scores: Tensor) -> Tensor:
        """What the model reports: softmax, sigmoid or the scores themselves, (n, k) float32.

        Whoever reads scores comes by here, so a list of names for other classes goes no further.
        """
        if self.labels and len(self.labels) != scores.shape[1]:
            raise ArgumentError(
                f"expected {scores.shape[1]} names for the {scores.shape[1]} classes of "
                f"{self.ref.name}, got {len(self.labels)}: give one name a class, in order "
                "(labels=[...] or --labels FILE; labels=[] for none)"
            )
        if self.activation == "softmax" and scores.shape[1] > 1:
            return scores.softmax(1)
        if self.activation == "softmax":  # of a single logit it would always be 1
            return scores.sigmoid()
        return scores.sigmoid() if self.activation == "sigmoid" else scores

    def aim(self, x: Tensor, target: Target) -> Aim:
        """The target settled on the clean scores of x."""
        scores = self.scores(x)
        return target.aim(scores, self.probabilities(scores))

    def clean(self, x: Tensor, target: Target) -> tuple[Aim, Tensor]:
        """The aim settled on x, and the target's scalars (maps,) there."""
        scores = self.scores(x)  # once, whether or not a probe remembers them
        aim = target.aim(scores, self.probabilities(scores))
        return aim, aim(scores[aim.rows])

    def layer(self, x: Tensor) -> str:
        """The layer a CAM looks at for inputs like x, several joined by "+"."""
        raise self._lacks("layers")

    def _lacks(self, what: str) -> ModelError:
        return ModelError(
            f"expected a model that offers {what}, but {self.ref.name} offers {self.offers}: "
            "choose a method that needs no more (see `visxai methods`)"
        )

    def _computing(self) -> AbstractContextManager[None]:
        """What a block is computed in: fp32 means all of float32's bits."""
        return exact_float32(self.device) if self.precision == "fp32" else nullcontext()

    def _blocks(
        self, rows: Rows, call: str, run: Callable[[Tensor, Tensor, Tensor], T]
    ) -> Iterator[T]:
        """run(inputs, image, turn) over all rows, in blocks that fit.

        Out of memory halves the block and tries it again, outside the `except`: inside, the
        exception's traceback would keep the failed block's tensors alive.

        Raises ModelError where a forward wrote into the batch itself, which others still read.
        """
        total, start, key = rows.images * rows.turns, 0, (call, *rows.shape)
        written = _writes(rows.batch)
        while start < total:
            size = min(self.budget.get(key), total - start)
            index = torch.arange(start, start + size, device=self.device)
            image, turn = index // rows.turns, index % rows.turns
            try:
                with self._computing():
                    result = run(rows.block(image, turn), image, turn)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                result = None
            if _writes(rows.batch) != written:
                raise ModelError(
                    f"expected {self.ref.name} to leave its input alone as its first forward did, "
                    "but a later one wrote into the batch: let its forward begin with "
                    "x = x.clone(), and pass the images again"
                )
            if result is None:
                self.budget.shrink(key, size)
                if self.device.type == "cuda":
                    torch.cuda.empty_cache()
                continue
            yield result
            start += size
