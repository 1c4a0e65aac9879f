"""Concepts that were found in images, and the pictures of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from visxai.drawing import concepts as drawing
from visxai.drawing import sheets
from visxai.errors import ArgumentError, ImageError
from visxai.images import decoding
from visxai.images.heatmap import PlacedMap
from visxai.references import ImageRef, ModelRef

if TYPE_CHECKING:
    from PIL.Image import Image

Array = NDArray[np.float32]


class Example(NamedTuple):
    """A crop that shows a concept.

    Attributes:
        image: The number of its image.
        box: (left, top, right, bottom) in pixels of the model's input, ends exclusive.
        size: (width, height) of that input.
        strength: How strongly the concept is there.
    """

    image: int
    box: tuple[int, int, int, int]
    size: tuple[int, int]
    strength: float


@dataclass(frozen=True, eq=False, repr=False)
class Concepts:
    """Directions in a layer's channels, how much each matters, and where each is seen.

    Attributes:
        method: What found them, as a spec.
        model: The model.
        layer: The layer.
        label: The class that they explain, None where they explain no class.
        inputs: The n images.
        sources: What the caller gave for each image, None for a path.
        bank: The directions (count, channels), at least 0, of norm 1.
        maps: How strongly each is seen (n, count, u, v), at least 0.
        importance: What each matters (count,): its share of the activation, or its total Sobol
            index of the class's score.
        explained: The share of the layer's squared activation that they explain, at most 1.
        names: A name for each.
        examples: Crops that show each, strongest first; none where no crops were read.
    """

    method: str
    model: ModelRef
    layer: str
    label: str | None
    inputs: tuple[ImageRef, ...]
    sources: tuple[Any, ...]
    bank: Array
    maps: Array
    importance: Array
    explained: float
    names: tuple[str, ...]
    examples: tuple[tuple[Example, ...], ...] = field(default=())

    def __repr__(self) -> str:
        of = f" of “{self.label}”" if self.label else ""
        return f"<Concepts{of}: {len(self)} in {len(self.inputs)} images by {self.method}>"

    def __len__(self) -> int:
        return len(self.bank)

    @property
    def legend(self) -> tuple[str, ...]:
        """A line for each concept: its name, and what it matters."""
        lines = []
        for name, value in zip(self.names, self.importance.tolist(), strict=True):
            what = f"importance {value:.2f}" if self.label else f"{value:.0%} of the activation"
            lines.append(f"{name}, {what}")
        return tuple(lines)

    def placed(self, image: int, concept: int) -> PlacedMap:
        """Place where a concept is seen on an image's original."""
        one = self.inputs[image]
        values = np.ascontiguousarray(self.maps[image, concept])
        return PlacedMap(values, one.width, one.height, one.transform, two_sided=False)

    def original(self, image: int) -> Image:
        """Open the upright original of an image.

        Raises:
            ImageError: It can't be read, or has changed since.
        """
        source, one = self.sources[image], self.inputs[image]
        photo = decoding.decode(one.path or "" if source is None else source)
        if photo.sha256 != one.source_sha256:
            raise ImageError(f"{one} has changed since its concepts were found: find them again")
        return photo.image

    def overlay(self, image: int = 0, only: int | None = None) -> Image:
        """Draw the concepts over an image, a colour each; of more than 7 the first 7.

        Args:
            image: The number of the image.
            only: The number of the one concept to draw; None draws all.

        Raises:
            ArgumentError: There is no such image or concept.
            ImageError: The original can't be read, or has changed since.
        """
        self._check(image, only)
        shown = range(min(len(self), len(drawing.PALETTE)))
        # A concept has one scale in all images: what is faint in one of them looks faint.
        peaks = [float(self.maps[:, one].max()) if only in (None, one) else np.inf for one in shown]
        maps = [self.placed(image, one) for one in shown]
        return drawing.overlay(maps, peaks, self.original(image))

    def picture(self, columns: int = 4, most: int = 12, side: int = 260) -> Image:
        """Draw the first images with their concepts, over a legend of the colours.

        Args:
            columns: Pictures in a row.
            most: The most images.
            side: The longest side of each picture, in pixels.
        """
        drawn = [self.overlay(image) for image in range(min(most, len(self.inputs)))]
        columns = min(columns, len(drawn))
        rows = [drawn[start : start + columns] for start in range(0, len(drawn), columns)]
        if rows:
            from PIL import Image

            blank = Image.new("RGB", (1, 1), (252, 252, 251))
            rows[-1] += [blank] * (columns - len(rows[-1]))
        sheet = sheets.sheet(rows, [""] * columns, [""] * len(rows), cell=side)
        return drawing.with_legend(sheet, self.legend[: len(drawing.PALETTE)])

    def examples_sheet(self, side: int = 150) -> Image:
        """Draw the crops that show each concept, framed in its colour.

        Raises:
            ArgumentError: No crops were read.
            ImageError: An original can't be read, or has changed since.
        """
        from PIL import Image

        most = max(map(len, self.examples), default=0)
        if not most:
            raise ArgumentError(
                "expected concepts with example crops, got none: find them by craft"
            )
        blank = Image.new("RGB", (1, 1), (252, 252, 251))
        rows = []
        for number, found in enumerate(self.examples):
            crops = [drawing.framed(self.crop(one).resize((side, side)), number) for one in found]
            rows.append([*crops, *[blank] * (most - len(crops))])
        names = [line.replace(", ", "\n", 1) for line in self.legend]
        return sheets.sheet(rows, [""] * most, names, cell=side)

    def crop(self, example: Example) -> Image:
        """Cut the pixels of an example out of its original."""
        one, (width, height) = self.inputs[example.image], example.size
        x0, y0, crop_w, crop_h = one.transform.crop
        wide, tall = one.transform.resized
        left, right = ((at * crop_w / width + x0) * one.width / wide for at in example.box[::2])
        top, bottom = ((at * crop_h / height + y0) * one.height / tall for at in example.box[1::2])
        box = tuple(round(side) for side in (left, top, right, bottom))
        return self.original(example.image).crop(box)  # type: ignore[arg-type]

    def describe(self) -> str:
        """Say in one plain sentence what was found."""
        what = f"behind “{self.label}”" if self.label else "in the activations"
        first = ", ".join(
            f"{line.replace(', ', ' (', 1)})" for line in self.legend[: min(3, len(self))]
        )
        return (
            f"{self.model.name} has {len(self)} concepts {what} of {self.layer} that explain "
            f"{self.explained:.0%} of it over {_images(self.inputs)}; the first are {first}."
        )

    def to_dict(self) -> dict[str, Any]:
        """Return what was found as JSON-ready values."""
        return {
            "method": self.method,
            "model": self.model.name,
            "weights_sha256": self.model.weights_sha256,
            "layer": self.layer,
            "label": self.label,
            "explained": self.explained,
            "images": [
                {"path": one.path, "source_sha256": one.source_sha256} for one in self.inputs
            ],
            "concepts": [
                {
                    "name": name,
                    "importance": float(importance),
                    "direction": direction.tolist(),
                    "share_by_image": _shares(self.maps[:, number]),
                    "examples": [one._asdict() for one in self.examples[number]]
                    if self.examples
                    else [],
                }
                for number, (name, importance, direction) in enumerate(
                    zip(self.names, self.importance, self.bank, strict=True)
                )
            ],
        }

    def _check(self, image: int, only: int | None) -> None:
        for what, number, count in (
            ("image", image, len(self.inputs)),
            ("concept", only, len(self)),
        ):
            if number is not None and not 0 <= number < count:
                raise ArgumentError(
                    f"expected the number of an {what} below {count}, got {number}: they are "
                    "counted from 0"
                )


def _images(inputs: Sequence[ImageRef]) -> str:
    return "1 image" if len(inputs) == 1 else f"{len(inputs)} images"


def _shares(maps: Array) -> list[float]:
    """Share out a concept's strength over the images: its sum in each over that in all."""
    sums = maps.sum((1, 2), dtype=np.float64)
    return [float(one) for one in sums / max(float(sums.sum()), 1e-12)]
