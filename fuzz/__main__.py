"""The command line of the package fuzz; see there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import fuzz
from fuzz import replay

_FINDS = Path(".fuzz/finds")


def main(arguments: list[str]) -> int:
    """Run a command; 0 where nothing went wrong."""
    known = replay.names()
    match arguments:
        case ["list"]:
            print(*known, sep="\n")
        case ["corpus"]:
            for name in known:
                replay.write_seeds(name)
        case ["replay"]:
            wrong = [line for name in known for line in replay.replay(name)]
            print(*wrong, f"{sum(len(replay.inputs(n)) for n in known)} inputs", sep="\n")
            return bool(wrong)
        case ["all", seconds] if seconds.isdecimal():
            each = str(max(1, int(seconds) // len(known)))
            return max([_explore(name, each) for name in known])
        case ["all", "repeatably"]:
            return max([_explore(name, "repeatably") for name in known])
        case [name, until] if name in known and (until.isdecimal() or until == "repeatably"):
            return _explore(name, until)
        case _:
            print(fuzz.__doc__, file=sys.stderr)
            return 2
    return 0


def _explore(name: str, until: str) -> int:
    """New inputs for one target; 1 where something went wrong."""
    before = set(_FINDS.glob(f"{name}-*"))
    # Sets of text are walked in the same order each time.
    settings = {**os.environ, "PYTHONHASHSEED": "0"}
    ended = subprocess.run([sys.executable, "-m", "fuzz.explore", name, until], env=settings)
    new = sorted(set(_FINDS.glob(f"{name}-*")) - before)
    print(f"{name}: {len(new)} finds", *new, sep="\n")
    return int(bool(new) or ended.returncode != 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
