"""Any nn.Module as a model: forwards, gradients at the input, activations and gradients at layers.

The module that is run is a structural copy that shares every parameter and buffer with the
caller's: it is in eval mode and carries visxai's hooks, while the caller's own keeps its mode,
its hooks and its `requires_grad`, and weights updated there are seen here.
"""

from __future__ import annotations

import copy
import hashlib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from visxai.backends.base import (
    Activation,
    AtLayer,
    AtLayers,
    Gradients,
    Model,
    Need,
    RowBudget,
    Rows,
)
from visxai.backends.layers import Layout, Survey, survey
from visxai.capture import capture, find
from visxai.errors import ArgumentError, LayerError, ModelError
from visxai.preprocess import Preprocess
from visxai.record import ModelRef
from visxai.target import Aim, Target

DTYPES = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}

# fp16 gradients below 6e-8 vanish: the target is scaled before the backward and unscaled after.
_FP16_SCALE = 1024.0


class TorchModel(Model):
    """An nn.Module that classifies images; see `visxai.models.load` for models by name."""

    def __init__(
        self,
        module: nn.Module,
        *,
        name: str | None = None,
        preprocess: Any = None,
        labels: Sequence[str] | None = None,
        activation: Activation = "softmax",
        layer: str | nn.Module | None = None,
        output: Callable[[Any], Tensor] | None = None,
        device: str | torch.device | None = None,
        precision: str = "fp32",
    ) -> None:
        original = unwrapped(module)
        self.module = private_copy(original, device)
        parameter = next(self.module.parameters(), None)
        self.device = torch.device(device or "cpu") if parameter is None else parameter.device
        floating = parameter is not None and parameter.is_floating_point()
        self.dtype = parameter.dtype if floating and parameter is not None else torch.float32
        self.precision = precision
        self.preprocess = None if preprocess is None else Preprocess.of(preprocess)
        self.labels = None if labels is None else tuple(labels)
        self.activation = activation
        self.budget = RowBudget()
        self.offers = (
            Need.SCORES
            | Need.INPUT_GRADIENT
            | Need.LAYER_GRADIENT
            | Need.LAYER_SCORES
            | Need.ATTENTION
            | Need.MODULE
        )
        self._output = output
        self._name = name or type(original).__name__
        self._layer = _name_of(original, layer)
        self._surveys: dict[tuple[int, ...], Survey] = {}
        self._ref: ModelRef | None = None
        self._lock = threading.RLock()

    @property
    def ref(self) -> ModelRef:  # type: ignore[override]
        """Name, sha256 of the weights (computed on first use) and preprocessing."""
        with self._lock:
            if self._ref is None:
                described = "none" if self.preprocess is None else str(self.preprocess)
                self._ref = ModelRef(self._name, weights_sha256(self.module), described)
            return self._ref

    # ---- forwards ------------------------------------------------------------------------

    def forward(self, x: Tensor, module: nn.Module | None = None) -> Tensor:
        """Logits (b, k) as the model computes them, in the caller's grad mode."""
        with torch.autocast(self.device.type, DTYPES[self.precision], self._autocast):
            return self._logits((module or self.module)(x.to(self.device, self.dtype)))

    @property
    def _autocast(self) -> bool:
        return DTYPES[self.precision] is not None

    def _logits(self, output: Any) -> Tensor:
        scores = self._output(output) if self._output is not None else adapt(output)
        if scores.ndim == 1:
            scores = scores.unsqueeze(1)
        elif scores.ndim == 4 and scores.shape[2:] == (1, 1):
            scores = scores.flatten(1)
        if scores.ndim != 2:
            raise ModelError(
                f"expected {self._name} to output scores (batch, classes), got shape "
                f"{tuple(scores.shape)}: pass output=, a function from the model's output to scores"
            )
        return scores

    def scores(self, x: Tensor) -> Tensor:
        with torch.inference_mode(False), torch.no_grad():
            blocks = self._blocks(Rows.of(x), "scores", lambda part, *_: wide(self.forward(part)))
            return torch.cat(list(blocks))

    def values(self, rows: Rows, aim: Aim) -> Tensor:
        out = torch.empty(len(aim), rows.turns, device=self.device)

        def run(x: Tensor, image: Tensor, turn: Tensor) -> bool:
            scores = wide(self.forward(x))
            for chosen, which in maps_of(aim, image):
                out[which, turn[chosen]] = aim(scores[chosen], which).to(out.dtype)
            return True

        with torch.inference_mode(False), torch.no_grad():
            all(self._blocks(rows, "scores", run))
        return out

    def gradients(self, rows: Rows, aim: Aim) -> Iterator[Gradients]:
        def run(x: Tensor, image: Tensor, turn: Tensor) -> list[Gradients]:
            with torch.inference_mode(False), torch.enable_grad():
                # Cloned: an inference tensor of the caller's can't be differentiated.
                leaf = x.detach().clone().requires_grad_()
                scores = wide(self.forward(leaf))
                passes = maps_of(aim, image)
                found = []
                for number, (chosen, which) in enumerate(passes):
                    value = aim(scores[chosen], which)
                    (gradient,) = self._differentiate(value, [leaf], number + 1 < len(passes))
                    found.append(Gradients(which, turn[chosen], gradient[chosen], value.detach()))
            return found

        for block in self._blocks(rows, "gradients", run):
            yield from block

    def at_layers(self, x: Tensor, target: Target, layers: Sequence[str] = ()) -> AtLayers:
        names = tuple(layers) or tuple(self.layer(x).split("+"))
        layouts = [self.layout(name, x) for name in names]

        def run(part: Tensor, image: Tensor, _: Tensor) -> AtLayers:
            first = int(image[0])
            return self._at_layers(part, target.part(first, first + len(part)), names)

        parts = list(self._blocks(Rows.of(x), f"layer {names}", run))
        return _joined(parts, layouts)

    def _at_layers(self, x: Tensor, target: Target, names: tuple[str, ...]) -> AtLayers:
        with capture(self.module, *names, cut=True) as seen:
            logits = self.forward(x)
            tensors = [seen[name] for name in names]
            scores = wide(logits)
            plain = scores.detach()
            aim = target.aim(plain, self.probabilities(plain))
            passes = aim.passes
            gradients = [t.new_zeros((len(aim), *t.shape[1:])) for t in tensors]
            for number, which in enumerate(passes):
                value = aim(scores[aim.rows[which]], which)
                found = self._differentiate(value, tensors, number + 1 < len(passes))
                for into, gradient in zip(gradients, found, strict=True):
                    into[which] = gradient[aim.rows[which]].to(into.dtype)
        return AtLayers(
            plain,
            aim,
            tuple(
                AtLayer(name, tensor.detach()[aim.rows], gradient)
                for name, tensor, gradient in zip(names, tensors, gradients, strict=True)
            ),
        )

    def _differentiate(
        self, value: Tensor, inputs: Sequence[Tensor], keep_graph: bool
    ) -> list[Tensor]:
        """d value.sum() / d inputs, in float32 or wider."""
        if not value.requires_grad:
            raise LayerError(
                "expected the score to depend on the layer or input that was differentiated, but "
                "no gradient reaches it: choose a layer that feeds the scores"
            )
        scale = _FP16_SCALE if self.precision == "fp16" else 1.0
        found = torch.autograd.grad(
            value.sum() * scale, inputs, retain_graph=keep_graph, allow_unused=True
        )
        if any(gradient is None for gradient in found):
            raise LayerError(
                "expected the score to depend on every layer asked for, but no gradient reaches "
                "one of them: choose layers that feed the scores"
            )
        return [wide(gradient) / scale for gradient in found if gradient is not None]

    # ---- layers --------------------------------------------------------------------------

    def survey(self, x: Tensor) -> Survey:
        """What one image of this size shows of the modules; kept for each input size."""
        size = tuple(x.shape[1:])
        with self._lock:
            if size not in self._surveys:
                # Any picture does; this one is drawn without touching the global generator.
                noise = torch.linspace(-1, 1, x[0].numel()).sin().reshape(1, *size)
                self._surveys[size] = survey(self.module, self.forward, noise)
            return self._surveys[size]

    def layout(self, name: str, x: Tensor) -> Layout:
        """Where the positions lie in the output of layer `name` for inputs like x."""
        find(self.module, name)
        return self.survey(x).layout(name)

    def layer(self, x: Tensor) -> str:
        """The layer a CAM looks at: the one given, or the best one that feeds the scores."""
        with self._lock:
            if self._layer is None:
                self._layer = self._choose_layer(x)
            return self._layer

    def _choose_layer(self, x: Tensor) -> str:
        seen = self.survey(x)
        probe = torch.linspace(-1, 1, x[0].numel(), device=self.device).reshape(1, *x.shape[1:])
        tried = []
        for name in seen.candidates():
            try:
                self._at_layers(probe, Target("class", "class=0", (0,)), (name,))
            except LayerError:
                tried.append(name)
                if len(tried) == 12:
                    break
            else:
                return name
        raise LayerError(
            f"expected {self._name} to have a layer with positions (b, c, h, w) or tokens, but "
            f"none feeds its scores: pass layer=, or use a method that needs no layer"
        )


def maps_of(aim: Aim, image: Tensor) -> list[tuple[Tensor, Tensor]]:
    """For a block of rows of images `image` (n,): pairs (row numbers, their maps).

    Each pair holds a row at most once, so one backward serves it; there are as many pairs as the
    image with most maps has.
    """
    pairs = []
    for which in aim.passes:
        table = torch.full((int(aim.rows.max()) + 1,), -1, device=image.device)
        table[aim.rows[which]] = which
        maps = torch.where(image < len(table), table[image.clamp(max=len(table) - 1)], -1)
        chosen = (maps >= 0).nonzero().squeeze(1)
        if len(chosen):
            pairs.append((chosen, maps[chosen]))
    return pairs


def _joined(parts: Sequence[AtLayers], layouts: Sequence[Layout]) -> AtLayers:
    """The blocks of a batch as one, activations and gradients as float32 maps."""
    scores = torch.cat([part.scores for part in parts])
    aim = parts[0].aim if len(parts) == 1 else _joined_aim(parts)
    layers = []
    for number, layout in enumerate(layouts):
        pieces = [part.layers[number] for part in parts]
        activation = torch.cat([wide(layout.maps(piece.activation)) for piece in pieces])
        gradient = torch.cat([wide(layout.maps(piece.gradient)) for piece in pieces])
        layers.append(AtLayer(pieces[0].name, activation, gradient))
    return AtLayers(scores, aim, tuple(layers))


def _joined_aim(parts: Sequence[AtLayers]) -> Aim:
    """One aim for a batch whose blocks were aimed one by one."""
    rows, classes, start = [], [], 0
    for part in parts:
        rows.append(part.aim.rows + start)
        classes.append(part.aim.classes)
        start += part.scores.shape[0]
    bounds = [0]
    for part in parts:
        bounds.append(bounds[-1] + len(part.aim))

    def function(scores: Tensor, which: Tensor) -> Tensor:
        out = scores.new_empty(len(which))
        for part, low, high in zip(parts, bounds, bounds[1:], strict=False):
            mine = ((which >= low) & (which < high)).nonzero().squeeze(1)
            out = out.index_put((mine,), part.aim(scores[mine], which[mine] - low).to(out.dtype))
        return out

    known = [c for c in classes if c is not None]
    return Aim(torch.cat(rows), torch.cat(known) if known else None, function)


def wide(value: Tensor) -> Tensor:
    """float32, or float64 as it is: what every reduction that makes a map runs in."""
    return value if value.dtype in (torch.float32, torch.float64) else value.float()


def adapt(output: Any) -> Tensor:
    """The scores in what a model returns: a tensor, a Hugging Face output, a dict or a tuple."""
    if isinstance(output, Tensor):
        return output
    for name in ("logits", "logits_per_image", "scores"):
        value = output.get(name) if isinstance(output, Mapping) else getattr(output, name, None)
        if isinstance(value, Tensor):
            return value
    items = output.values() if isinstance(output, Mapping) else output
    if isinstance(items, (tuple, list)) or isinstance(output, Mapping):
        for item in items:
            if isinstance(item, Tensor) and item.ndim == 2:
                return item
    raise ModelError(
        f"expected the model to output scores (batch, classes), got {type(output).__name__}: "
        "pass output=, a function from the model's output to scores"
    )


def unwrapped(module: nn.Module) -> nn.Module:
    """The module inside torch.compile's and DataParallel's wrappers: hooks need the plain one."""
    if not isinstance(module, nn.Module):
        raise ArgumentError(
            f"expected a model's name or an nn.Module, got {type(module).__name__}: "
            "see `visxai models` for names"
        )
    while True:
        inner = getattr(module, "_orig_mod", None)
        if inner is None and isinstance(module, nn.DataParallel):
            inner = module.module
        if not isinstance(inner, nn.Module):
            return module
        module = inner


def private_copy(module: nn.Module, device: str | torch.device | None) -> nn.Module:
    """A copy in eval mode that shares all parameters and buffers; copied only to change device."""
    shared: dict[int, Any] = {}
    with torch.inference_mode(False):
        for tensor in [*module.parameters(), *module.buffers()]:
            # An inference tensor can't be saved for a backward; only a copy can.
            shared[id(tensor)] = tensor.clone() if tensor.is_inference() else tensor
        try:
            private = copy.deepcopy(module, shared)
        except Exception as error:
            raise ModelError(
                f"expected a module that can be copied, but {type(module).__name__} can't "
                f"({error}): remove what can't be copied from its attributes"
            ) from error
        first = next(private.parameters(), None)
        if device is not None and first is not None and first.device != torch.device(device):
            private = copy.deepcopy(private).to(device)
    return private.eval()


def weights_sha256(module: nn.Module) -> str:
    """sha256 over the names, types, shapes and bytes of all parameters and buffers, in order."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        if not isinstance(tensor, Tensor):
            continue
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        plain = tensor.detach().cpu().contiguous()
        digest.update(plain.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _name_of(module: nn.Module, layer: str | nn.Module | None) -> str | None:
    if layer is None:
        return None
    if isinstance(layer, str):
        for part in layer.split("+"):
            find(module, part)
        return layer
    names: dict[int, str] = {id(part): name for name, part in module.named_modules()}
    if id(layer) in names:
        return names[id(layer)]
    raise LayerError(
        f"expected a layer of the model, got a {type(layer).__name__} that isn't part of it: "
        "pass the layer's dotted name"
    )
