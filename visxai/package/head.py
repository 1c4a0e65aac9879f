"""The part of a network above a layer, with a map's arithmetic, traced into ordinary operators.

    scores = head(A),   g = d score_c / dA,   map = method(A, g)

The backward through the head is traced together with its forward, as autograd runs it, and its
operators are broken down until all of them exist in ONNX. The batch axis stays symbolic throughout,
so that the graph serves any number of images.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch._decomp import core_aten_decompositions
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv, StatelessSymbolicContext
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

from visxai.errors import VisxaiError
from visxai.methods._maps import fuse
from visxai.methods.base import Cam
from visxai.methods.legrad import Legrad
from visxai.models.interface import Need
from visxai.models.pytorch.capture import capture
from visxai.models.pytorch.model import TorchModel
from visxai.models.pytorch.split import Split
from visxai.models.pytorch.tracing import alone
from visxai.models.views import AtLayer
from visxai.package.tokens import Sensitivity, shorten
from visxai.quiet import warnings_of

GIVEN = "class"  # the input that chooses a class for each image
TOLERANCE = 1e-5  # of the largest score or value of a map
Explain = Callable[..., tuple[Tensor, Tensor]]


class Below(Protocol):
    """What runs before the traced head, in a module of its own."""

    module: nn.Module

    def __call__(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Compute what the head takes of images x (b, c, h, w)."""


@dataclass(frozen=True)
class Parts:
    """A network below a layer and its traced head.

    Attributes:
        trunk: From images to the activation at the cut, or several; None where the head is the
            whole network.
        head: From those activations (and the class of each image) to scores and maps.
        activations: The activations of two images, which the head was traced with.
        axis: The activations' axis of images.
    """

    trunk: Below | None
    head: GraphModule
    activations: tuple[Tensor, ...]
    axis: int

    def below(self, x: Tensor) -> tuple[Tensor, ...]:
        """Compute what the head takes of images x (b, c, h, w)."""
        return below(self.trunk, x)


def below(trunk: Below | None, x: Tensor) -> tuple[Tensor, ...]:
    """Compute what a head takes of images x (b, c, h, w), each in memory of its own."""
    found = x if trunk is None else trunk(x)
    return tuple(one.clone() for one in ((found,) if isinstance(found, Tensor) else found))


def trace(
    model: TorchModel, method: Cam | Legrad, x: Tensor, target: int | None, given: bool
) -> Parts:
    """Trace the network above a method's layers together with the method.

    Args:
        model: The network, in float32.
        method: The class activation map, or LeGrad.
        x: Two inputs (2, c, h, w).
        target: The class that maps explain, None for the strongest of each image.
        given: Whether the head takes the class of each image as another input, where a negative
            number stands for `target`.

    Returns:
        The trunk and the head. The head's outputs are scores (b, k) and maps (b, u, v).
    """
    axis = 0
    trunk: Below | None
    if isinstance(method, Legrad):
        trunk = Sensitivity(model, x)
        explain = _legrad(trunk, target)
    else:
        first = min(method.layers(model, x), key=model.survey(x).order)
        parts = model.split(first, x)
        trunk = None if parts.whole else parts.trunk.again()
        axis = 0 if trunk is None else parts.axis
        explain = _shortened(model, method, x, target, parts) or _cam(
            model, method, x, target, *_above(parts, model.copied())
        )
    with torch.inference_mode(False), torch.no_grad():
        activations = below(trunk, x)
        extra = [torch.full((2,), -1)] if given else []
        axes = [axis] * len(activations) + [0] * len(extra)
        head = _symbolic(explain, [*activations, *extra], axes)
    return Parts(trunk, head, activations, axis)


def _above(parts: Split, module: nn.Module) -> tuple[nn.Module, Callable[[Tensor], Any]]:
    """Return a copy of the network that is changed, and what runs it from the cut on."""
    return module, module if parts.whole else parts.head.on(module)


def _cam(
    model: TorchModel,
    method: Cam,
    x: Tensor,
    target: int | None,
    module: nn.Module,
    run: Callable[[Tensor], Any],
) -> Explain:
    """Return the function from the activation at the cut to scores and class activation maps."""
    names = method.layers(model, x)
    layouts = [model.layout(name, x) for name in names]

    def explain(inside: Tensor, *wanted: Tensor) -> tuple[Tensor, Tensor]:
        with capture(module, *names, cut=True) as seen:
            scores = model.forward(inside, run)
        chosen = _chosen(scores.detach(), target, *wanted)
        # Rows are independent, so that one backward serves all of them.
        gradients = torch.autograd.grad(scores, [seen[name] for name in names], chosen)
        maps = [
            method.map(AtLayer(name, layout.maps(seen[name].detach()), layout.maps(gradient)))
            for name, layout, gradient in zip(names, layouts, gradients, strict=True)
        ]
        return scores.detach(), fuse(maps)

    return explain


def _shortened(
    model: TorchModel, method: Cam, x: Tensor, target: int | None, parts: Split
) -> Explain | None:
    """Return what explains a transformer of whose last block only what the head reads is run.

    Returns:
        None where the network isn't such a transformer, or scores and maps aren't the same so.
    """
    if not model.offers & Need.ATTENTION:
        return None
    try:
        tokens = model.tokens(x)
        if max(tokens.read) >= tokens.prefix:  # the head reads all patches
            return None
        module = model.copied()
        shorten(module, tokens)
        short = _cam(model, method, x, target, *_above(parts, module))
        plain = _cam(model, method, x, target, *_above(parts, model.copied()))
        with torch.inference_mode(False), torch.no_grad():
            inside = below(None if parts.whole else parts.trunk, x)
            found, wanted = short(*inside), plain(*inside)
    except (VisxaiError, RuntimeError):  # layers behind the last attention, for one
        return None
    same = all(
        one.shape == other.shape and (one - other).abs().max() <= TOLERANCE * other.abs().max()
        for one, other in zip(found, wanted, strict=True)
    )
    return short if same else None


def _legrad(sensitivity: Sensitivity, target: int | None) -> Explain:
    """Return the function from what a forward leaves to scores and LeGrad's maps."""
    left = 3 * len(sensitivity.tokens.blocks)

    def explain(*given: Tensor) -> tuple[Tensor, Tensor]:
        seen, wanted = given[:left], given[left:]
        return sensitivity.explain(lambda scores: _chosen(scores, target, *wanted), seen)

    return explain


def _chosen(scores: Tensor, target: int | None, *wanted: Tensor) -> Tensor:
    """Return a row for each image that is 1 at its class and 0 elsewhere, (b, k) float."""
    classes = torch.arange(scores.shape[1])
    one = scores.argmax(1, keepdim=True)
    if target is not None:
        one = torch.full_like(one, target)
    for given in wanted:
        one = torch.where(given[:, None] < 0, one, given[:, None])
    return (classes == one).to(scores.dtype)


def _symbolic(
    function: Callable[..., Any], examples: Sequence[Tensor], axes: Sequence[int]
) -> GraphModule:
    """Trace a function of tensors, each with a symbolic batch axis, into core operators."""
    mode = FakeTensorMode(shape_env=ShapeEnv(), allow_non_fake_inputs=True)
    symbolic = []
    for example, axis in zip(examples, axes, strict=True):
        sizes = [DimDynamic.STATIC] * example.ndim
        sizes[axis] = DimDynamic.DYNAMIC
        context: Any = StatelessSymbolicContext(dynamic_sizes=sizes)
        symbolic.append(mode.from_tensor(example, symbolic_context=context))
    with alone(), warnings_of(), sdpa_kernel(SDPBackend.MATH), mode, _Contiguous():
        traced = make_fx(
            function, decomposition_table=_decompositions(), _allow_non_fake_inputs=True
        )(*symbolic)
    traced.graph.eliminate_dead_code()
    traced.recompile()
    return traced


class _Contiguous(TorchFunctionMode):
    """Gives average pooling contiguous inputs: for others it restrides its output in place."""

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func is F.adaptive_avg_pool2d:
            args = (args[0].contiguous(), *args[1:])
        return func(*args, **(kwargs or {}))


def _decompositions() -> dict[Any, Callable[..., Any]]:
    """Return PyTorch's table, with a convolution's and a pooling's backward as transposed ones."""
    table = dict(core_aten_decompositions())
    table[torch.ops.aten.avg_pool2d_backward.default] = _pooling_backward
    table[torch.ops.aten.convolution_backward.default] = _convolution_backward
    return table


def _convolution_backward(
    gradient: Tensor,
    x: Tensor,
    weight: Tensor,
    _bias: Any,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    transposed: bool,
    _output_padding: list[int],
    groups: int,
    wanted: list[bool],
) -> Any:
    """Compute a convolution's gradient at its input, the only one that a map needs."""
    if transposed or wanted[1] or wanted[2]:
        return NotImplemented
    left = _left(x, weight, stride, padding, dilation)
    back = torch.ops.aten.convolution.default(
        gradient, weight, None, stride, padding, dilation, True, left, groups
    )
    return back, None, None


def _pooling_backward(
    gradient: Tensor,
    x: Tensor,
    kernel: list[int],
    stride: list[int],
    padding: list[int],
    ceil_mode: bool,
    count_include_pad: bool,
    divisor: int | None,
) -> Any:
    """Compute the gradient at the input of an average pooling, a convolution with equal weights."""
    if ceil_mode or divisor is not None or (any(padding) and not count_include_pad):
        return NotImplemented
    channels = x.shape[1]
    weight = x.new_full((channels, 1, *kernel), 1 / math.prod(kernel))
    steps = stride or kernel
    left = _left(x, weight, steps, padding, [1, 1])
    return torch.ops.aten.convolution.default(
        gradient, weight, None, steps, padding, [1, 1], True, left, channels
    )


def _left(
    x: Tensor, weight: Tensor, stride: list[int], padding: list[int], dilation: list[int]
) -> list[int]:
    """Return what strides leave over at the far edges: it had no part, but must have a gradient."""
    reach = [(w - 1) * d + 1 for w, d in zip(weight.shape[2:], dilation, strict=True)]
    return [
        (side + 2 * pad - one) % step
        for side, pad, one, step in zip(x.shape[2:], padding, reach, stride, strict=True)
    ]
