"""The command `visxai concepts`, which shows what a layer has learnt to see in a set of images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from visxai.cli.base import BatchSize, Checkpoint, Debug, Device, Labels, Layer, ModelName
from visxai.errors import UnknownName

KINDS = ("factorization", "craft")


def concepts(
    images: Annotated[
        list[str],
        typer.Argument(metavar="PATH...", help="Images, and folders of them."),
    ],
    out: Annotated[
        str,
        typer.Option(
            "--out", "-o", metavar="FOLDER", help="Where the pictures and concepts.json go."
        ),
    ],
    model: ModelName = "efficientnet_lite0",
    by: Annotated[
        str,
        typer.Option(
            "--by",
            metavar="KIND",
            help="factorization: the patterns that the images share. craft: the concepts behind "
            "one class, and what each matters.",
        ),
    ] = "factorization",
    target: Annotated[
        str | None,
        typer.Option(
            "--target",
            "-t",
            metavar="CLASS",
            help="With --by craft: the class, such as class=tabby. "
            "[dim]\\[default: the one seen in most of the images][/dim]",
            show_default=False,
        ),
    ] = None,
    count: Annotated[
        int, typer.Option("--count", "-n", metavar="N", min=1, help="How many concepts.")
    ] = 5,
    layer: Layer = None,
    labels: Labels = None,
    checkpoint: Checkpoint = None,
    device: Device = "auto",
    batch_size: BatchSize = None,
    debug: Debug = False,
) -> int:
    """Show what a layer of the model has learnt to see, several concepts coloured in one picture.

    [bold]Examples[/bold]

    visxai concepts photos --out seen

    visxai concepts terriers --by craft --count 8 --out terriers-seen
    """
    from visxai.cli import terminal

    if by not in KINDS:
        raise UnknownName("kind of concepts", by, KINDS)
    with terminal.working("Loading PyTorch"):
        import visxai
        from visxai import concepts as views
        from visxai import files
        from visxai.drawing import overlays

    with terminal.working("Looking for concepts"):
        engine = visxai.Engine(
            model,
            labels=labels,
            checkpoint=checkpoint,
            layer=layer,
            device=device,
            batch_size=batch_size,
        )
        if by == "craft":
            found = views.craft(engine, images, target=target, count=count)
        else:
            found = views.deep_feature_factorization(engine, images, count=count)
        folder = Path(out)
        with files.one_sentence(f"to write into {folder}", "choose a folder that can be written"):
            folder.mkdir(parents=True, exist_ok=True)
            overlays.save(found.picture(), folder / "concepts.jpg")
            if by == "craft":
                overlays.save(found.examples_sheet(), folder / "examples.jpg")
            files.write(folder / "concepts.json", json.dumps(found.to_dict()))
    typer.echo(found.describe())
    typer.echo(f"{folder / 'concepts.jpg'}, over {len(found.inputs)} images")
    return 0
