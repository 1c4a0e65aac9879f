"""Copies between the host and a device, beside what is computed there.

A batch's pixels go up, and its maps and figures come down in one piece, through buffers that take
turns: page-locked on a GPU, where copies run on streams of their own while the stream of the
computation goes on. A buffer is used again only when its last copy is done and read. On a CPU the
same steps run with `Streams`, where a copy is done when it returns.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from visxai.models.budget import is_out_of_memory

BUFFERS = 2  # each way: one is filled while the other is copied
_ALIGNED = 16  # bytes: where a tensor of any type may begin
Wait = Callable[[], object]


class Streams:
    """A device without streams: copies are done when they return."""

    ahead = 0  # batches that are begun before an earlier one's records are made

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def buffer(self, size: int) -> Tensor:
        """Allocate `size` bytes on the host for copies."""
        return torch.empty(size, dtype=torch.uint8)

    def up(self, host: Tensor) -> tuple[Tensor, Wait]:
        """Copy a tensor to the device, for what is computed from now on.

        Returns:
            The copy, and what waits until `host` may be written again.
        """
        return host.to(self.device, copy=True), lambda: None

    def down(self, pairs: Sequence[tuple[Tensor, Tensor]]) -> Wait:
        """Copy tensors of the device to the host, as (source, destination).

        Returns:
            What waits until the destinations may be read.
        """
        for source, into in pairs:
            into.copy_(source)
        return lambda: None

    def moment(self) -> Any:
        """Mark a moment of the computation."""
        return time.perf_counter()

    def seconds(self, first: Any, last: Any) -> float:
        """Return the seconds between two moments, both of which have passed."""
        return float(last - first)


class CudaStreams(Streams):
    """A CUDA device, with one stream for copies up and one for copies down."""

    ahead = 1

    def __init__(self, device: torch.device) -> None:
        super().__init__(device)
        self._up = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._down = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def buffer(self, size: int) -> Tensor:
        """Allocate page-locked memory, which the GPU copies from and to by itself."""
        try:
            return torch.empty(size, dtype=torch.uint8, pin_memory=True)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            return super().buffer(size)  # pageable memory is slower to copy, and enough

    def up(self, host: Tensor) -> tuple[Tensor, Wait]:
        """Copy beside the computation, which waits for the copy where it begins to need it."""
        computing = torch.cuda.current_stream(self.device)
        with torch.cuda.stream(self._up):
            made = host.to(self.device, non_blocking=True, copy=True)
            done = self._up.record_event()
        computing.wait_event(done)
        _used_by(computing, made)
        wait: Wait = done.synchronize
        return made, wait

    def down(self, pairs: Sequence[tuple[Tensor, Tensor]]) -> Wait:
        """Copy what is computed so far, while the computation goes on."""
        self._down.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self._down):
            for source, into in pairs:
                into.copy_(source, non_blocking=True)
                _used_by(self._down, source)
            wait: Wait = self._down.record_event().synchronize
        return wait

    def moment(self) -> torch.cuda.Event:
        """Mark a moment of the GPU's computation."""
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record(torch.cuda.current_stream(self.device))
        return event

    def seconds(self, first: torch.cuda.Event, last: torch.cuda.Event) -> float:
        """Return the GPU's seconds between two moments."""
        last.synchronize()
        return float(first.elapsed_time(last)) / 1000


def _used_by(stream: torch.cuda.Stream, tensor: Tensor) -> None:
    """Keep a tensor's memory from being given away before a stream is done with it."""
    if tensor.device.type == "cuda":
        tensor.record_stream(stream)


class Buffers:
    """Host buffers that take turns; each waits for its last copy before it is used again."""

    def __init__(self, streams: Streams) -> None:
        self._streams = streams
        self._memory: list[Tensor | None] = [None] * BUFFERS
        self._waits: list[Wait] = [lambda: None] * BUFFERS
        self._turn = 0

    def use(self, size: int, copy: Callable[[Tensor], Wait]) -> None:
        """Let `copy` use a buffer of `size` bytes and return what waits until that is over."""
        turn, self._turn = self._turn, (self._turn + 1) % BUFFERS
        self._waits[turn]()
        self._waits[turn] = lambda: None  # whatever `copy` raises, there is nothing to wait for
        memory = self._memory[turn]
        if memory is None or len(memory) < size:
            self._memory[turn] = memory = None  # before the larger one is there
            with torch.inference_mode(False):  # it outlives the caller's
                self._memory[turn] = memory = self._streams.buffer(size)
        self._waits[turn] = copy(memory[:size])


class Download:
    """Tensors on their way to the host.

    Args:
        buffer: where they will lie.
        shapes: the type and shape of each.
        places: the first byte of each in the buffer.
        arrived: waits until they are there.
    """

    def __init__(
        self,
        buffer: Tensor,
        shapes: Sequence[tuple[torch.dtype, torch.Size]],
        places: Sequence[int],
        arrived: Wait,
    ) -> None:
        self._views = [view_of(buffer, *form, at) for form, at in zip(shapes, places, strict=True)]
        self._arrived = arrived
        self._found: list[Tensor] | None = None
        self._lock = threading.Lock()

    def settle(self) -> None:
        """Wait for the tensors, and copy them out of the buffer, which is free then."""
        with self._lock:
            if self._views:
                self._arrived()
                self._found = [view.clone() for view in self._views]
                self._views = []

    def result(self) -> list[Tensor]:
        """Wait for the tensors, and return them; only once, so that nothing here keeps them."""
        self.settle()
        assert self._found is not None
        found, self._found = self._found, None
        return found


class Transfer:
    """The way of batches to a device and of results back; several threads may use one.

    Args:
        streams: the device.
    """

    def __init__(self, streams: Streams) -> None:
        self.streams = streams
        self._ups, self._downs = Buffers(streams), Buffers(streams)
        self._lock = threading.Lock()

    def upload(self, arrays: Sequence[np.ndarray[Any, Any]]) -> Tensor:
        """Stack arrays of one shape and type on the device, (n, *shape)."""
        first, found = arrays[0], []
        kind = torch.from_numpy(np.empty(0, first.dtype)).dtype
        shape = torch.Size((len(arrays), *first.shape))

        def copy(memory: Tensor) -> Wait:
            host = view_of(memory, kind, shape, 0)
            np.stack(arrays, out=host.numpy())
            made, wait = self.streams.up(host)
            found.append(made)
            return wait

        with self._lock:
            self._ups.use(len(arrays) * first.nbytes, copy)
        return found[0]

    def download(self, tensors: Sequence[Tensor]) -> Download:
        """Begin to copy tensors, at least one, to the host, all into one piece of memory."""
        tensors = [one.detach() for one in tensors]
        places, size = [], 0
        for one in tensors:
            places.append(size)
            size += _ALIGNED * math.ceil(one.numel() * one.element_size() / _ALIGNED)
        shapes = [(one.dtype, one.shape) for one in tensors]
        found: list[Download] = []

        def copy(memory: Tensor) -> Wait:
            pairs = [
                (one, view_of(memory, one.dtype, one.shape, at))
                for one, at in zip(tensors, places, strict=True)
            ]
            found.append(Download(memory, shapes, places, self.streams.down(pairs)))
            return found[0].settle

        with self._lock:
            self._downs.use(size, copy)
        return found[0]


def view_of(memory: Tensor, kind: torch.dtype, shape: torch.Size, at: int) -> Tensor:
    """Return the bytes of memory (n,) from `at` on as a tensor."""
    count = math.prod(shape) * kind.itemsize
    return memory[at : at + count].view(kind).view(shape)


def transfer_of(device: torch.device) -> Transfer:
    """Return the way to a device and back."""
    return Transfer((CudaStreams if device.type == "cuda" else Streams)(device))
