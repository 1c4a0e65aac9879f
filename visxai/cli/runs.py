"""A run that a command starts: watched, stopped by Ctrl-C, and summed up."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from visxai.cli.base import stopping

if TYPE_CHECKING:
    from visxai.pipeline.progress import Outcome


def carry_out(run: Callable[..., Outcome], command: str, noun: str = "image") -> int:
    """Carry out a run, show its progress and its summary, and return the exit code.

    Args:
        run: The run; it takes `progress` and `stop`.
        command: The command line that continues it.
        noun: What one of its items is.

    Returns:
        0, 1 where items failed, or 130 where Ctrl-C stopped the run.
    """
    from visxai.cli import terminal

    with stopping() as asked, terminal.Watch(noun) as watch:
        outcome = run(progress=watch, stop=lambda: bool(asked))
    terminal.summary(outcome, command)
    if not outcome.complete:
        return 130
    return 1 if outcome.failed else 0
