"""The command `visxai recommend`, which finds the method for a model and images."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
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
    load_judged,
    preprocess_of,
    quoted,
)
from visxai.foreign import for_terminal

if TYPE_CHECKING:
    from visxai.evaluate.statistics import Interval
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
    accelerate: Accelerate = "auto",
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

    engine, wanted, judged = load_judged(
        paths,
        "",
        methods or (),
        metrics,
        target,
        model=model,
        labels=labels,
        layer=layer,
        checkpoint=checkpoint,
        preprocess=preprocess_of(size, resize, mean, std, interpolation),
        device=device,
        precision=precision,
        accelerate=accelerate,
        batch_size=batch_size,
    )
    from visxai.recommendation import recommend as search

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
    if found.better_than_random:
        again = {
            "--model": model,
            "--checkpoint": checkpoint,
            "--labels": labels,
            "--layer": layer,
            "--size": size,
            "--resize": resize,
            "--mean": mean,
            "--std": std,
            "--interpolation": interpolation,
            "--device": device if device != "auto" else None,
            "--precision": precision if precision != "auto" else None,
            "--accelerate": accelerate if accelerate != "auto" else None,
            "--batch-size": batch_size,
            "--target": target if target != "top1" else None,
            "--method": found.rows[0].brief,
        }
        command = going_on(paths, again)
        terminal.output().print(f"  {for_terminal(command)}", style="dim", soft_wrap=True)
    return 0


def going_on(paths: Sequence[str], options: Mapping[str, object]) -> str:
    """Return the command that explains the same images by the same model, with what was found.

    Args:
        paths: The images and folders that were given.
        options: Each option's value; None leaves it out.
    """
    words = ["visxai", "explain"]
    # A value that opens with a dash, such as a negative mean, or a path, is read as an option.
    for name, value in options.items():
        dashed = str(value).startswith("-")
        words += [] if value is None else [f"{name}={value}"] if dashed else [name, str(value)]
    dashed = any(path.startswith("-") for path in paths)
    return quoted([*words, *(["--"] if dashed else []), *paths])


def show(found: Recommendation) -> None:
    """Print the table of a search and its verdict."""
    from rich.table import Table
    from rich.text import Text

    from visxai.cli import terminal

    console = terminal.output()
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("images", justify="right")
    table.add_column("method", overflow="fold")
    for name in ("mean rank", *found.rows[0].figures, "s a map"):
        table.add_column(name, justify="right", no_wrap=True)
    last = found.rows[0].images
    for row in found.rows:
        if row.images != last:  # ranks compare among those that were judged together
            table.add_row()
        last = row.images
        style = "bold" if row.method == found.best else "" if row.kept else "dim"
        cells = (
            f"{row.place.value:.1f} ±{_half(row.place):.1f}",
            *(f"{one.value:.2f} ±{_half(one):.2f}" for one in row.figures.values()),
            f"{row.seconds:.2g}",
        )
        shown = (str(row.images), for_terminal(row.brief), *cells)
        table.add_row(*(Text(cell, style) for cell in shown))
    console.print(table)
    console.print(
        "\nRank 1 is the best of those judged together, on as many images; ± is half of the 95 % "
        "interval.",
        style="dim",
        soft_wrap=True,
    )
    console.print(
        f"{found.maps} maps in {terminal.duration(found.seconds)}.", style="dim", soft_wrap=True
    )
    for one in found.failed[:5]:
        console.print(f"  [red]failed[/red] {for_terminal(one.reason)}", soft_wrap=True)
    console.print(f"\n{for_terminal(found.describe())}", style="bold", soft_wrap=True)


def _half(interval: Interval) -> float:
    """Return half of an interval's width."""
    return (interval.high - interval.low) / 2
