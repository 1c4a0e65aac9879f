"""What half precision gains on this machine's CPU, measured once and kept on disk.

No flag of a CPU says it: with matrix units bfloat16 is several times as fast as float32, with
vector instructions for it often twice, and without either several times as slow. So a convolution
and a matrix product of a network's usual sizes are timed in both. What was found is kept in the
cache folder by processor, versions and threads, so that one machine always chooses alike.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from visxai.models import measured
from visxai.models.weights import cache_folder

WORTHWHILE = 1.5  # times as fast, from which half precision is chosen
_ROUNDS = 5


def gain() -> float:
    """Return how many times as fast bfloat16 is as float32 on this CPU, as measured once."""
    return _gain(str(cache_folder()), torch.get_num_threads())


@cache
def _gain(folder: str, threads: int) -> float:
    """Read the gain from the cache folder, or measure and keep it."""
    found = measured.read(Path(folder), "bf16_gain", machine(threads), ("times",))
    if not found:
        found = {"times": round(_measured(), 2)}
        measured.keep(Path(folder), "bf16_gain", machine(threads), found)
    return found["times"]


def machine(threads: int | None = None) -> measured.Subject:
    """Return what the speed of this machine's CPU depends on, as the subject of a measurement."""
    return (
        f"torch {torch.__version__}",
        f"{measured.processor()} {torch.backends.cpu.get_cpu_capability()}",
        f"{threads or torch.get_num_threads()} threads",
    )


def _measured() -> float:
    """Time a convolution and a product in both types, in turn; the best of some rounds each.

    What counts is the time that this process's threads computed. By the clock, a busy moment of the
    machine has called bfloat16 no faster, or 28 times as fast, where it is 6 times.
    """
    with torch.inference_mode(False), torch.no_grad():
        seconds = {torch.float32: 0.0, torch.bfloat16: 0.0}
        for make in (_convolution, _product):
            works = {dtype: make(dtype) for dtype in seconds}
            best = dict.fromkeys(seconds, float("inf"))
            for _ in range(_ROUNDS):
                for dtype, work in works.items():
                    began = time.process_time()  # which other processes don't lengthen
                    work()
                    best[dtype] = min(best[dtype], time.process_time() - began)
            for dtype, spent in best.items():
                seconds[dtype] += spent
    return seconds[torch.float32] / seconds[torch.bfloat16]


def _convolution(dtype: torch.dtype) -> Callable[[], Tensor]:
    """Return a call of a 3x3 convolution of 64 channels on 28 x 28 positions."""
    x = torch.ones(4, 64, 28, 28, dtype=dtype).contiguous(memory_format=torch.channels_last)
    weight = torch.ones(64, 64, 3, 3, dtype=dtype).contiguous(memory_format=torch.channels_last)
    return lambda: F.conv2d(x, weight, padding=1)


def _product(dtype: torch.dtype) -> Callable[[], Tensor]:
    """Return a call of a linear layer from 384 to 1536 features on 400 tokens."""
    x, weight = torch.ones(400, 384, dtype=dtype), torch.ones(1536, 384, dtype=dtype)
    return lambda: F.linear(x, weight)
