"""A function of tensors traced into ordinary operators, with a batch axis that stays symbolic.

A backward inside the function is traced together with its forward, as autograd runs it, and its
operators are broken down until all of them exist in ONNX. The graph serves any number of images.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._decomp import core_aten_decompositions
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx import Graph, GraphModule
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv, StatelessSymbolicContext
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

from visxai.models.pytorch.tracing import alone
from visxai.quiet import warnings_of


def symbolic(
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
    _shorten_means(traced.graph)
    _select_rows(traced.graph)
    traced.graph.eliminate_dead_code()
    traced.recompile()
    return traced


def _shorten_means(graph: Graph) -> None:
    """Replace the mean of a tensor along axes that it was only repeated along by the tensor itself.

    The gradient of an average pooling is of this kind, and runtimes would write it out.
    """
    aten: Any = torch.ops.aten
    for node in list(graph.nodes):
        if node.target is not aten.mean.dim:
            continue
        scales, repeated = [], node.args[0]
        while repeated.target in (aten.div.Scalar, aten.mul.Scalar):
            scales.append(repeated)
            repeated = repeated.args[0]
        if repeated.target is not aten.expand.default:
            continue
        one, many = repeated.args[0].meta["val"].shape, repeated.meta["val"].shape
        axes = {axis % len(many) for axis in node.args[1]}
        if len(one) == len(many) and all(
            one[axis] == 1 if axis in axes else str(one[axis]) == str(many[axis])
            for axis in range(len(many))
        ):
            value = repeated.args[0]
            with graph.inserting_before(node):
                for scale in reversed(scales):
                    value = graph.call_function(scale.target, (value, *scale.args[1:]))
                if node.args[2:3] != (True,):
                    value = graph.call_function(aten.squeeze.dims, (value, sorted(axes)))
            node.replace_all_uses_with(value)


def _select_rows(graph: Graph) -> None:
    """Replace a product with a matrix of zeros, and at most a one in each row, by chosen rows.

    The gradient of a class's score at the input of a linear layer is of this kind: a row of its
    weight. Chosen it is exact, where a runtime's product in half precision would round it.
    """
    aten: Any = torch.ops.aten
    for node in list(graph.nodes):
        if node.target is not aten.mm.default:
            continue
        one = node.args[0]
        equal = one.args[0] if one.target is aten._to_copy.default else None
        if equal is None or equal.target is not aten.eq.Tensor:
            continue
        numbers, wanted = equal.args
        if numbers.target is aten.arange.start_step and wanted.meta["val"].shape[1] == 1:
            with graph.inserting_before(node):
                index = graph.call_function(aten.squeeze.dims, (wanted, [1]))
                last = one.meta["val"].shape[1] - 1
                inside = graph.call_function(aten.clamp.default, (index, 0, last))
                rows = graph.call_function(aten.index_select.default, (node.args[1], 0, inside))
                ones = graph.call_function(aten.sum.dim_IntList, (one, [1], True))
                # A number that is no row has no one in it, and gives zeros.
                product = graph.call_function(aten.mul.Tensor, (rows, ones))
            node.replace_all_uses_with(product)


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
    table[torch.ops.aten.bmm.default] = _product
    return table


def _product(first: Tensor, second: Tensor) -> Any:
    """Compute products with single rows as sums, which runtimes keep in float32 at a graph's end.

    Args:
        first: (n, rows, k).
        second: (n, k, columns).
    """
    if first.shape[1] != 1:
        return NotImplemented
    return (first.mT * second).sum(1, keepdim=True)


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
