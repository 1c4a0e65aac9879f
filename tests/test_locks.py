"""The locks that CI installs from, what is done where they can't serve, and what is audited."""

from __future__ import annotations

import re
import runpy
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
LOCKS = sorted((ROOT / "requirements").glob("*.lock"))
lock = runpy.run_path(str(ROOT / "scripts" / "lock.py"))
audit = runpy.run_path(str(ROOT / "scripts" / "audit.py"))
HERE = "CPython 3.11, Linux x86_64"


def locked_extras() -> str:
    found = re.search(r"^tested=(\S+)$", (ROOT / "scripts/_environment").read_text("utf-8"), re.M)
    assert found
    return found[1]


@pytest.mark.parametrize("path", LOCKS, ids=lambda path: path.name)
def test_a_lock_holds_versions_and_hashes_and_nothing_of_a_machine(path: Path) -> None:
    lines = path.read_text("utf-8").splitlines()
    for line in lines:
        pinned = r"[a-z0-9-]+==[A-Za-z0-9.!+]+ --hash=sha256:[0-9a-f]{64}"
        assert line.startswith("# ") or re.fullmatch(pinned, line), line
    assert "/" not in "".join(lines).replace("scripts/lock", "")


@pytest.mark.parametrize("name", ["ci", "tools"])
def test_the_locks_are_those_of_pyproject(name: str) -> None:
    """Where this fails, pyproject.toml has changed: run scripts/lock and commit what it writes."""
    text = (ROOT / "requirements" / f"{name}.lock").read_text("utf-8")
    extras = locked_extras() if name == "ci" else "release"
    assert lock["misfit"](text, HERE, lock["fingerprint"](extras)) == ""
    pinned = dict(re.findall(r"^(\S+)==(\S+) ", text, re.M))
    table = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    known = table["dependency-groups"] | table["project"]["optional-dependencies"]
    wanted = [one for extra in extras.split(",") for one in known[extra]]
    for one in map(Requirement, wanted + (table["project"]["dependencies"] * (name == "ci"))):
        if one.marker is None or one.marker.evaluate({"sys_platform": "linux"}):
            assert one.specifier.contains(pinned[one.name.lower()]), one


def test_another_interpreter_and_an_older_lock_are_told_apart() -> None:
    text = f"# for: {HERE}\n# pyproject: 0123\n"
    assert lock["misfit"](text, HERE, "0123") == ""
    assert "this is CPython 3.13, Darwin arm64" in lock["misfit"](
        text, "CPython 3.13, Darwin arm64", "0123"
    )
    assert "scripts/lock renews it" in lock["misfit"](text, HERE, "4567")


def test_a_lock_is_written_from_pips_report() -> None:
    def package(name: str, direct: bool = False) -> dict[str, Any]:
        told = {"url": "file:///somewhere", "archive_info": {"hashes": {"sha256": "ab"}}}
        return {
            "metadata": {"name": name, "version": "1.0"},
            "download_info": told,
            "is_direct": direct,
        }

    report = {"install": [package("visxai", True), package("Typing_Extensions"), package("numpy")]}
    assert lock["render"](report, "").splitlines()[1:] == [
        "numpy==1.0 --hash=sha256:ab",
        "typing-extensions==1.0 --hash=sha256:ab",
    ]


def test_an_audit_that_reached_nothing_says_so() -> None:
    verdict: Callable[..., tuple[str, int]] = audit["verdict"]
    skipped = [{"name": "numpy", "skip_reason": "not found"}]
    for nothing in ([], skipped):
        assert verdict(nothing, False)[1] == 0
        assert verdict(nothing, True)[1] == 2
        assert "nothing was audited" in verdict(nothing, True)[0]
    clean = {"name": "torch", "version": "2.0", "vulns": []}
    said, code = verdict([clean, *skipped], True)
    assert code == 0
    assert said.endswith("1 packages audited, 0 known vulnerabilities")
    assert "numpy" in said
    flaw = {"id": "CVE-1", "fix_versions": ["2.1"]}
    said, code = verdict([clean | {"vulns": [flaw]}], False)
    assert code == 1
    assert "torch 2.0: CVE-1, mended in 2.1" in said
