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
import difflib
import itertools
import math
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from visxai.errors import LayerError, OutOfMemory, UnknownName
from visxai.images.preprocess import Preprocess
from visxai.models.blocks import joined_aim, maps_of, runs_of
from visxai.models.budget import looking
from visxai.models.interface import Activation, AttentionGradient, Need
from visxai.models.pytorch import attention
from visxai.models.pytorch import narrow as half
from visxai.models.pytorch import replay as replays
from visxai.models.pytorch.accelerate import Acceleration
from visxai.models.pytorch.agreement import turned
from visxai.models.pytorch.capture import capture, find
from visxai.models.pytorch.isolation import Inputs
from visxai.models.pytorch.layers import Layout
from visxai.models.pytorch.modules import (
    Weights,
    name_of,
    structural_copy,
    unwrapped,
)
from visxai.models.pytorch.network import DTYPES, Network, Scalars
from visxai.models.pytorch.split import Split, split
from visxai.models.pytorch.tokens import find_tokens, offered
from visxai.models.pytorch.tracing import running
from visxai.models.rows import Rows, wide
from visxai.models.views import (
    Activations,
    AtAttention,
    AtLayer,
    AtLayers,
    Attended,
    Gradients,
    Replay,
    Tokens,
)
from visxai.models.weights import cache_folder
from visxai.references import ModelRef
from visxai.target import Aim, Target

# How far compiled code in half precision may turn from the same copy run as it is.
HALF: dict[str, Any] = {"limit": 3e-2, "difference": turned}


class TorchModel(Network):
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

    Attributes:
        runtime: what computes float32 forwards that need no graph, where the module itself doesn't.
        acceleration: prepared forms of the module; None runs plain PyTorch.

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
        # What runs float32 forwards that need no graph, where it isn't the module itself.
        self.runtime: Callable[[Tensor], Tensor] | None = None
        # Faster forms of forwards without a graph and of gradients at the input; None is plain.
        self.acceleration: Acceleration | None = None
        self._always = (
            Need.SCORES
            | Need.INPUT_GRADIENT
            | Need.LAYER_GRADIENT
            | Need.LAYER_SCORES
            | Need.LAYER_ACTIVATION
            | Need.MODULE
        )
        self._layer: str | None = None
        self._tokens: dict[tuple[int, ...], Tokens] = {}
        self._offered: tuple[Need, str] | None = None
        self._splits: dict[tuple[str, tuple[int, ...]], Split | str] = {}
        # Copies in half precision by precision and input size, or why there is none, each with the
        # mark of the weights that it was made of.
        self._narrows: dict[tuple[str, tuple[int, ...]], tuple[Any, half.Narrow | str]] = {}
        try:
            self._layer = name_of(original, layer)
        except UnknownName as plain:
            error = plain
            with contextlib.suppress(Exception):  # where it can't run, names are listed alone
                assert isinstance(self.preprocess, Preprocess)
                count = len(self.preprocess.mean)
                blank = torch.zeros(1, count, *self.preprocess.size, device=self.device)
                error = self._unknown_layer(str(layer), blank)
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

    def _plain(self, x: Tensor) -> Tensor:
        """Compute the logits (b, k), float32, by a forward that needs no graph."""
        runtime, fast = self._served, self._fast
        if runtime is not None:
            return runtime(x)
        narrow = self._narrow(x)
        if narrow is not None:
            return self._plain_half(narrow, x)
        if fast is None or self.precision != "fp32":
            return wide(self.forward(x))

        def fresh() -> tuple[Callable[[Tensor], Tensor], nn.Module]:
            module = self.copied()
            return lambda part: wide(self.forward(part, module)), module

        return fast.form("whole", lambda part: wide(self.forward(part)), fresh, x)(x)

    @property
    def _served(self) -> Callable[[Tensor], Tensor] | None:
        """The runtime where it may run: in float32, while the weights are those it was made of."""
        usable = self.runtime is not None and self.precision == "fp32" and self.weights.original
        return self.runtime if usable else None

    @property
    def _fast(self) -> Acceleration | None:
        """The acceleration, where it may be used: its forms compute in float32."""
        fast = self.acceleration
        if self.dtype != torch.float32 or fast is None:
            return None
        return fast if self.precision in fast.precisions else None

    def accelerated(self, needs: Need) -> str:
        """Describe what runs methods with `needs`, for the record; "off" is PyTorch alone."""
        if self._served is not None:
            return str(self._served)
        told = "off" if self._fast is None else self._fast.describe(needs)
        if self.precision == "fp32" or Need.INPUT_GRADIENT in needs or Need.MODULE in needs:
            return told if self.precision == "fp32" else "off"
        known = [found for (kind, _), (_, found) in self._narrows.items() if kind == self.precision]
        if not known:
            return told
        how = f"autocast: {known[-1]}" if isinstance(known[-1], str) else "prepared copy"
        return f"{told}; {self.precision} by {how}"

    # ---- half precision --------------------------------------------------------------------

    def _narrow(self, x: Tensor) -> half.Narrow | None:
        """Return the copy that computes in half precision (see `narrow.py`), None without one.

        It is made for the first inputs of a size, which check it, and anew for other weights.

        Args:
            x: rows (b, c, h, w) that it will run on.
        """
        dtype = DTYPES[self.precision]
        scripted = isinstance(self.module, torch.jit.ScriptModule)
        if dtype is None or scripted or self.dtype != torch.float32 or x.ndim != 4:
            return None
        key = (self.precision, tuple(x.shape[1:]))
        with self._lock:
            mark = self.weights.mark()
            known = self._narrows.get(key)
            if known is None or known[0] not in (None, mark):
                self._splits.clear()
                found = self._prepared(x.detach(), dtype)
                if self.weights.mark() != mark:  # a copy would keep its own count
                    known = (None, "its weights change while it runs")
                else:
                    known = (mark, found)
                self._narrows[key] = known
        return None if isinstance(known[1], str) else known[1]

    def _prepared(self, x: Tensor, dtype: torch.dtype) -> half.Narrow | str:
        """Prepare a copy in half precision; or return why it can't run, or doesn't pay."""
        exact = self.in_precision("fp32")
        works = (
            lambda module, rows: wide(exact.forward(rows, module)),
            lambda module, rows: self._half(rows, module),
            lambda module, rows: wide(self.forward(rows, module)),
        )
        # Hooks of other threads act in their threads alone, and this module has run before.
        made = half.prepare(self.module, *works, x, dtype)
        if isinstance(made, str):
            return made
        place = half.place_of(
            cache_folder(), self.weights.sha256(), tuple(x.shape[1:]), str(x.device), self.precision
        )
        seconds = half.measured(made, self.module, *works, x, place)
        return made if seconds.narrow <= seconds.autocast else "the prepared copy is slower here"

    def _half(self, x: Tensor, part: Callable[[Tensor], Any]) -> Tensor:
        """Compute the scores (b, k), float32, of a part of a copy in half precision."""
        with running():
            return wide(self.logits(part(x)))

    def _plain_half(self, narrow: half.Narrow, x: Tensor) -> Tensor:
        """Compute the logits (b, k), float32, by the copy or by its compiled form."""

        def plain(part: Tensor) -> Tensor:
            return self._half(narrow.inputs(part), narrow.module)

        def fresh() -> tuple[Callable[[Tensor], Tensor], nn.Module]:
            module = structural_copy(narrow.pristine)
            return lambda part: self._half(narrow.inputs(part), module), module

        if self._fast is None:
            return plain(x)
        form = self._fast.form(f"whole in {self.precision}", plain, fresh, x, **HALF)
        return form(x)

    def at_work(self, x: Tensor) -> tuple[nn.Module, Callable[[], Tensor]]:
        narrow = self._narrow(x)
        if narrow is None:
            return super().at_work(x)
        return narrow.module, lambda: self._half(narrow.inputs(x), narrow.module)

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
        other._surveys, other._tokens, other._splits = {}, {}, {}
        other._inputs, other._classifiers, other._narrows = Inputs(), [], {}
        other._layer, other._lock = layer or self._layer, threading.RLock()
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
    ) -> Tensor:
        network = Scalars(self.copied(), self.forward, aim)
        which = torch.arange(len(aim), device=x.device) if maps is None else maps

        def block(part: Tensor, index: Tensor, *_: Any) -> Tensor:
            with torch.inference_mode(False), torch.enable_grad():
                return run(network, part.detach().clone(), which[index]).detach()

        return torch.cat(list(self._blocks(Rows.of(x[aim.rows[which]]), "module", block)))

    def at_layers(self, x: Tensor, target: Target, layers: Sequence[str] = ()) -> AtLayers:
        names = tuple(layers) or tuple(self.layer(x).split("+"))
        layouts = [self.layout(name, x) for name in names]

        def run(part: Tensor, _image: Tensor, _turn: Tensor, first: int) -> AtLayers:
            return self._at_layers(part, target.part(first, first + len(part)), names)

        parts = list(self._blocks(Rows.of(x), f"layer {names}", run))
        return _joined(parts, layouts)

    def activations(self, x: Tensor, target: Target, layers: Sequence[str] = ()) -> Activations:
        names = tuple(layers) or tuple(self.layer(x).split("+"))
        return replays.activations(self, x, target, names, [self.layout(n, x) for n in names])

    def replay(self, x: Tensor, target: Target, layer: str = "") -> Replay:
        name = layer or self.layer(x)
        return replays.replay(self, x, target, name, self.layout(name, x), self.split(name, x))

    def _at_layers(self, x: Tensor, target: Target, names: tuple[str, ...]) -> AtLayers:
        """Compute activations and gradients at layers for a block of inputs x (b, 3, h, w)."""
        module, run = self._above(names, x)
        with capture(module, *names, cut=True) as seen:
            scores = run()
            tensors = [seen[name] for name in names]
            plain = scores.detach()
            aim = target.aim(plain, self.probabilities(plain))
            passes = aim.passes
            # In float32 from here on: what fp16's scale has saved would vanish in fp16 again.
            gradients = [
                t.new_zeros(
                    (len(aim), *t.shape[1:]), dtype=torch.promote_types(t.dtype, torch.float32)
                )
                for t in tensors
            ]
            for number, which in enumerate(passes):
                value = aim(scores[aim.rows[which]], which)
                found = self.differentiate(value, tensors, number + 1 < len(passes))
                for into, gradient in zip(gradients, found, strict=True):
                    into[which] = gradient[aim.rows[which]]
        return AtLayers(
            plain,
            aim,
            tuple(
                AtLayer(name, tensor.detach()[aim.rows], gradient)
                for name, tensor, gradient in zip(names, tensors, gradients, strict=True)
            ),
        )

    def _above(self, names: tuple[str, ...], x: Tensor) -> tuple[nn.Module, Callable[[], Tensor]]:
        """Choose what runs and is differentiated for gradients at layers `names`.

        That is the module itself on x, or its copy in half precision. With acceleration it is the
        head above the first of the layers, whose input the trunk's fast form computes from x.

        Returns:
            The module that holds the layers, and what computes the scores (b, k) by it.
        """
        narrow = self._narrow(x)
        if narrow is not None and not narrow.folded.intersection(names):
            return self._above_half(narrow, names, x)
        whole = self.module, lambda: wide(self.forward(x))
        if self._fast is None or self.precision != "fp32":
            return whole
        first = min(names, key=self.survey(x).order)
        parts = self.split(first, x)
        if parts.whole:
            return whole

        def fresh() -> tuple[Callable[[Tensor], Tensor], nn.Module]:
            trunk = parts.trunk.again()
            return lambda part: self._run(trunk, part), trunk.module

        with torch.inference_mode(False), torch.no_grad():
            inside = self._fast.form(
                f"below {parts.at}", lambda part: self._run(parts.trunk, part), fresh, x, parts.axis
            )(x)
        return parts.head.module, lambda: wide(self.forward(inside, parts.head))

    def _above_half(
        self, narrow: half.Narrow, names: tuple[str, ...], x: Tensor
    ) -> tuple[nn.Module, Callable[[], Tensor]]:
        """Choose what runs in half precision; see `_above`."""
        first = min(names, key=self.survey(x).order)
        parts = self._split_half(narrow, first, x) if self._fast is not None else None
        if parts is None or parts.whole:
            return narrow.module, lambda: self._half(narrow.inputs(x), narrow.module)
        trunk, fast = parts.trunk, self._fast
        assert fast is not None

        def plain(part: Tensor) -> Tensor:
            return trunk(narrow.inputs(part))

        def fresh() -> tuple[Callable[[Tensor], Tensor], nn.Module]:
            own = trunk.again()
            return lambda part: own(narrow.inputs(part)), own.module

        with torch.inference_mode(False), torch.no_grad():
            place = f"below {parts.at} in {self.precision}"
            inside = fast.form(place, plain, fresh, x, parts.axis, **HALF)(x)
        return parts.head.module, lambda: self._half(inside, parts.head)

    def _split_half(self, narrow: half.Narrow, name: str, x: Tensor) -> Split | None:
        """Split the copy in half precision at a layer; None where it can't be split."""
        key = (f"{name} in {self.precision}", tuple(x.shape[1:]))
        with self._lock:
            if key not in self._splits:
                with looking(self._name):
                    self._splits[key] = split(
                        narrow.pristine,
                        lambda rows, part: self._half(narrow.inputs(rows), part),
                        name,
                        x[:1],
                    )
            found = self._splits[key]
        return None if isinstance(found, str) else found

    def _changed(self) -> None:
        self._splits.clear()
        self._narrows.clear()

    def _differentiable(self, x: Tensor) -> nn.Module | None:
        """Return the faster module for gradients at the input; None means the module itself."""
        if self._fast is None:
            return None
        return self._fast.gradient_module(self.pristine, lambda m, part: self.forward(part, m), x)

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
            raise self._unknown_layer(name, x[:1]) from None
        return self.survey(x).layout(name)

    def _unknown_layer(self, name: str, x: Tensor) -> UnknownName:
        """Return the error for a name that no layer has, with the layers that a CAM can read.

        The late layers come first, and the layer that visxai would choose is named.
        """
        late = list(itertools.islice(dict.fromkeys(self.survey(x).candidates()), 5))
        names = [known for known, _ in self.module.named_modules() if known]
        near = difflib.get_close_matches(name, names, n=3)
        told = f"late ones are {', '.join(late)}" if near else f"late ones of {len(names)}"
        own = self._choose_layer(x)
        return UnknownName("layer", name, late, f"({told}; visxai's own choice is {own})", near)

    def layer_shape(self, x: Tensor, layer: str) -> tuple[int, int, int]:
        layout = self.layout(layer, x)
        shape = next(visit.shape for visit in self.survey(x).visits if visit.name == layer)
        channels, height, width = layout.maps(torch.empty(shape, device="meta")).shape[1:]
        return channels, height, width

    def split(self, name: str, x: Tensor) -> Split:
        """Split the model at layer `name`, for inputs like x; kept for each input size.

        Raises:
            LayerError: the model can't be split there, or the layer doesn't run exactly once.
        """
        key = (name, tuple(x.shape[1:]))
        with self._lock:
            if key not in self._splits:
                self._splits[key] = split(self.pristine, self._exactly, name, x[:1])
            found = self._splits[key]
        if isinstance(found, str):
            raise LayerError(
                f"expected {self._name} to run again from layer {name!r}, but it can't be split "
                f"there ({found}): choose another layer, or a method that needs no scores from one"
            )
        return found

    def _exactly(self, x: Tensor, part: Callable[[Tensor], Any]) -> Tensor:
        """Compute the scores of a part of the model on up to three images, in float32."""
        plain = self.in_precision("fp32")
        if len(x) <= 2:
            with looking(self._name):
                return plain.forward(x, part)
        with contextlib.suppress(OutOfMemory), looking(self._name):
            return plain.forward(x, part)
        return torch.cat([self._exactly(rows, part) for rows in (x[:2], x[2:])])

    def layer(self, x: Tensor) -> str:
        """Return the layer that a CAM reads: the given layer, or the best that feeds the scores."""
        with self._lock:
            if self._layer is None:
                self._layer = self._choose_layer(x)
            return self._layer

    def _choose_layer(self, x: Tensor) -> str:
        """Return the best of the survey's candidates at which a gradient reaches the positions."""
        seen = self.survey(x)
        probe = torch.linspace(-1, 1, x[0].numel(), device=self.device).reshape(1, *x.shape[1:])
        blank: list[str] = []
        for name in itertools.islice(dict.fromkeys(seen.candidates()), 12):
            try:
                found = self._at_layers(probe, Target("class", "class=0", (0,)), (name,))
            except LayerError:
                continue
            # Above the last attention only the class token is read: patches have no gradient.
            if bool(seen.layout(name).maps(found.layers[0].gradient).any()):
                return name
            blank.append(name)
        if blank:
            return blank[0]
        raise LayerError(
            f"expected {self._name} to have a layer with positions (b, c, h, w) or tokens, but "
            f"none feeds its scores: pass layer=, or use a method that needs no layer"
        )


def _joined(parts: Sequence[AtLayers], layouts: Sequence[Layout]) -> AtLayers:
    """Join the blocks of a batch, with activations and gradients as float32 maps."""
    scores = torch.cat([part.scores for part in parts])
    aim = parts[0].aim if len(parts) == 1 else joined_aim(parts)
    layers = []
    for number, layout in enumerate(layouts):
        pieces = [part.layers[number] for part in parts]
        activation = torch.cat([wide(layout.maps(piece.activation)) for piece in pieces])
        gradient = torch.cat([wide(layout.maps(piece.gradient)) for piece in pieces])
        layers.append(AtLayer(pieces[0].name, activation, gradient))
    return AtLayers(scores, aim, tuple(layers))
