"""Lock files for CI: written from pip's report, and compared with what they shall serve.

    python scripts/lock.py write REPORT LOCK EXTRAS     what scripts/lock calls
    python scripts/lock.py misfit LOCK EXTRAS           exit code 1 and why, where it can't serve

EXTRAS may name dependency groups too.

Only the standard library is used: this runs before anything is installed.
"""

from __future__ import annotations

import hashlib
import json
import platform
import re
import sys
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


def main(arguments: list[str]) -> int:
    match arguments:
        case ["write", report, lock, extras]:
            text = render(json.loads(Path(report).read_text("utf-8")), extras)
            Path(lock).write_text(text, "utf-8", newline="\n")
            print(f"{lock}: {text.count('--hash=')} packages")
            return 0
        case ["misfit", lock, extras]:
            found = misfit(Path(lock).read_text("utf-8"), interpreter(), fingerprint(extras))
            print(f"{lock} {found}")
            return 1 if found else 0
    sys.exit(__doc__)


def render(report: dict[str, Any], extras: str) -> str:
    """Write a lock file's text from pip's report (`pip install --report`).

    Args:
        report: pip's report, parsed.
        extras: the extras that were resolved, separated by commas; "" for a lock of tools.

    Returns:
        A requirements file in which every package has its version and the sha256 of its file, and
        neither address nor path.
    """
    lines = ["# Written by scripts/lock; don't edit. Install with pip --require-hashes."]
    if extras:
        lines += [f"# for: {interpreter()}", f"# pyproject: {fingerprint(extras)}"]
    for package in sorted(report["install"], key=_name):
        if package["is_direct"]:
            continue  # the project itself
        digest = package["download_info"]["archive_info"]["hashes"]["sha256"]
        lines.append(f"{_name(package)}=={package['metadata']['version']} --hash=sha256:{digest}")
    return "\n".join(lines) + "\n"


def _name(package: dict[str, Any]) -> str:
    """Return a package's name in its normalised spelling."""
    return re.sub(r"[-_.]+", "-", package["metadata"]["name"]).lower()


def interpreter() -> str:
    """Return what a lock depends on: implementation, Python's minor version, system, machine."""
    name = platform.python_implementation()
    version = ".".join(platform.python_version_tuple()[:2])
    return f"{name} {version}, {platform.system()} {platform.machine()}"


def fingerprint(extras: str, pyproject: Path = ROOT / "pyproject.toml") -> str:
    """Return a digest of everything in pyproject.toml that decides what is resolved."""
    table = tomllib.loads(pyproject.read_text("utf-8"))
    project = table["project"]
    known = table["dependency-groups"] | project["optional-dependencies"]
    optional = {name: known[name] for name in extras.split(",")}
    decisive = [project["requires-python"], project["dependencies"], optional]
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:16]


def misfit(lock: str, here: str, wanted: str) -> str:
    """Say why a lock can't serve an interpreter and a pyproject.toml; "" where it can.

    Args:
        lock: the lock file's text.
        here: the interpreter, as `interpreter()` names it.
        wanted: the digest of pyproject.toml, as `fingerprint()` gives it.
    """
    told = dict(re.findall(r"^# (for|pyproject): (.+)$", lock, re.M))
    if told.get("for") != here:
        return f"is for {told.get('for')}, and this is {here}"
    if told.get("pyproject") != wanted:
        return "is older than pyproject.toml (scripts/lock renews it)"
    return ""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
