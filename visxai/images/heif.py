"""HEIC photographs, as phones write them, decoded by pillow-heif (extra `heif`).

pillow-heif isn't registered with Pillow, as that would change what the whole process can open.
"""

from __future__ import annotations

import io
from typing import Any

from PIL import Image

from visxai.errors import ImageError, MissingExtra, require

# The file-type brands of HEVC still pictures, and those shared by all codecs.
_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")


def size(data: bytes, name: str) -> tuple[int, int] | None:
    """Read (width, height) from a HEIC file's header.

    Args:
        data: The file's bytes.
        name: The file's name, for the error message.

    Returns:
        The size in pixels, None where the bytes are of another format.

    Raises:
        ImageError: pillow-heif isn't installed.
    """
    if data[4:8] != b"ftyp" or data[8:12] not in _BRANDS or _avif(data):
        return None
    width, height = _file(data, name).size
    return int(width), int(height)


def decoded(data: bytes) -> Image.Image:
    """Decode the first picture of a HEIC file, turned upright by its header."""
    image: Image.Image = _file(data, "").to_pillow()
    return image


def _avif(data: bytes) -> bool:
    """Tell whether a file whose brand any codec may have is AVIF, which Pillow decodes."""
    length = int.from_bytes(data[:4], "big")
    return data[8:12] in (b"mif1", b"msf1") and b"avif" in data[16 : min(length, 256)]


def _file(data: bytes, name: str) -> Any:
    try:
        library = require("pillow_heif", "heif", f"reading HEIC images such as {name}")
    except MissingExtra as error:
        raise ImageError(str(error)) from error
    return library.open_heif(io.BytesIO(data), convert_hdr_to_8bit=True)
