"""The command `visxai letters`, which writes to those whom a run over a table refused."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from visxai.cli.base import Debug
from visxai.cli.outputs import Results

_DIRECTIONS = ("raise", "lower", "any")


def letters(
    out: Results,
    model: Annotated[
        str,
        typer.Option(
            "--model",
            "-m",
            metavar="FILE",
            help="The model's file, or its card, that explained the run.",
            show_default=False,
        ),
    ],
    folder: Annotated[
        str, typer.Option("--out", "-o", metavar="FOLDER", help="Where the letters go.")
    ] = "letters",
    wording: Annotated[
        str,
        typer.Option(
            "--wording", metavar="NAME", help="en, de, or a TOML file with your own sentences."
        ),
    ] = "en",
    sender: Annotated[
        str, typer.Option("--sender", metavar="TEXT", help="Who writes.", show_default=False)
    ] = "",
    contact: Annotated[
        str,
        typer.Option(
            "--contact", metavar="TEXT", help="How to ask for a review.", show_default=False
        ),
    ] = "",
    change: Annotated[
        list[str] | None,
        typer.Option(
            "--change",
            metavar="NAME=DIRECTION",
            help="A detail that an applicant can change: raise, lower or any. Letters then say "
            "which changes would have sufficed; repeat it for more.",
            show_default=False,
        ),
    ] = None,
    debug: Debug = False,
) -> int:
    """Write a letter to everybody whom a run over a table refused: HTML that prints on one page.

    [bold]Examples[/bold]

    visxai letters results --model credit.json --sender "The Bank" --out letters

    visxai letters results --model credit.json --wording de --change duration=lower
    """
    from visxai.cli import terminal
    from visxai.errors import ArgumentError

    actions: dict[str, Any] = {}
    for one in change or ():
        name, _, direction = one.rpartition("=")
        if not name or direction not in _DIRECTIONS:
            raise ArgumentError(
                f"expected --change as NAME={', NAME='.join(_DIRECTIONS)}, got {one!r}: such as "
                "duration=lower",
                field="change",
            )
        actions[name] = direction
    from visxai.tabular.mailing import write_letters
    from visxai.tabular.saving import load_engine

    with terminal.working("Loading the model"):
        engine = load_engine(model)
    with terminal.counting("Writing letters") as progress:
        made = write_letters(
            out,
            engine,
            folder,
            wording=wording,
            sender=sender,
            contact=contact,
            actions=actions or None,
            progress=progress,
        )
    without = f", {made.without} of them without reasons" if made.without else ""
    typer.echo(
        f"{terminal.counted(made.letters, 'letter')} for {terminal.counted(made.rows, 'row')}"
        f"{without}: {made.folder}"
    )
    return 0
