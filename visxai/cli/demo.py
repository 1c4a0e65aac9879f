"""The command `visxai demo`."""

from __future__ import annotations

from typing import Annotated

import typer

from visxai.cli.base import Debug
from visxai.errors import require
from visxai.spec import split_specs


def demo(
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            "-m",
            metavar="NAME",
            help="A model on offer, as for `visxai explain`; repeat it, or write commas between "
            "them. [dim]\\[default: efficientnet_lite0,digits_vit][/dim]",
            show_default=False,
        ),
    ] = None,
    host: Annotated[
        str,
        typer.Option(
            "--host",
            metavar="NAME",
            help="The address. Nobody has to log in: keep it on this machine.",
        ),
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option("--port", "-p", metavar="N", min=0, max=65535, help="0 is a free one.")
    ] = 8010,
    debug: Debug = False,
) -> int:
    """Open pages on which photographs, texts and rows of a table are explained as you watch.

    [bold]Examples[/bold]

    visxai demo

    visxai demo --model torchvision:resnet50 --port 0
    """
    for module in ("fastapi", "uvicorn", "multipart", "jinja2", "sqlalchemy"):
        require(module, "serve", "the demo")
    from visxai.cli import terminal

    with terminal.working("Loading the model"):
        from visxai.demo.app import serve
        from visxai.demo.studio import MODELS, Studio
        from visxai.serve.run import listen

        names = [name for given in model or () for name in split_specs(given, "--model")]
        studio = Studio(names or MODELS)
        studio.engine(studio.models[0])
    try:
        listener = listen(host, port)
        address = f"http://{host}:{listener.getsockname()[1]}"
        serve(studio, listener, host, lambda: typer.echo(f"the demo is at {address}"))
    finally:
        studio.close()
    return 0
