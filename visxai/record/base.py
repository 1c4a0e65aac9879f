"""The record of one explanation: what was explained, by which model and method, and the map.

A record is frozen and made of NumPy arrays and plain values: it needs neither torch nor the
original file. `Explanation` holds the fields that every kind of input shares; its subclass for a
kind of input adds how the map is placed and drawn.
"""

from __future__ import annotations

import base64
import importlib
import zlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from functools import cache
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from visxai.errors import ArgumentError
from visxai.record import version1
from visxai.record.columns import READABLE, SCHEMA_VERSION, columns, pack, unpack
from visxai.record.scores import Ranked
from visxai.references import Caption, ModelRef, Reference
from visxai.schemas import mismatch

# The kinds of record and the modules that define them, loaded when a record of that kind is read.
_KINDS = {
    "image": ("visxai.record.image", "ImageExplanation"),
    "pair": ("visxai.record.pair", "PairExplanation"),
    "table": ("visxai.record.table", "TableExplanation"),
    "text": ("visxai.record.text", "TextExplanation"),
}


class Picture(NamedTuple):
    """A drawn explanation.

    Attributes:
        media_type: The format, such as "image/jpeg".
        data: The bytes of the file.
    """

    media_type: str
    data: bytes


@dataclass(frozen=True, eq=False)
class Explanation(ABC):
    """Why a model gave an input its score for one target.

    Attributes:
        input: The input that was explained.
        model: The model that gave the score.
        values: float32, the method's native map, unscaled: (u, v) for an image, (features,) for a
            table's row, (words,) for a text, (2,) for an image with a text.
        method: The method's spec.
        target: The target as the caller wrote it.
        class_index: The explained class, None for a set of classes or a function of the scores.
        label: The name of what was explained.
        score: The score that the model reports: a probability for softmax and sigmoid models.
        logit: The scalar that the map explains.
        layer: The layer that the map comes from, None for methods without a layer.
        device: The device that the model ran on.
        precision: fp32, bf16 or fp16.
        accelerate: The prepared form of the model that ran, or "off".
        two_sided: Whether maps of the method can hold evidence against the target.
        degenerate: Whether the map holds no information: it is flat, or was not finite.
        quality: Figures such as completeness, evaluations and converged, by name.
        versions: Versions of the software, by name.
        created: The time when the map was made, UTC.
        seconds: This map's share of its batch's time, without preparing a faster form of the model,
            which happens once a process.
        id: The caller's own identifier of the input, None without one.
        top_scores: The classes with the greatest scores, greatest first; empty where they weren't
            kept.
        source: The object that the caller passed where it wasn't a path; without it such an
            original can't be opened again.
    """

    input: Reference
    model: ModelRef
    values: NDArray[np.float32]
    method: str
    target: str
    class_index: int | None
    label: str
    score: float
    logit: float
    layer: str | None = None
    device: str = "cpu"
    precision: str = "fp32"
    accelerate: str = "off"
    two_sided: bool = True
    degenerate: bool = False
    quality: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    created: str = ""
    seconds: float = 0.0
    id: str | None = None
    top_scores: tuple[Ranked, ...] = ()
    source: Any = field(default=None, repr=False)

    reference: ClassVar[type[Reference]]  # the class of `input`
    axes: ClassVar[str]  # the axes of the map in words: "(u, v)"

    def __post_init__(self) -> None:
        """Make the map a read-only float32 array; raise ArgumentError for a wrong shape."""
        values = np.ascontiguousarray(self.values, dtype=np.float32)
        if values.ndim != len(self.axes.split(",")):
            raise ArgumentError(
                f"expected a map of shape {self.axes}, got {values.shape}: pass one map an "
                "explanation"
            )
        values.setflags(write=False)
        object.__setattr__(self, "values", values)

    def __repr__(self) -> str:
        return f"<Explanation {self.input}: {self.label} {self.score:.3f} by {self.method}>"

    @property
    def kind(self) -> str:
        """The kind of the input, such as "image"."""
        return self.input.kind

    @property
    def caption(self) -> Caption:
        """The caption below a picture of this explanation."""
        return Caption(
            self.label, self.score, f"{self.method}  ·  {self.model.name}", self._source_name
        )

    @property
    @abstractmethod
    def _source_name(self) -> str:
        """The input's name in a caption."""

    @abstractmethod
    def render(self) -> Picture:
        """Draw the explanation as a single picture that a page can show."""

    @abstractmethod
    def describe(self) -> str:
        """Say in one plain sentence what the model answered, and what for."""

    def show(self) -> None:
        """Show the explanation in a notebook; elsewhere open it in the system's viewer.

        Raises:
            ArgumentError: The system has no viewer.
        """
        from visxai.record import showing

        if showing.in_notebook():
            showing.display(self)
        else:
            drawn = self.render()
            showing.open_file(drawn.data, drawn.media_type)

    def _derived(self) -> dict[str, Any]:
        """Return the columns of a record that follow from its map."""
        return {}

    def row(self) -> dict[str, Any]:
        """Return the record as one flat row of plain values, with the map as bytes (see `pack`)."""
        blob, scale = pack(self.values, self.kind)
        known: dict[str, Any] = {
            **self.input.to_columns(),
            **self._derived(),
            "top_scores": [one._asdict() for one in self.top_scores],
            "model": self.model.name,
            "weights_sha256": self.model.weights_sha256,
            "preprocess": self.model.preprocess,
            "versions": dict(self.versions),
            "map": blob,
            "map_shape": list(self.values.shape),
            "map_scale": scale,
            "quality": dict(self.quality),
            "schema_version": SCHEMA_VERSION,
        }
        return {
            name: known[name] if name in known else getattr(self, name)
            for name in (one.name for one in columns(self.kind))
        }

    def to_dict(self) -> dict[str, Any]:
        """Return the record as JSON-ready values, as `schema()` describes; the map is base64."""
        row = self.row()
        row["map"] = base64.b64encode(row["map"]).decode("ascii")
        return row

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read what `to_dict` or `row` returned, in this or an earlier schema version.

        Args:
            data: The record.

        Returns:
            The explanation, of the class for its kind; an image's map has float16 precision.

        Raises:
            ArgumentError: The schema version or the kind can't be read, the kind isn't this
                class's, or the record is damaged.
        """
        known = _checked(data)
        module, name = _KINDS[known["kind"]]
        found = getattr(importlib.import_module(module), name)
        if not issubclass(found, cls):
            raise ArgumentError(
                f"expected a record for {cls.__name__}, got one of kind {known['kind']!r}"
            )
        version = known["schema_version"]
        plain = {name: known[name] for name in _plain_fields(found, version) if name in known}
        if "top_scores" in plain:
            plain["top_scores"] = tuple(Ranked(**one) for one in plain["top_scores"])
        if version == 1:
            plain["two_sided"] = version1.is_two_sided(known["method"])
        made: Self = found(
            input=found.reference.from_columns(known),
            model=ModelRef(known["model"], known["weights_sha256"], known["preprocess"]),
            values=_map_of(known),
            quality=dict(known["quality"]),
            versions=dict(known["versions"]),
            **plain,
        )
        return made


def _checked(data: Any) -> dict[str, Any]:
    """Return the fields of a record, with None where a table of pandas has NaN.

    Fields with a default may be absent, and unknown fields are ignored.

    Raises:
        ArgumentError: The schema version can't be read, or a field is missing, of another type or
            out of range. Records come from strangers too.
    """
    plain = dict(data) if isinstance(data, Mapping) else {}
    version, kind = plain.get("schema_version", READABLE[-1]), plain.get("kind", "image")
    if version not in READABLE:
        raise ArgumentError(
            f"expected a record of schema version {' or '.join(map(str, READABLE))}, got "
            f"{version!r}: read it with the visxai that wrote it"
        )
    known = isinstance(kind, str) and kind in _KINDS
    expected = _readable(kind if known else "image", int(version))
    for name, about in expected["properties"].items():
        value = plain.get(name)
        if "null" in about.get("type", ()) and value != value:
            plain[name] = None
    wrong = mismatch(plain, expected)
    if wrong is not None:
        raise ArgumentError(
            "expected a record as visxai.record.schema() describes it, got one with "
            f"{wrong or 'no fields'} missing or wrong: the record is damaged, fetch it again"
        )
    return plain


@cache
def _plain_fields(kind: type[Explanation], version: int) -> tuple[str, ...]:
    """List the fields that a record of a schema version holds as they are."""
    later = {one.name for one in columns(kind.reference.kind) if one.since > version}
    apart = later | {"model", "quality", "versions", "source"}
    return tuple(one.name for one in fields(kind) if one.name not in apart)


@cache
def _readable(kind: str, version: int) -> dict[str, Any]:
    """Make the schema that a record must keep to be read.

    It leaves the map out: a stored row holds bytes, and JSON has text.
    """
    optional = {item.name for item in fields(Explanation) if item.default is not MISSING}
    found = [one for one in columns(kind) if one.since <= version and one.name != "map"]
    properties = {one.name: one.json for one in found}
    properties["schema_version"] = {"const": version}
    required = [one.name for one in found if one.name not in optional]
    return {"type": "object", "properties": properties, "required": required}


def _map_of(data: Mapping[str, Any]) -> NDArray[np.float32]:
    """Unpack the map of a record's or a row's fields; raise ArgumentError where it is damaged."""
    blob = data.get("map")
    try:
        packed = base64.b64decode(blob) if isinstance(blob, str) else bytes(memoryview(blob))  # type: ignore[arg-type]
        return unpack(packed, data["map_shape"], data["map_scale"], data.get("kind", "image"))
    except ArgumentError:
        raise
    except (ValueError, zlib.error, TypeError) as error:  # ValueError: invalid base64
        raise ArgumentError(
            f"expected a map as visxai packs it, got something else ({error}): the record is "
            "damaged, fetch it again"
        ) from None
