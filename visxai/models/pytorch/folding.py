"""A copy of a network with channels-last weights and folded batch norms, for faster gradients."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from visxai.models.pytorch.agreement import Form, refusal, three_rows
from visxai.models.pytorch.modules import structural_copy

# ReLU6 and similar activations switch elsewhere when folded weights round differently: single
# pixels of a gradient may change, its direction may not.
GRADIENT_AGREEMENT = 2e-2


def streamlined(
    module: nn.Module, run: Callable[[nn.Module, Tensor], Tensor], x: Tensor
) -> nn.Module | str:
    """Copy a module with channels-last weights and folded batch norms.

    The copy's scores must agree to 1e-4, and its gradients at x in direction.

    Args:
        module: the network, which is only copied, never run.
        run: run(module, x) computes the scores.
        x: rows (b, 3, h, w) that check the copy.

    Returns:
        The copy, or a sentence that states what didn't agree.
    """
    plain, made = structural_copy(module), copy.deepcopy(module)
    fold(made, run, x[-1:])
    # No weight has a gradient here, so convolutions needn't keep their inputs for one.
    made = made.to(memory_format=torch.channels_last).requires_grad_(False)
    few = three_rows(x)

    def scores(part: nn.Module) -> Form:
        return lambda rows: run(part, rows)

    def gradient(part: nn.Module) -> Form:
        return lambda rows: _gradient(part, run, rows)

    with torch.inference_mode(False), torch.no_grad():
        if refused := refusal(scores(made), scores(plain), few):
            return f"scores {refused.replace('differs', 'differ')}"
    if refused := refusal(gradient(made), gradient(plain), few, GRADIENT_AGREEMENT, _turned):
        return f"gradients {refused.replace('differs', 'differ')}"
    return made


def fold(module: nn.Module, run: Callable[[nn.Module, Tensor], Tensor], x: Tensor) -> int:
    """Fold every batch norm that directly follows a convolution into it.

    A forward shows which norms do: their input is the very tensor that a convolution returned.
    Whether any other module reads that tensor isn't seen: the caller checks the scores.

    Args:
        module: the network, which is changed.
        run: run(module, x) computes the scores.
        x: any input (b, 3, h, w).

    Returns:
        The number of folded batch norms.
    """
    owner = threading.get_ident()
    made: dict[int, tuple[nn.Conv2d, Any]] = {}
    pairs: dict[nn.BatchNorm2d, nn.Conv2d] = {}

    def after_convolution(part: nn.Conv2d, _args: Any, output: Any) -> None:
        if threading.get_ident() == owner:
            made[id(output)] = (part, output)

    def before_norm(part: nn.BatchNorm2d, args: Any) -> None:
        if threading.get_ident() == owner and args and id(args[0]) in made:
            pairs[part] = made[id(args[0])][0]

    handles: list[Any] = []
    try:
        for part in module.modules():
            if isinstance(part, nn.Conv2d):
                handles.append(part.register_forward_hook(after_convolution))
            elif isinstance(part, nn.BatchNorm2d) and part.track_running_stats:
                handles.append(part.register_forward_pre_hook(before_norm))
        with torch.inference_mode(False), torch.no_grad():
            run(module, x)
    finally:
        for handle in handles:
            handle.remove()
    folded: set[int] = set()
    for norm, convolution in pairs.items():
        if id(convolution) in folded:
            continue
        folded.add(id(convolution))
        fused = torch.nn.utils.fuse_conv_bn_eval(convolution, norm)
        convolution.weight, convolution.bias = fused.weight, fused.bias
        # timm's norms contain their activation; for plain norms nothing is left to do.
        rest = [getattr(norm, name) for name in ("drop", "act") if hasattr(norm, name)]
        norm.forward = nn.Sequential(*rest).forward  # type: ignore[method-assign]
    return len(folded)


def _gradient(module: nn.Module, run: Callable[[nn.Module, Tensor], Tensor], x: Tensor) -> Tensor:
    """Compute the gradient of each row's largest score at x."""
    with torch.inference_mode(False), torch.enable_grad():
        leaf = x.detach().clone().requires_grad_()
        best = run(module, leaf).max(1).values
        (gradient,) = torch.autograd.grad(best.sum(), leaf)
    return gradient


def _turned(found: Tensor, expected: Tensor) -> float:
    """Compute how far a gradient turned: |found - expected| / |expected|, norms over all rows."""
    return float((found - expected).norm() / expected.norm().clamp_min(1e-30))
