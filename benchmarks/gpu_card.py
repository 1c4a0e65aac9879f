"""What only a GPU can do, in one place, with a twin on the CPU for rehearsals."""

from __future__ import annotations

import contextlib
import platform
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch


class Cpu:
    """The CPU in a GPU's place."""

    device = torch.device("cpu")

    def name(self) -> str:
        return f"no card: rehearsed on a CPU ({platform.machine()})"

    def synchronise(self) -> None:
        pass

    def seconds(self, work: Callable[[], Any]) -> float:
        """The device's seconds of a call."""
        began = time.perf_counter()
        work()
        return time.perf_counter() - began

    def peak(self, work: Callable[[], Any]) -> tuple[float, float]:
        """MiB that a call allocates and reserves at its peak, over what there was before."""
        work()
        return 0.0, 0.0

    @contextlib.contextmanager
    def waits(self) -> Iterator[list[str]]:
        """Where a block of code waited for the device."""
        yield []

    @contextlib.contextmanager
    def full(self, leave: float, elsewhere: bool) -> Iterator[None]:
        """Take the device's memory but for `leave` MiB, in this process or in another one."""
        with self._held(1) if elsewhere else contextlib.nullcontext(torch.empty(1)):
            yield

    @contextlib.contextmanager
    def _held(self, size: int) -> Iterator[None]:
        """Let another process hold so many bytes of the device's memory."""
        code = f"import torch; x = torch.empty({size}, dtype=torch.uint8, device='{self.device}')"
        code += "; print('held', flush=True); input()"
        command = [sys.executable, "-c", code]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
            assert holder.stdout is not None
            try:
                assert b"held" in holder.stdout.readline(), "another process got no memory"
                yield
            finally:
                holder.kill()

    def graphed(self, work: Callable[[], Any]) -> Callable[[], Any]:
        """A call that replays all kernels of another, which works on fixed memory."""
        return work

    def details(self) -> dict[str, Any]:
        return {}


class Cuda(Cpu):
    """A CUDA device."""

    device = torch.device("cuda")

    def name(self) -> str:
        return torch.cuda.get_device_name()

    def synchronise(self) -> None:
        torch.cuda.synchronize()

    def seconds(self, work: Callable[[], Any]) -> float:
        first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize()
        first.record()
        work()
        last.record()
        torch.cuda.synchronize()
        return first.elapsed_time(last) / 1000

    def peak(self, work: Callable[[], Any]) -> tuple[float, float]:
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        before = torch.cuda.memory_allocated(), torch.cuda.memory_reserved()
        torch.cuda.reset_peak_memory_stats()
        work()
        torch.cuda.synchronize()
        after = torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()
        return (after[0] - before[0]) / 2**20, (after[1] - before[1]) / 2**20

    @contextlib.contextmanager
    def waits(self) -> Iterator[list[str]]:
        found: list[str] = []
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                yield found
            finally:
                torch.cuda.set_sync_debug_mode("default")
        found += [f"{w.filename}:{w.lineno}" for w in caught if "synchroniz" in str(w.message)]

    @contextlib.contextmanager
    def full(self, leave: float, elsewhere: bool) -> Iterator[None]:
        torch.cuda.empty_cache()
        free, _ = torch.cuda.mem_get_info()
        # Another process needs some 500 MiB for itself.
        size = max(0, int(free - (leave + 500 * elsewhere) * 2**20))
        if elsewhere:
            with self._held(size):
                yield
            return
        ballast = torch.empty(size, dtype=torch.uint8, device="cuda")
        yield
        del ballast

    def graphed(self, work: Callable[[], Any]) -> Callable[[], Any]:
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                work()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            work()
        return graph.replay

    def details(self) -> dict[str, Any]:
        card = torch.cuda.get_device_properties(0)
        return {
            "memory_gib": round(card.total_memory / 2**30, 1),
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
            "tf32_convolutions": torch.backends.cudnn.allow_tf32,
            "tf32_products": torch.get_float32_matmul_precision() != "highest",
        }


def of(device: str) -> Cpu:
    return Cuda() if device == "cuda" else Cpu()
