"""Databases for tests: SQLite files, and a Postgres cluster of this process's own."""

from __future__ import annotations

import atexit
import functools
import glob
import os
import shutil
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Sequence
from pathlib import Path

import pytest

KINDS = [
    "sqlite",
    pytest.param("postgres", marks=pytest.mark.xdist_group("postgres")),
]


def programs() -> Path | None:
    """The folder of Postgres's programs, None where it isn't installed."""
    places = sorted(glob.glob("/usr/lib/postgresql/*/bin"), reverse=True)
    known = shutil.which("initdb")
    places += [str(Path(known).parent)] if known else []
    return next((Path(place) for place in places if Path(place, "initdb").exists()), None)


class Cluster:
    """A Postgres cluster in a folder of its own, on a loopback port.

    Postgres refuses to run as root, so root runs it as the user that Debian's package makes.
    """

    def __init__(self, bin: Path) -> None:
        self.bin = bin
        self.folder = Path(tempfile.mkdtemp(prefix="visxai-pg-"))
        if os.getuid() == 0:
            shutil.chown(self.folder, "postgres")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._do("initdb", "-D", "data", "-U", "visxai", "--auth=trust", "--no-sync", "-E", "UTF8")
        self.start()

    def start(self) -> None:
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -k {self.folder} -c fsync=off"
        self._do("pg_ctl", "-D", "data", "-w", "-l", "log", "-o", options, "start")

    def stop(self, mode: str = "immediate") -> None:
        """Stop it; "immediate" is what a crash leaves behind."""
        self._do("pg_ctl", "-D", "data", "-w", "-m", mode, "stop")

    def close(self) -> None:
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def make(self) -> str:
        """Make an empty database; return its address."""
        name = f"t{uuid.uuid4().hex}"
        self._do("createdb", "-h", "127.0.0.1", "-p", str(self.port), "-U", "visxai", name)
        return f"postgresql://visxai@127.0.0.1:{self.port}/{name}"

    def _do(self, program: str, *arguments: str) -> None:
        user: Sequence[str] = ("runuser", "-u", "postgres", "--") if os.getuid() == 0 else ()
        with tempfile.TemporaryFile("w+") as said:  # a pipe would stay open in the server
            done = subprocess.run(
                [*user, str(self.bin / program), *arguments],
                cwd=self.folder,
                stdout=said,
                stderr=said,
                timeout=120,
            )
            said.seek(0)
            assert done.returncode == 0, said.read()


@functools.cache
def cluster() -> Cluster:
    """The cluster of this process; skips the test where Postgres isn't installed."""
    bin = programs()
    if bin is None:
        pytest.skip("no Postgres: install Debian's package postgresql")
    made = Cluster(bin)
    atexit.register(made.close)
    return made


def address(kind: str, folder: Path) -> str:
    """The address of a new, empty database."""
    if kind == "sqlite":
        return f"sqlite:///{folder / f'{uuid.uuid4().hex}.db'}"
    return cluster().make()


def wait_until(true: object, seconds: float = 30.0) -> None:
    """Wait until a function returns something true."""
    assert callable(true)
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)
