"""The commands `visxai serve` and `visxai worker`."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Annotated

import typer

from visxai.cli.base import Debug
from visxai.errors import ArgumentError, VisxaiError, require

if TYPE_CHECKING:
    from visxai.serve.service import Service

SECRET = "VISXAI_WEBHOOK_SECRET"  # the environment's name for the key of signatures

Settings = Annotated[
    str | None,
    typer.Option(
        "--config",
        "-c",
        metavar="FILE",
        help="Model, policy, tiers, limits, retention and tenants, as TOML. "
        "[dim]\\[default: a demonstration][/dim]",
        show_default=False,
    ),
]
Database = Annotated[
    str | None,
    typer.Option(
        "--database",
        "-d",
        metavar="URL",
        help="sqlite:///FILE or postgresql://USER@HOST/NAME. "
        "[dim]\\[default: visxai.db in the --data folder][/dim]",
        show_default=False,
    ),
]
Items = Annotated[
    str | None,
    typer.Option(
        "--items",
        metavar="PLACE",
        help="The folder of items' bytes, or a URL that fsspec knows, such as s3://bucket/items. "
        "[dim]\\[default: items in the --data folder][/dim]",
        show_default=False,
    ),
]
Data = Annotated[
    str, typer.Option("--data", metavar="FOLDER", help="Where everything lies by default.")
]


def serve(
    config: Settings = None,
    database: Database = None,
    items: Items = None,
    data: Data = "visxai-data",
    host: Annotated[str, typer.Option("--host", metavar="NAME", help="The address.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option("--port", "-p", metavar="N", min=0, max=65535, help="0 is a free one.")
    ] = 8000,
    workers: Annotated[
        bool,
        typer.Option(
            "--workers/--no-workers", help="Explain in this process, or leave it to others."
        ),
    ] = True,
    alerts: Annotated[
        str | None,
        typer.Option(
            "--alerts",
            metavar="URL",
            help="Where alerts of drift are posted, besides the webhooks of the settings; signed "
            "with VISXAI_WEBHOOK_SECRET of the environment.",
            show_default=False,
        ),
    ] = None,
    demo: Annotated[
        bool,
        typer.Option("--demo", help="Fill it with items, so that every page has something."),
    ] = False,
    debug: Debug = False,
) -> int:
    """Decide on items over HTTP, explain what is flagged, and let people review it.

    [bold]Examples[/bold]

    visxai serve --demo

    visxai serve --config moderation.toml --database postgresql://visxai@db/visxai --no-workers
    """
    if demo and config is not None:
        raise ArgumentError(
            expected="--demo, which has settings of its own, or --config",
            got="both",
            remedy="leave one out",
            field="config",
        )
    service = _service(config, database, items, data, demo)
    from visxai.serve import run

    try:
        listener = run.listen(host, port)
        made = run.first_keys(service)
        address = f"http://{host}:{listener.getsockname()[1]}"

        def started() -> None:
            typer.echo(f"visxai serves on {address}")
            for tenant, key in made.items():
                typer.echo(f"first key of {tenant} (role admin, shown this once): {key}")
            if demo:
                threading.Thread(target=_fill, args=(service, address), daemon=True).start()

        run.serve(
            service,
            listener,
            lanes=run.LANES if workers else (),
            log=_say,
            started=started,
            alerts=alerts,
            secret=os.environ.get(SECRET),
        )
    finally:
        service.close()
    return 0


def worker(
    config: Settings = None,
    database: Database = None,
    items: Items = None,
    data: Data = "visxai-data",
    lanes: Annotated[
        str, typer.Option("--lanes", metavar="NAMES", help="fast, precise, or both.")
    ] = "fast,precise",
    debug: Debug = False,
) -> int:
    """Explain what a service has queued, in a process of its own, on this or another machine.

    [bold]Example[/bold]

    visxai worker --config moderation.toml --database postgresql://visxai@db/visxai
    """
    wanted = tuple(part.strip() for part in lanes.split(","))
    if not set(wanted) <= {"fast", "precise"}:
        raise ArgumentError(
            expected="--lanes of fast and precise",
            got=repr(lanes),
            remedy="write fast,precise",
            field="lanes",
        )
    service = _service(config, database, items, data)
    from visxai.serve import run

    typer.echo(f"works on {', '.join(wanted)} with {service.engine.model.ref.name}")
    try:
        run.work(service, wanted, _say, os.environ.get(SECRET))
    finally:
        service.close()
    return 0


def _fill(service: Service, address: str) -> None:
    """Fill a demonstration."""
    from visxai.govern import Log
    from visxai.serve import demo

    try:
        count = demo.fill(service, service.config.tenants[0])
        with Log(service.ledger) as log:  # the watch's next round is minutes away
            log.catch_up()
    except VisxaiError as error:
        _say(f"the demonstration: {error}")
        return
    if count:
        typer.echo(f"{count} items are in: see /review, /dashboard and /governance of {address}")


def _service(
    config: str | None, database: str | None, items: str | None, data: str, demo: bool = False
) -> Service:
    for module in ("fastapi", "uvicorn", "multipart", "prometheus_client", "sqlalchemy"):
        require(module, "serve", "the service")
    from visxai.cli import terminal

    with terminal.working("Loading the model"):
        from visxai.serve.config import Config
        from visxai.serve.service import Places, Service

        if demo:
            from visxai.serve import demo as shown

            settings = Config.of(shown.settings(data))
        else:
            settings = Config() if config is None else Config.read(config)
        return Service(settings, Places.below(data, database, items))


def _say(line: str) -> None:
    typer.echo(f"visxai: {line}", err=True)
