"""Names of output files, derived from the input's path."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from visxai.images.address import remote
from visxai.images.folders import EXTENSIONS, _longest

_RESERVED = {"CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$"} | {
    f"{port}{number}" for port in ("COM", "LPT") for number in "123456789¹²³"
}


def output_name(path: str | os.PathLike[str], root: str | os.PathLike[str]) -> str:
    """Derive the posix relative name under which outputs about an input are stored.

    A suffix is appended to it ("a/x.jpg" + ".png"). The name stays below the output folder, is
    legal on every system, and no two files share a name: unsafe characters, "%" and "~" are written
    %XX, as is the dot of a folder named like an image; a component over 200 bytes (80 on Windows)
    is cut and ends in "~" and a hash.

    Args:
        path: The input's path, or its URL.
        root: The folder that the name is relative to. A path outside it is named by its absolute
            path, or its URL.
    """
    *folders, last = _parts(os.fspath(path), os.fspath(root))
    name = "/".join([*(_component(part, True) for part in folders), _component(last, False)])
    if len(name.encode()) <= _longest()[1]:
        return name
    return f"~{_digest('/'.join([*folders, last]))}/{_component(last, False)}"


def _parts(path: str, root: str) -> tuple[str, ...]:
    if remote(path):
        below = path.removeprefix(f"{root}/") if root else path
        return tuple(part for part in below.split("/") if part) or (path,)
    try:
        return Path(path).relative_to(root).parts or (Path(path).name,)
    except ValueError:
        return Path(os.path.abspath(path)).parts


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
    longest, _ = _longest()
    if len(name.encode()) <= longest:
        return name
    return name.encode()[: longest - 40].decode(errors="ignore") + "~" + _digest(part)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]
