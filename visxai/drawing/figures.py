"""Figures for papers and notebooks: overlays side by side with colour bars, by matplotlib.

Text stays text in PDF and SVG. A figure belongs to no window and no backend: it shows itself in a
notebook, and `savefig` writes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from visxai.drawing import overlays
from visxai.drawing.colours import Scale, lut, scale_of
from visxai.errors import ArgumentError, require
from visxai.images.heatmap import PlacedMap

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SIDE = 800  # the most pixels a side of a picture: 350 dots an inch at the usual width
_LINE = 2.2  # the width of a picture in inches, which leaves three of them on a page
_LONGEST = 34  # characters of a title's line


@dataclass(frozen=True)
class Cell:
    """A picture of a figure.

    Attributes:
        image: The upright photograph.
        placed: The map to draw over it, None for the photograph alone.
        title: What stands above it.
    """

    image: Image.Image
    placed: PlacedMap | None
    title: str = ""


def figure(
    rows: Sequence[Sequence[Cell | None]],
    columns: Sequence[str] = (),
    *,
    width: float | None = None,
    **style: Any,
) -> Figure:
    """Draw photographs and overlays in rows, with a colour bar for each scale among them.

    Args:
        rows: The pictures, all rows equally long; None leaves a place empty.
        columns: Names above the columns.
        width: The figure's width in inches; None is 2.2 a column and room for the bars.
        **style: The keyword arguments of `visxai.drawing.overlay`.

    Returns:
        A matplotlib figure: `figure(...).savefig("figure.pdf")`.

    Raises:
        ArgumentError: There is nothing to draw, or rows differ in length.
        MissingExtra: matplotlib isn't installed.
    """
    require("matplotlib", "figures", "a figure")
    from matplotlib import rc_context

    longest = len(rows[0]) if rows else 0
    if not longest or any(len(row) != longest for row in rows):
        raise ArgumentError(
            f"expected rows of equally many pictures, got {[len(row) for row in rows]}: leave "
            "places empty with None"
        )
    with rc_context({"pdf.fonttype": 42, "svg.fonttype": "none", "font.size": 9}):
        return _drawn(rows, columns, width, style)


def _drawn(
    rows: Sequence[Sequence[Cell | None]],
    columns: Sequence[str],
    width: float | None,
    style: dict[str, Any],
) -> Figure:
    cells = [cell for row in rows for cell in row if cell is not None]
    maps = [cell.placed for cell in cells if cell.placed is not None]
    scales = list(dict.fromkeys(scale_of(one, style.get("colormap")) for one in maps))
    width = width or _LINE * len(rows[0]) + 0.7 * len(scales)
    column = (width - 0.7 * len(scales)) / len(rows[0])
    tallest = [
        max((c.image.height / c.image.width for c in row if c is not None), default=1.0)
        for row in rows
    ]
    height = sum(column * one + 0.36 for one in tallest) + (0.25 if columns else 0)
    made: Figure = _figure_class()(figsize=(width, height), dpi=110, layout="constrained")
    grid = made.subplots(
        len(rows), len(rows[0]), squeeze=False, gridspec_kw={"height_ratios": tallest}
    )
    for place, row in enumerate(rows):
        for axes, cell in zip(grid[place], row, strict=True):
            axes.set_axis_off()
            if cell is not None:
                axes.imshow(np.asarray(_picture(cell, style)), interpolation="antialiased")
                axes.set_title(_shortened(cell.title), fontsize=8, pad=3)
    for axes, name in zip(grid[0], columns, strict=False):
        # Above the title, at a distance in points that no figure's size changes.
        axes.annotate(
            _shortened(name),
            (0.5, 1),
            (0, 15),
            xycoords="axes fraction",
            textcoords="offset points",
            ha="center",
            va="bottom",
            fontsize=9,
            fontweight="bold",
            in_layout=True,
        )
    for scale in scales:
        _bar(made, scale, grid)
    return made


def _picture(cell: Cell, style: dict[str, Any]) -> Image.Image:
    image = cell.image.convert("RGB")
    image.thumbnail((_SIDE, _SIDE), Image.Resampling.LANCZOS)
    return image if cell.placed is None else overlays.overlay(cell.placed, image, **style)


def _bar(made: Any, scale: Scale, grid: Any) -> None:
    """Add the colour bar of a scale to the right of all pictures."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import ListedColormap, Normalize

    norm = Normalize(-1 if scale.symmetric else 0, 1)
    shades = ScalarMappable(norm, ListedColormap(lut(scale.colormap) / 255))
    bar = made.colorbar(shades, ax=grid, fraction=0.04, pad=0.02, aspect=28)
    ticks = {norm.vmin: scale.ends[0], norm.vmax: scale.ends[1].replace(" ", "\n")}
    if scale.symmetric:
        ticks[0] = "0"
    bar.set_ticks(list(ticks), labels=list(ticks.values()))
    bar.ax.tick_params(labelsize=8, length=2)
    bar.outline.set_visible(False)


def _shortened(text: str) -> str:
    # A dollar sign would begin mathematics, in which a label is no valid text.
    told = text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
    return "".join(c if c.isprintable() else " " for c in told).replace("$", r"\$")


def _figure_class() -> Any:
    """Return a class of figures that notebooks show although no window and no pyplot knows them."""
    from matplotlib.figure import Figure

    class Shown(Figure):
        def _repr_png_(self) -> bytes:
            import io

            file = io.BytesIO()
            self.savefig(file, format="png", bbox_inches="tight")
            return file.getvalue()

    return Shown
