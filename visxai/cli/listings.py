"""`visxai models`, `methods` and `doctor`: what there is."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from visxai.cli.base import Debug


class _ByName(TyperGroup):
    """`visxai models NAME` is `visxai models show NAME`."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and args[0] not in self.commands and not args[0].startswith("-"):
            args = ["show", *args]
        return super().resolve_command(ctx, args)


models_app = typer.Typer(cls=_ByName, rich_markup_mode="rich")


@models_app.callback(invoke_without_command=True)
def _models(context: typer.Context) -> int:
    """What models there are, one model's card, and weights that are fetched apart.

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
    """One model's card; `visxai models NAME` is the same."""
    from visxai.cli import catalogue
    from visxai.models import cards

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
    debug: Debug = False,
) -> int:
    """What methods there are: what each does, needs and costs, and its options."""
    from visxai.cli import catalogue

    catalogue.methods(name)
    return 0


def doctor(debug: Debug = False) -> int:
    """What this machine can do, and whether all that is needed is there (exit code 0)."""
    from visxai.cli import catalogue

    return catalogue.doctor()
