"""The command `visxai debug`, which finds what a text classifier gets wrong systematically."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from visxai.cli.base import Debug, Device, Labels


def debug(
    table: Annotated[
        str,
        typer.Argument(
            metavar="TABLE",
            help="Texts with labels: .csv, .parquet, or lines of JSON (.jsonl).",
            show_default=False,
        ),
    ],
    model: Annotated[
        str,
        typer.Option(
            "--model",
            "-m",
            metavar="NAME",
            help="hf:FOLDER, a sequence classifier of Hugging Face, or toxicity with --target.",
            show_default=False,
        ),
    ],
    text_column: Annotated[
        str | None,
        typer.Option(
            "--text-column",
            metavar="NAME",
            help="The column of texts. [dim]\\[default: text, comment, review or the like][/dim]",
            show_default=False,
        ),
    ] = None,
    label_column: Annotated[
        str,
        typer.Option(
            "--label-column",
            metavar="NAME",
            help="The column of true classes, by name or index.",
        ),
    ] = "label",
    target: Annotated[
        str | None,
        typer.Option(
            "--target",
            "-t",
            metavar="TARGET",
            help="The class that is judged, as class=toxic, of a model that decides each by "
            "itself; labels then say whether a text has it: its name, yes or no, 1 or 0. "
            "[dim]\\[default: the class that the model chooses][/dim]",
            show_default=False,
        ),
    ] = None,
    threshold: Annotated[
        float,
        typer.Option(
            "--threshold", metavar="SCORE", help="The score above which a text has that class."
        ),
    ] = 0.5,
    method: Annotated[
        str,
        typer.Option("--method", metavar="SPEC", help="The method that explains the examples."),
    ] = "leave_one_out",
    out: Annotated[
        str,
        typer.Option("--out", "-o", metavar="FILE", help="The page that is written."),
    ] = "visxai_debug.html",
    suggestions: Annotated[
        str | None,
        typer.Option(
            "--suggestions",
            metavar="FILE",
            help="A CSV of texts to add to the training data. [dim]\\[default: none][/dim]",
            show_default=False,
        ),
    ] = None,
    labels: Labels = None,
    device: Device = "auto",
    debug: Debug = False,
) -> int:
    """Find words behind which a text classifier's errors gather, with what deleting them does.

    [bold]Examples[/bold]

    visxai debug reviews.csv --model hf:sentiment --label-column rating --out wrong.html

    visxai debug reviews.csv --model hf:sentiment --suggestions more.csv

    visxai debug comments.csv --model toxicity --target class=toxic --label-column flagged
    """
    from rich.console import Console

    from visxai import files
    from visxai.cli import terminal
    from visxai.foreign import for_terminal
    from visxai.text import sources
    from visxai.text.debugging import debug as find
    from visxai.text.engine import Engine

    given = sources.read([table], text_column, label_column)
    kept = [one for one in given.found if one.label is not None]
    with terminal.working("Loading the model"):
        engine = Engine(model, labels=labels, device=device)
    with terminal.working("Looking for what it gets wrong"):
        found = find(
            engine,
            [given.texts[one.path] for one in kept],
            [str(one.label) for one in kept],
            target=target,
            threshold=threshold,
            method=method,
            names=[Path(one.path).name for one in kept],
        )
    files.write(Path(out), found.page())
    if suggestions is not None:
        files.write(Path(suggestions), found.to_csv())
    console = Console(highlight=False)
    console.print(f"{found.overall}; {found.compared} comparisons", soft_wrap=True)
    for cue in found.cues:
        console.print(
            for_terminal(f"{cue.word!r} in {cue.label}: {cue.with_word}; without it {cue.without}"),
            soft_wrap=True,
        )
    console.print(for_terminal(f"page: {out}"), soft_wrap=True)
    if suggestions is not None:
        told = f"texts to add: {suggestions} ({len(found.suggestions)})"
        console.print(for_terminal(told), soft_wrap=True)
    return 0
