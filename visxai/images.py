"""Finding images and decoding them safely: any file in, an upright RGB photograph or one error out.

Files come from strangers. Formats are told by content from an allow-list, size and shape are
checked from the header before a pixel is decoded, only regular files are read, and whatever
Pillow raises on hostile bytes becomes an `ImageError`. No global setting of Pillow is touched.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import stat
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

from visxai.errors import ArgumentError, ImageError
from visxai.record import Failure

Source = str | os.PathLike[str] | bytes | bytearray | memoryview | Image.Image | NDArray[Any]

EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif")
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_RESERVED = {"CON", "PRN", "AUX", "NUL"} | {f"{p}{n}" for p in ("COM", "LPT") for n in range(1, 10)}
_WARNINGS = threading.RLock()


@dataclass(frozen=True)
class Limits:
    """What an image may cost: bytes of its file, pixels, and long side over short side.

    Of animations and multi-page files only the first frame is ever decoded. Pillow's own ceiling
    (`PIL.Image.MAX_IMAGE_PIXELS`, times two) holds beside `max_pixels`.
    """

    max_bytes: int = 64 * 2**20
    max_pixels: int = 100_000_000
    max_aspect: float = 100.0


_DEFAULT = Limits()


@dataclass(frozen=True, eq=False)
class Photo:
    """A decoded photograph.

    image: RGB, upright (the EXIF orientation is undone). sha256: hex, of the file's bytes, or of
    the upright RGB pixels and their size when there was no file. path: as given, None without a
    file. orientation: the EXIF orientation found, 1 to 8.
    """

    image: Image.Image
    sha256: str
    path: str | None = None
    orientation: int = 1


def decode(source: Source, limits: Limits = _DEFAULT) -> Photo:
    """The photograph in a path, bytes, a PIL image or a uint8 array (h, w), (h, w, 3 or 4).

    Arrays are grey, RGB or RGBA; transparency is laid over white. Raises ImageError for what
    can't be read safely, ArgumentError for another kind of source.
    """
    if isinstance(source, np.ndarray):
        source = _from_array(source)
    if isinstance(source, Image.Image):
        image, orientation = _opened(source, "the PIL image", limits)
        digest = hashlib.sha256(f"RGB {image.width}x{image.height} ".encode())
        digest.update(image.tobytes())
        return Photo(image, digest.hexdigest(), None, orientation)
    path = None
    if isinstance(source, (bytes, bytearray, memoryview)):
        data, name = bytes(source), "the bytes given"
    elif isinstance(source, (str, os.PathLike)):
        path = os.fspath(source)
        data, name = _read(path, limits), shown(path)
    else:
        raise ArgumentError(
            "expected a path, bytes, a PIL image or a uint8 array of shape (h, w, 3), got "
            f"{type(source).__name__}: convert it to one of them"
        )
    if not data:
        raise ImageError(f"expected an image, got 0 bytes in {name}: fetch the file again")
    if len(data) > limits.max_bytes:
        raise ImageError(
            f"expected at most {limits.max_bytes} bytes, got more in {name}: shrink the image, or "
            "raise max_bytes"
        )
    image, orientation = _opened(data, name, limits)
    return Photo(image, hashlib.sha256(data).hexdigest(), path, orientation)


def shown(path: str | os.PathLike[str]) -> str:
    """A path as it can be printed anywhere: control characters and stray bytes escaped."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode() for c in os.fspath(path)
    )


def _read(path: str, limits: Limits) -> bytes:
    """At most max_bytes + 1 bytes of a regular file, opened once."""
    # Without O_NONBLOCK, opening a FIFO would wait for a writer; asking before opening would
    # leave a moment to swap the file.
    flags = os.O_RDONLY
    for name in ("O_NONBLOCK", "O_CLOEXEC", "O_NOCTTY", "O_BINARY"):
        flags |= getattr(os, name, 0)
    try:
        with open(path, "rb", opener=lambda name, _: os.open(name, flags)) as stream:
            if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
                raise ImageError(
                    f"expected a regular file, got {shown(path)}, which is a device, pipe or "
                    "socket: copy its content to a file"
                )
            return stream.read(limits.max_bytes + 1) or b""
    except IsADirectoryError:
        raise ImageError(
            f"expected an image file, got the folder {shown(path)}: list its images with find()"
        ) from None
    except (OSError, ValueError) as error:
        reason = (getattr(error, "strerror", None) or str(error)).lower()
        raise ImageError(
            f"expected a readable file, got {shown(path)} ({reason}): check the path and its "
            "permissions"
        ) from error


def _from_array(array: NDArray[Any]) -> Image.Image:
    if (
        array.dtype != np.uint8
        or array.ndim not in (2, 3)
        or array.shape[2:] not in ((), (3,), (4,))
    ):
        raise ArgumentError(
            "expected a uint8 array of shape (h, w), (h, w, 3) or (h, w, 4), got "
            f"{array.dtype} {array.shape}: scale to 0..255 and put the channels last"
        )
    if not array.size:
        raise ImageError(
            f"expected at least one pixel, got an array of shape {array.shape}: skip it"
        )
    return Image.fromarray(array)


def _opened(source: bytes | Image.Image, name: str, limits: Limits) -> tuple[Image.Image, int]:
    """(upright RGB, EXIF orientation); every failure is an ImageError about `name`."""
    try:
        if isinstance(source, Image.Image):
            image, loud = source, True  # several threads may be given one image not yet loaded
        else:
            with _quiet():
                image = Image.open(io.BytesIO(source), formats=_FORMATS)
            # The only formats that warn while pixels are read; the others decode in parallel.
            loud = image.format == "TIFF" or (image.format == "PNG" and b"acTL" in source)
        _check_size(image.size, name, limits)
        # Pillow turns a TIFF upright while it loads it; a PNG's EXIF may come after its pixels.
        turned = _orientation(image) if image.format == "TIFF" else None
        with _quiet() if loud else contextlib.nullcontext():
            image.load()
        orientation = turned or _orientation(image)
        turn = None if turned else _TURNS.get(orientation)
        return _rgb(image if turn is None else image.transpose(turn)), orientation
    except ImageError:
        raise
    except UnidentifiedImageError as error:
        raise ImageError(
            f"expected a JPEG, PNG, WebP, BMP, TIFF or GIF image, got something else in {name}: "
            "convert it or leave it out"
        ) from error
    except Exception as error:  # hostile bytes make Pillow raise nearly anything
        raise ImageError(
            f"expected an intact image, got {name}, which can't be decoded "
            f"({shown(str(error)) or type(error).__name__}): it is damaged, save or fetch it again"
        ) from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """No warnings from Pillow. Filters are global to the process, hence one thread at a time."""
    with _WARNINGS, warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\b")
        yield


def _check_size(size: tuple[int, int], name: str, limits: Limits) -> None:
    width, height = size
    if min(size) < 1 or width * height > limits.max_pixels:
        raise ImageError(
            f"expected 1 to {limits.max_pixels} pixels, got {width}x{height} in {name}: shrink the "
            "image, or raise max_pixels"
        )
    if max(size) > limits.max_aspect * min(size):
        raise ImageError(
            f"expected sides within a ratio of {limits.max_aspect:g}, got {width}x{height} in "
            f"{name}: crop the image, or raise max_aspect"
        )


def _orientation(image: Image.Image) -> int:
    """EXIF orientation, 1 to 8; 1 where it is absent, out of range, or the EXIF is damaged."""
    try:
        with _quiet():
            value = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # hostile metadata makes Pillow raise nearly anything; the pixels may be fine
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _rgb(image: Image.Image) -> Image.Image:
    """A new RGB image: transparency over white, deep greys scaled to 8 bits."""
    if image.mode == "F" or image.mode.startswith("I"):
        return Image.fromarray(_grey(np.asarray(image))).convert("RGB")
    if not image.has_transparency_data:
        return image.convert("RGB")
    if image.mode == "La":  # Pillow knows no direct way from here to RGBA
        image = image.convert("LA")
    rgba = image.convert("RGBA")
    canvas = Image.new("RGB", image.size, "white")
    canvas.paste(rgba, mask=rgba.getchannel("A"))
    return canvas


def _grey(values: NDArray[Any]) -> NDArray[np.uint8]:
    """16-bit, 32-bit or float greys (h, w) as 8 bits.

    16-bit types span 0..65535. Wider types don't say their range: it is the smallest of 0..1
    (floats), 0..255 and 0..65535 that holds the values, else from their least to their greatest.
    """
    low, high = 0.0, 65535.0
    spans = (1.0, 255.0, 65535.0) if values.dtype.kind == "f" else (255.0, 65535.0)
    wide = values.dtype.itemsize != 2
    values = values.astype(np.float64 if wide else np.float32)
    if wide:
        values = np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)
        low, high = float(values.min()), float(values.max())
        if low >= 0 and high <= spans[-1]:
            low, high = 0.0, next(span for span in spans if high <= span)
    scaled = (values - low) * (255 / (high - low or 1.0)) + 0.5
    return scaled.clip(0, 255).astype(np.uint8)


def find(root: str | os.PathLike[str]) -> Iterator[Path | Failure]:
    """The images below a folder, ordered by posix relative path; a file stands for itself.

    Hidden entries are skipped. What can't be followed safely comes as a Failure in its place:
    links that lead out of the folder or nowhere, folders that can't be listed. Linked folders
    inside are not entered, their images are found where they lie. Raises ArgumentError for a
    missing path and for a folder without images.
    """
    top = Path(root)
    if not os.path.lexists(top):
        raise ArgumentError(
            f"expected an existing file or folder, got {shown(top)}: check the path"
        )
    if not top.is_dir():
        yield top
        return
    inside, empty = top.resolve(), True
    pending = [(top, True)]
    while pending:
        path, is_folder = pending.pop()
        item: Path | Failure | None = path
        if is_folder:
            try:
                pending += reversed(_entries(path))
                continue
            except OSError as error:
                reason = (error.strerror or str(error)).lower()
                item = Failure(
                    str(path), f"the folder can't be listed ({reason}): check its permissions"
                )
        elif path.is_symlink():
            item = _followed(path, inside)
        if item is not None:
            empty = False
            yield item
    if empty:
        raise ArgumentError(
            f"expected images ({' '.join(EXTENSIONS)}), got none below {shown(top)}: "
            "check the folder"
        )


def _entries(folder: Path) -> list[tuple[Path, bool]]:
    """(path, is a folder) of the images, folders and linked folders in `folder`, in order."""
    kept = []
    with os.scandir(folder) as entries:
        for entry in entries:
            is_folder = entry.is_dir(follow_symlinks=False)
            image = entry.name.lower().endswith(EXTENSIONS)
            if not entry.name.startswith(".") and (is_folder or image or os.path.isdir(entry.path)):
                # With its slash a folder sorts where its files' paths do.
                kept.append((entry.name + "/" * is_folder, Path(entry.path), is_folder))
    return [(path, is_folder) for _, path, is_folder in sorted(kept)]


def _followed(link: Path, inside: Path) -> Path | Failure | None:
    """`link` if it leads to a file below `inside`, a Failure if astray, None for a folder."""
    try:
        target = link.resolve(strict=True)
    except (OSError, RuntimeError):
        return Failure(str(link), "the link leads nowhere: remove it or restore its target")
    if not target.is_relative_to(inside):
        return Failure(str(link), "the link leads out of the folder: copy its target inside")
    return None if target.is_dir() else link


def output_name(path: str | os.PathLike[str], root: str | os.PathLike[str]) -> str:
    """The posix relative name under which outputs about `path`, found below `root`, are stored.

    Append a suffix to it ("a/x.jpg" + ".png"). It stays below the output folder, is legal on
    every system, and no two files share one: unsafe characters, "%" and "~" are written %XX, as
    is the dot of a folder named like an image; a component over 200 bytes is cut and ends in
    "~" and a hash. A path outside `root` is named by its absolute path.
    """
    try:
        parts = Path(path).relative_to(root).parts or (Path(path).name,)
    except ValueError:
        parts = Path(os.path.abspath(path)).parts
    *folders, last = parts
    name = "/".join([*(_component(part, True) for part in folders), _component(last, False)])
    if len(name.encode()) <= 1024:
        return name
    return f"~{_digest('/'.join(parts))}/{_component(last, False)}"


def _component(part: str, is_folder: bool) -> str:
    escaped = set()
    if part.split(".")[0].strip().upper() in _RESERVED:
        escaped.add(0)
    if part[-1] in ". ":
        escaped.add(len(part) - 1)
    if is_folder and part.lower().endswith(EXTENSIONS):
        escaped.add(part.rindex("."))
    name = "".join(
        c
        if c.isprintable() and c not in '%~\\/:*?"<>|' and i not in escaped
        else "".join(f"%{byte:02X}" for byte in c.encode("utf-8", "surrogatepass"))
        for i, c in enumerate(part)
    )
    if len(name.encode()) <= 200:
        return name
    return name.encode()[:160].decode(errors="ignore") + "~" + _digest(part)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]
