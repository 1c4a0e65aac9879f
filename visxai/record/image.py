"""The record of an explained image, and a model's scores for an image."""

from __future__ import annotations

import io
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from visxai.errors import ImageError
from visxai.foreign import shown
from visxai.images.heatmap import Array, PlacedMap, Region
from visxai.labels import label_of
from visxai.record import sentences
from visxai.record.base import Explanation, Picture
from visxai.record.columns import pack, unpack
from visxai.record.segments import Names, Segment, measure, say
from visxai.references import ImageRef, Reference

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL.Image import Image

_GRID = 128  # cells a side on which the regions of a stored record are found


@dataclass(frozen=True, eq=False, repr=False)
class ImageExplanation(Explanation):
    """Why a model gave an image its score for one target.

    The map stays at the method's own resolution, `values` (u, v); `heatmap()`, `regions()`,
    `mask()` and `overlay()` place it on the original's pixels.
    """

    input: ImageRef

    reference: ClassVar[type[ImageRef]] = ImageRef
    axes: ClassVar[str] = "(u, v)"

    def _derived(self) -> dict[str, Any]:
        # A coarse grid serves boxes, and costs a record a millisecond instead of ten.
        # They are those of the map as it is stored, so a record that was read gives the same.
        blob, scale = pack(self.values)
        stored = replace(self.placed, values=unpack(blob, self.values.shape, scale))
        found = stored.regions(3, side=_GRID)
        return {"regions": [{"box": list(one.box), "share": one.share} for one in found]}

    @property
    def placed(self) -> PlacedMap:
        """The map with its place on the original, as the drawing functions take it."""
        return PlacedMap(
            self.values,
            self.input.width,
            self.input.height,
            self.input.transform,
            self.two_sided,
            self.degenerate,
        )

    @property
    def signed(self) -> bool:
        """Whether the map holds evidence against the target."""
        return self.placed.signed

    def heatmap(self, size: tuple[int, int] | None = None, *, stored: bool = False) -> Array:
        """Place the map on the original's pixels, bilinearly between the native cells' centres.

        Args:
            size: (width, height) of the grid that samples the original's area, by default the
                upright image's own pixels, as viewers show it.
            stored: Whether to return the pixels as the file stores them, before EXIF rotation.

        Returns:
            float32 (height, width), NaN outside the model's view.
        """
        return self.placed.on_original(size, stored=stored)

    def seen(self, size: tuple[int, int] | None = None) -> tuple[int, int, int, int]:
        """Find the box (left, top, right, bottom) of the model's view, ends exclusive.

        Args:
            size: (width, height) of the grid whose pixels the box is in, as for `heatmap`.
        """
        return self.placed.seen(size)

    def regions(self, top: int = 3, share: float = 0.5) -> tuple[Region, ...]:
        """Find the connected areas of strongest evidence.

        They are the parts of the smallest area that holds `share` of the positive evidence.

        Args:
            top: The most regions.
            share: Above 0, at most 1.

        Returns:
            The regions, strongest first, in pixels of the upright original.

        Raises:
            ArgumentError: `top` or `share` is out of range.
        """
        return self.placed.regions(top, share)

    def mask(self, share: float = 0.5) -> NDArray[np.bool_]:
        """Find the smallest area that holds a share of the positive evidence.

        Args:
            share: Above 0, at most 1.

        Returns:
            bool (height, width) of the upright original.

        Raises:
            ArgumentError: `share` is out of range.
        """
        return self.placed.mask(share)

    def overlay(self, image: Any = None, **style: Any) -> Image:
        """Draw the map over the original.

        Args:
            image: The original (path, bytes, PIL image or uint8 array); without it the recorded
                path is opened again and must still hold the same bytes.
            **style: The keyword arguments of `visxai.drawing.overlay`.

        Returns:
            A PIL image at the original's upright size.

        Raises:
            ImageError: The original can't be read, has changed, or isn't the explained image.
        """
        from visxai.drawing import overlays

        return overlays.overlay(self.placed, self.original(image), **style)

    def panel(self, image: Any = None, **style: Any) -> Image:
        """Draw photograph, overlay and map side by side over a caption.

        Args:
            image: The original, as for `overlay`.
            **style: The keyword arguments of `visxai.drawing.panel`.

        Raises:
            ImageError: The original can't be read, has changed, or isn't the explained image.
        """
        from visxai.drawing import sheets

        return sheets.panel(self.placed, self.original(image), self.caption, **style)

    def figure(
        self, *, photograph: bool = True, width: float | None = None, **style: Any
    ) -> Figure:
        """Draw photograph and overlay as a matplotlib figure with a colour bar.

        Args:
            photograph: Whether the photograph stands beside the overlay.
            width: The figure's width in inches; None is 2.2 a picture.
            **style: The keyword arguments of `visxai.drawing.overlay`.

        Returns:
            A figure that shows itself in a notebook and is saved by `savefig("figure.pdf")`.

        Raises:
            ImageError: The original can't be read.
            MissingExtra: matplotlib isn't installed.
        """
        from visxai.drawing.figures import Cell, figure

        image = self.original()
        cells = [Cell(image, None, "photograph")] if photograph else []
        title = f"{self.label} {self.score:.2f}"
        return figure([[*cells, Cell(image, self.placed, title)]], width=width, **style)

    def segments(self, segments: Any, names: Names | None = None) -> tuple[Segment, ...]:
        """Share out the positive evidence among the segments of the picture.

        Args:
            segments: (height, width) integers, the segment of each pixel of the upright original at
                any size of the same shape, as a segmentation model gives them; or a function from
                the original, a PIL image, to them.
            names: The segments' names, by their integers; None for "segment 3".

        Returns:
            The segments, the one with the most evidence first: label, share of the positive
            evidence, and share of the picture that it covers.

        Raises:
            ArgumentError: `segments` isn't such an array or function.
            ImageError: A function is given, and the original can't be read.
        """
        return measure(self.placed, segments, names, self.original)

    def describe(self, segments: Any = None, names: Names | None = None) -> str:
        """Say in one plain sentence what the model answered, and where the evidence for it lies.

        Args:
            segments: The picture's segments as for `segments`, to say what the evidence lies on.
            names: Their names.

        Raises:
            ArgumentError: `segments` isn't such an array or function.
        """
        said = sentences.image(self, self.placed)
        found = () if segments is None or self.degenerate else self.segments(segments, names)
        return f"{said[:-1]}; {say(found)}." if found else said

    def _repr_html_(self) -> str:
        """Draw the card that a notebook shows; without its original the map alone."""
        from PIL import Image

        from visxai.drawing import cards, colours, overlays

        placed = self.placed
        scale, said = colours.scale_of(placed), self.describe()
        try:
            image = self.original()
        except ImageError as error:
            side = max(self.input.width, self.input.height) / 448
            size = round(self.input.width / side) or 1, round(self.input.height / side) or 1
            grey = Image.new("RGB", size, (128, 128, 128))
            bare = overlays.overlay(placed, grey, alpha=1.0)
            return cards.card(bare, None, self.caption, scale, f"{said} The photograph: {error}")
        image.thumbnail((1024, 1024))
        return cards.card(image, overlays.overlay(placed, image), self.caption, scale, said)

    def render(self) -> Picture:
        """Draw the overlay as a JPEG."""
        file = io.BytesIO()
        self.overlay().save(file, "JPEG", quality=90)
        return Picture("image/jpeg", file.getvalue())

    @property
    def _source_name(self) -> str:
        return Path(self.input.path).name if self.input.path else "image in memory"

    def original(self, image: Any = None) -> Image:
        """Open the upright RGB original.

        Args:
            image: The original; without it the object that the caller explained, or else the
                recorded path, is opened.

        Raises:
            ImageError: The original can't be read, has changed, or isn't the explained image.
        """
        from visxai.images import decoding

        image = self.original_source() if image is None else image
        photo = decoding.decode(image)
        if image is self.input.path and photo.sha256 != self.input.source_sha256:
            raise ImageError(
                f"{image} has changed since it was explained: pass the original as image=..."
            )
        if photo.image.size != (self.input.width, self.input.height):
            raise ImageError(
                f"expected the explained image of {self.input.width}x{self.input.height} pixels, "
                f"got {photo.image.width}x{photo.image.height}: pass the original"
            )
        return photo.image

    def original_source(self) -> Any:
        """Return what the original can be decoded from: the caller's object, or the recorded path.

        Raises:
            ImageError: The record has neither.
        """
        found = self.source if self.source is not None else self.input.path
        if found is None:
            raise ImageError(
                "expected a record that knows its original, got one without a path: "
                "pass the original as image=..."
            )
        return found


@dataclass(frozen=True, eq=False)
class Prediction:
    """A model's scores for one input.

    Attributes:
        input: The image or text.
        probabilities: float32 (k,), as the model reports its scores.
        class_index: The class with the greatest score.
        label: The label of that class.
        score: The score of that class.
        labels: The labels of all classes, None where the model has none.
    """

    input: Reference
    probabilities: Array
    class_index: int
    label: str
    score: float
    labels: tuple[str, ...] | None = field(default=None, repr=False)

    def __repr__(self) -> str:
        where = str(self.input)
        best = ", ".join(f"{label} {score:.3f}" for label, score in self.top(3))
        return f"<Prediction {shown(where)}: {shown(best)}, of {len(self.probabilities)} classes>"

    def top(self, count: int = 5) -> tuple[tuple[str, float], ...]:
        """List the `count` strongest classes as (label, score), strongest first."""
        order = np.argsort(-self.probabilities, kind="stable")[:count]
        return tuple(
            (label_of(self.labels, int(index)), float(self.probabilities[index])) for index in order
        )
