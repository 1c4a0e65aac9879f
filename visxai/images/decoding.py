"""Safe decoding of images: any file gives an upright RGB photograph or an error.

Files come from strangers. Formats are recognised by content and restricted to an allow-list, size
and shape are checked from the header before a pixel is decoded, no more bytes are read than
allowed, and whatever Pillow raises on hostile bytes becomes an `ImageError`. No global setting of
Pillow is touched.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

from visxai.errors import ArgumentError, ImageError, VisxaiError
from visxai.foreign import shown
from visxai.images import heif, objects
from visxai.images.address import Origin
from visxai.quiet import warnings_of
from visxai.references import MAX_PIXELS

Source = (
    str
    | os.PathLike[str]
    | Origin
    | bytes
    | bytearray
    | memoryview
    | IO[bytes]
    | Image.Image
    | NDArray[Any]
)

_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "AVIF")
# Cameras' raw files hold small previews, which would be decoded instead of the photograph.
RAW = (".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf", ".rw2")
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_LOADING = threading.RLock()
_STRIP = 2**22  # pixels that are converted at a time
_PILLOW = r"PIL\b"  # Pillow's modules, whose warnings the user can't act on


@dataclass(frozen=True)
class Limits:
    """The limits on an image that is decoded.

    Only the first frame of animations and multi-page files is ever decoded. Pillow's own limit
    (twice `PIL.Image.MAX_IMAGE_PIXELS`) applies as well as `max_pixels`.

    Attributes:
        max_bytes: The most bytes of the file.
        max_pixels: The most pixels, width times height.
        max_aspect: The largest ratio of the long side to the short side.
    """

    max_bytes: int = 64 * 2**20
    max_pixels: int = 100_000_000
    max_aspect: float = 100.0


_DEFAULT = Limits()


def limits_of(settings: Mapping[str, Any]) -> Limits:
    """Read the limits in a stored run's settings; a stranger's settings get a gigapixel at most."""
    told = settings.get("max_pixels")
    if not isinstance(told, int) or told < 1:
        return _DEFAULT
    return Limits(max_pixels=min(told, MAX_PIXELS))


@dataclass(frozen=True, eq=False)
class Photo:
    """A decoded photograph.

    Attributes:
        image: RGB, upright (the EXIF orientation is undone).
        sha256: SHA-256 (hex) of the file's bytes, or of the upright RGB pixels and their size where
            there was no file.
        path: The address as given, None without a file.
        orientation: The file's EXIF orientation, 1 to 8.
    """

    image: Image.Image
    sha256: str
    path: str | None = None
    orientation: int = 1


def decode(source: Source, limits: Limits = _DEFAULT) -> Photo:
    """Decode a photograph.

    Args:
        source: An address (a path, a tar's member or a URL, see `visxai.images.address`), the bytes
            of a file, an open file, a PIL image, an array or a tensor. An open file is any object
            with `read()`, and is read from its current position. Arrays are grey, RGB or RGBA, of
            the shapes and types of `visxai.images.objects`. Transparent pixels are blended with
            white.
        limits: The limits that the image must keep.

    Raises:
        ImageError: The image can't be read safely.
        ArgumentError: The source is none of these objects.
    """
    if isinstance(source, np.ndarray) or objects.is_tensor(source):
        source = objects.picture(source)
    if isinstance(source, Image.Image):
        image, orientation = _opened(source, "the PIL image", limits)
        digest = hashlib.sha256(f"RGB {image.width}x{image.height} ".encode())
        digest.update(image.tobytes())
        return Photo(image, digest.hexdigest(), None, orientation)
    path = None
    if isinstance(source, (bytes, bytearray, memoryview)):
        data, name = bytes(source), "the bytes given"
    elif isinstance(source, (str, os.PathLike, Origin)):
        origin = Origin.of(source)
        path = str(origin)
        data, name = origin.read(limits.max_bytes), shown(path)
    elif hasattr(source, "read"):
        data, name = objects.content(source, limits.max_bytes), "the open file"
    else:
        raise ArgumentError(
            "expected a path, bytes, an open file, a PIL image or a uint8 array of shape "
            f"(h, w, 3), got {type(source).__name__}: convert it to one of them"
        )
    if name.lower().endswith(RAW):
        raise ImageError(
            f"expected a developed photograph, got a camera's raw file in {name}: develop it to "
            "JPEG or TIFF"
        )
    if not data:
        raise ImageError(f"expected an image, got 0 bytes in {name}: fetch the file again")
    if len(data) > limits.max_bytes:
        raise ImageError(
            f"expected at most {limits.max_bytes} bytes, got more in {name}: shrink the image, or "
            "raise max_bytes in Python (limits= of visxai.pipeline.explain)"
        )
    image, orientation = _opened(data, name, limits)
    return Photo(image, hashlib.sha256(data).hexdigest(), path, orientation)


def _opened(source: bytes | Image.Image, name: str, limits: Limits) -> tuple[Image.Image, int]:
    """Return the upright RGB image and its EXIF orientation; make every failure an ImageError."""
    try:
        if isinstance(source, Image.Image):
            image = source
        else:
            with warnings_of(_PILLOW):
                # pillow-heif decodes while it opens, so the size is checked before.
                known = heif.size(source, name)
                if known is not None:
                    _check_size(known, name, limits)
                    image = heif.decoded(source)
                else:
                    image = Image.open(io.BytesIO(source), formats=_FORMATS)
        _check_size(image.size, name, limits)
        # Pillow turns a TIFF upright while loading, so its orientation is read before; a PNG's
        # EXIF may follow the pixels, so it is read after.
        turned = _orientation(image) if image.format == "TIFF" else None
        # Several threads may share an image that isn't loaded yet.
        shared = _LOADING if image is source else contextlib.nullcontext()
        with shared, warnings_of(_PILLOW):
            image.load()
        orientation = turned or _orientation(image)
        turn = None if turned else _TURNS.get(orientation)
        return _rgb(image if turn is None else image.transpose(turn)), orientation
    except VisxaiError:
        raise
    except UnidentifiedImageError as error:
        raise ImageError(
            "expected a JPEG, PNG, WebP, AVIF, BMP, TIFF, GIF or HEIC image, got something else "
            f"in {name}: convert it or leave it out"
        ) from error
    except MemoryError as error:
        raise ImageError(
            f"expected an image that fits into memory, got {name}, which doesn't: shrink it or "
            "leave it out"
        ) from error
    except Exception as error:  # hostile bytes make Pillow raise nearly anything
        raise ImageError(
            f"expected an intact image, got {name}, which can't be decoded "
            f"({shown(str(error)) or type(error).__name__}): it is damaged, save or fetch it again"
        ) from error


def _check_size(size: tuple[int, int], name: str, limits: Limits) -> None:
    """Raise ImageError unless (width, height) keep the limits."""
    width, height = size
    if min(size) < 1 or width * height > limits.max_pixels:
        raise ImageError(
            f"expected 1 to {limits.max_pixels} pixels, got {width}x{height} in {name}: shrink the "
            "image, or raise the limit (explain's --limit-pixels, in Python max_pixels)"
        )
    if max(size) > limits.max_aspect * min(size):
        raise ImageError(
            f"expected sides within a ratio of {limits.max_aspect:g}, got {width}x{height} in "
            f"{name}: crop the image, or raise max_aspect in Python (limits= of "
            "visxai.pipeline.explain)"
        )


def _orientation(image: Image.Image) -> int:
    """Read the EXIF orientation, 1 to 8; return 1 where it is absent, out of range or damaged."""
    try:
        with warnings_of(_PILLOW):
            value = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # hostile metadata makes Pillow raise nearly anything; the pixels may be fine
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _rgb(image: Image.Image) -> Image.Image:
    """Convert to a new RGB image: transparent pixels over white, deep greys scaled to 8 bits.

    An image that needs more than a byte a channel during the conversion is converted in strips, so
    that a large image takes little more than its own memory.
    """
    if image.mode == "F" or image.mode.startswith("I"):
        return _grey(image).convert("RGB")
    if not image.has_transparency_data:
        return image.convert("RGB")
    canvas = Image.new("RGB", image.size, "white")
    for box in _strips(image):
        part = image.crop(box)
        # Pillow can't convert La to RGBA directly.
        rgba = (part.convert("LA") if part.mode == "La" else part).convert("RGBA")
        canvas.paste(rgba, box[:2], rgba.getchannel("A"))
    return canvas


def _strips(image: Image.Image) -> Iterator[tuple[int, int, int, int]]:
    """Yield boxes (left, top, right, bottom) of whole rows that cover an image."""
    rows = max(1, _STRIP // image.width)
    for top in range(0, image.height, rows):
        yield 0, top, image.width, min(top + rows, image.height)


def _grey(image: Image.Image) -> Image.Image:
    """Scale 16-bit, 32-bit or float greys to 8 bits.

    16-bit types span 0..65535. Wider types don't state their range: it is the smallest of 0..1
    (floats), 0..255 and 0..65535 that holds the values, else from their least to their greatest.
    """
    low, high = 0.0, 65535.0
    floats = image.mode == "F"
    wide = image.mode in ("F", "I")
    if wide:
        spans = (1.0, 255.0, 65535.0) if floats else (255.0, 65535.0)
        ends = [(float(part.min()), float(part.max())) for part in _wide_values(image)]
        low, high = min(least for least, _ in ends), max(greatest for _, greatest in ends)
        if low >= 0 and high <= spans[-1]:
            low, high = 0.0, next(span for span in spans if high <= span)
    grey = np.empty((image.height, image.width), np.uint8)
    values: Iterator[NDArray[Any]] = _wide_values(image) if wide else _values(image)
    for (_, top, _, bottom), part in zip(_strips(image), values, strict=True):
        scaled = (part - low) * (255 / (high - low or 1.0)) + 0.5
        grey[top:bottom] = scaled.clip(0, 255)
    return Image.fromarray(grey)


def _values(image: Image.Image) -> Iterator[NDArray[np.float32]]:
    """Yield 16-bit greys strip by strip, (h, w)."""
    for box in _strips(image):
        yield np.asarray(image.crop(box)).astype(np.float32)


def _wide_values(image: Image.Image) -> Iterator[NDArray[np.float64]]:
    """Yield 32-bit or float greys strip by strip, (h, w), with 0 for values that aren't finite."""
    for box in _strips(image):
        values = np.asarray(image.crop(box)).astype(np.float64)
        yield np.nan_to_num(values, copy=False, nan=0.0, posinf=0.0, neginf=0.0)
