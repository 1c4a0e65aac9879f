"""Hostile code in a worker process: each limit bites, and nothing that is needed is lost."""

from __future__ import annotations

import ctypes
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from stores import explanation, photograph

from visxai import sandbox
from visxai.errors import Failure
from visxai.images.decoding import Limits
from visxai.images.preprocess import Preprocess
from visxai.pipeline import tasks
from visxai.pipeline.tasks import Setup
from visxai.pipeline.workers import Workers, confinement

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux's own limits")
LIMITS = Limits(max_bytes=2**20, max_pixels=10**6)


def attempt(_: Any, source: Any, deed: Callable[..., Any], *given: Any) -> str:
    """What hostile code gets when it has taken over a worker."""
    try:
        return f"done {deed(*given)}"
    except BaseException as error:
        return f"{type(error).__name__} {getattr(error, 'errno', '')}"


def connects() -> None:
    socket.create_connection(("127.0.0.1", 9), timeout=1)


def runs() -> None:
    subprocess.run(["true"], check=True)


def forks() -> int:
    child = os.fork()
    if child == 0:
        os._exit(0)
    return child


def traces() -> int:
    found = ctypes.CDLL(None, use_errno=True).ptrace(0, 0, 0, 0)  # PTRACE_TRACEME
    if found < 0:
        raise OSError(ctypes.get_errno(), "ptrace")
    return int(found)


def rings() -> int:
    found = ctypes.CDLL(None, use_errno=True).syscall(425, 1, ctypes.create_string_buffer(120))
    if found < 0:
        raise OSError(ctypes.get_errno(), "io_uring_setup")
    return int(found)


def signals_parent() -> None:
    os.kill(os.getppid(), 0)


def writes(path: str) -> None:
    Path(path).write_text("x")


def removes(path: str) -> None:
    os.remove(path)


def fills() -> int:
    return len(bytearray(3 * 2**30))


def opens() -> None:
    kept: list[int] = []
    try:
        while len(kept) < 100:
            kept.append(os.open(os.devnull, os.O_RDONLY))
    finally:
        for one in kept:
            os.close(one)


def raises_limits() -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY,) * 2)


def works() -> int:
    """Threads, files and files of the network's names are still there."""
    told: list[int] = []
    thread = threading.Thread(target=lambda: told.append(1))
    thread.start()
    thread.join()
    os.kill(os.getpid(), 0)
    return told[0] + len(Path(__file__).read_bytes()[:1])


def spins(worker: Any, source: Any) -> None:
    """Take the clock away and compute for ever."""
    import faulthandler

    with worker.timed():
        faulthandler.cancel_dump_traceback_later()
        while True:
            pass


@pytest.fixture(scope="module")
def confined(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Workers, Path]]:
    folder = tmp_path_factory.mktemp("sandbox")
    (folder / "kept.txt").write_text("kept")
    pool = Workers(Setup(Preprocess((8, 8)), LIMITS, writes=(str(folder / "out"),)), 1)
    yield pool, folder
    pool.close()


def told(pool: Workers, *call: Any) -> str:
    return str(pool.result(pool.submit(attempt, "", *call)))


def holds(pool: Workers, part: str) -> bool:
    found: dict[str, str] = pool.result(pool.submit(confinement, ""))
    assert tuple(found) == sandbox.PARTS
    return not found[part]


@pytest.mark.parametrize("deed", [connects, runs, forks, traces, rings, signals_parent])
def test_other_processes_and_machines_are_out_of_reach(
    confined: tuple[Workers, Path], deed: Callable[[], Any]
) -> None:
    pool, _ = confined
    if not holds(pool, "system calls"):
        pytest.skip("no seccomp here")
    assert told(pool, deed) == "PermissionError 1"


def test_only_the_folder_of_overlays_is_written_to(confined: tuple[Workers, Path]) -> None:
    pool, folder = confined
    if not holds(pool, "writing"):
        pytest.skip("no Landlock here")
    assert told(pool, writes, str(folder / "out" / "a.txt")) == "done None"
    assert told(pool, removes, str(folder / "out" / "a.txt")) == "done None"
    assert told(pool, writes, os.devnull) == "done None"
    for deed, name in ((writes, "new.txt"), (writes, "kept.txt"), (removes, "kept.txt")):
        assert told(pool, deed, str(folder / name)) == "PermissionError 13"
    assert (folder / "kept.txt").read_text() == "kept"


@pytest.mark.parametrize(
    ("deed", "error"),
    [(fills, "MemoryError"), (opens, "OSError 24"), (raises_limits, "ValueError")],
)
def test_memory_and_files_have_an_end(
    confined: tuple[Workers, Path], deed: Callable[[], Any], error: str
) -> None:
    if deed is raises_limits and os.geteuid() == 0 and _may_raise():
        pytest.skip("whoever may do anything may raise limits too, but for the filter")
    assert told(confined[0], deed).strip() == error


def _may_raise() -> bool:
    """Whether this process may raise hard limits, as root outside containers may."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff"):
            return bool(int(line.split()[1], 16) >> 24 & 1)  # CAP_SYS_RESOURCE
    return True


def test_what_decoding_needs_is_left(confined: tuple[Workers, Path]) -> None:
    assert told(confined[0], works) == "done 2"


def test_computing_has_an_end_without_the_clock() -> None:
    pool = Workers(Setup(Preprocess((8, 8)), LIMITS, timeout=0.5), 1)
    try:
        found = pool.result(pool.submit(spins, "x.png"))
    finally:
        pool.close()
    assert isinstance(found, Failure)
    assert found.kind == "WorkerDied"


def test_an_image_too_large_for_memory_is_a_failure(tmp_path: Path) -> None:
    path = tmp_path / "wide.tif"
    Image.new("F", (9000, 9000)).save(path, compression="tiff_adobe_deflate")
    drawn = explanation(photograph(tmp_path / "a.png", 1))
    # A limit on pixels that is wrong on purpose: memory is what stops this one.
    setup = _Generous(Preprocess((8, 8)), Limits(max_pixels=10**8), writes=(str(tmp_path),))
    pool = Workers(setup, 1)
    try:
        found = pool.result(pool.submit(tasks.decode, str(path)))
        failure = found if isinstance(found, Failure) else found.input
        assert isinstance(failure, Failure)
        assert "memory" in failure.reason
        target = tmp_path / "overlay.jpg"
        pool.result(pool.submit(tasks.draw, drawn.input.path, [(drawn, target)]))
        assert target.exists()  # the worker goes on
    finally:
        pool.close()


class _Generous(Setup):
    @property
    def memory(self) -> int:
        return 200 * 2**20


def test_switched_off_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VISXAI_SANDBOX", "0")
    assert set(sandbox.confine(1, ()).values()) == {"switched off by VISXAI_SANDBOX=0"}


def test_elsewhere_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox.sys, "platform", "win32")
    assert set(sandbox.confine(1, ())) == set(sandbox.PARTS)
    assert all("not on" in why for why in sandbox.confine(1, ()).values())
    sandbox.limit_cpu(1.0)


def test_a_kernel_without_it_leaves_the_rest() -> None:
    # In a process of its own: what is given up never comes back.
    code = """
import os
from visxai import sandbox
def none(number, *rest):
    raise OSError(38, "Function not implemented")
sandbox._syscall = none
found = sandbox.confine(2**30, ())
assert found == {"memory": "", "open files": "", "system calls": "function not implemented",
                 "writing": "function not implemented"}, found
sandbox.platform.machine = lambda: "riscv64"
assert sandbox.confine(2**30, ())["system calls"] == "not on riscv64"
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_the_programs_own_script_keeps_its_name(tmp_path: Path) -> None:
    """Starting a worker hides nothing from other threads, and runs the script only once."""
    script = tmp_path / "script.py"
    script.write_text(
        "import sys, threading\n"
        "from visxai.images.preprocess import Preprocess\n"
        "from visxai.pipeline.tasks import Setup\n"
        "from visxai.pipeline.workers import Workers, confinement\n"
        "print('run')\n"
        "seen, over = set(), threading.Event()\n"
        "def watch():\n"
        "    while not over.is_set():\n"
        "        seen.add(sys.modules['__main__'].__file__)\n"
        "thread = threading.Thread(target=watch)\n"
        "thread.start()\n"
        "pool = Workers(Setup(Preprocess((8, 8))), 1)\n"
        "pool.result(pool.submit(confinement, ''))\n"
        "over.set(); thread.join(); pool.close()\n"
        "assert seen == {__file__}, seen\n"
    )
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, check=False, timeout=120
    )
    assert (done.returncode, done.stdout) == (0, "run\n"), done.stderr
