"""A packed model as a web page that explains its visitor's own picture, on the visitor's machine.

    OUT/index.html, page.js, pixels.js, page.css     the page
    OUT/model.onnx, model.json                       the packed model and what the page must know
    OUT/runtime/                                     onnxruntime-web and its licence

Any file server serves the folder. The page's security policy lets it load from its own server alone
and send nothing, and it works without a network once it is loaded.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import subprocess
import tarfile
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from visxai import files
from visxai.drawing.colours import DEFAULT, Scale, lut
from visxai.engine import Engine
from visxai.errors import ArgumentError, ModelError, require
from visxai.methods.base import Method
from visxai.models.weights import cache_folder
from visxai.package.check import Agreement
from visxai.package.graph import packed

MARK = ".visxai-package"
PAGE = ("index.html", "page.css", "page.js", "pixels.js")
RUNTIME = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
PACKAGE, VERSION = "onnxruntime-web", "1.30.0"
INTEGRITY = (
    "sha512-q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ"
    "=="
)
_SECONDS = 300  # that npm may take
_MOST = 2**26  # bytes of a file of the runtime
_LICENCE = f"""\
{PACKAGE} is distributed under the MIT License:

Copyright (c) Microsoft Corporation

Permission is hereby granted, free of charge, to any person obtaining a copy of this software and
associated documentation files (the "Software"), to deal in the Software without restriction,
including without limitation the rights to use, copy, modify, merge, publish, distribute,
sublicense, and/or sell copies of the Software, and to permit persons to whom the Software is
furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial
portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT
NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND
NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES
OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM, OUT OF OR IN
CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
"""


def web(
    engine: Engine,
    out: str | os.PathLike[str],
    *,
    method: str | Method = "grad_cam",
    images: Sequence[Any] | None = None,
    runtime: str | os.PathLike[str] | None = None,
) -> Agreement:
    """Write a model and one of its methods as a web page.

    Args:
        engine: The model.
        out: The folder to write.
        method: See `visxai.package.write`, as for the next.
        images: Photographs to check the model on.
        runtime: onnxruntime-web: its folder, unpacked, or its .tgz; None fetches it by npm.

    Returns:
        How closely the packed model agreed with the engine.

    Raises:
        ArgumentError: The method can't be packed, or `runtime` isn't onnxruntime-web.
        ModelError: The model can't be packed, or npm didn't bring the runtime.
        StoreError: The folder can't be written, or holds other files.
    """
    content, found = packed(engine, method, "input", images)
    with (
        TemporaryDirectory() as spare,
        files.one_sentence(f"to write {out}", "choose another place for it"),
        files.replacing_folder(Path(out), MARK) as folder,
    ):
        fill(folder, content, runtime_in(runtime, Path(spare)))
    return found


def fill(folder: Path, content: bytes, runtime: Path) -> None:
    """Write a packed model into an empty folder as a web page.

    Args:
        folder: The folder.
        content: The packed model, which takes a class.
        runtime: A folder with the files of onnxruntime-web.
    """
    for name in PAGE:
        shutil.copyfile(Path(__file__).with_name("page") / name, folder / name)
    files.write(folder / "model.onnx", content, durable=False)
    facts = json.dumps(_facts(content), ensure_ascii=False)
    files.write(folder / "model.json", facts, durable=False)
    (folder / "runtime").mkdir()
    for name in RUNTIME:
        shutil.copyfile(runtime / name, folder / "runtime" / name)
    files.write(folder / "runtime" / "LICENSE", _LICENCE, durable=False)


def _facts(content: bytes) -> dict[str, Any]:
    """Return what the page must know of a packed model."""
    onnx: Any = require("onnx", "onnx", "packing a model")
    proto = onnx.load_from_string(content)
    told = {entry.key.removeprefix("visxai."): entry.value for entry in proto.metadata_props}
    two_sided: bool = json.loads(told["two_sided"])
    scale = Scale("diverging" if two_sided else DEFAULT, two_sided)
    return {
        "model": told["model"],
        "method": told["method"].partition("(")[0],
        "two_sided": two_sided,
        "activation": told["activation"],
        "labels": json.loads(told["labels"]),
        "preprocess": json.loads(told["preprocess"]),
        "ends": scale.ends,
        "colours": lut(scale.colormap).tolist(),
    }


def runtime_in(given: str | os.PathLike[str] | None, spare: Path) -> Path:
    """Return a folder with the files of onnxruntime-web.

    Args:
        given: The package's folder or .tgz; None fetches it by npm, and checks its sha512.
        spare: An empty folder for what is fetched or unpacked.

    Raises:
        ArgumentError: `given` doesn't have the files.
        ModelError: npm isn't there, or didn't bring the package as it was when this was written.
    """
    archive = _fetched(spare) if given is None else Path(given)
    if archive.is_dir():
        for folder in (archive, archive / "dist", archive / "package" / "dist"):
            if all((folder / name).is_file() for name in RUNTIME):
                return folder
    elif archive.is_file() and tarfile.is_tarfile(archive):
        with tarfile.open(archive) as packed_files:
            for name in RUNTIME:
                try:
                    file = packed_files.extractfile(f"package/dist/{name}")
                except KeyError:
                    break
                if file is not None:
                    (spare / name).write_bytes(file.read(_MOST))
        if all((spare / name).is_file() for name in RUNTIME):
            return spare
    raise ArgumentError(
        expected=f"the folder or .tgz of {PACKAGE}, with dist/{RUNTIME[0]}",
        got=str(archive),
        remedy=f"fetch it with: npm pack {PACKAGE}@{VERSION}",
        field="runtime",
    )


def _fetched(spare: Path) -> Path:
    """Fetch onnxruntime-web by npm, which knows the machine's registry and proxies.

    The archive is kept in visxai's cache folder.
    """
    wanted = f"{PACKAGE}@{VERSION}"
    kept = cache_folder() / f"{PACKAGE}-{VERSION}.tgz"
    if kept.is_file() and _integrity(kept) == INTEGRITY:
        return kept
    remedy = f"install npm, or give runtime= the folder or .tgz of {wanted}"
    npm = shutil.which("npm")
    if npm is None:
        raise ModelError(
            expected=f"npm to fetch {wanted}", got="none", remedy=remedy, field="runtime"
        )
    try:
        done = subprocess.run(
            [npm, "pack", wanted, "--json", "--ignore-scripts", "--pack-destination", spare],
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=True,
            cwd=spare,
        )
        (brought,) = json.loads(done.stdout)
        archive = spare / str(brought["filename"])
        integrity = _integrity(archive)
    except (subprocess.SubprocessError, OSError, ValueError, KeyError) as error:
        raise ModelError(
            expected=f"npm to fetch {wanted}",
            got=type(error).__name__,
            remedy=remedy,
            field="runtime",
        ) from error
    if integrity != INTEGRITY:
        raise ModelError(
            expected=f"{wanted} with {INTEGRITY}",
            got=integrity,
            remedy="try again from a registry you trust",
            field="runtime",
        )
    kept.parent.mkdir(parents=True, exist_ok=True)
    files.write(kept, archive.read_bytes())
    return kept


def _integrity(archive: Path) -> str:
    """Return a file's sha512 as npm writes it."""
    with archive.open("rb") as file:
        digest = hashlib.file_digest(file, "sha512").digest()
    return "sha512-" + base64.b64encode(digest).decode()
