"""Settings of the process: what memory it keeps, how its threads wait, what its end searches."""

from __future__ import annotations

import contextlib
import gc
import os
import sys

_usual: list[tuple[int, int, int]] = []  # the thresholds before `collect_rarely`


def keep_memory() -> None:
    """Let this process keep the memory it frees, instead of returning it to the system.

    glibc returns every block over 32 MiB at once, and a network in eager mode requests the next
    such block a moment later, so most of its time goes into page faults (a forward pass of 16
    images through mobilenet_v2 takes 2.3 times as long). Kept memory serves whatever the process
    does next, as with CUDA's caching allocator. Threads share one arena, since an arena of a
    thread's own holds no block over 64 MiB: in any thread but the first, the same forward would
    take twice as long. The setting holds for the whole process; engines on a CPU make it. It has no
    effect without glibc (as on Windows), or where the environment has VISXAI_KEEP_MEMORY=0.
    """
    map_threshold, trim_threshold, arenas = -3, -1, -8  # M_* of malloc.h
    most = 2**31 - 2**12
    if os.environ.get("VISXAI_KEEP_MEMORY") == "0":
        return
    import ctypes

    with contextlib.suppress(OSError, AttributeError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(map_threshold, most)
        mallopt(trim_threshold, most)
        mallopt(arenas, 1)


def collect_rarely() -> None:
    """Let this process search its objects for unused cycles a hundredth as often as by default.

    Importing PyTorch makes hundreds of thousands of objects, which Python otherwise walks through
    again and again meanwhile: a tenth of the time of a command that explains one photograph.
    """
    _usual.append(gc.get_threshold())
    gc.set_threshold(50_000, 20, 100)


def collect_as_usual() -> None:
    """Search for unused cycles as often as before `collect_rarely`, which only a start bears.

    In a run, cycles may hold the tensors of whole batches.
    """
    if _usual:
        gc.set_threshold(*_usual.pop())


class _WithoutPandas:
    """A finder of modules that says there is no pandas."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> None:
        """Raise ModuleNotFoundError for pandas; leave other names to other finders."""
        if name == "pandas":
            raise ModuleNotFoundError(name)


def leave_pandas_out() -> None:
    """Keep pyarrow from importing pandas in this process until something asks for data frames.

    Where pandas is installed, pyarrow imports it with the first list that becomes an array, to know
    its classes if it should meet them, which takes a fifth of a second. It tries once, so pandas is
    hidden for that once; `to_pandas` still imports it. Only for a process that hands pyarrow no
    data frames, since it wouldn't know them.
    """
    if "pandas" in sys.modules:
        return
    import pyarrow as pa

    sys.meta_path.insert(0, _WithoutPandas)
    try:
        pa.array([0])
    finally:
        sys.meta_path.remove(_WithoutPandas)


def forget_objects() -> None:
    """Spare a process that is about to end the search through all that it still holds.

    Python's end looks for cycles among the modules once more, which takes half a second with
    PyTorch; what is registered to run at the end still runs.
    """
    gc.freeze()
    gc.disable()


_POLICY, _SPINS = "OMP_WAIT_POLICY", "GOMP_SPINCOUNT"
_before: list[bool] = []  # whether torch was there before the policy was set


def wait_patiently() -> None:
    """Let the threads of PyTorch sleep while they wait for each other, instead of spinning.

    OpenMP's threads spin for milliseconds by default. On a core that another process wants, the
    thread that everybody waits for is then the one that doesn't run, and a map takes several times
    as long, now and then fifty times (`benchmarks/busy.py`); sleeping costs a sixth of the speed on
    a quiet machine. OpenMP reads the policy when it is loaded, so this has no effect after PyTorch
    was imported, nor where the environment has a policy already, or VISXAI_WAIT=torch.
    """
    _before[:] = ["torch" in sys.modules]
    if os.environ.get("VISXAI_WAIT") != "torch" and _SPINS not in os.environ:
        os.environ.setdefault(_POLICY, "passive")


def waits_patiently() -> bool:
    """Tell whether threads sleep while they wait, as far as the environment can say."""
    patient = os.environ.get(_POLICY, "").lower() == "passive" or os.environ.get(_SPINS) == "0"
    return patient and not any(_before)
