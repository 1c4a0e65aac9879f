"""The command `visxai match`: why two pictures match, or a picture and a text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from visxai.cli.base import (
    BatchSize,
    Checkpoint,
    Debug,
    Device,
    Layer,
    ModelName,
    check_specs,
)
from visxai.errors import ArgumentError

if TYPE_CHECKING:
    from visxai.record.image import ImageExplanation


def match(
    first: Annotated[str, typer.Argument(metavar="A", help="A picture.", show_default=False)],
    second: Annotated[
        str | None, typer.Argument(metavar="[B]", help="Another.", show_default=False)
    ] = None,
    text: Annotated[
        list[str] | None,
        typer.Option(
            "--text",
            metavar="TEXT",
            help="A text that the picture is compared with, in place of another picture; repeat it "
            "for more. It needs an image-and-text model, such as "
            "--model hf:openai/clip-vit-base-patch32.",
            show_default=False,
        ),
    ] = None,
    model: ModelName = "efficientnet_lite0",
    method: Annotated[
        str | None,
        typer.Option(
            "--method",
            metavar="SPEC",
            help="[dim]\\[default: occlusion for two pictures, grad_eclip for a text][/dim]",
            show_default=False,
        ),
    ] = None,
    words: Annotated[
        str, typer.Option("--words", metavar="SPEC", help="With --text: the method for the words.")
    ] = "leave_one_out",
    out: Annotated[
        str, typer.Option("--out", "-o", metavar="FOLDER", help="Where pictures and records go.")
    ] = "visxai_match",
    device: Device = "auto",
    batch_size: BatchSize = None,
    layer: Layer = None,
    checkpoint: Checkpoint = None,
    debug: Debug = False,
) -> int:
    """Explain why two pictures match, with a map on each; or a picture and texts.

    A classifier embeds a picture by what enters its last layer.

    [bold]Examples[/bold]

    visxai match A.jpg B.jpg

    visxai match A.jpg B.jpg --model timm:vit_small_patch14_dinov2 --method grad_cam

    visxai match cat.jpg --text "a cat on a sofa" --text "a dog" --model hf:FOLDER
    """
    from visxai import files
    from visxai.cli import terminal

    if (second is None) == (not text):
        raise ArgumentError("expected two pictures, or one picture and --text: give either")
    if text and (layer or checkpoint):
        raise ArgumentError("expected --layer and --checkpoint for two pictures: leave them out")
    wanted = method or ("grad_eclip" if text else "occlusion")
    check_specs([wanted], None)
    records: list[dict[str, Any]] = []
    pictures: list[ImageExplanation] = []
    lines: list[Any] = []
    with terminal.working("Loading the model"):
        import visxai
        from visxai.drawing import overlays

        if text:
            from visxai.matching import Matcher

            matcher = Matcher(model, device=device, batch_size=batch_size)
        else:
            from visxai import similarity

            embedder = similarity.embedder(
                visxai.Engine(
                    model,
                    layer=layer,
                    checkpoint=checkpoint,
                    device=device,
                    precision="fp32",
                    accelerate="off",
                    batch_size=batch_size,
                ),
                layer,
            )
    with terminal.working("Comparing"):
        if text:
            for found in matcher.explain(first, text, wanted, words):
                lines += [found.describe(), found.words.terminal()]
                pictures.append(found.image)
                records += [found.image.to_dict(), found.words.to_dict()]
        else:
            pictures = similarity.explain(embedder, first, second, wanted).explained
            lines += [one.describe() for one in pictures]
            records += [one.to_dict() for one in pictures]
    folder = Path(out).absolute()
    with files.one_sentence(f"to write {out}", "name another folder"):
        folder.mkdir(parents=True, exist_ok=True)
        for number, one in enumerate(pictures, 1):
            overlays.save(one.panel(), folder / f"{number:02}.jpg")
        files.write(folder / "match.json", json.dumps(records, indent=2) + "\n")
    console = terminal.output()
    for line in lines:
        console.print(line, soft_wrap=True, markup=False)
    console.print(f"Pictures and records: {terminal.placed(folder)}", soft_wrap=True)
    return 0
