"""Hostile files through a whole run: each ends as a row or a failure, and the run goes on."""

from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

import visxai
from visxai import pipeline, results
from visxai.errors import ImageError
from visxai.images import decoding
from visxai.images.decoding import Limits


def encoded(kind: str, **options: object) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, *more: bytes, depth: int = 8) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + b"".join(more) + chunk(b"IEND", b"")


def text_bomb() -> bytes:
    """A PNG whose comment unpacks to 200 megabytes."""
    about = PngImagePlugin.PngInfo()
    about.add_text("Comment", "x" * 200_000_000, zip=True)
    return encoded("PNG", pnginfo=about)


def tiff(*entries: tuple[int, int, int, int], following: int = 0) -> bytes:
    """A little-endian TIFF of one directory; entries: tag, type, count, value."""
    rows = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + rows + struct.pack("<I", following)


SIZED = ((256, 4, 1, 64), (257, 4, 1, 48), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1))


def hostile() -> dict[str, bytes]:
    jpeg, gif, webp, bmp = (encoded(kind) for kind in ("JPEG", "GIF", "WEBP", "BMP"))
    return {
        "empty": b"",
        "zeros": bytes(4096),
        "half a jpeg": jpeg[: len(jpeg) // 2],
        "jpeg that says 65535 a side": jpeg.replace(
            struct.pack(">HH", 48, 64), struct.pack(">HH", 65535, 65535), 1
        ),
        "jpeg of markers": b"\xff\xd8" + b"\xff\xe1\xff\xff" + bytes(65533) + b"\xff" * 100_000,
        "png of a billion pixels": png(2**31 - 1, 1, chunk(b"IDAT", zlib.compress(b""))),
        "png of zeros": png(9000, 9000, chunk(b"IDAT", zlib.compress(bytes(10**7), 9))),
        "png without pixels": png(64, 48),
        "png of an odd depth": png(64, 48, chunk(b"IDAT", b"x"), depth=3),
        "png with a bomb in its text": text_bomb(),
        "png with a bomb in its profile": png(
            64, 48, chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(2 * 10**8), 9))
        ),
        "gif outside its screen": gif.replace(
            b"\x2c" + struct.pack("<HHHH", 0, 0, 64, 48),
            b"\x2c" + struct.pack("<HHHH", 65000, 65000, 65535, 65535),
            1,
        ),
        "webp that lies about its size": webp[:4] + struct.pack("<I", 2**32 - 2) + webp[8:],
        "bmp upside down": bmp[:22] + struct.pack("<i", -(2**31)) + bmp[26:],
        "tiff that follows itself": tiff(*SIZED, (273, 4, 1, 8), (279, 4, 1, 3072), following=8),
        "tiff of four billion values": tiff(*SIZED, (273, 4, 2**32 - 1, 8)),
        "tiff of many samples": tiff(*SIZED, (277, 3, 1, 65535), (273, 4, 1, 8)),
        "tiff of ascii art": tiff(*SIZED, (270, 2, 2**31 - 1, 8)),
        "page and picture": b"<script>alert(1)</script>" + jpeg,
        "postscript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(x) run",
        "svg": b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
    }


def test_hostile_files_are_rows_or_failures_and_the_run_goes_on(
    tmp_path: Path, engine: visxai.Engine
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for number, (name, data) in enumerate(sorted(hostile().items())):
        ending = ("jpg", "png", "tif", "webp")[number % 4]  # by content, never by name
        (folder / f"{name}.{ending}").write_bytes(data)
    good = {"a good one.png": "PNG", "b \x1b[2J \u202e.png": "PNG", "'=1+1.jpg": "JPEG"}
    for name, kind in good.items():
        (folder / name).write_bytes(encoded(kind))
    os.mkfifo(folder / "pipe.png")
    (folder / "zero.png").symlink_to("/dev/zero")
    (folder / "loop.png").symlink_to(folder / "loop.png")
    limits = Limits(max_pixels=2 * 10**7)
    outcome = pipeline.explain(
        [folder], tmp_path / "out", engine, "saliency", limits=limits, workers=2, timeout=60
    )
    counts = outcome.counts
    assert counts["images"] == counts["finished"] == len(hostile()) + len(good) + 3
    assert counts["maps"] + counts["failures"] == counts["images"]
    explained = {Path(one.input.path or "").name for one in results.read(tmp_path / "out")}
    assert set(good) <= explained
    assert len(explained) < len(good) + 5
    for failed in results.failures(tmp_path / "out"):
        assert failed.kind == "ImageError", failed
        assert failed.reason.isprintable()


@pytest.mark.parametrize("name", sorted(hostile()))
def test_a_hostile_file_gives_one_sentence(name: str) -> None:
    told = ""
    try:
        decoding.decode(hostile()[name], Limits(max_pixels=2 * 10**7))
    except ImageError as error:
        told = str(error)
    assert not told or told.isprintable()
