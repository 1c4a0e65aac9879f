"""The commands `visxai govern …`: drift, and gaps between groups."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from visxai.cli.audit import DatabaseUrl
from visxai.cli.base import Debug

if TYPE_CHECKING:
    from visxai.govern.observations import Observations

app = typer.Typer(
    help="What explanations say over time, whom they treat differently, and when they drift.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)

Metadata = Annotated[
    str | None,
    typer.Option(
        "--metadata",
        metavar="FILE",
        help="CSV or Parquet with a column path (or id) and what you know of each item. "
        "[dim]\\[default: none][/dim]",
        show_default=False,
    ),
]
Json = Annotated[
    str | None,
    typer.Option("--json", metavar="FILE", help="All figures.", show_default=False),
]
Level = Annotated[
    float,
    typer.Option("--level", metavar="X", help="False alarms accepted without any change, 0 to 1."),
]


@app.command()
def drift(
    reference: Annotated[
        str, typer.Argument(metavar="REFERENCE", help="A run that is as it should be.")
    ],
    out: Annotated[str, typer.Argument(metavar="OUT", help="The run to watch, in its order.")],
    size: Annotated[int, typer.Option("--window", metavar="N", help="Items of a window.")] = 500,
    level: Level = 0.05,
    inputs: Annotated[
        bool,
        typer.Option("--inputs/--no-inputs", help="Open the originals and compare them too."),
    ] = False,
    as_json: Json = None,
    debug: Debug = False,
) -> int:
    """Test windows of a run against a reference: input, scores and explanations side by side.

    The exit code is 1 where a window drifted.

    [bold]Examples[/bold]

    visxai govern drift results-may results-june

    visxai govern drift results-may results-june --window 200 --inputs --json drift.json
    """
    from visxai import govern
    from visxai.cli import terminal

    with terminal.working("Comparing"):
        sides = [govern.observe(folder, measure_inputs=inputs) for folder in (reference, out)]
        found = govern.drift(*sides, size=size, level=level)
    _write(as_json, found.to_dict())
    terminal.drifted(found)
    return 1 if found.alarms else 0


@app.command()
def fairness(
    out: Annotated[str, typer.Argument(metavar="OUT", help="The folder of a run.")],
    by: Annotated[str, typer.Option("--by", metavar="NAME", help="The column of groups.")],
    metadata: Annotated[
        str,
        typer.Option(
            "--metadata",
            metavar="FILE",
            help="CSV or Parquet with a column path (or id) and what you know of each item.",
        ),
    ],
    level: Level = 0.05,
    as_json: Json = None,
    debug: Debug = False,
) -> int:
    """Compare groups: scores, errors where labels are known, and where explanations look.

    Groups come from your table and are never inferred. The exit code is 1 where chance doesn't
    explain a gap.

    [bold]Examples[/bold]

    visxai govern fairness results --by sex --metadata people.csv
    """
    from visxai import govern
    from visxai.cli import terminal

    with terminal.working("Comparing"):
        found = govern.fairness(_with_groups(out, metadata), by, level=level)
    _write(as_json, found.to_dict())
    terminal.gaps(found)
    return 1 if found.findings else 0


@app.command(name="import")
def import_run(
    out: Annotated[str, typer.Argument(metavar="OUT", help="The folder of a run.")],
    database: DatabaseUrl = "sqlite:///visxai.db",
    metadata: Metadata = None,
    tenant: Annotated[
        str, typer.Option("--tenant", metavar="NAME", help="Whose items they are.")
    ] = "default",
    debug: Debug = False,
) -> int:
    """Put a run's explanations on record in a database, one an item, and measure them.

    What is on record already isn't put there again.

    [bold]Examples[/bold]

    visxai govern import results --metadata people.csv

    visxai govern import results --database postgresql://visxai@localhost/visxai
    """
    from visxai.cli import terminal
    from visxai.govern.log import Log

    with terminal.working("Importing"), Log(database) as log:
        count = log.import_run(out, metadata=metadata, tenant=tenant)
    typer.echo(f"{terminal.counted(count, 'explanation')} on record in {database}")
    return 0


def _with_groups(out: str, metadata: str) -> Observations:
    from dataclasses import replace

    from visxai import govern
    from visxai.govern.metadata import read_metadata

    seen = govern.observe(out)
    return replace(seen, groups=read_metadata(metadata, seen.ids))


def _write(path: str | None, figures: Any) -> None:
    from visxai import files
    from visxai.web.page import as_json

    if path is not None:
        with files.one_sentence(f"to write {path}", "name another file"):
            files.write(Path(path).absolute(), as_json(figures) + "\n")
