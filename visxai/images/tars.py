"""Tars of images, as WebDataset writes them: indexed once, then read at the members' offsets.

    shard-000000.tar
        owl.jpg     an image: the address shard-000000.tar/owl.jpg
        owl.cls     its label: a class index or a name; or owl.json with a field such as "label"

Nothing is ever extracted. Tars come from strangers too: only headers and small labels are read
here, and names that lead out of the tar are refused. A tar that ends early or is damaged gives the
members before the damage, and its flaw is reported.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO, Any

ENDING = ".tar"
PACKED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
_MOST = 2**20  # the most bytes of a header; a longer header is an attack
_LABEL = 2**16  # the most bytes of a file that holds a label


@dataclass(frozen=True)
class Member:
    """A file in a tar.

    Attributes:
        offset: The offset of its bytes in the tar.
        size: Its size in bytes.
        label: The label of the image, from the file beside it, None without a label.
        flaw: The reason why its name can't be used, None for a plain name.
    """

    offset: int
    size: int
    label: str | None = None
    flaw: str | None = None


@dataclass(frozen=True)
class Shard:
    """The files in a tar.

    Attributes:
        members: The files by name, in the order of the tar.
        flaw: A description of the tar's damage, None for an intact tar.
    """

    members: dict[str, Member]
    flaw: str | None


def index(stream: IO[bytes], fields: Sequence[str]) -> Shard:
    """List the files in an uncompressed tar.

    Args:
        stream: The tar, open for reading and seeking.
        fields: The fields of a JSON file beside an image that may hold its label; the first that
            exists is used.
    """
    import tarfile

    found: dict[str, Member] = {}
    labels: dict[str, str] = {}
    guarded: Any = _Guarded(stream)
    flaw, last = None, -1
    try:
        with tarfile.open(fileobj=guarded, mode="r:") as tar:
            for one in tar:
                tar.members = []  # type: ignore[attr-defined]  # tarfile would keep all headers
                if one.offset <= last:
                    raise tarfile.ReadError("a header that points back")
                last = one.offset
                if one.size < 0:
                    raise tarfile.ReadError("a file of less than no bytes")
                if not one.isreg() or one.issparse():
                    continue
                name, wrong = _named(one.name)
                found[name] = Member(one.offset_data, one.size, None, wrong)
                key, ending = _split(name)
                if ending in ("cls", "json") and one.size <= _LABEL:
                    stream.seek(one.offset_data)
                    told = _label(stream.read(one.size), ending, fields)
                    if told is not None and (ending == "cls" or key not in labels):
                        labels[key] = told
            end = tar.offset
        stream.seek(end)
        if stream.read(512) != bytes(512):
            flaw = "it ends before its end mark, or is damaged there"
    except Exception as error:  # hostile bytes make tarfile raise nearly anything
        flaw = (str(error) or type(error).__name__).rstrip(".")
    for name, member in found.items():
        label = labels.get(_split(name)[0])
        if label is not None:
            found[name] = Member(member.offset, member.size, label, member.flaw)
    return Shard(found, flaw)


class _Guarded:
    """A stream that refuses reads longer than a header may be."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self.seek, self.tell = stream.seek, stream.tell

    def read(self, size: int = -1) -> bytes:
        """Read `size` bytes; raise ValueError for more than a header may have."""
        if not 0 <= size <= _MOST:
            raise ValueError(f"a header of {size} bytes")
        return self._stream.read(size)


def _named(name: str) -> tuple[str, str | None]:
    """Return a member's name without empty parts ("./"), and the reason why it can't be used."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts or name.startswith("/") or "\0" in name or not parts:
        return name, "its name leads out of the tar: pack it again with plain relative names"
    return "/".join(parts), None


def _split(name: str) -> tuple[str, str]:
    """Split a name into the sample's key and the ending: ("a/owl", "seg.png")."""
    folder, slash, last = name.rpartition("/")
    key, _, ending = last.partition(".")
    return folder + slash + key, ending.lower()


def _label(data: bytes, ending: str, fields: Sequence[str]) -> str | None:
    """Read the label in a .cls or .json file; return None where it holds no label."""
    try:
        text = data.decode("utf-8-sig").strip()
        if ending == "cls":
            return text or None
        told = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(told, dict):
        return None
    names = {str(name).casefold(): name for name in reversed(told)}
    for field in fields:
        value = told.get(names.get(field.casefold()))
        if isinstance(value, (str, int)) and not isinstance(value, bool):
            return re.sub(r"\s+", " ", str(value)).strip() or None
    return None
