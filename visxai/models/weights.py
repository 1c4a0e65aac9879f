"""Weights files and their checks: in the cache, beside the cards, or in an installed package.

Some weights are published in packages whose requirements would damage an environment. Their file is
fetched once and kept in the cache: it is extracted from the package's wheel, as data, so nothing of
the package is run or installed. Every file is used only while its sha256 is the card's.
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
    """Return the folder of fetched weights: $VISXAI_CACHE, or the platform's cache folder."""
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
    """Return where the cache keeps the file of a card's source, whether or not it exists."""
    return cache_folder() / "models" / f"{name}{Path(source['file']).suffix}"


def fetched_file(name: str, source: Mapping[str, Any]) -> Path:
    """Return the file of a card's source in the cache, after its sha256 is checked.

    Raises:
        ModelError: the file hasn't been fetched, or differs from the card's.
    """
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
    """Fetch the file of a card's source, unless the cache has it.

    Args:
        name: the model's name.
        source: the card's source: fetch (the package), version, file (inside its wheel), bytes,
            sha256.
        progress: called with a sentence for each step.

    Returns:
        Where the cache keeps the file.

    Raises:
        ModelError: the download failed, or the file's sha256 isn't the card's.
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
    """Download the package's wheel by pip, which knows the machine's index, mirrors and proxies."""
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
    """Read the weights from the wheel, at most as many bytes as the card states, and check them."""
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
    """Return a weights file that lies beside the cards, after its sha256 is checked.

    Raises:
        ModelError: the file is missing, or its sha256 isn't the card's.
    """
    path = folder() / str(source["bundled"])
    if not path.is_file() or sha256_of(path) != source["sha256"]:
        raise ModelError(
            f"expected {path} with sha256 {source['sha256']}, got another file: reinstall visxai"
        )
    return path


def packaged_file(source: Mapping[str, Any]) -> Path:
    """Return a weights file of an installed package, after its sha256 is checked.

    The package is located without being imported.

    Args:
        source: the card's source: package, version, file (inside the package), sha256.

    Raises:
        ModelError: the package isn't installed, or the file's sha256 isn't the card's.
    """
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
    """Compute the sha256 of a file's bytes, 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
