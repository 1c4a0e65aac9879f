"""Warnings of a library, silenced or raised in one thread and nowhere else.

`warnings.catch_warnings` saves and restores a list that the whole process shares: two threads whose
blocks overlap restore each other's state, and a filter stays for ever. Here a block adds one filter
of its own, which answers only in the thread that added it, and takes exactly that one away again.
"""

from __future__ import annotations

import contextlib
import re
import threading
import warnings
from collections.abc import Iterator
from typing import Any, Literal


class _Here:
    """What a filter asks of a module's name: is this my thread, and is the module meant?"""

    def __init__(self, module: str) -> None:
        self.thread = threading.get_ident()
        self.module = re.compile(module)

    def match(self, name: str) -> bool:
        return threading.get_ident() == self.thread and self.module.match(name) is not None


@contextlib.contextmanager
def warnings_of(module: str = "", action: Literal["ignore", "error"] = "ignore") -> Iterator[None]:
    """Ignore, or raise, what this thread is warned of meanwhile.

    module: a regular expression that the start of the warning module's name must match; every
    module by default.
    """
    mine: tuple[Any, ...] = (action, None, Warning, _Here(module), 0)
    # The list itself: `catch_warnings` in another thread may put a copy in its place meanwhile.
    filters: Any = warnings.filters
    filters.insert(0, mine)
    try:
        yield
    finally:
        for kept in (filters, warnings.filters):
            _discard(kept, mine)


def _discard(filters: Any, mine: tuple[Any, ...]) -> None:
    """Take a filter from a list that other threads may change meanwhile."""
    with contextlib.suppress(ValueError):  # it is the same list, or one that never had it
        filters.remove(mine)  # equal only to itself: no other holds this block's _Here
