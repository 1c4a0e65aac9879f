"""Any nn.Module as a model: forwards, gradients at the input, activations and gradients at layers.

The module that runs is a structural copy that shares every parameter and buffer with the caller's:
it is in eval mode and carries visxai's hooks, while the caller's own keeps its mode, its hooks and
its `requires_grad`. Weights that the caller updates take effect: what was computed from the old
weights, prepared forms and the sha256, is computed again (see `modules.Weights`).

Every further copy is made from `pristine`, which never runs and is never hooked: a copy of the
module that runs would keep the hooks that another thread has set on it at that moment.
"""

from __future__ import annotations

import contextlib
import copy
import math
import threading
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from visxai.errors import UnknownName
from visxai.images.preprocess import Preprocess
from visxai.models.blocks import maps_of, runs_of
from visxai.models.budget import looking
from visxai.models.interface import Activation, AttentionGradient, Need
from visxai.models.pytorch import at_layers as layered
from visxai.models.pytorch import attention
from visxai.models.pytorch import replay as replays
from visxai.models.pytorch.capture import find
from visxai.models.pytorch.choice import choose_layer, unknown_layer
from visxai.models.pytorch.forms import Forms
from visxai.models.pytorch.isolation import Inputs
from visxai.models.pytorch.layers import Layout
from visxai.models.pytorch.modules import (
    Weights,
    name_of,
    structural_copy,
    unwrapped,
)
from visxai.models.pytorch.network import Scalars
from visxai.models.pytorch.tokens import find_tokens, offered
from visxai.models.rows import Rows, wide
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
    Tokens,
)
from visxai.references import ModelRef
from visxai.target import Aim, Target

if TYPE_CHECKING:
    from visxai.models.pytorch.mapped import Mapped


class TorchModel(Forms):
    """An nn.Module that classifies images; see `visxai.models.load` for models by name.

    Args:
        module: the network; torch.compile's and DataParallel's wrappers are removed.
        name: the model's name for records; the module's class by default.
        preprocess: how an image becomes an input.
        labels: the names of the classes, in order.
        activation: how scores become probabilities.
        layer: the layer that a CAM reads, by name or as a module, or several; by default the model
            chooses.
        output: a function from the module's output to scores (b, k); by default the first tensor
            that looks like scores (see `modules.adapt`).
        device: where the model runs; by default where its parameters lie.
        precision: "fp32", "bf16" or "fp16".
        ref: the model's identity, where it is known already.

    Raises:
        ArgumentError: `module` isn't an nn.Module.
        UnknownName: the module has no layer of the given name.
        LayerError: the given layer isn't part of the module.
        ModelError: the module can't be copied, or its batch norms make images depend on each other.
    """

    def __init__(
        self,
        module: nn.Module,
        *,
        name: str | None = None,
        preprocess: Any = None,
        labels: Sequence[str] | None = None,
        activation: Activation = "softmax",
        layer: str | nn.Module | Sequence[str | nn.Module] | None = None,
        output: Callable[[Any], Tensor] | None = None,
        device: str | torch.device | None = None,
        precision: str = "fp32",
        ref: ModelRef | None = None,
    ) -> None:
        original = unwrapped(module)
        super().__init__(
            original,
            name=name,
            preprocess=preprocess,
            labels=labels,
            activation=activation,
            output=output,
            device=device,
            precision=precision,
            ref=ref,
        )
        self._always = (
            Need.SCORES
            | Need.INPUT_GRADIENT
            | Need.LAYER_GRADIENT
            | Need.LAYER_SCORES
            | Need.LAYER_ACTIVATION
            | Need.MODULE
        )
        self._layer: str | None = None  # as given
        self._chosen: list[str] = []  # where none is; shared by the same model in all precisions
        self._tokens: dict[tuple[int, ...], Tokens] = {}
        self._found_once: dict[Hashable, str] = {}
        self._offered: tuple[Need, str] | None = None
        try:
            self._layer = name_of(original, layer)
        except UnknownName as plain:
            error = plain
            with contextlib.suppress(Exception):  # where it can't run, names are listed alone
                assert isinstance(self.preprocess, Preprocess)
                count = len(self.preprocess.mean)
                blank = torch.zeros(1, count, *self.preprocess.size, device=self.device)
                error = unknown_layer(self, str(layer), blank)
            raise error from None

    @property
    def offers(self) -> Need:  # type: ignore[override]
        """What methods may request; whether attention is included is determined on first use."""
        if isinstance(self.module, torch.jit.ScriptModule):
            return Need.SCORES | Need.INPUT_GRADIENT
        return self._always | self._of_tokens[0]

    def remedy(self, missing: Need) -> str:
        if isinstance(self.module, torch.jit.ScriptModule):
            return (
                "pass the nn.Module that it was made from, since layers inside TorchScript can't "
                "be looked at"
            )
        return self._of_tokens[1] if missing & (Need.ATTENTION | Need.TOKENS) else ""

    @property
    def _of_tokens(self) -> tuple[Need, str]:
        """What the model's tokens offer, and the remedy where they offer nothing."""
        with self._lock:
            if self._offered is None:
                self._offered = offered(self)
            return self._offered

    # ---- forwards ------------------------------------------------------------------------

    def with_output(self, output: Callable[[Any], Tensor]) -> TorchModel:
        """Return the same model with another function from the module's output to scores (b, k).

        The function's name becomes part of the model's name, which records keep.
        """
        other = copy.copy(self)
        read_by = str(getattr(output, "__qualname__", output))
        other._name = f"{self._name} read by {read_by}"
        other._ref = replace(self.ref, name=other._name)
        other._output, other.runtime, other._splits, other._narrows = output, None, {}, {}
        other.acceleration = None  # its forms compute the other output
        other._found_once = {}
        return other

    def with_module(self, module: nn.Module, layer: str | None = None) -> TorchModel:
        """Return the same model around another module, which runs as it is, without a copy.

        Args:
            module: the module, which nothing else runs at the moment.
            layer: the layer that a CAM reads in it; None keeps this model's.
        """
        other = copy.copy(self)
        other.module, other.runtime, other._ref, other._offered = module, None, None, None
        other.pristine, other.weights = structural_copy(module), Weights(module)
        other.acceleration = None  # its forms hold the other module's weights
        other._found_once = {}
        other._surveys, other._tokens, other._splits = {}, {}, {}
        other._inputs, other._classifiers, other._narrows = Inputs(), [], {}
        other._layer, other._lock = layer or self._layer, threading.RLock()
        other._chosen = list(self._chosen)
        return other

    def scores(self, x: Tensor) -> Tensor:
        with torch.inference_mode(False), torch.no_grad():
            blocks = self._blocks(Rows.of(x), "scores", lambda part, *_: self._plain(part))
            return torch.cat(list(blocks))

    def values(self, rows: Rows, aim: Aim) -> Tensor:
        return self._scalars(rows, aim, "scores", lambda x, _: self._plain(x))

    def replayed(self, replay: Replay, rows: Rows) -> Tensor:
        head = replay.head
        return self._scalars(rows, replay.aim, f"head {replay.name}", lambda a, i: head(i, a))

    def _scalars(
        self, rows: Rows, aim: Aim, call: str, forward: Callable[[Tensor, Tensor], Tensor]
    ) -> Tensor:
        """Compute the target's scalars (maps, turns) from forward(inputs (n, ...), image (n,))."""
        out = torch.empty(len(aim), rows.turns, device=self.device)

        def run(x: Tensor, image: Tensor, turn: Tensor, _: int) -> bool:
            scores = forward(x, image)
            for chosen, which in maps_of(aim, image):
                out[which, turn[chosen]] = aim(scores[chosen], which).to(out.dtype)
            return True

        with torch.inference_mode(False), torch.no_grad():
            all(self._blocks(rows, call, run))
        return out

    def gradients(self, rows: Rows, aim: Aim) -> Iterator[Gradients]:
        def run(x: Tensor, image: Tensor, turn: Tensor, first: int) -> list[Gradients]:
            with torch.inference_mode(False), torch.enable_grad():
                # Cloned: an inference tensor of the caller's can't be differentiated.
                leaf = x.detach().clone().requires_grad_()
                scores = wide(self.forward(leaf, self._differentiable(x)))
                passes = maps_of(aim, image)
                found = []
                for number, (chosen, which) in enumerate(passes):
                    value = aim(scores[chosen], which)
                    (gradient,) = self.differentiate(value, [leaf], number + 1 < len(passes))
                    runs = None
                    if aim.each_has is not None:
                        runs = runs_of(first, len(x), rows.turns, aim.each_has, number)
                    found.append(
                        Gradients(which, turn[chosen], gradient[chosen], value.detach(), runs)
                    )
            return found

        for block in self._blocks(rows, "gradients", run):
            yield from block

    def through(
        self,
        x: Tensor,
        aim: Aim,
        run: Callable[[nn.Module, Tensor, Tensor], Tensor],
        maps: Tensor | None = None,
        *,
        prepared: bool = False,
    ) -> Tensor:
        fast = self._differentiable(x) if prepared else None
        module = self.copied() if fast is None else structural_copy(fast)
        network = Scalars(module, self.forward, aim)
        which = torch.arange(len(aim), device=x.device) if maps is None else maps

        def block(part: Tensor, index: Tensor, *_: Any) -> Tensor:
            with torch.inference_mode(False), torch.enable_grad():
                return run(network, part.detach().clone(), which[index]).detach()

        return torch.cat(list(self._blocks(Rows.of(x[aim.rows[which]]), "module", block)))

    def at_input(self, x: Tensor, target: Target) -> AtInput:
        return layered.at_input(self, x, target)

    def at_layers(self, x: Tensor, target: Target, layers: Sequence[str] = ()) -> AtLayers:
        names = tuple(layers) or tuple(self.layer(x).split("+"))
        return layered.at_layers(self, x, target, names, [self.layout(n, x) for n in names])

    def layer_maps(
        self,
        x: Tensor,
        target: Target,
        layers: Sequence[str],
        name: str,
        arithmetic: Callable[[Sequence[AtLayer]], Tensor],
    ) -> LayerMaps | None:
        if not self.graphs:
            return None
        from visxai.models.pytorch.layer_maps import layer_maps  # for long runs alone

        names = tuple(layers) or tuple(self.layer(x).split("+"))
        mapped = self.in_precision("fp32").mapped(names, arithmetic, x)
        return layer_maps(self, x, target, mapped, f"maps of {name} at {'+'.join(names)}")

    def mapped(
        self,
        layers: Sequence[str],
        arithmetic: Callable[[Sequence[AtLayer]], Tensor],
        x: Tensor,
        target: int | None = None,
    ) -> Mapped:
        """Return the network together with maps of its layers, to be traced; see `Mapped`.

        Args:
            layers: the layers' names.
            arithmetic: from activation and gradient at each layer to maps.
            x: inputs (b, 3, h, w).
            target: the class that maps explain, None for the strongest of each image.
        """
        from visxai.models.pytorch.mapped import Mapped

        layouts = [self.layout(name, x) for name in layers]
        tokens = self.tokens(x) if self.offers & Need.ATTENTION else None
        return Mapped(self, layers, layouts, tokens, arithmetic, target)

    def activations(self, x: Tensor, target: Target, layers: Sequence[str] = ()) -> Activations:
        names = tuple(layers) or tuple(self.layer(x).split("+"))
        return replays.activations(self, x, target, names, [self.layout(n, x) for n in names])

    def replay(self, x: Tensor, target: Target, layer: str = "") -> Replay:
        name = layer or self.layer(x)
        return replays.replay(self, x, target, name, self.layout(name, x), self.split(name, x))

    # ---- tokens --------------------------------------------------------------------------

    def tokens(self, x: Tensor) -> Tokens:
        """Describe blocks, prefix tokens and patch grid; kept for each input size."""
        size = tuple(x.shape[1:])
        with self._lock:
            if size not in self._tokens:
                noise = torch.linspace(-1, 1, math.prod(size)).sin().reshape(1, *size)
                with looking(self._name), torch.inference_mode(False), torch.no_grad():
                    self._tokens[size] = find_tokens(self, noise.to(self.device))
            return self._tokens[size]

    def attention(
        self,
        x: Tensor,
        target: Target,
        reduce: Callable[[Attended], Tensor],
        *,
        gradient: AttentionGradient = "scores",
        last: bool = False,
    ) -> AtAttention:
        return attention.attend(self, x, target, attention.AttentionRequest(reduce, gradient, last))

    def attention_rows(
        self, rows: Rows, aim: Aim, reduce: Callable[[Attended], Tensor], *, last: bool = False
    ) -> tuple[Tensor, Tensor]:
        return attention.attend_rows(
            self, rows, aim, attention.AttentionRequest(reduce, "scores", last)
        )

    def token_values(self, x: Tensor, keep: Tensor, aim: Aim) -> Tensor:
        return attention.token_values(self, x, keep, aim)

    # ---- layers --------------------------------------------------------------------------

    def layout(self, name: str, x: Tensor) -> Layout:
        """Return where the positions lie in the output of layer `name` for inputs like x.

        Raises:
            UnknownName: the module has no such layer.
            LayerError: the layer doesn't run, or outputs no positions.
        """
        try:
            find(self.module, name)
        except UnknownName:
            raise unknown_layer(self, name, x[:1]) from None
        return self.survey(x).layout(name)

    def layer_shape(self, x: Tensor, layer: str) -> tuple[int, int, int]:
        layout = self.layout(layer, x)
        shape = next(visit.shape for visit in self.survey(x).visits if visit.name == layer)
        channels, height, width = layout.maps(torch.empty(shape, device="meta")).shape[1:]
        return channels, height, width

    def layer(self, x: Tensor) -> str:
        """Return the layer that a CAM reads: the given layer, or the best that feeds the scores."""
        with self._lock:
            if self._layer is not None:
                return self._layer
            if not self._chosen:
                self._chosen.append(choose_layer(self, x))
            return self._chosen[0]
