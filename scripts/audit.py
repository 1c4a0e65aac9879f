"""Known vulnerabilities in the packages of requirements/*.lock, by pip-audit.

    python scripts/audit.py [--strict]      what scripts/audit calls

pip-audit counts a package that the database doesn't answer for as skipped, and then reports that
nothing was found; here it is said that nothing was looked at.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


def main(strict: bool) -> int:
    found, code = verdict(audited(sorted((ROOT / "requirements").glob("*.lock"))), strict)
    print(found)
    return code


def audited(locks: list[Path]) -> list[dict[str, Any]]:
    """Ask the database about every package of some lock files.

    Returns:
        A dictionary a package: name, version and vulns, or name and skip_reason. None at all where
        pip-audit fails, as it does without a network.
    """
    command = [sys.executable, "-m", "pip_audit", "--disable-pip", "--progress-spinner=off"]
    named = [word for lock in locks for word in ("--requirement", str(lock))]
    done = subprocess.run(
        [*command, "--format=json", *named], capture_output=True, text=True, check=False
    )
    try:
        packages: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except json.JSONDecodeError:
        return []
    return packages


def verdict(packages: list[dict[str, Any]], strict: bool) -> tuple[str, int]:
    """Say what was found, and return it with the exit code."""
    known = [one for one in packages if "skip_reason" not in one]
    if not known:
        return (
            "expected an answer from PyPI's advisory database, got none, so nothing was audited: "
            "run it where the network reaches the advisory database, as the hosted workflow does"
        ), 2 if strict else 0
    lines = [
        f"{one['name']} {one['version']}: {flaw['id']}, mended in "
        f"{', '.join(flaw['fix_versions']) or 'no version yet'}"
        for one in known
        for flaw in one["vulns"]
    ]
    unknown = [one["name"] for one in packages if "skip_reason" in one]
    if unknown:
        lines.append(f"not audited, as the database doesn't know them: {', '.join(unknown)}")
    flaws = sum(len(one["vulns"]) for one in known)
    lines.append(f"{len(known)} packages audited, {flaws} known vulnerabilities")
    return "\n".join(lines), 1 if flaws else 0


if __name__ == "__main__":
    sys.exit(main("--strict" in sys.argv[1:]))
