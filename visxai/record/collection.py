"""The explanations of one call: a list that notebooks show as cards and that draws one figure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from visxai.errors import ArgumentError, Failure
from visxai.record.image import ImageExplanation

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST = 24  # cards shown at once: each embeds two pictures


class Explanations(list["ImageExplanation | Failure"]):
    """A list of explanations, and failures among them, as `Engine.explain` returns it.

    It is an ordinary list; a slice of it is one too.
    """

    @property
    def explained(self) -> list[ImageExplanation]:
        """The explanations, without the failures."""
        return [one for one in self if isinstance(one, ImageExplanation)]

    def _repr_html_(self) -> str:
        from visxai.drawing.cards import cards

        found, told = self.explained, []
        if len(found) > _MOST:
            told.append(f"The first {_MOST} of {len(found)} explanations.")
        told += [f"Failed: {one.reason}" for one in self if isinstance(one, Failure)]
        return cards((one._repr_html_() for one in found[:_MOST]), " ".join(told))

    def show(self) -> None:
        """Show the explanations in a notebook; elsewhere open them as one page in the browser.

        Raises:
            ArgumentError: The system has no browser.
        """
        from visxai.record import showing

        if showing.in_notebook():
            showing.display(self)
        else:
            page = f'<!doctype html><meta charset="utf-8"><title>visxai</title>{self._repr_html_()}'
            showing.open_file(page.encode(), "text/html")

    def figure(
        self, *, photograph: bool = True, width: float | None = None, **style: Any
    ) -> Figure:
        """Draw the explanations side by side as one matplotlib figure.

        A row is an image (or one class of it), a column a method, layer or model; what columns
        differ in is written above them, and label and score above each overlay.

        Args:
            photograph: Whether the first column shows the photographs.
            width: The figure's width in inches; None is 2.2 a column.
            **style: The keyword arguments of `visxai.drawing.overlay`.

        Returns:
            A figure that shows itself in a notebook and is saved by `savefig("figure.pdf")`.

        Raises:
            ArgumentError: There is no explanation.
            ImageError: An original can't be read.
            MissingExtra: matplotlib isn't installed.
        """
        from visxai.drawing.figures import Cell, figure

        found = self.explained
        if not found:
            raise ArgumentError("expected an explanation to draw, got none: explain an image first")
        columns: dict[tuple[str, str, str], None] = {}
        rows: dict[tuple[str, str | None, int], dict[tuple[str, str, str], ImageExplanation]] = {}
        for one in found:
            column = (one.method, one.layer or "", f"{one.model.name}\n{one.model.weights_sha256}")
            columns.setdefault(column)
            turn = 0  # which class of the image this is, in this column
            while column in rows.setdefault((one.input.source_sha256, one.input.path, turn), {}):
                turn += 1
            rows[one.input.source_sha256, one.input.path, turn][column] = one
        cells: list[list[Cell | None]] = []
        for row in rows.values():
            image = next(iter(row.values())).original()
            drawn: list[Cell | None] = [Cell(image, None, "")] if photograph else []
            for column in columns:
                here = row.get(column)
                title = "" if here is None else f"{here.label} {here.score:.2f}"
                drawn.append(None if here is None else Cell(image, here.placed, title))
            cells.append(drawn)
        names = (["photograph"] if photograph else []) + _names(list(columns))
        return figure(cells, names, width=width, **style)


def _names(columns: list[tuple[str, str, str]]) -> list[str]:
    """Name columns by as little as tells them apart: method, layer, model, or several of these."""
    short = [
        (method.partition("(")[0], layer, model.partition("\n")[0])
        for method, layer, model in columns
    ]
    for parts in ((0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (0, 1, 2)):
        names = [" · ".join(filter(None, (one[at] for at in parts))) for one in short]
        if len(set(names)) == len(names) and all(names):
            return names
    return [
        " · ".join(filter(None, (one[0], *rest[1:])))
        for one, rest in zip(columns, short, strict=True)
    ]
