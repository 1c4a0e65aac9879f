"""The integral of a gradient along a path, with mean slopes of the activation functions.

Where a path crosses a kink of a ReLU, the gradient jumps, and points beside the kink can't say
where it was. Between two points, though, a unit's input z goes nearly straight, so the mean slope
of its activation f from one point to the next is known:

    ( f(z') - f(z) ) / ( z' - z )

The backward pass of each part of the path uses these slopes in place of f'(z): DeepLIFT's rescale
rule from every point to the next. With more points it becomes the same integral; with any number
the map adds up to the change of the score, and for a network with one layer of activations it is
exact. A maximum of several positions shares its gradient between the one that wins at a point and
the one that wins at the next, by the parts of the way on which either leads:

    max(p, q) = q + relu(p - q)

What else a network does must be linear: convolutions, batch norms, means, sums. The graph of its
forward tells what isn't, but for what has no gradient; so a trial of noise has to give the
network's own scores, and gradients that add up to their changes.
"""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from visxai.errors import ModelError, OutOfMemory
from visxai.methods._rectified import activations
from visxai.models.budget import is_out_of_memory
from visxai.models.interface import Model, Need
from visxai.models.rows import wide
from visxai.target import Aim

_BLOCK = 1 << 16  # values at all points that are computed together
_SMALL = 1e-6  # a change of a smooth activation's input below this counts as none
_STILL = 1e-5  # relative change from end to end below which a unit may stand still in between
_PIECEWISE = (nn.ReLU, nn.ReLU6)  # straight but for kinks, so that no rounding spoils a slope
# Operations that are linear in each of their inputs, and those that are so in all at once.
_LINEAR = re.compile(
    "Convolution|MkldnnConvolution|Mm|Bmm|Addmm|Linear|T|Transpose|Permute|View|ReshapeAlias|"
    "UnsafeView|Squeeze|Unsqueeze|Expand|Slice|Select|Split|SplitWithSizes|ConstantPadNd|AsStrided|"
    "Sum|Mean|AvgPool2D|AdaptiveAvgPool2D|(Native|Cudnn|Miopen)BatchNorm|"
    "Gather|Clone|Alias|ToCopy|Mul|Div|Neg|UpsampleNearest2D|UpsampleBilinear2D"
)
_SUMS = re.compile("Add|Sub|Cat|Stack|_Slope|_Maximum")
_TARGETS = ("top", "class", "index", "diff", "above")  # kinds that are linear in the scores
_PRECISE = 1e-3  # what a trial may miss, beside the change of the score
_ROUNDING = 1e-5  # and beside the score itself


class Bent(Exception):
    """A network does something that isn't linear, besides activations and maxima; says what."""


def obstacle(model: Model, x: Tensor, kind: str | None) -> str:
    """Find what keeps a model, or a target of its scores, from having mean slopes.

    The network is asked once for each size of its inputs, by two short paths of noise.

    Args:
        model: The model.
        x: The images (b, c, h, w).
        kind: The target's kind; None leaves it aside.

    Returns:
        What it has or does, or "".

    Raises:
        OutOfMemory: Two images don't fit in memory.
    """
    if Need.MODULE not in model.offers:
        return "a runtime of its own"
    if model.precision != "fp32":
        return "half precision"
    if kind is not None and kind not in _TARGETS:
        return f"a target of kind {kind!r}, which may not be linear in its scores"

    def find() -> str:
        try:
            return _try(model, x)
        except Exception as error:
            if _lacks_memory(error):
                raise
            return f"an error of its own ({type(error).__name__})"

    return model.once(("mean slopes", tuple(x.shape[1:])), find)


def refusal(model: Model, obstacle: str) -> ModelError:
    """Make the error of a model that is asked for mean slopes, and of what keeps it from them."""
    return ModelError(
        "expected a network that is linear but for activation modules and maxima, whose slopes "
        f"are averaged, but {model.ref.name} has {obstacle}: use schedule='adaptive'"
    )


def _try(model: Model, x: Tensor) -> str:
    """Find what keeps a model from having mean slopes, by its graph and by noise."""
    random = torch.Generator().manual_seed(0)
    shape = (4, *x.shape[1:])
    noise = torch.randn(shape, generator=random) + torch.randn(
        4, x.shape[1], 1, 1, generator=random
    )
    noise[0] = 0  # as the default baseline is
    noise = noise.to(x)
    scores = model.scores(noise)
    mix = torch.arange(1, scores.shape[1] + 1).to(scores).cos()
    size = (scores * mix).norm(dim=1)
    own = (scores * mix).sum(1)
    found = [""]

    def run(network: nn.Module, _inputs: Tensor, which: Tensor) -> Tensor:
        found[0] = _prepare(network)
        for at in () if found[0] else (slice(0, 2), slice(2, 4)):
            leaf = noise[at].clone().requires_grad_()
            value = network(leaf, which.expand(2))
            found[0] = bent(value)
            if found[0]:
                break
            (gradient,) = torch.autograd.grad(value.sum(), leaf)
            made = value.detach().flatten().to(own)
            if not ((made - own[at]).abs() <= _PRECISE * size[at]).all():
                found[0] = "activations that other parts read, or scores that vary"
                break
            change = made[1] - made[0]
            told = wide(gradient[0] * (noise[at][1] - noise[at][0])).sum()
            bound = _PRECISE * change.abs() + _ROUNDING * size[at].sum()
            if not (told - change).abs() <= bound:
                found[0] = "an operation without a gradient of its own"
                break
        return wide(torch.ones(len(which), device=noise.device))

    first = torch.zeros(1, dtype=torch.long, device=x.device)
    aim = Aim(first, first, lambda scores, _: (scores * mix).sum(1))
    model.through(noise[:1], aim, run, prepared=True)
    return found[0]


def _lacks_memory(error: Exception) -> bool:
    return isinstance(error, OutOfMemory) or is_out_of_memory(error)


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
        Bent: The network isn't made of linear layers, activations and maxima at these images.
        OutOfMemory: Two points don't fit in memory.
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

    try:
        found = model.through(x, aim, run, prepared=True)
    except Exception as error:
        if isinstance(error, Bent) or _lacks_memory(error):
            raise
        raise Bent(f"an error of its own ({type(error).__name__})") from error
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
    if any(weight.dtype not in (torch.float32, torch.float64) for weight in network.parameters()):
        return "weights in half precision"
    # PyTorch's own alone are known to treat each value by itself; the graph judges all others.
    parts: list[Any] = [
        part for part in activations(network) if type(part).__module__ == nn.ReLU.__module__
    ]
    overwriting: Any = network.overwriting
    for part in parts:
        part.forward = _activation(part, part in overwriting)
    for part in network.modules():
        if isinstance(part, nn.MaxPool2d):
            if type(part) is not nn.MaxPool2d:
                return "a maximum of its own"
            if part.return_indices:
                return "a maximum that returns places"
            part.forward = _maximum(part)  # type: ignore[method-assign]
    return "" if parts else "no activation module"


def _activation(part: nn.Module, overwrites: bool) -> Any:
    """Make the forward of an activation module whose gradient is its slope to the next point."""
    own, straight = type(part).forward, type(part) in _PIECEWISE
    return lambda z: _Slope.apply(z, lambda given: own(part, given), straight, overwrites)


def _maximum(part: nn.MaxPool2d) -> Any:
    """Make the forward of a maximum whose gradient is shared by the winners at two points."""
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
    given = flat[0]
    # Units above 0 that hardly move from end to end; all of them on a GPU, which isn't waited for.
    near: Any = slice(None)
    if z.device.type == "cpu":
        first, last = given[0], given[-1]
        near = ((last - first).abs_() <= _STILL * first).logical_and_(first > 0)
        near = near.nonzero().flatten()
    before = given[:, near].clone()
    for at, y, own in zip(*(torch.split(part, width, 1) for part in flat), strict=True):
        y.copy_(function(at))
        run = (at[1:] - at[:-1]).add_(torch.finfo(at.dtype).tiny)  # 0 / tiny is 0
        torch.div(y[1:] - y[:-1], run, out=own[:-1])
    if before.shape[1]:
        # Where one doesn't move, its slope is 1 if the function leaves it as it is, else 0.
        one = ((flat[1][:, near] == before) & (before > 0))[:-1].to(z)
        flat[2][:-1, near] = torch.where(before.diff(dim=0) == 0, one, flat[2][:-1, near])
    slope[-1] = 0
    return output, slope


class _Maximum(torch.autograd.Function):
    """A maximum over positions of the points of a path, differentiated from each to the next."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, options: tuple[Any, ...]) -> Tensor:
        output, place = F.max_pool2d(z, *options, return_indices=True)
        after = torch.cat([place[1:], place[-1:]])
        flat = z.flatten(2)
        # How far this point's winner leads that of the next, here and there: the part of the way
        # on which it still leads is its share.
        lead = output - flat.gather(2, after.flatten(2)).view_as(output)
        lag = output[1:] - flat[1:].gather(2, place[:-1].flatten(2)).view_as(output[1:])
        share = torch.full_like(output, 0.5)
        both = lead[:-1] + lag
        share[:-1] = torch.where(both > 0, lead[:-1] / both, share[:-1])
        ctx.save_for_backward(z, place, after, share)
        ctx.options = options
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Any:
        z, place, after, share = ctx.saved_tensors
        kernel, stride, padding, dilation, ceil = (
            list(o) if isinstance(o, tuple) else o for o in ctx.options
        )
        options = (_pair(kernel), _pair(stride), _pair(padding), _pair(dilation), ceil)
        own = gradient * share
        found = [
            torch.ops.aten.max_pool2d_with_indices_backward(part, z, *options, at)
            for part, at in ((own, place), (gradient - own, after))
        ]
        return found[0].add_(found[1]), None


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
        if kind.endswith("BatchNorm") and getattr(node, "_saved_training", True):
            fine = False
        if kind == "Div" and seen.get(node.next_functions[1][0], False):
            fine = False
        if count and not fine:
            return kind
    return ""
