"""Ignores or raises a library's warnings in one thread only.

`warnings.catch_warnings` saves and restores a list that the whole process shares: two threads whose
blocks overlap restore each other's state, and a filter stays for ever. Here a block adds a filter
that matches only in the thread that added it, and removes exactly that filter again.
"""

from __future__ import annotations

import contextlib
import re
import threading
import warnings
from collections.abc import Iterator
from typing import Any, Literal


class _Here:
    """A stand-in for a filter's module pattern, which matches only in the thread that made it."""

    def __init__(self, module: str) -> None:
        self.thread = threading.get_ident()
        self.module = re.compile(module)

    def match(self, name: str) -> bool:
        """Tell whether the current thread made this object and the module's name matches."""
        return threading.get_ident() == self.thread and self.module.match(name) is not None


@contextlib.contextmanager
def warnings_of(module: str = "", action: Literal["ignore", "error"] = "ignore") -> Iterator[None]:
    """Ignore the warnings of this thread in the block, or raise them as errors.

    Args:
        module: A regular expression that the start of the warning module's name must match; by
            default every module matches.
        action: "ignore", or "error" to raise.
    """
    mine: tuple[Any, ...] = (action, None, Warning, _Here(module), 0)
    # Keep the list object: `catch_warnings` in another thread may replace it by a copy meanwhile.
    filters: Any = warnings.filters
    filters.insert(0, mine)
    try:
        yield
    finally:
        for kept in (filters, warnings.filters):
            _discard(kept, mine)


def _discard(filters: Any, mine: tuple[Any, ...]) -> None:
    """Remove a filter from a list that other threads may change at the same time."""
    with contextlib.suppress(ValueError):  # removed already, or a list that never held it
        filters.remove(mine)  # equals no other filter, as no other holds this block's _Here
