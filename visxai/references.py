"""What an explanation refers to: its input, the model's view of that input, and the model."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, Self

from visxai.errors import ArgumentError

MAX_PIXELS = 2**30  # the largest original, as a record may come from a stranger


@dataclass(frozen=True)
class Transform:
    """How the upright original became the model's input.

    Attributes:
        resized: (width, height) in pixels of the whole image after the resize.
        crop: (left, top, width, height) of the model's view in resized pixels; it may reach outside
            the image, where padding lies.
        orientation: The file's EXIF orientation (1 to 8), already undone in the upright image.
        assumed: Whether the view is assumed to be the whole image, as the preprocessing is opaque.
    """

    resized: tuple[int, int]
    crop: tuple[int, int, int, int]
    orientation: int = 1
    assumed: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain values, ready for JSON."""
        return {
            "resized": list(self.resized),
            "crop": list(self.crop),
            "orientation": self.orientation,
            "assumed": self.assumed,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Transform:
        """Read what `to_dict` wrote.

        Raises:
            ArgumentError: A side of the image or of the view is smaller than one pixel.
        """
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
    """An explained image.

    Attributes:
        width: Width of the upright image, in pixels.
        height: Height of the upright image, in pixels.
        transform: How the upright image became the model's input.
        source_sha256: SHA-256 (hex) of the file's bytes, or of the pixels where there was no file.
        path: The image's address, None for an image in memory.
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
        """Return the columns of a record that describe this input."""
        return {
            "path": self.path,
            "source_sha256": self.source_sha256,
            "width": self.width,
            "height": self.height,
            "transform": self.transform.to_dict(),
        }

    @classmethod
    def from_columns(cls, data: Mapping[str, Any]) -> Self:
        """Read what `to_columns` returned.

        Raises:
            ArgumentError: The image has no pixels, or more than a map can be laid over.
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


MAX_CHARACTERS = 2**24  # the longest text of a record, as a record may come from a stranger


@dataclass(frozen=True)
class TextRef:
    """An explained text.

    Attributes:
        text: The text as the model was given it.
        spans: (start, end) of each word in characters of the text, end exclusive, ascending; words
            don't overlap.
        source_sha256: SHA-256 (hex) of the text in UTF-8.
        path: The text's address, such as "comments.csv#row=12", None for a text in memory.
    """

    text: str
    spans: tuple[tuple[int, int], ...]
    source_sha256: str
    path: str | None = None

    kind: ClassVar[str] = "text"

    def __str__(self) -> str:
        return self.path or f"text of {len(self.text)} characters"

    @property
    def words(self) -> tuple[str, ...]:
        """The words of the text, in order."""
        return tuple(self.text[start:end] for start, end in self.spans)

    def to_columns(self) -> dict[str, Any]:
        """Return the columns of a record that describe this input."""
        return {
            "path": self.path,
            "source_sha256": self.source_sha256,
            "text": self.text,
            "spans": [place for span in self.spans for place in span],
        }

    @classmethod
    def from_columns(cls, data: Mapping[str, Any]) -> Self:
        """Read what `to_columns` returned.

        Raises:
            ArgumentError: The text is too long, or the words don't lie in it one after another.
        """
        text, flat = data["text"], [int(place) for place in data["spans"]]
        starts, ends = flat[::2], flat[1::2]
        inside = all(a < b for a, b in zip(starts, ends, strict=False)) and all(
            a <= b for a, b in zip([0, *ends], [*starts, len(text)], strict=False)
        )
        if len(text) > MAX_CHARACTERS or len(flat) % 2 or not inside:
            raise ArgumentError(
                f"expected a text of at most {MAX_CHARACTERS} characters with its words one after "
                "another, got other spans: the record is damaged"
            )
        spans = tuple(zip(starts, ends, strict=True))
        return cls(text, spans, data["source_sha256"], data["path"])


InputRef = ImageRef  # the earlier name, from before there were other kinds of input


Cell = float | int | bool | str | None  # one value of a table


@dataclass(frozen=True)
class RowRef:
    """An explained row of a table.

    Attributes:
        features: The names of the features that the model scores, in order.
        data: The row's values of these features, in order; None where a value is missing.
        row: The row's position in the table, from 0.
        path: The table's path, None for a table in memory.
    """

    features: tuple[str, ...]
    data: tuple[Cell, ...]
    row: int = 0
    path: str | None = None

    kind: ClassVar[str] = "table"

    def __str__(self) -> str:
        return f"{self.path or 'table in memory'}, row {self.row}"

    @property
    def source_sha256(self) -> str:
        """The SHA-256 (hex) of the row's JSON: its features' names and values, without spaces."""
        text = json.dumps([self.features, self.data], ensure_ascii=False, separators=(",", ":"))
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()

    def to_columns(self) -> dict[str, Any]:
        """Return the columns of a record that describe this input."""
        return {
            "path": self.path,
            "source_sha256": self.source_sha256,
            "row": self.row,
            "features": list(self.features),
            "data": list(self.data),
        }

    @classmethod
    def from_columns(cls, data: Mapping[str, Any]) -> Self:
        """Read what `to_columns` returned.

        Raises:
            ArgumentError: The names and values don't pair up, or aren't those of the hash.
        """
        found = cls(tuple(data["features"]), tuple(data["data"]), int(data["row"]), data["path"])
        if len(found.features) != len(found.data):
            raise ArgumentError(
                f"expected a value for each of {len(found.features)} features, got "
                f"{len(found.data)}: the record is damaged"
            )
        if found.source_sha256 != data["source_sha256"]:
            raise ArgumentError(
                "expected a row's values with the SHA-256 of their record, got others: the record "
                "is damaged or was altered"
            )
        return found


@dataclass(frozen=True)
class PairRef:
    """An explained image and the text that belongs to it.

    Attributes:
        image: The image.
        text: The text.
        path: The pair's address, such as "posts.csv#row=12", None for a pair in memory.
    """

    image: ImageRef
    text: TextRef
    path: str | None = None

    kind: ClassVar[str] = "pair"

    def __str__(self) -> str:
        return self.path or f"{self.image} with {self.text}"

    @property
    def source_sha256(self) -> str:
        """The SHA-256 (hex) of both parts' SHA-256, the image's first, as text without a gap."""
        both = self.image.source_sha256 + self.text.source_sha256
        return hashlib.sha256(both.encode()).hexdigest()

    def to_columns(self) -> dict[str, Any]:
        """Return the columns of a record that describe this input; its parts are records."""
        return {"path": self.path, "source_sha256": self.source_sha256}

    @classmethod
    def from_columns(cls, data: Mapping[str, Any]) -> Self:
        """Read the references of a pair's record, whose parts are records as well.

        Raises:
            ArgumentError: A part is damaged, or the parts aren't those of the hash.
        """
        try:
            image = ImageRef.from_columns(data["image"])
            text = TextRef.from_columns(data["text"])
        except (KeyError, TypeError, ValueError) as error:
            raise ArgumentError(
                "expected a pair's record with the records of an image and of a text, got "
                f"something else ({error!r}): the record is damaged"
            ) from None
        found = cls(image, text, data["path"])
        if found.source_sha256 != data["source_sha256"]:
            raise ArgumentError(
                "expected an image and a text with the SHA-256 of their record, got others: the "
                "record is damaged or was altered"
            )
        return found


class Reference(Protocol):
    """The interface that every kind of input implements."""

    @property
    def kind(self) -> str:
        """The kind of record, such as "image"."""

    @property
    def source_sha256(self) -> str:
        """The SHA-256 (hex) of the input's bytes."""

    @property
    def path(self) -> str | None:
        """The input's address, None for an input in memory."""

    def to_columns(self) -> dict[str, Any]:
        """Return the columns of a record that describe this input."""

    @classmethod
    def from_columns(cls, data: Mapping[str, Any]) -> Self:
        """Read what `to_columns` returned."""


@dataclass(frozen=True)
class ModelRef:
    """The identity of a model.

    Attributes:
        name: The model's name.
        weights_sha256: SHA-256 (hex) of the weights.
        preprocess: The preprocessing in words.
    """

    name: str
    weights_sha256: str
    preprocess: str


@dataclass(frozen=True)
class Caption:
    """The caption below an explanation's picture.

    Attributes:
        label: The name of what was explained.
        score: The score that the model reports for it.
        method: The method and the model, in words.
        source: The input's name.
    """

    label: str
    score: float
    method: str
    source: str
