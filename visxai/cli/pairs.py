"""The part of `visxai explain` that is about images with texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from visxai.cli.base import command_line
from visxai.cli.runs import carry_out
from visxai.errors import ArgumentError


def explain_pairs(
    sources: Sequence[str],
    out: str,
    *,
    model: str,
    device: str,
    unused: Mapping[str, bool],
    **options: Any,
) -> int:
    """Explain images with texts into OUT, and return the exit code.

    Args:
        sources: Tables.
        out: The folder for the results.
        model: The file of a fused model's card.
        device: Where the models run.
        unused: Options of other kinds of run, and whether they were given.
        options: Further arguments of `visxai.fused.run.explain`.

    Raises:
        ArgumentError: An option of another kind of run was given.
    """
    from visxai.cli import terminal

    if wrong := [name for name, value in unused.items() if value]:
        raise ArgumentError(
            f"expected options of images with texts, got {', '.join(wrong)}: leave them out; the "
            "card names models, targets and methods"
        )
    with terminal.working("Loading the models"):
        from visxai.fused.engine import Engine
        from visxai.fused.run import explain

        engine = Engine(model, device=device)
    command = command_line("--fresh", "--retry-failures")
    run = partial(explain, sources, out, engine, command=command, **options)
    return carry_out(run, command, "pair")
