"""Weights that come from a package which must not be installed: fetched once, kept in the cache.

Some weights travel in packages whose requirements would damage an environment. Their file is
taken out of the package's wheel, as data: nothing of the package is run or installed, and the file
is used only while its sha256 is the card's.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from visxai import files
from visxai.errors import ModelError
from visxai.models.cards import folder

_TIMEOUT = 900  # seconds


def cache_folder() -> Path:
    """Where fetched weights are kept: $VISXAI_CACHE, or visxai in the platform's cache folder."""
    if given := os.environ.get("VISXAI_CACHE"):
        return Path(given)
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "visxai"


def place(name: str, source: Mapping[str, Any]) -> Path:
    """Where the file of a card's source is kept, whether it is there or not."""
    return cache_folder() / "models" / f"{name}{Path(source['file']).suffix}"


def fetched_file(name: str, source: Mapping[str, Any]) -> Path:
    """The file of a card's source in the cache, its sha256 checked."""
    path = place(name, source)
    if not path.is_file():
        raise ModelError(
            f"expected the weights of {name} in {path.parent}, but they haven't been fetched: "
            f"run `visxai models fetch {name}`"
        )
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != source["sha256"]:
        raise ModelError(
            f"expected {path} with sha256 {source['sha256']}, got another file: delete it and run "
            f"`visxai models fetch {name}`"
        )
    return path


def fetch(
    name: str, source: Mapping[str, Any], progress: Callable[[str], None] | None = None
) -> Path:
    """Fetch the file of a card's source unless it is there; returns where it is kept.

    source: fetch (the package), version, file (inside its wheel), bytes, sha256. progress is told
    each step in words.
    """
    tell = progress or (lambda _: None)
    path = place(name, source)
    if path.is_file():
        tell(f"{name} is there already: {path}")
        return fetched_file(name, source)
    with tempfile.TemporaryDirectory() as folder:
        tell(f"downloading {source['fetch']} {source['version']} ({source['bytes'] / 1e6:.0f} MB)")
        wheel = _download(name, source, Path(folder))
        tell("checking the weights")
        content = _extract(name, source, wheel)
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write(path, content)
    tell(f"kept in {path}")
    return path


def _download(name: str, source: Mapping[str, Any], folder: Path) -> Path:
    """The wheel, by pip: it knows the machine's package index, mirrors and proxies."""
    requirement = f"{source['fetch']}=={source['version']}"
    options = ["--no-deps", "--only-binary", ":all:", "--no-input", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "download", *options, "--quiet", "--dest"]
    try:
        done = subprocess.run(
            [*command, str(folder), requirement],
            capture_output=True,
            text=True,
            timeout=_TIMEOUT,
            check=False,
        )
        said = done.stderr.strip().splitlines()
    except subprocess.TimeoutExpired:
        said = [f"no answer within {_TIMEOUT} seconds"]
    wheels = sorted(folder.glob("*.whl"))
    if len(wheels) != 1:
        errors = [line for line in said if "ERROR" in line] or said
        raise ModelError(
            f"expected pip to download {requirement} for {name}, but it failed "
            f"({errors[-1] if errors else 'without a message'}): check the network and pip's index"
        )
    return wheels[0]


def _extract(name: str, source: Mapping[str, Any], wheel: Path) -> bytes:
    """The one file of the wheel, never more of it than the card says."""
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(source["file"]) as file:
            content = file.read(source["bytes"] + 1)
    except (KeyError, zipfile.BadZipFile):
        content = b""
    if hashlib.sha256(content).hexdigest() != source["sha256"]:
        raise ModelError(
            f"expected {source['file']} in the package with sha256 {source['sha256']} for {name}, "
            "got another file: nothing was kept, try again from an index you trust"
        )
    return content


def bundled_file(source: Mapping[str, Any]) -> Path:
    """A weights file that lies beside the cards, its sha256 checked."""
    path = folder() / str(source["bundled"])
    if not path.is_file() or sha256_of(path) != source["sha256"]:
        raise ModelError(
            f"expected {path} with sha256 {source['sha256']}, got another file: reinstall visxai"
        )
    return path


def packaged_file(source: Mapping[str, Any]) -> Path:
    """A weights file of an installed package, found without importing it, its sha256 checked."""
    package, version = source["package"], source["version"]
    try:
        distribution = importlib.metadata.distribution(package)
    except importlib.metadata.PackageNotFoundError:
        raise ModelError(
            f"expected the package {package}=={version} to hold the weights, but it isn't "
            f"installed: pip install {package}=={version}"
        ) from None
    path = Path(str(distribution.locate_file(source["file"])))
    if not path.is_file() or sha256_of(path) != source["sha256"]:
        raise ModelError(
            f"expected {source['file']} of {package}=={version} with sha256 {source['sha256']}, "
            f"got another file: pip install --force-reinstall {package}=={version}"
        )
    return path


def sha256_of(path: Path) -> str:
    """The sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
