"""The commands `visxai govern …`: drift, and gaps between groups."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from visxai.cli.audit import DatabaseUrl, existing
from visxai.cli.base import Debug

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
        str | None,
        typer.Option(
            "--metadata",
            metavar="FILE",
            help="CSV or Parquet with a column path (or id) and what you know of each item. "
            "[dim]\\[default: the protected columns that rows of tables keep][/dim]",
            show_default=False,
        ),
    ] = None,
    level: Level = 0.05,
    as_json: Json = None,
    debug: Debug = False,
) -> int:
    """Compare groups: scores, errors where labels are known, and where explanations look.

    Groups come from your table, or from the protected columns that the rows of an explained table
    keep; they are never inferred. The exit code is 1 where chance doesn't explain a gap.

    [bold]Examples[/bold]

    visxai govern fairness results --by sex --metadata people.csv

    visxai govern fairness results --by age
    """
    from visxai import govern
    from visxai.cli import terminal

    with terminal.working("Comparing"):
        found = govern.fairness(govern.observe(out, metadata=metadata), by, level=level)
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


@app.command()
def watch(
    database: DatabaseUrl = "sqlite:///visxai.db",
    size: Annotated[int, typer.Option("--window", metavar="N", help="Items of a window.")] = 500,
    level: Level = 0.05,
    webhook: Annotated[
        str | None,
        typer.Option(
            "--webhook",
            metavar="URL",
            help="Where alerts are posted as JSON. With VISXAI_WEBHOOK_SECRET in the environment "
            "they are signed.",
            show_default=False,
        ),
    ] = None,
    every: Annotated[
        float | None,
        typer.Option(
            "--every",
            metavar="SECONDS",
            help="Go on watching, with this pause. [dim]\\[default: once][/dim]",
            show_default=False,
        ),
    ] = None,
    debug: Debug = False,
) -> int:
    """Test the full windows of every model for drift, compare groups, and raise alerts.

    The exit code is 1 where an alert was raised, when watching once.

    [bold]Examples[/bold]

    visxai govern watch --window 500

    visxai govern watch --every 300 --webhook https://example.org/alerts
    """
    import os
    import time

    from visxai import govern
    from visxai.cli.base import stopping

    secret = os.environ.get("VISXAI_WEBHOOK_SECRET")
    with govern.Log(database) as log, stopping() as asked:
        while True:
            found = govern.watch(log, size=size, level=level, webhook=webhook, secret=secret)
            for alert in govern.alerts(log):
                if alert["id"] in found.alerts:
                    typer.echo(
                        f"drift of {alert['model']} in {', '.join(alert['alarms'])}, "
                        f"{alert['from'][:16]} to {alert['to'][:16]}: alert {alert['id']}"
                    )
            typer.echo(
                f"{found.measured} explanations measured, {found.windows} windows tested, "
                f"{len(found.alerts)} alerts"
            )
            if every is None or asked:
                return 1 if found.alerts else 0
            end = time.monotonic() + every
            while time.monotonic() < end and not asked:
                time.sleep(min(0.2, every))
            if asked:
                return 0


@app.command()
def alerts(database: DatabaseUrl = "sqlite:///visxai.db", debug: Debug = False) -> int:
    """List the alerts, the latest first, with their notes.

    [bold]Example[/bold]

    visxai govern alerts
    """
    from visxai import govern
    from visxai.foreign import shown

    with govern.Log(existing(database)) as log:
        found = govern.alerts(log)
    for one in found:
        sides = ", ".join(one["alarms"])
        typer.echo(f"{one['id']}  {one['state']}  {one['at'][:16]}  {shown(one['model'])}: {sides}")
        for note in one["notes"]:
            typer.echo(f"    {note['at'][:16]} {shown(note['actor'])}: {shown(note['text'])}")
    if not found:
        typer.echo("There are no alerts.")
    return 0


@app.command()
def acknowledge(
    alert: Annotated[str, typer.Argument(metavar="ID", help="An id from `visxai govern alerts`.")],
    note: Annotated[str, typer.Option("--note", metavar="TEXT", help="What was found.")],
    actor: Annotated[str, typer.Option("--by", metavar="NAME", help="Who says so.")] = "operator",
    still_open: Annotated[
        bool, typer.Option("--keep-open", help="Only add the note, and leave the alert open.")
    ] = False,
    database: DatabaseUrl = "sqlite:///visxai.db",
    debug: Debug = False,
) -> int:
    """Acknowledge an alert with a note; the audit chain keeps who did.

    [bold]Example[/bold]

    visxai govern acknowledge 3f2a… --note "new camera in the north hall" --by kim
    """
    from visxai import govern

    with govern.Log(existing(database)) as log:
        done = govern.annotate if still_open else govern.acknowledge
        done(log, alert, note, actor)
    return 0


@app.command()
def report(
    database: DatabaseUrl = "sqlite:///visxai.db",
    out: Annotated[
        str, typer.Option("--out", "-o", metavar="FILE", help="Where the page goes.")
    ] = "governance.html",
    verify: Annotated[
        bool, typer.Option("--verify/--no-verify", help="Verify the whole audit chain for it.")
    ] = True,
    tenant: Annotated[
        str | None,
        typer.Option(
            "--tenant",
            metavar="NAME",
            help="Whose explanations. [dim]\\[default: everybody's][/dim]",
            show_default=False,
        ),
    ] = None,
    debug: Debug = False,
) -> int:
    """Write one page that opens from disk: trends, explanations, fairness, drift, audit.

    Run `visxai govern watch` before it, which tests windows and compares groups.

    [bold]Example[/bold]

    visxai govern report --out report.html
    """
    from visxai import govern
    from visxai.cli import terminal

    with terminal.working("Writing the page"), govern.Log(existing(database)) as log:
        log.catch_up()
        target = govern.report(log, out, verify=verify, tenant=tenant)
    typer.echo(f"Open it in a browser: {target}")
    return 0


@app.command()
def card(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="Its name, or the beginning of its SHA-256.")
    ],
    database: DatabaseUrl = "sqlite:///visxai.db",
    owner: Annotated[
        str | None, typer.Option("--owner", metavar="NAME", help="Who answers for it.")
    ] = None,
    purpose: Annotated[
        str | None, typer.Option("--purpose", metavar="TEXT", help="What it decides.")
    ] = None,
    risk: Annotated[
        str | None, typer.Option("--risk", metavar="CLASS", help="minimal, limited or high.")
    ] = None,
    threshold: Annotated[
        float | None, typer.Option("--threshold", metavar="X", help="The score that flags.")
    ] = None,
    reference: Annotated[
        tuple[str, str] | None,
        typer.Option("--reference", metavar="FROM UNTIL", help="The reference of drift, as dates."),
    ] = None,
    debug: Debug = False,
) -> int:
    """Print a model's card as Markdown; with --owner, --purpose and --risk register it first.

    [bold]Examples[/bold]

    visxai govern card toxicity --owner "Trust and safety" --purpose "flag comments" --risk limited

    visxai govern card toxicity > card.md
    """
    from visxai import govern
    from visxai.errors import ArgumentError

    given = (owner, purpose, risk)
    with govern.Log(database) as log:
        if owner is not None and purpose is not None and risk is not None:
            govern.register(
                log,
                model,
                owner=owner,
                purpose=purpose,
                risk=risk,
                threshold=threshold,
                reference=reference,
            )
        elif any(one is not None for one in (*given, threshold, reference)):
            raise ArgumentError(
                "expected --owner, --purpose and --risk together, got some of them: give all three"
            )
        typer.echo(govern.card(log, model), nl=False)
    return 0


@app.command()
def audit(
    source: Annotated[
        str, typer.Argument(metavar="OUT|DB", help="The folder of a run, or a database's address.")
    ],
    out: Annotated[
        str, typer.Option("--out", "-o", metavar="FILE", help="The report; figures go beside it.")
    ] = "audit.html",
    key: Annotated[
        str | None,
        typer.Option("--key", metavar="FILE", help="The signing key.", show_default=False),
    ] = None,
    evaluation: Annotated[
        list[str] | None,
        typer.Option(
            "--evaluation",
            metavar="OUT",
            help="A folder of `visxai evaluate --metrics model_randomisation`, for each model.",
            show_default=False,
        ),
    ] = None,
    randomise: Annotated[
        int,
        typer.Option(
            "--randomise",
            metavar="N",
            min=0,
            help="Run that check here for every model and method without one, on N of its images; "
            "30 give a verdict.",
        ),
    ] = 0,
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            "-m",
            metavar="NAME",
            help="A model to open for it, as for `visxai explain`. "
            "[dim]\\[default: those that travel with visxai][/dim]",
            show_default=False,
        ),
    ] = None,
    debug: Debug = False,
) -> int:
    """Audit explanations: coverage, chain, quality, drift, fairness; pass, warn or fail each.

    The exit code is 1 where a line fails.

    [bold]Examples[/bold]

    visxai govern audit results --randomise 30

    visxai govern audit sqlite:///visxai.db --key visxai.key --out audit.html
    """
    from visxai import govern

    found = govern.audit(
        source, key=key, evaluations=evaluation or (), randomise=randomise, models=model or ()
    )
    found.write(out)
    for line in found.lines:
        typer.echo(f"{line.verdict:5} {line.name}: {line.said}")
    typer.echo(f"{found.verdict}: {out}")
    return 1 if found.verdict == "fail" else 0


def _write(path: str | None, figures: Any) -> None:
    from visxai import files
    from visxai.web.page import as_json

    if path is not None:
        with files.one_sentence(f"to write {path}", "name another file"):
            files.write(Path(path).absolute(), as_json(figures) + "\n")
