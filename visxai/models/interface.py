"""The interface of a model: the quantities that a method may request.

Every quantity is computed for rows: images × turns (path points, windows, masks). Rows are built
block by block, so a method never holds more inputs than fit in memory. When memory runs out, the
block is halved and tried again, and the size that worked is remembered.
"""

from __future__ import annotations

import copy
import enum
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Literal, Self, TypeVar

import torch
from torch import Tensor, nn

from visxai.errors import ArgumentError, ModelError
from visxai.images.preprocess import Opaque, Preprocess
from visxai.models.budget import RowBudget, is_out_of_memory
from visxai.models.pytorch.exact import exact_float32
from visxai.models.rows import Rows, peak
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

Activation = Literal["softmax", "sigmoid", "none"]
AttentionGradient = Literal["none", "scores", "blocks"]
T = TypeVar("T")


class Need(enum.Flag):
    """The capabilities that a method needs of a model, or that a model offers."""

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
    """Return how often a batch was written into, 0 where PyTorch doesn't count its writes."""
    return 0 if batch is None or batch.is_inference() else batch._version


def finite(values: Tensor) -> Tensor:
    """Return (n,) whether all values of a row are finite."""
    return peak(values).isfinite()


class Model(ABC):
    """A frozen network in eval mode with its preprocessing, labels and identity.

    Inputs x are float tensors (b, 3, h, w) in model space (normalised), on the model's device. A
    backend overrides the methods for what it offers; the others raise ModelError, which says what
    kind of model is needed.

    Attributes:
        ref: the model's identity: its name, its weights' sha256 and its preprocessing.
        preprocess: how an image becomes an input; None where it is unknown.
        labels: the names of the classes, in order; None where they are unknown.
        activation: how scores become the probabilities that the model reports.
        offers: what the model can compute.
        device: where the inputs and the results lie.
        precision: the precision it computes in, one of `precisions`.
        budget: how many rows fit in memory, learned while it runs.
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
        """Compute the logits (b, k) of inputs x, float32, without a graph."""

    @abstractmethod
    def values(self, rows: Rows, aim: Aim) -> Tensor:
        """Compute the target's scalars at rows of inputs, without a graph: one forward a row.

        Args:
            rows: the inputs, images × turns.
            aim: the target settled on the images.

        Returns:
            (maps, turns), float32.
        """

    def gradients(self, rows: Rows, aim: Aim) -> Iterator[Gradients]:
        """Compute the gradients of the target at rows of inputs, block by block.

        Each row costs one forward, and one backward for each map of its image.

        Args:
            rows: the inputs, images × turns.
            aim: the target settled on the images.

        Yields:
            The gradients and values of a block of pairs of map and turn.
        """
        raise self._lacks("gradients at the input")

    def at_input(self, x: Tensor, target: Target) -> AtInput:
        """Compute the gradient at the input itself: one forward, which settles the target.

        Args:
            x: inputs (b, 3, h, w).
            target: what the gradient is of.
        """
        raise self._lacks("gradients at the input")

    def at_layers(self, x: Tensor, target: Target, layers: Sequence[str] = ()) -> AtLayers:
        """Compute activations and gradients at layers of the network.

        It costs one forward, without a graph below the first of the layers, and a backward from the
        score down to that layer.

        Args:
            x: inputs (b, 3, h, w).
            target: what the gradients are of.
            layers: the layers' names; the model's own choice by default.

        Returns:
            The scores, the settled aim, and activation and gradient (maps, channels, u, v) of each
            layer.
        """
        raise self._lacks("gradients at a layer")

    def layer_maps(
        self,
        x: Tensor,
        target: Target,
        layers: Sequence[str],
        name: str,
        arithmetic: Callable[[Sequence[AtLayer]], Tensor],
    ) -> LayerMaps | None:
        """Compute maps of layers for the price of a forward, where one graph holds both.

        Args:
            x: inputs (b, 3, h, w).
            target: what is explained.
            layers: the layers' names; none for the model's own choice.
            name: the name of the arithmetic, with all that changes numbers.
            arithmetic: from activation and gradient at each layer to maps (r, u, v).

        Returns:
            None where there is no such graph, so that `at_layers` serves.
        """
        return None

    def activations(self, x: Tensor, target: Target, layers: Sequence[str] = ()) -> Activations:
        """Compute the activations alone at layers of the network: one forward.

        Args:
            x: inputs (b, 3, h, w).
            target: the target to settle on the scores.
            layers: the layers' names; the model's own choice by default.

        Returns:
            The scores, the settled aim, and the activation (b, channels, u, v) of each layer.
        """
        raise self._lacks("activations of a layer")

    def replay(self, x: Tensor, target: Target, layer: str = "") -> Replay:
        """Compute a layer's activation and prepare the network above it: one forward.

        Args:
            x: inputs (b, 3, h, w).
            target: the target to settle on the scores.
            layer: the layer's name; the model's own choice by default.

        Returns:
            The activation, and the head, which computes scores from other activations of the layer.
        """
        raise self._lacks("scores from a layer")

    def replayed(self, replay: Replay, rows: Rows) -> Tensor:
        """Compute the target's scalars for rows of activations at the replay's layer.

        Only the head above the layer runs, once a row.

        Args:
            replay: the layer and its head.
            rows: activations, images × turns of shape (channels, u, v).

        Returns:
            (maps, turns), float32.
        """
        raise self._lacks("scores from a layer")

    def tokens(self, x: Tensor) -> Tokens:
        """Describe the blocks, prefix tokens and patch grid of a transformer for inputs like x."""
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
        """Reduce the attention of all layers (or the last layer), block by block of images.

        It costs one forward, and unless gradient="none" a backward from the score down to the first
        layer.

        Args:
            x: inputs (b, 3, h, w).
            target: what the gradients are of.
            reduce: the method's function, from the attention seen by n maps to values (n, ...).
            gradient: "scores" is the gradient of the target of the scores; "blocks" is, at each
                layer, the gradient of the target of what the head computes from the tokens right
                after that layer's block; "none" computes no gradient.
            last: whether to read the last layer alone.

        Returns:
            The scores, the settled aim, and the reduced values of each map.
        """
        raise self._lacks("attention")

    def attention_rows(
        self, rows: Rows, aim: Aim, reduce: Callable[[Attended], Tensor], *, last: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Reduce the attention of all layers (or the last layer) for rows of inputs.

        Args:
            rows: the inputs, images × turns.
            aim: the target settled on the images.
            reduce: the method's function, from the attention seen by n maps to values (n, ...).
            last: whether to read the last layer alone.

        Returns:
            The reduced values (maps, turns, ...), and (maps, turns) whether a gradient vanished.
        """
        raise self._lacks("attention")

    def token_values(self, x: Tensor, keep: Tensor, aim: Aim) -> Tensor:
        """Compute the target's scalars when only some patches enter the first block.

        It costs one forward for each image and each set of patches.

        Args:
            x: inputs (b, 3, h, w).
            keep: indices (turns, kept) of the patches that stay; prefix tokens always stay.
            aim: the target settled on the images.

        Returns:
            (maps, turns), float32.
        """
        raise self._lacks("token subsets")

    @property
    def channels(self) -> int:
        """The number of channels of the model's input: 3, unless a backend determines another."""
        return 3

    def remedy(self, missing: Need) -> str:
        """Return how the model could be built to offer `missing`, or "" where nothing helps."""
        return ""

    def layer_shape(self, x: Tensor, layer: str) -> tuple[int, int, int]:
        """Return the shape (channels, u, v) of a layer's activation for inputs like x."""
        raise self._lacks("layers")

    def head_weight(self, x: Tensor, classes: int) -> Tensor:
        """Return the weights (classes, features) of the last linear layer, a row for each class."""
        raise self._lacks("a linear layer of classes")

    def through(
        self,
        x: Tensor,
        aim: Aim,
        run: Callable[[nn.Module, Tensor, Tensor], Tensor],
        maps: Tensor | None = None,
        *,
        prepared: bool = False,
    ) -> Tensor:
        """Run a function on the network itself, for methods that hook modules themselves.

        Args:
            x: inputs (b, 3, h, w).
            aim: the target settled on the images.
            run: run(network, inputs (n, 3, h, w), map (n,)) returns (n, ...). network(inputs, map)
                returns the target's scalars (n, 1), float32. The network is a copy that nothing
                else runs (its weights are shared), so the caller may hook it freely, and its
                activation modules don't work in place.
            maps: the maps (m,) to compute; all by default.
            prepared: whether the network may be the one that is prepared for fast gradients at the
                input, whose batch norms are folded.

        Returns:
            The results of `run` (m, ...), over blocks with a row for each map, concatenated.
        """
        raise self._lacks("its module")

    def once(self, key: Hashable, find: Callable[[], str]) -> str:
        """Return what `find` finds out about this model, which is asked once for each key."""
        known: dict[Hashable, str] = self.__dict__.setdefault("_found_once", {})
        if key not in known:
            known[key] = find()
        return known[key]

    def accelerated(self, needs: Need, graph: str = "") -> str:
        """Describe what runs methods with `needs`, for the record; "off" is the backend alone.

        Args:
            needs: what the method needs.
            graph: the graph that made its maps (see `LayerMaps`), "" where none did.
        """
        return "off"

    def in_precision(self, precision: str) -> Self:
        """Return the same model computing in another precision; weights and budgets are shared."""
        other = copy.copy(self)
        other.precision = precision
        return other

    def probabilities(self, scores: Tensor) -> Tensor:
        """Convert scores (n, k) to what the model reports, (n, k) float32.

        That is their softmax, their sigmoid or the scores themselves. All code that interprets
        scores calls this method, so labels of a wrong number are refused here.

        Raises:
            ArgumentError: the number of labels isn't the number of classes.
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
        """Settle the target on the clean scores of x."""
        scores = self.scores(x)
        return target.aim(scores, self.probabilities(scores))

    def clean(self, x: Tensor, target: Target) -> tuple[Aim, Tensor]:
        """Settle the target on x, and compute its scalars (maps,) at x."""
        scores = self.scores(x)  # once, whether or not a probe caches them
        aim = target.aim(scores, self.probabilities(scores))
        return aim, aim(scores[aim.rows])

    def layer(self, x: Tensor) -> str:
        """Return the layer whose activations a CAM reads for inputs like x; "+" joins several."""
        raise self._lacks("layers")

    def _lacks(self, what: str) -> ModelError:
        """Return the error for a quantity that the model doesn't offer."""
        return ModelError(
            f"expected a model that offers {what}, but {self.ref.name} offers {self.offers}: "
            "choose a method that needs no more (see `visxai methods`)"
        )

    def _computing(self) -> AbstractContextManager[None]:
        """Return the context in which a block is computed: fp32 uses all bits of float32."""
        return exact_float32(self.device) if self.precision == "fp32" else nullcontext()

    def _blocks(
        self, rows: Rows, call: str, run: Callable[[Tensor, Tensor, Tensor, int], T]
    ) -> Iterator[T]:
        """Run a function over all rows, in blocks that fit in memory.

        When memory runs out, the block is halved and tried again, outside the `except`: inside, the
        exception's traceback would keep the failed block's tensors alive.

        Args:
            rows: the inputs, images × turns.
            call: the kind of computation, by which the budget remembers block sizes.
            run: run(inputs (n, ...), image (n,), turn (n,), first) computes a block; its rows are
                consecutive, and `first` is the number of the first one.

        Yields:
            The result of each block, in order.

        Raises:
            ModelError: a forward wrote into the batch itself, which others still read.
            OutOfMemory: a single row doesn't fit.
        """
        total, start, key = rows.images * rows.turns, 0, (call, *rows.shape)
        written = _writes(rows.batch)
        while start < total:
            size = min(self.budget.get(key), total - start)
            index = torch.arange(start, start + size, device=self.device)
            image, turn = index // rows.turns, index % rows.turns
            try:
                with self._computing():
                    result = run(rows.block(image, turn), image, turn, start)
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
            self.budget.fits(key, size)
            yield result
            start += size
