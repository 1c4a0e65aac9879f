"""Functions traced with a symbolic batch axis: what is shortened in the graph equals what was."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from visxai.models.pytorch.symbolic import symbolic

aten = torch.ops.aten


def operators(graph: torch.fx.GraphModule) -> set[object]:
    return {node.target for node in graph.graph.nodes}


def test_a_backward_through_pooling_and_a_linear_layer_needs_no_product_and_no_mean() -> None:
    torch.manual_seed(0)
    weight = torch.randn(5, 4)

    def explain(a: Tensor, wanted: Tensor) -> Tensor:
        inside = a.detach().requires_grad_()
        with torch.enable_grad():
            scores = F.adaptive_avg_pool2d(inside, 1).flatten(1) @ weight.T
        one = (torch.arange(5) == wanted[:, None]).to(scores.dtype)
        (gradient,) = torch.autograd.grad(scores, inside, one)
        return torch.einsum("rk,rkuv->ruv", gradient.mean((2, 3)), a)

    traced = symbolic(explain, [torch.randn(2, 4, 3, 3), torch.tensor([1, 2])], [0, 0])
    # One product and one mean are of the scores, which nothing here reads.
    assert not operators(traced) & {aten.mm.default, aten.bmm.default, aten.mean.dim}
    assert aten.index_select.default in operators(traced)
    a, wanted = torch.randn(7, 4, 3, 3), torch.arange(7) % 6  # class 5 isn't there
    rows = torch.cat([weight, torch.zeros(1, 4)])[wanted]
    expected = torch.einsum("rk,rkuv->ruv", rows / 9, a)
    torch.testing.assert_close(traced(a, wanted), expected)


def test_other_means_and_products_stay() -> None:
    weight = torch.randn(6, 3)

    def compute(x: Tensor) -> Tensor:
        wide = x[:, :1].expand(-1, 6)  # along another axis than the mean's
        return (x.mean(1, keepdim=True) + wide.mean(0, keepdim=True)) @ weight

    traced = symbolic(compute, [torch.randn(2, 6)], [0])
    assert {aten.mean.dim, aten.mm.default} <= operators(traced)
    x = torch.randn(5, 6)
    torch.testing.assert_close(traced(x), compute(x))
