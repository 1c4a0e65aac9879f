"""Tracing, and the locks that keep it apart from the forwards of other threads.

torch.onnx, torch.export and torch.compile work through state that all threads share: flags such as
`torch.onnx.is_in_onnx_export()`, and while torch.export traces, `nn.Module.__call__` itself. A
forward that another thread runs meanwhile may fail, take another path, or become part of the trace.
So every forward of a model runs inside `running`, which any number of threads may enter at once,
and whatever traces runs inside `alone`, which waits for them and keeps new forwards waiting.
`Traceable` is what tracers take, `traced` what torch.export makes of it.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from visxai.quiet import warnings_of

_free = threading.Condition()
_forwards = 0  # threads inside `running`
_alone: int | None = None  # the thread inside `alone`, or waiting for forwards to end


class _Depth(threading.local):
    """The number of blocks of either kind that this thread is in: only the outermost counts."""

    running = 0
    alone = 0


_depth = _Depth()


@contextlib.contextmanager
def running() -> Iterator[None]:
    """Run a forward while no other thread traces; nests in itself and in `alone`.

    Take no lock inside: a thread that traces may hold it and wait for this forward.
    """
    global _forwards
    outermost = not _depth.running and not _depth.alone
    if outermost:
        with _free:
            _free.wait_for(lambda: _alone is None)
            _forwards += 1
    _depth.running += 1
    try:
        yield
    finally:
        _depth.running -= 1
        if outermost:
            with _free:
                _forwards -= 1
                _free.notify_all()


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Trace while no other thread runs a forward or traces; nests, but not inside `running`."""
    global _alone
    assert not _depth.running, "a forward may not start tracing"
    me, outermost = threading.get_ident(), not _depth.alone
    if outermost:
        with _free:
            _free.wait_for(lambda: _alone is None)
            _alone = me
            _free.wait_for(lambda: _forwards == 0)
    _depth.alone += 1
    try:
        yield
    finally:
        _depth.alone -= 1
        if outermost:
            with _free:
                _alone = None
                _free.notify_all()


@contextlib.contextmanager
def silent_exporter() -> Iterator[None]:
    """Keep the ONNX exporter from printing its graph to standard output when it fails.

    The exporter turns its log on by itself. Use this inside `alone` only.
    """
    inner: Any = torch._C
    plain = getattr(inner, "_jit_onnx_log", None)
    if plain is None:
        yield
        return
    inner._jit_onnx_log = lambda *_: None
    try:
        yield
    finally:
        inner._jit_onnx_log = plain


class Traceable(nn.Module):
    """A callable as a module, which is what tracers take."""

    def __init__(self, form: Callable[[Tensor], Any], module: nn.Module) -> None:
        super().__init__()
        self.form = form
        self.module = module
        self.eval()

    def forward(self, x: Tensor) -> Any:
        """Run the callable."""
        return self.form(x)


def traced(plain: Traceable, x: Tensor) -> Callable[[Tensor], Tensor]:
    """Trace `plain` by torch.export for any batch size.

    Args:
        plain: what to trace.
        x: inputs (2 or more, ...) of the size to trace for.
    """
    batch = torch.export.Dim("batch", min=1, max=65536)
    with torch.no_grad(), warnings_of():
        return torch.export.export(
            plain, (x,), dynamic_shapes={"x": {0: batch}}, strict=False
        ).module()
