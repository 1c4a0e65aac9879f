"""The commands `visxai report` and `export`, which turn a run's results into other files."""

from __future__ import annotations

from typing import Annotated

import typer

from visxai.cli.base import Debug

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
