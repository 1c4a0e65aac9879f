"""New inputs for one target, made by atheris, which keeps those that reach new code.

Run as a process of its own, since libFuzzer ends its process: `python -m fuzz.explore spec 60`
searches for a minute and keeps what it learnt for the next time; with `repeatably` for 60, it
makes the target's number of inputs, the same ones each time.
What goes wrong is written to .fuzz/finds once for each place it is raised at, and the search goes
on; an input that takes too long or too much memory ends it.
"""

from __future__ import annotations

import hashlib
import sys
import tempfile
import traceback
from pathlib import Path

import atheris

GROWN = Path(".fuzz")
FINDS = GROWN / "finds"
RUNS = 20_000  # inputs of a repeatable search
SECONDS = 300  # for one input, by the clock: machines are busy, and may stand still for a while
MEBIBYTES = 3072  # of the whole process
INSTRUMENTED = ["visxai", "PIL", "tarfile", "csv", "json", "tomllib", "fuzz.targets"]


def main(name: str, seconds: int | None) -> None:
    """Search for `seconds`, or None to repeat the same search each time; doesn't return."""
    with atheris.instrument_imports(include=INSTRUMENTED):
        from fuzz import replay

        module = replay.target(name)
    FINDS.mkdir(parents=True, exist_ok=True)
    if seconds is None:
        grown = tempfile.mkdtemp(dir=GROWN)
        until = ["-seed=1", f"-runs={getattr(module, 'RUNS', RUNS)}"]
    else:
        grown = str(GROWN / name)
        (GROWN / name).mkdir(exist_ok=True)
        until = [f"-max_total_time={seconds}"]
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
        *until,
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
    folders = [grown, str(replay.CORPUS / name)]
    atheris.Setup([name, *options, *folders], one)
    atheris.Fuzz()


def _quoted(word: str) -> str:
    return "".join(c if c.isalnum() else "".join(f"\\x{b:02x}" for b in c.encode()) for c in word)


if __name__ == "__main__":
    main(sys.argv[1], None if sys.argv[2] == "repeatably" else int(sys.argv[2]))
