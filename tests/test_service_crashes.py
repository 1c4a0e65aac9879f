"""The service as processes: killed at any moment, it loses nothing and does nothing twice."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import databases
import httpx
import pytest
from sqlalchemy import select
from test_service import photo

from visxai.ledger import Ledger, explanations
from visxai.ledger.database import Database
from visxai.serve import tables

SETTINGS = """
[policy]
name = "all-1"
rules = [{category = "any", when = "class=7>-1"}]
[model]
device = "cpu"
precision = "fp32"
[queue]
lease = 1.0
[limits]
at_once = 8
[tiers.fast]
batch = 4
"""


class Processes:
    """The processes of one service; all are ended with the test."""

    def __init__(self, folder: Path, database: str) -> None:
        self.folder, self.database = folder, database
        (folder / "a.toml").write_text(SETTINGS)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.running: list[subprocess.Popen[str]] = []
        self.key = ""

    def start(self, *words: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "visxai", *words, "--config", "a.toml", "--data", "data"]
        process = subprocess.Popen(
            [*command, "--database", self.database],
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            # Tests that run in the background inherit that Ctrl-C is ignored.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )
        self.running.append(process)
        return process

    def api(self, *words: str) -> subprocess.Popen[str]:
        """Start an API on the same port as before, and wait until it answers."""
        process = self.start("serve", "--port", str(self.port), *words)
        assert process.stdout is not None
        wait_for_line(process, "serves on")
        if not self.key:
            line = process.stdout.readline()
            self.key = re.search(r"vx_\w+", line).group()  # type: ignore[union-attr]
        return process

    def worker(self) -> subprocess.Popen[str]:
        process = self.start("worker", "--lanes", "fast")
        wait_for_line(process, "works on")
        return process

    def post(self, data: bytes, **more: Any) -> httpx.Response:
        return httpx.post(
            f"http://127.0.0.1:{self.port}/v1/items",
            headers={"Authorization": f"Bearer {self.key}", **more},
            files={"image": ("a.png", data)},
            timeout=30,
        )

    def close(self) -> None:
        for process in self.running:
            process.kill()
            process.wait(10)
            assert process.stdout is not None
            process.stdout.close()


def wait_for_line(process: subprocess.Popen[str], said: str) -> None:
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if said in line:
            return
    raise AssertionError("".join(lines))


@pytest.fixture(params=databases.KINDS)
def processes(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Processes]:
    made = Processes(tmp_path, databases.address(request.param, tmp_path))
    yield made
    made.close()


def settle(processes: Processes, accepted: list[dict[str, Any]]) -> None:
    """Wait until every accepted item has its explanation, and check that it has exactly one."""
    database = Database(processes.database)
    wanted = {one["explanation"]["id"] for one in accepted}

    def states() -> dict[str, str]:
        with database.reading() as connection:
            rows = connection.execute(select(tables.jobs.c.id, tables.jobs.c.state))
            return {row.id: row.state for row in rows}

    try:
        databases.wait_until(lambda: all(states().get(id) == "done" for id in wanted), 60)
        # Whatever was put down without an answer ends as well.
        databases.wait_until(lambda: set(states().values()) == {"done"}, 60)
        with database.reading() as connection:
            made = [one.id for one in explanations.find(connection)]
            added = connection.execute(
                select(explanations.audit.audit.c.subject).where(
                    explanations.audit.audit.c.event == "explanation.added"
                )
            ).scalars()
            assert sorted(added) == sorted(made) == sorted(states())
        assert Ledger(database).verify()
    finally:
        database.close()


def test_killing_api_and_worker_loses_nothing_and_doubles_nothing(processes: Processes) -> None:
    api, worker = processes.api("--no-workers"), processes.worker()
    accepted: list[dict[str, Any]] = []
    over = threading.Event()

    def send() -> None:
        number = 0
        while not over.is_set():
            number += 1
            try:
                answer = processes.post(photo(number % 25), **{"Idempotency-Key": str(number)})
            except httpx.TransportError:
                time.sleep(0.05)  # the API is away: the client tries the next item
                continue
            assert answer.status_code in (200, 429), answer.text
            if answer.status_code == 200:
                accepted.append(answer.json())

    sender = threading.Thread(target=send)
    sender.start()
    try:
        databases.wait_until(lambda: len(accepted) >= 10)
        worker.send_signal(signal.SIGKILL)
        databases.wait_until(lambda: len(accepted) >= 20)
        api.send_signal(signal.SIGKILL)
        count = len(accepted)
        worker, api = processes.start("worker", "--lanes", "fast"), processes.api("--no-workers")
        databases.wait_until(lambda: len(accepted) >= count + 10)
    finally:
        over.set()
        sender.join()
    settle(processes, accepted)


@pytest.mark.parametrize("processes", ["sqlite"], indirect=True)
def test_an_item_whose_worker_always_dies_ends_as_a_failure(
    processes: Processes, tmp_path: Path
) -> None:
    """A worker that kills itself at one item takes no other item down with it."""
    (tmp_path / "sitecustomize.py").write_text(
        "import os, sys\n"
        "if 'worker' in sys.argv:\n"
        "    import visxai.serve.worker as w\n"
        "    real = w.Worker._examine\n"
        "    def examine(self, job):\n"
        "        if job.spec['metadata'].get('deadly'):\n"
        "            os.kill(os.getpid(), 9)\n"
        "        return real(self, job)\n"
        "    w.Worker._examine = examine\n"
    )
    processes.api("--no-workers")
    url = f"http://127.0.0.1:{processes.port}/v1"
    own = {"Authorization": f"Bearer {processes.key}"}
    ids = []
    for number in range(4):
        answer = httpx.post(
            f"{url}/items",
            headers=own,
            files={"image": ("a.png", photo(number))},
            data={"metadata": '{"deadly": true}' if number == 1 else "{}"},
            timeout=30,
        )
        ids.append(answer.json()["explanation"]["id"])
    old = os.environ.get("PYTHONPATH", "")
    os.environ["PYTHONPATH"] = f"{tmp_path}{os.pathsep}{old}"
    try:
        states: list[str] = []
        for _ in range(8):
            process = processes.start("worker", "--lanes", "fast")

            def look() -> list[str]:
                return [
                    httpx.get(f"{url}/explanations/{id}", headers=own).json()["state"] for id in ids
                ]

            databases.wait_until(
                lambda process=process: (
                    process.poll() is not None or set(look()) <= {"done", "failed"}
                ),
                60,
            )
            states = look()
            if set(states) <= {"done", "failed"}:
                break
            time.sleep(1.1)  # the lease runs out
    finally:
        os.environ["PYTHONPATH"] = old
    assert states == ["done", "failed", "done", "done"]
    reason = httpx.get(f"{url}/explanations/{ids[1]}", headers=own).json()["reason"]
    assert "three ends" in reason


def test_postgres_may_go_away_and_come_back(tmp_path: Path) -> None:
    cluster = databases.cluster()
    processes = Processes(tmp_path, cluster.make())
    try:
        processes.api()  # workers inside
        accepted = [processes.post(photo(n)).json() for n in range(4)]
        cluster.stop("immediate")
        try:
            gone = processes.post(photo(5))
            assert gone.status_code == 503
            assert int(gone.headers["retry-after"]) >= 1
            assert "127.0.0.1" not in gone.text
        finally:
            cluster.start()
        databases.wait_until(lambda: processes.post(photo(6)).status_code == 200)
        settle(processes, accepted)
    finally:
        processes.close()


def test_the_log_holds_neither_names_nor_keys_and_ctrl_c_ends_it(tmp_path: Path) -> None:
    processes = Processes(tmp_path, databases.address("sqlite", tmp_path))
    try:
        api = processes.api()
        url = f"http://127.0.0.1:{processes.port}/v1/items"
        own = {"Authorization": f"Bearer {processes.key}"}
        for data in (photo(1), b"no image of Jane"):
            files = {"image": ("Jane Doe.png", data)}
            httpx.post(url, headers=own, files=files, data={"metadata": '{"who": "Jane"}'})
        httpx.post(url, headers=own, content=b"Jane")
        # More requests at once than allowed: refused before a byte of the body is read.
        held = []
        for _ in range(8):
            one = socket.create_connection(("127.0.0.1", processes.port))
            head = (
                f"POST /v1/items HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {processes.key}\r\n"
            )
            one.sendall(
                f"{head}Content-Type: application/json\r\nContent-Length: 9\r\n\r\n".encode()
            )
            held.append(one)
        databases.wait_until(lambda: processes.post(photo(1)).status_code == 429)
        for one in held:
            one.close()
        databases.wait_until(lambda: processes.post(photo(1)).status_code == 200)
        api.send_signal(signal.SIGINT)
        assert api.stdout is not None
        said = api.stdout.read()
        assert api.wait(30) == 130  # interrupted, once what was under way had its answer
        assert "Jane" not in said
        assert processes.key not in said
    finally:
        processes.close()


def test_mistakes_at_the_start_are_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text("[limits]\nmax_byts = 3\n")
    ran = subprocess.run(
        [sys.executable, "-m", "visxai", "serve", "--config", "a.toml"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 2
    assert ran.stderr.strip() == (
        "visxai: a.toml: limits.max_byts is no setting, check its spelling"
    )
