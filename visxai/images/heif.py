"""HEIC photographs, as phones write them, read by pillow-heif (extra `heif`).

Its opener isn't registered with Pillow, which would change what the whole process can open.
"""

from __future__ import annotations

import io
from typing import Any

from PIL import Image

from visxai.errors import ImageError, MissingExtra, require

# The brands of still pictures in HEVC, and those that any codec may have.
_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")


def size(data: bytes, name: str) -> tuple[int, int] | None:
    """(width, height) that a HEIC file's header tells, None where bytes are something else.

    Raises ImageError where pillow-heif isn't there or can't read the header.
    """
    if data[4:8] != b"ftyp" or data[8:12] not in _BRANDS or _avif(data):
        return None
    width, height = _file(data, name).size
    return int(width), int(height)


def decoded(data: bytes) -> Image.Image:
    """The first picture of a HEIC file, upright as its header tells."""
    image: Image.Image = _file(data, "").to_pillow()
    return image


def _avif(data: bytes) -> bool:
    """Whether a file of any codec's brand is AVIF, which Pillow reads."""
    length = int.from_bytes(data[:4], "big")
    return data[8:12] in (b"mif1", b"msf1") and b"avif" in data[16 : min(length, 256)]


def _file(data: bytes, name: str) -> Any:
    try:
        library = require("pillow_heif", "heif", f"reading HEIC images such as {name}")
    except MissingExtra as error:
        raise ImageError(str(error)) from error
    return library.open_heif(io.BytesIO(data), convert_hdr_to_8bit=True)
