"""The commands `visxai report`, `export` and `letters`, which turn results into other files."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from visxai.cli.base import Debug

_DIRECTIONS = ("raise", "lower", "any")

Results = Annotated[
    str,
    typer.Argument(metavar="OUT", help="The --out folder of a `visxai explain`, finished or not."),
]
Remote = Annotated[
    bool,
    typer.Option(
        "--remote",
        help="Fetch originals behind URLs: whoever wrote the results has chosen them.",
    ),
]


def report(
    out: Results = "visxai_out",
    single_file: Annotated[
        bool,
        typer.Option(
            "--single-file",
            help="One file OUT/report.html to send, with the pictures of the first 500 inside it.",
        ),
    ] = False,
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers",
            metavar="N",
            min=0,
            help="Processes that draw the pictures; 0 does all in one process. "
            "[dim]\\[default: one a core][/dim]",
            show_default=False,
        ),
    ] = None,
    remote: Remote = False,
    beside: Annotated[
        list[str] | None,
        typer.Option(
            "--beside",
            metavar="OUT",
            help="Another run's --out folder, whose maps of the same images are shown beside "
            "these; repeat it for more.",
            show_default=False,
        ),
    ] = None,
    debug: Debug = False,
) -> int:
    """Make a gallery of a run's results that opens from disk: filters, plots, mean maps.

    [bold]Examples[/bold]

    visxai report results

    visxai report results --beside results-of-another-model

    visxai report results --single-file
    """
    from visxai.cli import terminal
    from visxai.report.gallery import build

    with terminal.counting("Drawing the gallery") as progress:
        made = build(
            out,
            single_file=single_file,
            workers=workers,
            remote=remote,
            beside=beside or (),
            progress=progress,
        )
    terminal.gallery(made)
    return 0


def export(
    out: Results = "visxai_out",
    to: Annotated[
        str,
        typer.Option(
            "--to", metavar="NAME", help="csv, coco, fiftyone, tensorboard or wandb (offline)."
        ),
    ] = "csv",
    folder: Annotated[
        str | None,
        typer.Option(
            "--folder",
            metavar="FOLDER",
            help="Where it goes. [dim]\\[default: OUT/export/NAME][/dim]",
            show_default=False,
        ),
    ] = None,
    remote: Remote = False,
    debug: Debug = False,
) -> int:
    """Write a run's results for another tool; nothing is sent anywhere.

    [bold]Examples[/bold]

    visxai export results --to csv

    visxai export results --to coco --folder annotations
    """
    from visxai.cli import terminal
    from visxai.results import exports

    with terminal.counting(f"Exporting to {to}") as progress:
        made = exports.export(out, to, folder=folder, remote=remote, progress=progress)
    terminal.exported(made)
    return 0


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
