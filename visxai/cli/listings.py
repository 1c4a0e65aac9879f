"""The commands `visxai models`, `methods` and `doctor`, which list what is available."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from visxai.cli.base import Debug


class _ByName(TyperGroup):
    """A group of commands in which `visxai models NAME` means `visxai models show NAME`."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the command; a first word that is neither a command nor an option goes to show."""
        if args and args[0] not in self.commands and not args[0].startswith("-"):
            args = ["show", *args]
        return super().resolve_command(ctx, args)


models_app = typer.Typer(cls=_ByName, rich_markup_mode="rich")


@models_app.callback(invoke_without_command=True)
def _models(context: typer.Context) -> int:
    """List the models, show one model's card, or fetch weights that don't come with visxai.

    [bold]Examples[/bold]

    visxai models

    visxai models efficientnet_lite0

    visxai models fetch nsfw
    """
    if context.invoked_subcommand is None:
        from visxai.cli import catalogue

        catalogue.models()
    return 0


@models_app.command("show")
def _show(
    name: Annotated[str, typer.Argument(help="A model's name.", show_default=False)],
    debug: Debug = False,
) -> int:
    """Show one model's card; `visxai models NAME` is the same."""
    from visxai.cli import catalogue
    from visxai.models import cards
    from visxai.text import cards as texts

    if name in texts.names():
        catalogue.text_card(name)
    else:
        catalogue.card(cards.card(name))
    return 0


@models_app.command("fetch")
def _fetch(
    name: Annotated[str, typer.Argument(help="A model's name.", show_default=False)],
    debug: Debug = False,
) -> int:
    """Fetch the weights of a model that doesn't come with visxai."""
    from visxai.cli import terminal
    from visxai.models import loading

    with terminal.working(f"Fetching {name}"):
        path = loading.fetch(name)
    typer.echo(f"{name} is in {path}: use it with --model {name}")
    return 0


def methods(
    name: Annotated[
        str | None,
        typer.Argument(help="One method, to read all about it.", show_default=False),
    ] = None,
    full: Annotated[
        bool, typer.Option("--full", help="With options, cost and source of each.")
    ] = False,
    debug: Debug = False,
) -> int:
    """List the methods in a line each; with a name, read all about one."""
    from visxai.cli import catalogue

    catalogue.methods(name, full)
    return 0


def metrics(
    name: Annotated[
        str | None,
        typer.Argument(help="One metric, to read all about it.", show_default=False),
    ] = None,
    debug: Debug = False,
) -> int:
    """List the metrics of `visxai evaluate` in a line each; with a name, read all about one."""
    from visxai.cli import catalogue

    catalogue.metrics(name)
    return 0


def doctor(debug: Debug = False) -> int:
    """Show what this machine can do; the exit code is 0 if all that visxai needs is there."""
    from visxai.cli import catalogue

    return catalogue.doctor()
