"""The commands `visxai concepts` and `visxai nearest`: what a model's features say of images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from visxai.cli.base import BatchSize, Checkpoint, Debug, Device, Labels, Layer, ModelName
from visxai.errors import ArgumentError, UnknownName

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


def nearest(
    images: Annotated[
        list[str], typer.Argument(metavar="PATH...", help="The images to find neighbours of.")
    ],
    index: Annotated[
        str,
        typer.Option(
            "--index",
            "-i",
            metavar="FILE",
            help="The .npz file of the training images' features; made where it is missing.",
        ),
    ],
    among: Annotated[
        list[str] | None,
        typer.Option(
            "--among",
            metavar="PATH",
            help="The training images, where the index is to be made; repeat it for more.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        str | None,
        typer.Option(
            "--out",
            "-o",
            metavar="FILE",
            help="The picture: each image, its map and its neighbours. "
            "[dim]\\[default: none][/dim]",
            show_default=False,
        ),
    ] = None,
    model: ModelName = "efficientnet_lite0",
    method: Annotated[
        str, typer.Option("--method", metavar="SPEC", help="The method of the map beside them.")
    ] = "grad_cam",
    count: Annotated[
        int, typer.Option("--count", "-n", metavar="N", min=1, help="Neighbours of each image.")
    ] = 5,
    layer: Layer = None,
    labels: Labels = None,
    checkpoint: Checkpoint = None,
    device: Device = "auto",
    batch_size: BatchSize = None,
    debug: Debug = False,
) -> int:
    """Find the training images that are nearest in the model's own features, beside a map.

    [bold]Examples[/bold]

    visxai nearest wrong.jpg --index train.npz --among train --out nearest.jpg

    visxai nearest doubtful --index train.npz
    """
    from visxai.cli import terminal

    if not Path(index).exists() and not among:
        raise ArgumentError(
            f"expected an index at {index}, or --among with the images to make it of, got neither: "
            "add --among FOLDER"
        )
    if Path(index).exists() and among:
        raise ArgumentError(
            f"expected --among only where the index is to be made, but {index} is there: leave "
            "--among out, or delete the file to make it anew"
        )
    with terminal.working("Loading PyTorch"):
        import visxai
        from visxai import nearest as search
        from visxai.drawing import overlays
        from visxai.engine.given import list_images

    engine = visxai.Engine(
        model,
        labels=labels,
        checkpoint=checkpoint,
        layer=layer,
        device=device,
        batch_size=batch_size,
    )
    if among:
        with terminal.working("Reading the training images"):
            made = search.index(engine, among, on_error="record")
            made.write(index)
        left = f", {len(made.failures)} left out that can't be read" if made.failures else ""
        typer.echo(f"{index}: {len(made)} images{left}")
    else:
        made = search.Index.read(index)
    asked = list_images(images)
    with terminal.working("Looking for neighbours"):
        found = made.nearest(engine, asked, count)
        for one, near in zip(asked, found, strict=True):
            typer.echo(str(one))
            for other in near:
                typer.echo(
                    f"  {other.similarity:.3f}  {other.label} {other.score:.2f}  {other.path}"
                )
        if out is not None:
            explained = engine.explain(asked, method)
            overlays.save(search.sheet(explained, found), out)
    return 0
