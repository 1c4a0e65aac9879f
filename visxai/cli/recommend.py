"""The command `visxai recommend`, which finds the method for a model and images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from visxai.cli.base import (
    Accelerate,
    BatchSize,
    Checkpoint,
    Debug,
    Device,
    Interpolation,
    Labels,
    Layer,
    Mean,
    ModelName,
    Precision,
    Resize,
    Size,
    Std,
    check_specs,
    preprocess_of,
)
from visxai.spec import split_specs

if TYPE_CHECKING:
    from visxai.recommendation import Recommendation


def recommend(
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="PATH", help="Images of yours, and folders of them.", show_default=False
        ),
    ],
    model: ModelName = "efficientnet_lite0",
    budget: Annotated[
        int,
        typer.Option(
            "--budget",
            metavar="N",
            min=4,
            help="Images that the last two methods are judged on; the others see fewer.",
        ),
    ] = 64,
    methods: Annotated[
        list[str] | None,
        typer.Option(
            "--methods",
            "--method",
            metavar="SPECS",
            help="The methods to try, commas between them. [dim]\\[default: some eighteen that the "
            "model serves, with their main options][/dim]",
            show_default=False,
        ),
    ] = None,
    metrics: Annotated[
        str,
        typer.Option("--metrics", metavar="SPECS", help="What they are judged by."),
    ] = "insertion(steps=28),deletion(steps=28)",
    target: Annotated[
        str, typer.Option("--target", "-t", metavar="TARGET", help="One class an image.")
    ] = "top1",
    as_json: Annotated[
        str | None,
        typer.Option("--json", metavar="FILE", help="All figures.", show_default=False),
    ] = None,
    device: Device = "auto",
    precision: Precision = "auto",
    accelerate: Accelerate = "off",
    batch_size: BatchSize = None,
    layer: Layer = None,
    labels: Labels = None,
    checkpoint: Checkpoint = None,
    size: Size = None,
    resize: Resize = None,
    mean: Mean = None,
    std: Std = None,
    interpolation: Interpolation = None,
    debug: Debug = False,
) -> int:
    """Find the method to use on your model and your images, by successive halving.

    Every candidate is judged on a few images, the better half on twice as many, until two are left.
    A random map is judged beside them.

    [bold]Examples[/bold]

    visxai recommend photos --model timm:resnet18 --budget 64

    visxai recommend photos --methods grad_cam,hires_cam,rise --metrics road,infidelity
    """
    from visxai import files
    from visxai.cli import terminal
    from visxai.images import sources

    sized = preprocess_of(size, resize, mean, std, interpolation)
    wanted = [spec for text in methods or () for spec in split_specs(text, "--methods")]
    judged = split_specs(metrics, "--metrics")
    sources.check(paths, "")
    check_specs(wanted, target, metrics=judged)
    with terminal.working("Loading the model"):
        from visxai.engine.engine import Engine
        from visxai.recommendation import recommend as search

        engine = Engine(
            model,
            labels=labels,
            layer=layer,
            checkpoint=checkpoint,
            preprocess=sized,
            device=device,
            precision=precision,
            accelerate=accelerate,
            batch_size=batch_size,
        )
    with terminal.counting("Judging maps") as progress:
        found = search(
            engine,
            paths,
            wanted or None,
            judged,
            budget=budget,
            target=target,
            progress=progress,
        )
    if as_json is not None:
        with files.one_sentence(f"to write {as_json}", "name another file"):
            files.write(Path(as_json).absolute(), json.dumps(found.to_dict(), indent=2) + "\n")
    show(found)
    return 0


def show(found: Recommendation) -> None:
    """Print the table of a search and its verdict."""
    from rich.table import Table
    from rich.text import Text

    from visxai.cli import terminal
    from visxai.foreign import for_terminal

    console = terminal.output()
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("method", overflow="fold")
    figures = list(found.rows[0].figures)
    for name in ("mean rank", *figures, "images", "s a map"):
        table.add_column(name, justify="right")
    for row in found.rows:
        cells = [row.place, *row.figures.values()]
        told = [f"{one.value:.2f} ({one.low:.2f} to {one.high:.2f})" for one in cells]
        style = "bold" if row.method == found.best else "" if row.kept else "dim"
        table.add_row(
            Text(for_terminal(row.method), style),
            *(Text(cell, style) for cell in (*told, str(row.images), f"{row.seconds:.2g}")),
        )
    console.print(table)
    console.print(for_terminal(found.describe()), soft_wrap=True)
    console.print(
        f"Ranks are among those that were judged together, so they compare between rows of as many "
        f"images. The choice took {terminal.duration(found.seconds)} and {found.maps} maps.",
        soft_wrap=True,
    )
    for one in found.failed[:5]:
        console.print(f"  [red]failed[/red] {for_terminal(one.reason)}", soft_wrap=True)
