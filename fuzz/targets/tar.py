"""Tars of images: an index always comes out, and its members lie within."""

from __future__ import annotations

import io
import tarfile

from visxai.images import tars
from visxai.images.tables import LABELS

BLOCK = 512
WORDS = ("ustar", ".cls", ".json", ".jpg", "../", "./", '{"label":', "GNU.sparse", "path=")


def check(data: bytes) -> None:
    """The bytes as they are, and with the checksums of all blocks right: few get past them."""
    for version in (data, _summed(data)):
        found = tars.index(io.BytesIO(version), LABELS)
        for name, member in found.members.items():
            assert member.flaw or (".." not in name.split("/") and not name.startswith("/"))
            assert member.offset >= 0, "a member that begins before its tar"
            assert member.size >= 0, "a member of less than no bytes"


def _summed(data: bytes) -> bytes:
    out = bytearray(data)
    for at in range(0, len(out) - BLOCK + 1, BLOCK):
        out[at + 148 : at + 156] = b" " * 8
        out[at + 148 : at + 156] = b"%06o\0 " % sum(out[at : at + BLOCK])
    return bytes(out)


def seeds() -> dict[str, bytes]:
    """Tars in the three formats, with labels, long names and links."""
    formats = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}
    return {f"{name}.tar": _tar(number) for name, number in formats.items()}


def _tar(number: int) -> bytes:
    files = {
        "a/owl.jpg": b"\xff\xd8",
        "a/owl.cls": b"3",
        "cat.json": b'{"label": "tabby"}',
        "./" + "n" * 90 + "/\u00e9.png": b"\x89PNG",
        "../out.png": b"",
    }
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=number) as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
        link = tarfile.TarInfo("link.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    return stream.getvalue().rstrip(b"\0").ljust(BLOCK * 12, b"\0") + bytes(2 * BLOCK)
