"""Settings of the process: whether it keeps memory that it frees."""

from __future__ import annotations

import contextlib
import ctypes
import os


def keep_memory() -> None:
    """Let this process keep the memory it frees, instead of returning it to the system.

    glibc returns every block over 32 MiB at once, and a network in eager mode requests the next
    such block a moment later, so most of its time goes into page faults (a forward pass of 16
    images through mobilenet_v2 takes 2.3 times as long). Kept memory serves whatever the process
    does next, as with CUDA's caching allocator. The setting holds for the whole process; engines on
    a CPU make it. It has no effect without glibc (as on Windows), or where the environment has
    VISXAI_KEEP_MEMORY=0.
    """
    map_threshold, trim_threshold, most = -3, -1, 2**31 - 2**12  # M_* of malloc.h
    if os.environ.get("VISXAI_KEEP_MEMORY") == "0":
        return
    with contextlib.suppress(OSError, AttributeError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(map_threshold, most)
        mallopt(trim_threshold, most)
