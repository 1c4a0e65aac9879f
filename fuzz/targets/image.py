"""Images: any bytes give an upright RGB photograph within the limits, or an ImageError."""

from __future__ import annotations

import io
import struct
import zlib

from PIL import Image

from visxai.images.decoding import Limits, decode

LIMITS = Limits(max_bytes=2**16, max_pixels=2**20)
WORDS = ("IHDR", "IDAT", "acTL", "fcTL", "eXIf", "tRNS", "PLTE", "RIFF", "WEBP", "VP8X", "GIF89a")
_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def check(data: bytes) -> None:
    """The bytes as they are; a PNG's with the checksums of its chunks right: few get past them."""
    photo = decode(_summed(data) if data.startswith(_SIGNATURE) else data, LIMITS)
    assert photo.image.mode == "RGB"
    assert photo.image.width * photo.image.height <= LIMITS.max_pixels
    assert 1 <= photo.orientation <= 8


def _summed(data: bytes) -> bytes:
    out, at = bytearray(data), len(_SIGNATURE)
    while at + 12 <= len(out):
        end = at + 8 + int.from_bytes(out[at : at + 4])
        if end + 4 > len(out):
            break
        out[end : end + 4] = struct.pack(">I", zlib.crc32(out[at + 4 : end]))
        at = end + 4
    return bytes(out)


def seeds() -> dict[str, bytes]:
    """A small picture in every format and several modes, turned and not."""
    picture = Image.linear_gradient("L").resize((8, 6))
    exif = Image.Exif()
    exif[274] = 6
    modes = {
        "jpg": ("L", "RGB", "CMYK"),
        "png": ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"),
        "webp": ("RGB", "RGBA"),
        "bmp": ("1", "L", "P", "RGB"),
        "tiff": ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "I", "F"),
        "gif": ("L", "P"),
    }
    return {
        f"{mode.replace(';', '')}.{ending}": _encoded(picture, mode, ending, exif)
        for ending, all_modes in modes.items()
        for mode in all_modes
    }


def _encoded(picture: Image.Image, mode: str, ending: str, exif: Image.Exif) -> bytes:
    if mode == "I;16":
        image = picture.convert("I").convert("I;16")
    else:
        image = picture.convert("RGB").convert(mode) if mode == "CMYK" else picture.convert(mode)
    stream = io.BytesIO()
    kinds = {"jpg": "JPEG", "tiff": "TIFF"}
    turned = {"exif": exif} if ending in ("jpg", "png", "webp", "tiff") else {}
    image.save(stream, kinds.get(ending, ending.upper()), **turned)
    return stream.getvalue()
