"""New inputs for one target, made by atheris, which keeps those that reach new code.

Run as a process of its own, since libFuzzer ends its process: `python -m fuzz.explore spec 60`.
What goes wrong is written to .fuzz/finds once for each place it is raised at, and the search goes
on; an input that takes too long or too much memory ends it.
"""

from __future__ import annotations

import hashlib
import sys
import traceback
from pathlib import Path

import atheris

GROWN = Path(".fuzz")
FINDS = GROWN / "finds"
SECONDS = 30  # for one input, by the clock: machines are busy
MEBIBYTES = 3072  # of the whole process
INSTRUMENTED = ["visxai", "PIL", "tarfile", "csv", "json", "tomllib", "fuzz.targets"]


def main(name: str, seconds: int) -> None:
    """Search for `seconds`; doesn't return."""
    with atheris.instrument_imports(include=INSTRUMENTED):
        from fuzz import replay

        module = replay.target(name)
    (GROWN / name).mkdir(parents=True, exist_ok=True)
    FINDS.mkdir(exist_ok=True)
    seen: set[str] = set()

    def one(data: bytes) -> None:
        try:
            replay.check(module, data)
        except Exception as error:
            at = traceback.extract_tb(error.__traceback__)[-1]
            place = f"{type(error).__name__} {at.filename}:{at.lineno}"
            if place not in seen:
                seen.add(place)
                digest = hashlib.sha256(data).hexdigest()[:12]
                (FINDS / f"{name}-{digest}").write_bytes(data)
                traceback.print_exc()

    options = [
        f"-max_total_time={seconds}",
        f"-timeout={SECONDS}",
        f"-rss_limit_mb={MEBIBYTES}",
        f"-artifact_prefix={FINDS}/{name}-",
        "-max_len=65536",
        "-print_final_stats=1",
        "-verbosity=0",
    ]
    if words := getattr(module, "WORDS", ()):
        (GROWN / f"{name}.dict").write_text("".join(f'"{_quoted(word)}"\n' for word in words))
        options.append(f"-dict={GROWN}/{name}.dict")
    folders = [str(GROWN / name), str(replay.CORPUS / name)]
    atheris.Setup([name, *options, *folders], one)
    atheris.Fuzz()


def _quoted(word: str) -> str:
    return "".join(c if c.isalnum() else "".join(f"\\x{b:02x}" for b in c.encode()) for c in word)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
