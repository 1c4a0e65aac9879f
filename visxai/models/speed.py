"""What half precision gains on this machine's CPU, measured once and kept on disk.

No flag of a CPU says it: with matrix units bfloat16 is several times as fast as float32, with
vector instructions for it often twice, and without either several times as slow. So a convolution
and a matrix product of a network's usual sizes are timed in both. What was found is kept in the
cache folder by processor, versions and threads, so that one machine always chooses alike.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import time
import uuid
from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from visxai.models.weights import cache_folder

WORTHWHILE = 1.5  # times as fast, from which half precision is chosen
_ROUNDS = 5


def gain() -> float:
    """Return how many times as fast bfloat16 is as float32 on this CPU, as measured once."""
    return _gain(str(cache_folder()), torch.get_num_threads())


@cache
def _gain(folder: str, threads: int) -> float:
    """Read the gain from the cache folder, or measure and keep it."""
    capability = torch.backends.cpu.get_cpu_capability()
    text = f"{_processor()} {capability} {threads} {torch.__version__} 1"
    name = hashlib.sha256(text.encode()).hexdigest()[:32]
    place = Path(folder) / "measured" / f"bf16-{name}.json"
    try:
        kept = float(json.loads(place.read_text("utf-8"))["bf16_gain"])
        if kept > 0:
            return kept
    except (OSError, ValueError, KeyError, TypeError):
        pass  # never measured, or damaged: measured now
    found = round(_measured(), 2)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        partial = place.with_name(f".{uuid.uuid4().hex}.partial")
        partial.write_text(json.dumps({"bf16_gain": found}), "utf-8")
        os.replace(partial, place)
    except OSError:
        pass  # a cache that can't be written: measured again next time
    return found


def _processor() -> str:
    """Return the processor's name, as far as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    told = (
        line.partition(":")[2].strip() for line in lines if line.startswith(("model name", "flags"))
    )
    return " ".join(dict.fromkeys(told))


def _measured() -> float:
    """Time a convolution and a product in both types, in turn; the best of some rounds each."""
    with torch.inference_mode(False), torch.no_grad():
        seconds = {torch.float32: 0.0, torch.bfloat16: 0.0}
        for make in (_convolution, _product):
            works = {dtype: make(dtype) for dtype in seconds}
            best = dict.fromkeys(seconds, float("inf"))
            for _ in range(_ROUNDS):
                for dtype, work in works.items():
                    began = time.perf_counter()
                    work()
                    best[dtype] = min(best[dtype], time.perf_counter() - began)
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
