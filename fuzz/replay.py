"""One input through a target, and the corpus of all: what must hold, without any fuzzer."""

from __future__ import annotations

import contextlib
import importlib
import pkgutil
import time
from pathlib import Path
from types import ModuleType

from fuzz import targets
from visxai.errors import VisxaiError

HERE = Path(__file__).parent
CORPUS = HERE / "corpus"
SECONDS = 10.0  # of the processor, for one input
MEMORY = 2**30  # bytes that one input may add to the process's peak


def names() -> list[str]:
    """The targets, sorted: the files of fuzz/targets."""
    return sorted(module.name for module in pkgutil.iter_modules(targets.__path__))


def target(name: str) -> ModuleType:
    """The target's module."""
    return importlib.import_module(f"fuzz.targets.{name}")


def check(module: ModuleType, data: bytes) -> None:
    """Hand `data` to a target; AssertionError where it costs too much, any exception but a
    VisxaiError as it is."""
    began, peak = time.process_time(), _peak()
    with contextlib.suppress(VisxaiError):
        module.check(data)
    seconds, added = time.process_time() - began, _peak() - peak
    assert seconds <= SECONDS, f"expected at most {SECONDS:g} s for an input, took {seconds:.1f} s"
    assert added <= MEMORY, f"expected at most {MEMORY} bytes for an input, took {added}"


def inputs(name: str) -> list[Path]:
    """The inputs kept for a target."""
    return sorted((CORPUS / name).iterdir())


def replay(name: str) -> list[str]:
    """Every input kept for a target; what went wrong, in one line each."""
    module, wrong = target(name), []
    for path in inputs(name):
        try:
            check(module, path.read_bytes())
        except Exception as error:
            wrong.append(f"{path.relative_to(HERE)}: {type(error).__name__}: {error}")
    return wrong


def write_seeds(name: str) -> None:
    """Write a target's seeds into its corpus; finds and others that lie there stay."""
    folder = CORPUS / name
    folder.mkdir(parents=True, exist_ok=True)
    for seed, data in target(name).seeds().items():
        (folder / seed).write_bytes(data)


def _peak() -> int:
    """The most memory that this process has held so far, in bytes; 0 where it can't be told."""
    try:
        import resource
    except ImportError:
        return 0
    import sys

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
