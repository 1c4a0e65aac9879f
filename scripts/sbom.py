"""A CycloneDX bill of materials (JSON, 1.6) of an environment that was installed from the lock.

    python scripts/sbom.py PYTHON [OUT]     what scripts/sbom calls

cyclonedx-py describes what is installed; the project's version and the files' hashes are added, the
project itself is left out of its own components, and the result is validated against the schema.
"""

from __future__ import annotations

import json
import re
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

ROOT = Path(__file__).resolve().parent.parent


def main(python: str, out: Path | None = None) -> None:
    version = runpy.run_path(str(ROOT / "visxai" / "_version.py"))["__version__"]
    bill = completed(described(python), version, (ROOT / "requirements/ci.lock").read_text("utf-8"))
    text = json.dumps(bill, indent=1) + "\n"
    flaw = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    if flaw is not None:
        sys.exit(f"expected a valid CycloneDX file, got: {flaw}")
    out = out or ROOT / "dist" / f"visxai-{version}.cdx.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(text, "utf-8")
    print(f"{out}: {len(bill['components'])} packages")


def described(python: str) -> dict[str, Any]:
    """Describe what is installed for an interpreter, as cyclonedx-py does."""
    command = [sys.executable, "-m", "cyclonedx_py", "environment", "--output-reproducible"]
    options = ["--pyproject", str(ROOT / "pyproject.toml"), "--mc-type", "library", "--sv", "1.6"]
    done = subprocess.run([*command, *options, python], capture_output=True, check=True)
    bill: dict[str, Any] = json.loads(done.stdout)
    return bill


def completed(bill: dict[str, Any], version: str, lock: str) -> dict[str, Any]:
    """Return a bill with the project's version, and with the hashes of the lock's files."""
    digests = {
        (name, pinned): digest
        for name, pinned, digest in re.findall(r"^(\S+)==(\S+) --hash=sha256:(\w+)$", lock, re.M)
    }
    bill["metadata"]["component"] |= {
        "version": version,
        "purl": f"pkg:pypi/visxai@{version}",
    }
    own = {one["bom-ref"] for one in bill["components"] if one["name"] == "visxai"}
    bill["components"] = [one for one in bill["components"] if one["bom-ref"] not in own]
    bill["dependencies"] = [one for one in bill["dependencies"] if one["ref"] not in own]
    for one in bill["components"]:
        name = re.sub(r"[-_.]+", "-", one["name"]).lower()
        if digest := digests.get((name, one["version"])):
            one["hashes"] = [{"alg": "SHA-256", "content": digest}]
    return bill


if __name__ == "__main__":
    main(sys.argv[1], *map(Path, sys.argv[2:]))
