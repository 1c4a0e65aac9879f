"""The part of `visxai explain` that is about the rows of tables."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from visxai.cli.base import command_line
from visxai.cli.runs import carry_out
from visxai.errors import ArgumentError


def is_table(model: str) -> bool:
    """Tell whether a run is about rows: its model is a model's file of tables, or its card."""
    if ":" in model[2:] or not model.endswith((".json", ".ubj", ".txt", ".toml", ".onnx")):
        return False
    from visxai.tabular.saving import is_model

    return is_model(model)


def explain_tables(
    sources: Sequence[str],
    out: str,
    *,
    model: str,
    method: Sequence[str],
    target: str,
    only: str | None,
    **options: Any,
) -> int:
    """Explain rows into OUT, and return the exit code.

    Args:
        sources: Tables.
        out: The folder for the results.
        model: The model's file, or its card.
        method: The spec of one method, or none for the card's.
        target: What to explain: a model of tables has one score, so only the default fits.
        only: A gate, which runs over tables don't have.
        options: Further arguments of `visxai.tabular.run.explain`.

    Raises:
        ArgumentError: An option is about images or texts alone.
    """
    from visxai.cli import terminal

    for option, value in (("--target", None if target == "top1" else target), ("--only", only)):
        if value is not None:
            raise ArgumentError(
                f"expected no {option} for a model of tables, got {value}: leave it out; the card "
                "names what is scored"
            )
    if len(method) > 1:
        raise ArgumentError(
            f"expected one method for a table, got {', '.join(method)}: choose one, and another "
            "--out for each further one",
            field="method",
        )
    with terminal.working("Loading the model"):
        from visxai.tabular.run import explain
        from visxai.tabular.saving import load_engine

        engine = load_engine(model, **({"method": method[0]} if method else {}))
    command = command_line("--fresh", "--retry-failures")
    run = partial(explain, sources, out, engine, command=command, **options)
    return carry_out(run, command, "row")
