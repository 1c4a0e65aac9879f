"""The command `visxai hello`, which explains the photograph that comes with visxai."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from visxai.cli.base import Debug

if TYPE_CHECKING:
    from PIL.Image import Image
    from rich.text import Text

_WIDTH = 72  # the most columns of the picture in the terminal


def hello(
    out: Annotated[
        str, typer.Option("--out", "-o", metavar="FILE", help="The picture: .jpg, .png or .webp.")
    ] = "visxai_hello.jpg",
    debug: Debug = False,
) -> int:
    """Explain a photograph that comes with visxai: does everything work, and what is a map?"""
    from visxai.cli import terminal

    with terminal.working("Explaining a photograph"):
        from visxai.drawing import overlays
        from visxai.engine.engine import Engine
        from visxai.images.example import PHOTOGRAPH
        from visxai.record.image import ImageExplanation

        found = Engine().explain(PHOTOGRAPH)[0]
        assert isinstance(found, ImageExplanation)
        overlays.save(found.panel(), out)
    console = terminal.output()
    if console.is_terminal and console.color_system in ("truecolor", "256"):
        console.print(blocks(found.overlay(boxes=1), min(_WIDTH, console.width)))
    console.print(found.describe(), soft_wrap=True, markup=False)
    console.print(f"Photograph, overlay and map: {terminal.placed(out)}", soft_wrap=True)
    console.print("Next: visxai explain YOUR.jpg, or visxai explain FOLDER --out results")
    return 0


def blocks(image: Image, width: int) -> Text:
    """Draw a picture in characters, each the upper and the lower of two pixels.

    Args:
        image: The picture.
        width: Its width in columns.
    """
    from rich.text import Text

    height = max(2, round(image.height * width / image.width) // 2 * 2)
    small = image.convert("RGB").resize((width, height))
    drawn = Text()
    for row in range(0, height, 2):
        for column in range(width):
            upper, lower = (
                "#{:02x}{:02x}{:02x}".format(*small.getpixel((column, row + below)))  # type: ignore[misc]
                for below in (0, 1)
            )
            drawn.append("▀", f"{upper} on {lower}")
        drawn.append("\n")
    return drawn
