"""The integral of a gradient along a path, with mean slopes of the activation functions.

Where a path crosses a kink of a ReLU, the gradient jumps, and points beside the kink can't say
where it was. Between two points, though, a unit's input z goes nearly straight, so the mean slope
of its activation f from one point to the next is known:

    ( f(z') - f(z) ) / ( z' - z )

The backward pass of each part of the path uses these slopes in place of f'(z): DeepLIFT's rescale
rule from every point to the next. With more points it becomes the same integral; with any number
the map adds up to the change of the score, and for a network with one layer of activations it is
exact. A maximum over positions takes the mean of its gradients at both points.

What else a network does must be linear: convolutions, batch norms, means, sums. The graph of its
forward tells whether it is.
"""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from visxai.methods._rectified import activations
from visxai.models.budget import is_out_of_memory
from visxai.models.interface import Model, Need
from visxai.models.rows import wide
from visxai.target import Aim

_BLOCK = 1 << 16  # values at all points that are computed together
_SMALL = 1e-6  # a change of a smooth activation's input below this counts as none
_PIECEWISE = (nn.ReLU, nn.ReLU6)  # straight but for kinks, so that no rounding spoils a slope
# Operations that are linear in each of their inputs, and those that are so in all at once.
_LINEAR = re.compile(
    "Convolution|MkldnnConvolution|Mm|Bmm|Addmm|Linear|T|Transpose|Permute|View|ReshapeAlias|"
    "UnsafeView|Squeeze|Unsqueeze|Expand|Slice|Select|Index|IndexSelect|Gather|Split|"
    "SplitWithSizes|ConstantPadNd|AsStrided|Sum|Mean|AvgPool2D|AdaptiveAvgPool2D|NativeBatchNorm|"
    "Clone|Alias|ToCopy|Mul|Div|Neg|UpsampleNearest2D|UpsampleBilinear2D"
)
_SUMS = re.compile("Add|Sub|Cat|Stack|_Slope|_Maximum")


class Bent(Exception):
    """A network does something that isn't linear, besides activations and maxima; says what."""


def obstacle(model: Model, x: Tensor, aim: Aim | None) -> str:
    """Find what keeps a model, or a target of its scores, from having mean slopes.

    The network is asked once for each size of its inputs, by a forward of one row.

    Args:
        model: The model.
        x: The images (b, c, h, w).
        aim: The target, settled on them; None leaves it aside.

    Returns:
        What it has or does, or "".
    """
    if Need.MODULE not in model.offers:
        return "a runtime of its own"
    if model.precision != "fp32":
        return "half precision"

    def find() -> str:
        found = []

        def run(network: nn.Module, inputs: Tensor, which: Tensor) -> Tensor:
            found.append(_prepare(network) or bent(network(inputs.requires_grad_(), which)))
            return torch.ones(len(inputs))

        noise = torch.linspace(-1, 1, x[0].numel(), device=x.device, dtype=x.dtype).sin()
        one = noise.reshape(1, *x.shape[1:])
        rows = torch.zeros(1, dtype=torch.long, device=x.device)
        model.through(one, Aim(rows, rows, lambda scores, _: scores[:, 0]), run)
        return found[-1]

    found = model.once(("mean slopes", tuple(x.shape[1:])), find)
    if found or aim is None:
        return found
    scores = model.scores(x)[aim.rows].detach().requires_grad_()
    with torch.enable_grad():
        return bent(aim(scores))


def integral(
    model: Model, x: Tensor, baseline: Tensor, aim: Aim, alphas: Tensor
) -> tuple[Tensor, Tensor]:
    """Integrate (x - baseline) times the gradient, all points of a path in one forward.

    Args:
        model: The model.
        x: The images (r, c, h, w), one for each map.
        baseline: The baselines (r, c, h, w).
        aim: The target, settled on one image for each map.
        alphas: The points (n,), from 0 to 1, ascending.

    Returns:
        Maps (r, h, w), and the target's scalars (r,) at the baselines, float32 or wider.

    Raises:
        Bent: The network, or the target, isn't made of linear layers, activations and maxima.
    """

    def run(network: nn.Module, inputs: Tensor, which: Tensor) -> Tensor:
        if what := _prepare(network):
            raise Bent(what)
        found = []
        for image, number in zip(inputs, which, strict=True):
            start = baseline[number].to(image)
            total, first = _sum(network, start, image - start, number, alphas.to(image))
            values = wide((image - start) * total).sum(0).flatten()
            found.append(torch.cat([values, wide(first.reshape(1)).to(values)]))
        return torch.stack(found)

    found = model.through(x, aim, run, prepared=True)
    return found[:, :-1].reshape(-1, *x.shape[2:]), found[:, -1]


def _sum(
    network: nn.Module, start: Tensor, difference: Tensor, number: Tensor, alphas: Tensor
) -> tuple[Tensor, Tensor]:
    """Integrate the gradient (c, h, w) from the first to the last of the points alphas (n,).

    All points are in one forward. Where memory doesn't suffice for that, the path is halved.

    Returns:
        The integral, and the target's scalar at the first point.
    """
    try:
        leaf = start + alphas.reshape(-1, 1, 1, 1) * difference
        value = network(leaf.requires_grad_(), number.expand(len(alphas)))
        if what := bent(value):
            raise Bent(what)
        (gradient,) = torch.autograd.grad(value.sum(), leaf)
        # The last point begins no part of the path.
        return torch.einsum("n,nchw->chw", alphas.diff(), gradient[:-1]), value.detach()[0]
    except (RuntimeError, MemoryError) as error:
        if len(alphas) < 3 or not is_out_of_memory(error):
            raise
    middle = len(alphas) // 2
    total, value = _sum(network, start, difference, number, alphas[: middle + 1])
    return total + _sum(network, start, difference, number, alphas[middle:])[0], value


def _prepare(network: nn.Module) -> str:
    """Give activations and maxima their gradients; return what keeps a network from them."""
    parts: list[Any] = activations(network)
    overwriting: Any = network.overwriting
    for part in parts:
        part.forward = _activation(part, part in overwriting)
    for part in network.modules():
        if isinstance(part, nn.MaxPool2d):
            if part.return_indices:
                return "a maximum that returns places"
            part.forward = _maximum(part)  # type: ignore[method-assign]
    return "" if parts else "no activation module"


def _activation(part: nn.Module, overwrites: bool) -> Any:
    """Make the forward of an activation module whose gradient is its slope to the next point."""
    own, straight = type(part).forward, type(part) in _PIECEWISE
    return lambda z: _Slope.apply(z, lambda given: own(part, given), straight, overwrites)


def _maximum(part: nn.MaxPool2d) -> Any:
    """Make the forward of a maximum whose gradient is the mean of those at two points."""
    options = (part.kernel_size, part.stride, part.padding, part.dilation, part.ceil_mode)
    return lambda z: _Maximum.apply(z, options)


class _Slope(torch.autograd.Function):
    """An activation over the points of a path, with its slope from each to the next."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, function: Any, straight: bool, overwrite: bool) -> Tensor:
        if straight:
            values, ctx.slope = _straight(z.detach(), function, overwrite)
            return values
        output: Tensor = function(z)
        ctx.slope = torch.zeros_like(z)
        run, rise = z[1:] - z[:-1], output[1:] - output[:-1]
        still = run.abs() < _SMALL
        rise.div_(run.masked_fill_(still, 1))
        ctx.slope[:-1] = torch.where(still, _derivative(function, z[:-1]), rise)
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Any:
        return gradient * ctx.slope, None, None, None


def _straight(z: Tensor, function: Any, overwrite: bool) -> tuple[Tensor, Tensor]:
    """Compute a function that is straight but for kinks, and its slopes from each row to the next.

    Args:
        z: What it is given (n, ...).
        function: The function, of each value by itself.
        overwrite: Whether the slopes may take the place of z.

    Returns:
        Its values, and the slopes; both (n, ...), and the last row's slopes are 0.
    """
    if not z.is_contiguous(memory_format=torch.channels_last) or z.ndim != 4:
        z = z.contiguous()
    output, slope = torch.empty_like(z), z if overwrite else torch.empty_like(z)
    size = max(1, z[0].numel())
    # Few columns at a time, so that what is computed of them stays in the processor's cache.
    width = max(1, _BLOCK // len(z)) if z.device.type == "cpu" else size
    flat = [part.as_strided((len(z), size), (size, 1)) for part in (z, output, slope)]
    for at, y, own in zip(*(torch.split(part, width, 1) for part in flat), strict=True):
        y.copy_(function(at))
        # A unit that doesn't move at all explains nothing: 0 / tiny.
        run = (at[1:] - at[:-1]).add_(torch.finfo(at.dtype).tiny)
        torch.div(y[1:] - y[:-1], run, out=own[:-1])
    slope[-1] = 0
    return output, slope


class _Maximum(torch.autograd.Function):
    """A maximum over positions of the points of a path, differentiated at each and the next."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, options: tuple[Any, ...]) -> Tensor:
        output, place = F.max_pool2d(z, *options, return_indices=True)
        ctx.save_for_backward(z, place)
        ctx.options = options
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Any:
        z, place = ctx.saved_tensors
        kernel, stride, padding, dilation, ceil = (
            list(o) if isinstance(o, tuple) else o for o in ctx.options
        )
        both = [
            torch.ops.aten.max_pool2d_with_indices_backward(
                gradient, z, _pair(kernel), _pair(stride), _pair(padding), _pair(dilation), ceil, at
            )
            for at in (place, torch.cat([place[1:], place[-1:]]))
        ]
        return both[0].add_(both[1]).div_(2), None


def _pair(size: Any) -> list[int]:
    return size if isinstance(size, list) else [size, size]


def _derivative(function: Any, z: Tensor) -> Tensor:
    """Compute the derivative of an elementwise function at z."""
    with torch.enable_grad():
        leaf = z.detach().requires_grad_()
        (found,) = torch.autograd.grad(function(leaf).sum(), leaf)
    return found


def bent(value: Tensor) -> str:
    """Find an operation, of those that computed a value, that isn't linear in the network's input.

    Args:
        value: What was computed of a leaf that isn't a parameter; activations and maxima of the
            kind that are made here count as linear.

    Returns:
        The operation's name, or "".
    """
    if value.grad_fn is None:
        return "no gradient"
    seen: dict[Any, bool] = {}  # of a node of the graph: whether it depends on the input
    stack: list[Any] = [value.grad_fn]
    while stack:
        node = stack[-1]
        inner = [child for child, _ in node.next_functions if child is not None]
        if node not in seen and any(child not in seen for child in inner):
            stack += [child for child in inner if child not in seen]
            continue
        stack.pop()
        if node in seen:
            continue
        kind: str = node.name().rstrip("0123456789").removesuffix("Backward")
        if kind.endswith("AccumulateGrad"):
            seen[node] = not isinstance(node.variable, nn.Parameter)
            continue
        count = sum(seen[child] for child in inner)
        seen[node] = count > 0
        fine = bool(_SUMS.fullmatch(kind) or (count == 1 and _LINEAR.fullmatch(kind)))
        if kind == "NativeBatchNorm" and node._saved_training:
            fine = False
        if kind == "Div" and seen.get(node.next_functions[1][0], False):
            fine = False
        if count and not fine:
            return kind
    return ""
