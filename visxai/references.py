"""What an explanation refers to: its input, where that lies on the original, and its model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, Self

from visxai.errors import ArgumentError

MAX_PIXELS = 2**30  # of an original, over which maps are laid: what a record may ask of memory


@dataclass(frozen=True)
class Transform:
    """How the upright original became the model's input.

    resized: (width, height) of the whole image after the resize; crop: (left, top, width,
    height) of the model's view in resized pixels, which may reach outside (padding);
    orientation: the file's EXIF orientation (1 to 8), already undone in the upright image;
    assumed: the preprocessing was opaque, and the view is taken to be the whole image.
    """

    resized: tuple[int, int]
    crop: tuple[int, int, int, int]
    orientation: int = 1
    assumed: bool = False

    def to_dict(self) -> dict[str, Any]:
        return {
            "resized": list(self.resized),
            "crop": list(self.crop),
            "orientation": self.orientation,
            "assumed": self.assumed,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Transform:
        width, height = (int(value) for value in data["resized"])
        left, top, w, h = (int(value) for value in data["crop"])
        if min(width, height, w, h) < 1:
            raise ArgumentError(
                f"expected a view of at least one pixel, got resized {width}x{height} and crop "
                f"{w}x{h}: the record is damaged"
            )
        return cls(
            (width, height), (left, top, w, h), int(data["orientation"]), bool(data["assumed"])
        )


@dataclass(frozen=True)
class ImageRef:
    """An image that was explained.

    Attributes:
        width: Of the upright image, in pixels.
        height: Of the upright image, in pixels.
        transform: How it became the model's input.
        source_sha256: Of the file's bytes, or of the pixels when there was no file.
        path: Where it came from, or None.
    """

    width: int
    height: int
    transform: Transform
    source_sha256: str
    path: str | None = None

    kind: ClassVar[str] = "image"

    def __str__(self) -> str:
        return self.path or f"{self.width}x{self.height} image"

    def to_columns(self) -> dict[str, Any]:
        """Write the columns of a record that describe this input."""
        return {
            "path": self.path,
            "source_sha256": self.source_sha256,
            "width": self.width,
            "height": self.height,
            "transform": self.transform.to_dict(),
        }

    @classmethod
    def from_columns(cls, data: Mapping[str, Any]) -> Self:
        """Read what `to_columns` wrote.

        Raises:
            ArgumentError: For more pixels than a map can be laid over.
        """
        width, height = data["width"], data["height"]
        if not 1 <= width * height <= MAX_PIXELS:
            raise ArgumentError(
                f"expected an original of 1 to {MAX_PIXELS} pixels, got {width}x{height}: the "
                "record is damaged"
            )
        return cls(
            width,
            height,
            Transform.from_dict(data["transform"]),
            data["source_sha256"],
            data["path"],
        )


InputRef = ImageRef  # its name before there were other kinds of input


class Reference(Protocol):
    """What every kind of input says of itself."""

    @property
    def kind(self) -> str:
        """The kind of record: "image"."""

    @property
    def source_sha256(self) -> str:
        """Of the input's bytes."""

    @property
    def path(self) -> str | None:
        """Where the input came from, or None."""

    def to_columns(self) -> dict[str, Any]:
        """Write the columns of a record that describe this input."""

    @classmethod
    def from_columns(cls, data: Mapping[str, Any]) -> Self:
        """Read what `to_columns` wrote."""


@dataclass(frozen=True)
class ModelRef:
    """A model's identity: its name, the sha256 of its weights, and its preprocessing in words."""

    name: str
    weights_sha256: str
    preprocess: str


@dataclass(frozen=True)
class Caption:
    """What stands below the picture of an explanation.

    Attributes:
        label: What was explained.
        score: What the model reports for it.
        method: The method and the model, in words.
        source: The input's name.
    """

    label: str
    score: float
    method: str
    source: str
