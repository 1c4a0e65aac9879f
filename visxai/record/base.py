"""The record of one explanation: the map, what it explains, and where it lies on the original.

Frozen, made of numpy arrays and plain values: it needs neither torch nor the file it came from.
Maps stay at the method's own resolution; `heatmap()` places them on the original's pixels.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from visxai.errors import ArgumentError, ImageError
from visxai.images import heatmap
from visxai.record.columns import SCHEMA_VERSION, pack, schema, unpack
from visxai.references import MAX_PIXELS, InputRef, ModelRef, Transform
from visxai.schemas import mismatch

if TYPE_CHECKING:
    from PIL.Image import Image

    from visxai.images.heatmap import Array, Region

# EXIF orientations as (transpose first, flip rows, flip columns), from stored to upright pixels.
_ORIENTATIONS = {
    1: (False, False, False),
    2: (False, False, True),
    3: (False, True, True),
    4: (False, True, False),
    5: (True, False, False),
    6: (True, False, True),
    7: (True, True, True),
    8: (True, True, False),
}


@dataclass(frozen=True, eq=False)
class Explanation:
    """Why a model gave an image its score for one target.

    values: float32 (u, v), the method's native map, unscaled. class_index and label name the
    class explained (None for a callable target). score is what the model reports (probability
    for softmax and sigmoid models), logit the scalar that was explained. quality holds figures
    such as completeness, evaluations and converged. seconds is this image's share of its batch;
    preparing a faster form of the model, once a process, is left out.
    """

    input: InputRef
    model: ModelRef
    values: Array
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
    degenerate: bool = False
    quality: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    created: str = ""
    seconds: float = 0.0
    kind: str = "image"
    # What the caller passed, when it wasn't a path: the original can't be opened again otherwise.
    source: Any = field(default=None, repr=False)

    def __post_init__(self) -> None:
        values = np.ascontiguousarray(self.values, dtype=np.float32)
        if values.ndim != 2:
            raise ArgumentError(
                f"expected a map of shape (u, v), got {values.shape}: pass one map an explanation"
            )
        values.setflags(write=False)
        object.__setattr__(self, "values", values)

    def __repr__(self) -> str:
        where = self.input.path or f"{self.input.width}x{self.input.height} image"
        return f"<Explanation {where}: {self.label} {self.score:.3f} by {self.method}>"

    @property
    def signed(self) -> bool:
        """Whether the map holds evidence against the target too."""
        return bool((self.values < 0).any())

    def heatmap(self, size: tuple[int, int] | None = None, *, stored: bool = False) -> Array:
        """The map on the original image's pixels: float32 (H, W), NaN where the model never looked.

        Bilinear between the centres of the native cells. H and W are the upright image's (as
        viewers show it); `stored=True` gives the pixels as the file stores them, before EXIF
        rotation. `size` (width, height) samples the same area on a smaller or larger grid.
        """
        width, height = size or (self.input.width, self.input.height)
        xs, ys = self._view(width, height)
        crop_w, crop_h = self.input.transform.crop[2:]
        rows, columns = self.values.shape
        out = heatmap.resample(
            self.values,
            (ys * (rows / crop_h) - 0.5).astype(np.float32),
            (xs * (columns / crop_w) - 0.5).astype(np.float32),
        )
        out[(ys < 0) | (ys > crop_h), :] = np.nan
        out[:, (xs < 0) | (xs > crop_w)] = np.nan
        if not stored:
            return out
        transpose, rows_flip, columns_flip = _ORIENTATIONS[self.input.transform.orientation]
        if rows_flip:
            out = out[::-1]
        if columns_flip:
            out = out[:, ::-1]
        return np.ascontiguousarray(out.T if transpose else out)

    def seen(self, size: tuple[int, int] | None = None) -> tuple[int, int, int, int]:
        """The box (left, top, right, bottom) where `heatmap(size)` isn't NaN, ends exclusive."""
        xs, ys = self._view(*(size or (self.input.width, self.input.height)))
        crop_w, crop_h = self.input.transform.crop[2:]
        columns = np.flatnonzero((xs >= 0) & (xs <= crop_w))
        rows = np.flatnonzero((ys >= 0) & (ys <= crop_h))
        if not columns.size or not rows.size:
            return 0, 0, 0, 0
        return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1

    def _view(self, width: int, height: int) -> tuple[NDArray[Any], NDArray[Any]]:
        """The centres of the columns and rows of a width x height grid over the original, in
        pixels of the model's view (which spans 0 to the crop's width and height)."""
        transform = self.input.transform
        xs = (np.arange(width) + 0.5) * (transform.resized[0] / width) - transform.crop[0]
        ys = (np.arange(height) + 0.5) * (transform.resized[1] / height) - transform.crop[1]
        return xs, ys

    def regions(self, top: int = 3, share: float = 0.5) -> tuple[Region, ...]:
        """The `top` connected areas of strongest evidence, in pixels of the upright original.

        They are the parts of the smallest area that holds `share` of the positive evidence.
        """
        _check_share(share)
        width, height = heatmap.working_size(self.input.width, self.input.height)
        found = heatmap.regions(self.heatmap((width, height)), top, share)
        fx, fy = self.input.width / width, self.input.height / height
        return tuple(
            heatmap.scaled(region, fx, fy, self.input.width, self.input.height) for region in found
        )

    def mask(self, share: float = 0.5) -> NDArray[np.bool_]:
        """The smallest area that holds `share` of the positive evidence: bool (H, W), upright."""
        _check_share(share)
        width, height = heatmap.working_size(self.input.width, self.input.height)
        small = heatmap.smallest_area(self.heatmap((width, height)), share)
        if (width, height) == (self.input.width, self.input.height):
            return small
        rows = (np.arange(self.input.height) * height) // self.input.height
        columns = (np.arange(self.input.width) * width) // self.input.width
        return small[np.ix_(rows, columns)]

    def overlay(self, image: Any = None, **style: Any) -> Image:
        """The map drawn over the original: a PIL image at the original's upright size.

        `image` is the original (path, bytes, PIL image or uint8 array); without it the recorded
        path is opened again and must still hold the same bytes. Style options are those of
        `visxai.drawing.overlays.overlay`.
        """
        from visxai.drawing import overlays

        return overlays.overlay(self, self.original(image), **style)

    def original(self, image: Any = None) -> Image:
        """The upright RGB original, from `image`, from memory, or from the recorded path."""
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
        """What the original can be decoded from: the caller's object, or the recorded path."""
        found = self.source if self.source is not None else self.input.path
        if found is None:
            raise ImageError(
                "expected a record that knows its original, got one without a path: "
                "pass the original as image=..."
            )
        return found

    def row(self) -> dict[str, Any]:
        """One flat row for a table: plain values, the map as bytes (see `pack`)."""
        blob, scale = pack(self.values)
        return {
            "path": self.input.path,
            "source_sha256": self.input.source_sha256,
            "width": self.input.width,
            "height": self.input.height,
            "transform": self.input.transform.to_dict(),
            "model": self.model.name,
            "weights_sha256": self.model.weights_sha256,
            "preprocess": self.model.preprocess,
            "method": self.method,
            "layer": self.layer,
            "target": self.target,
            "class_index": self.class_index,
            "label": self.label,
            "score": self.score,
            "logit": self.logit,
            "device": self.device,
            "precision": self.precision,
            "accelerate": self.accelerate,
            "versions": dict(self.versions),
            "map": blob,
            "map_shape": list(self.values.shape),
            "map_scale": scale,
            "degenerate": self.degenerate,
            "quality": dict(self.quality),
            "created": self.created,
            "seconds": self.seconds,
            "kind": self.kind,
            "schema_version": SCHEMA_VERSION,
        }

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, by the schema of `visxai.record.schema()`; the map's blob in base64."""
        row = self.row()
        row["map"] = base64.b64encode(row["map"]).decode("ascii")
        return row

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Explanation:
        """The inverse of `to_dict` and of `row`; the map comes back with float16 precision.

        Records come from strangers too: ArgumentError for what isn't as `schema()` says.
        """
        data = _checked(data)
        if data.get("schema_version") != SCHEMA_VERSION:
            raise ArgumentError(
                f"expected a record of schema version {SCHEMA_VERSION}, got "
                f"{data.get('schema_version')!r}: read it with the visxai that wrote it"
            )
        if not 1 <= data["width"] * data["height"] <= MAX_PIXELS:
            raise ArgumentError(
                f"expected an original of 1 to {MAX_PIXELS} pixels, got "
                f"{data['width']}x{data['height']}: the record is damaged"
            )
        plain = {
            item.name: data[item.name]
            for item in fields(cls)
            if item.name in data and item.name not in ("model", "quality", "versions", "source")
        }
        return cls(
            input=InputRef(
                data["width"],
                data["height"],
                Transform.from_dict(data["transform"]),
                data["source_sha256"],
                data["path"],
            ),
            model=ModelRef(data["model"], data["weights_sha256"], data["preprocess"]),
            values=_map_of(data),
            quality=dict(data["quality"]),
            versions=dict(data["versions"]),
            **plain,
        )


def _checked(data: Any) -> Mapping[str, Any]:
    """The fields of a record, null where a table of pandas says NaN; ArgumentError unless one of
    this version has each of its type and within its range. What has a default may be absent, and
    what else there is doesn't matter."""
    expected = _readable()
    if isinstance(data, Mapping):
        empty = [
            name
            for name, told in expected["properties"].items()
            if "null" in told.get("type", ()) and data.get(name) != data.get(name)
        ]
        data = {**data, **dict.fromkeys(empty)}
        if data.get("schema_version") != SCHEMA_VERSION:
            return dict(data)
    wrong = mismatch(data, expected)
    if wrong is not None:
        raise ArgumentError(
            "expected a record as visxai.record.schema() describes it, got one with "
            f"{wrong or 'no fields'} missing or wrong: the record is damaged, fetch it again"
        )
    return dict(data)


@cache
def _readable() -> dict[str, Any]:
    """What `schema` asks of a record that is read: a row's map is bytes, and not JSON's text."""
    whole = schema()
    properties = {name: told for name, told in whole["properties"].items() if name != "map"}
    optional = {item.name for item in fields(Explanation) if item.default is not MISSING}
    required = [name for name in whole["required"] if name not in optional]
    return {"type": "object", "properties": properties, "required": required}


def _map_of(data: Mapping[str, Any]) -> Array:
    """The map of a record's or a row's fields."""
    blob = data["map"]
    try:
        packed = base64.b64decode(blob) if isinstance(blob, str) else bytes(memoryview(blob))
        return unpack(packed, data["map_shape"], data["map_scale"])
    except ArgumentError:
        raise
    except (ValueError, zlib.error, TypeError) as error:  # ValueError: no base64
        raise ArgumentError(
            f"expected a map as visxai packs it, got something else ({error}): the record is "
            "damaged, fetch it again"
        ) from None


def _check_share(share: float) -> None:
    if not 0 < share <= 1:
        raise ArgumentError(f"expected a share between 0 and 1, got {share}: try share=0.5")
