"""The part of `visxai explain` that is about texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from visxai.cli.base import command_line, stopping
from visxai.cli.runs import carry_out
from visxai.errors import ArgumentError

# What `visxai evaluate` takes by default, which no text has.
_METHODS, _METRICS = "grad_cam,integrated_gradients", "insertion,deletion"


def is_text(model: str, text_column: str | None) -> bool:
    """Tell whether a run is about texts: it names their column, or a model of texts."""
    if text_column is not None:
        return True
    from visxai.models.cards import folder

    return ":" not in model and (folder() / "text" / f"{model}.toml").is_file()


def explain_texts(
    sources: Sequence[str],
    out: str,
    *,
    model: str,
    method: Sequence[str],
    labels: str | None,
    device: str,
    batch_size: int | None,
    **options: Any,
) -> int:
    """Explain texts into OUT, and return the exit code.

    Args:
        sources: Tables, lines of JSON, and "-".
        out: The folder for the results.
        model: The model's name; that of images by default is read as "toxicity".
        method: Specs of methods, or none for integrated gradients.
        labels: A file of labels.
        device: Where the model runs.
        batch_size: Texts of one forward.
        options: Further arguments of `visxai.text.run.explain`.
    """
    from visxai.cli import terminal
    from visxai.models.cards import DEFAULT

    with terminal.working("Loading the model"):
        from visxai.text.engine import Engine
        from visxai.text.loading import DEFAULT as TOXICITY
        from visxai.text.run import explain

        named = TOXICITY if model == DEFAULT else model
        engine = Engine(named, labels=labels, device=device, batch_size=batch_size or 64)
    command = command_line("--fresh", "--retry-failures")
    specs = ",".join(method) or "integrated_gradients"
    run = partial(explain, sources, out, engine, specs, command=command, **options)
    return carry_out(run, command, "text")


def evaluate_texts(
    sources: Sequence[str],
    out: str,
    *,
    model: str,
    methods: Sequence[str],
    metrics: str,
    labels: str | None,
    device: str,
    batch_size: int | None,
    unused: Mapping[str, bool],
    **options: Any,
) -> int:
    """Judge methods on texts, print the figures, and return the exit code.

    Args:
        sources: Tables and lines of JSON.
        out: The folder for the results.
        model: The model's name; that of images by default is read as "toxicity".
        methods: Specs of methods; those of images by default are read as those of texts.
        metrics: Names of metrics; those of images by default are read as all.
        labels: A file of labels.
        device: Where the model runs.
        batch_size: Texts of one forward.
        unused: Options of images, and whether they were given.
        options: Further arguments of `visxai.evaluate.texts.run`.

    Raises:
        ArgumentError: An option of images was given.
    """
    from rich.console import Console
    from rich.table import Table

    from visxai.cli import terminal
    from visxai.foreign import for_terminal
    from visxai.models.cards import DEFAULT

    if wrong := [name for name, value in unused.items() if value]:
        raise ArgumentError(
            f"expected options of texts, got {', '.join(wrong)}, which are for images: leave "
            "them out"
        )
    with terminal.working("Loading the model"):
        from visxai.evaluate import texts
        from visxai.text.engine import Engine
        from visxai.text.loading import DEFAULT as TOXICITY

        named = TOXICITY if model == DEFAULT else model
        engine = Engine(named, labels=labels, device=device, batch_size=batch_size or 64)
    command = command_line("--fresh")
    specs = ",".join(methods)
    chosen = texts.METRICS if metrics == _METRICS else [one.strip() for one in metrics.split(",")]
    given = "integrated_gradients,leave_one_out" if specs == _METHODS else specs
    with stopping() as asked, terminal.Watch("text") as watch:
        done = texts.run(
            engine,
            sources,
            given,
            tuple(chosen),
            out,
            command=command,
            progress=watch,
            stop=lambda: bool(asked),
            **options,
        )
    console, outcome = Console(highlight=False), done.outcome
    if not outcome.complete:
        told = f"{outcome.counts['finished']} of {outcome.counts['images']} texts are judged"
        console.print(for_terminal(f"Stopped: {told}; go on with: {command}"), soft_wrap=True)
        return 130
    found = done.figures
    for metric in dict.fromkeys(one.metric for one in found):
        table = Table(box=None, header_style="bold", pad_edge=False)
        for head in (f"{metric} ({texts.METRICS[metric]} is better)", "mean", "gain over random"):
            table.add_column(head, overflow="fold")
        for row in texts.table(found, metric):
            table.add_row(*map(for_terminal, row))
        console.print(table)
        console.print()
    console.print(for_terminal(f"page: {out}/evaluation.html"), soft_wrap=True)
    for one in outcome.failed[:5]:
        console.print(f"  [red]failed[/red] {for_terminal(one.reason)}", soft_wrap=True)
    return 1 if outcome.failed else 0
