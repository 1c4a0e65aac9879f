"""The command `visxai compare`, which holds one run's explanations against another's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from visxai.cli.base import Debug


def compare(
    a: Annotated[str, typer.Argument(metavar="OUT_A", help="The run that is known to be good.")],
    b: Annotated[str, typer.Argument(metavar="OUT_B", help="The run to compare with it.")],
    min_agreement: Annotated[
        float | None,
        typer.Option(
            "--min-agreement",
            metavar="X",
            min=-1,
            max=1,
            help="Fail where the maps' mean rank correlation is below this. "
            "[dim]\\[default: no threshold][/dim]",
            show_default=False,
        ),
    ] = None,
    max_changed: Annotated[
        float | None,
        typer.Option(
            "--max-changed",
            metavar="SHARE",
            min=0,
            max=1,
            help="Fail where a larger share of decisions differs. "
            "[dim]\\[default: no threshold][/dim]",
            show_default=False,
        ),
    ] = None,
    page: Annotated[
        str, typer.Option("--page", metavar="FILE", help="Where the page goes.")
    ] = "compare.html",
    junit: Annotated[
        str | None,
        typer.Option("--junit", metavar="FILE", help="JUnit XML for CI.", show_default=False),
    ] = None,
    as_json: Annotated[
        str | None,
        typer.Option("--json", metavar="FILE", help="All figures and pairs.", show_default=False),
    ] = None,
    debug: Debug = False,
) -> int:
    """Compare two runs over the same images: other decisions, other reasons.

    The exit code is 1 where a threshold doesn't hold, or the images aren't the same.

    [bold]Examples[/bold]

    visxai compare results-v1 results-v2

    visxai compare results-v1 results-v2 --min-agreement 0.8 --max-changed 0.02 --junit gate.xml
    """
    from visxai import files
    from visxai.cli import terminal
    from visxai.compare import comparison
    from visxai.compare.junit import junit as to_junit
    from visxai.compare.page import page as to_page

    with terminal.working("Comparing"):
        found = comparison.run(a, b)
        gates = found.gates(min_agreement, max_changed)
        target = Path(page).absolute()
        with files.one_sentence(f"to write {page}", "name another file"):
            files.write(target, to_page(found, gates))
            if junit is not None:
                files.write(Path(junit).absolute(), to_junit(found, gates))
            if as_json is not None:
                told = {**found.to_dict(), "gates": [vars(one) for one in gates]}
                files.write(Path(as_json).absolute(), json.dumps(told, indent=2) + "\n")
    terminal.compared(found, gates, target)
    return 0 if all(one.passed for one in gates) else 1
