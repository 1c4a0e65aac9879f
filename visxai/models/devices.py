"""The capabilities of this machine: devices, precisions, and the versions that compute a map."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence
from functools import cache

import torch

from visxai.errors import ArgumentError
from visxai.models import speed

PRECISIONS = ("auto", "fp32", "bf16", "fp16")


def pick_device(device: str | torch.device) -> torch.device:
    """Return a torch device; "auto" is CUDA, else Apple's GPU, else the CPU.

    Raises:
        ArgumentError: this machine has no such device.
    """
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        picked = torch.device(device)
        torch.empty(0, device=picked)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ArgumentError(
            f"expected a device of this machine, got {str(device)!r} ({reason}): "
            "use device='auto' or 'cpu'"
        ) from None
    return picked


def pick_precision(
    precision: str, device: torch.device, served: Sequence[str] = PRECISIONS[1:]
) -> str:
    """Choose the precision to compute in.

    Args:
        precision: "auto", or one of `served`. "auto" is bf16 on a CUDA device that supports it,
            fp16 on any other CUDA device, and bf16 on a CPU where it was measured to be faster
            (see `visxai.models.speed`); otherwise it is fp32. Where the model serves
            a single precision, "auto" is that.
        device: where the model runs.
        served: the precisions that the model supports.

    Raises:
        ArgumentError: the model doesn't support the precision.
    """
    if precision not in ("auto", *served):
        raise ArgumentError(
            f"expected a precision that the model serves, {', '.join(served)}, got {precision}: "
            "use precision='auto'"
        )
    if precision != "auto":
        return precision
    if len(served) == 1:
        return served[0]
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    if device.type == "cpu" and speed.gain() >= speed.WORTHWHILE:
        return "bf16"
    return "fp32"


@cache
def versions() -> dict[str, str]:
    """Return the installed versions of the packages that compute a map."""
    found = {}
    for package in ("visxai", "torch", "torchvision", "timm", "numpy", "pillow"):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
