"""What an explanation refers to: its input, where that lies on the original, and its model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from visxai.errors import ArgumentError

MAX_PIXELS = 2**30


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
class InputRef:
    """An image: where it came from, its sha256 (of the file's bytes, or of the pixels when there
    was no file), and its upright width and height in pixels."""

    width: int
    height: int
    transform: Transform
    source_sha256: str
    path: str | None = None


@dataclass(frozen=True)
class ModelRef:
    """A model's identity: its name, the sha256 of its weights, and its preprocessing in words."""

    name: str
    weights_sha256: str
    preprocess: str
