"""What this machine can do: devices, precisions, and the versions that compute a map."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence
from functools import cache

import torch

from visxai.errors import ArgumentError

PRECISIONS = ("auto", "fp32", "bf16", "fp16")


def pick_device(device: str | torch.device) -> torch.device:
    """A torch device; "auto" is CUDA, then Apple's GPU, then the CPU."""
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
    """ "auto" is bf16 where a CUDA device has it, else fp16 there; float32 on a CPU unless it has
    matrix units for bf16 (without them bf16 is several times slower than float32), and where the
    model serves no other."""
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
    if device.type == "cpu" and torch.cpu._is_amx_tile_supported():
        return "bf16"
    return "fp32"


@cache
def versions() -> dict[str, str]:
    """The versions of what computes a map."""
    found = {}
    for package in ("visxai", "torch", "torchvision", "timm", "numpy", "pillow"):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
