"""What a process does with memory that it frees."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

from visxai import process

# Page faults of allocating and freeing 64 MiB twenty times, before and after.
COUNT = """
import resource, sys
import numpy as np
from visxai.process import keep_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        np.ones(2**23)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults()
plain = faults()
keep_memory()
faults()
print(plain, faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's allocator only")
@pytest.mark.parametrize("asked", [None, "0"])
def test_freed_blocks_are_used_again(asked: str | None) -> None:
    environment = dict(os.environ) | ({} if asked is None else {"VISXAI_KEEP_MEMORY": asked})
    environment |= {"NUMPY_MADVISE_HUGEPAGE": "0"}
    told = subprocess.run(
        [sys.executable, "-c", COUNT], capture_output=True, text=True, check=True, env=environment
    ).stdout
    plain, kept = map(int, told.split())
    assert plain > 20 * 2**26 // 4096 * 0.9
    assert (kept < plain / 20) == (asked is None)


def test_a_system_without_glibc_goes_without(monkeypatch: pytest.MonkeyPatch) -> None:
    def windows(name: str | None) -> None:
        raise TypeError("LoadLibrary() argument 1 must be str, not None")

    monkeypatch.setattr("ctypes.CDLL", windows)
    process.keep_memory()
