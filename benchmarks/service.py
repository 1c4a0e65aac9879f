"""The service beside the engine: throughput, added latency, cache, batching, overload.

    python benchmarks/service.py                      # all parts, some ten minutes
    python benchmarks/service.py --only latency       # one part; the others' results stay
    python benchmarks/service.py --database postgresql://visxai@localhost/empty --only load

`visxai serve` runs in a process of its own with workers inside, over SQLite and on loopback; the
clients are threads of this process with a connection each, and the engine runs in this process
while the service is idle. Both use the same cores; parts that are compared alternate. An answer
waits until its item is on the disk, so every part says how long a sync takes there, and latency is
measured on a disk and in memory. Writes benchmarks/results/service.json.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import io
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import measure
import numpy as np
from PIL import Image

BATCH = 16
FLAG = "class=7>-1"  # flags everything
PASS = "class=7>2"  # flags nothing


# ---- the service and its clients --------------------------------------------------------------


class Served:
    """A running service; `key` opens it, `pid` is its process."""

    def __init__(self, process: subprocess.Popen[str], port: int, key: str) -> None:
        self.process, self.port, self.key = process, port, key

    def memory(self) -> float:
        """The resident MiB of the process and its children."""
        pids, total = [self.process.pid], 0
        while pids:
            pid = pids.pop()
            with contextlib.suppress(OSError):
                told = Path(f"/proc/{pid}/status").read_text()
                total += int(re.search(r"VmRSS:\s+(\d+)", told).group(1))  # type: ignore[union-attr]
                for task in Path(f"/proc/{pid}/task").iterdir():
                    pids += map(int, (task / "children").read_text().split())
        return total / 1024


@contextlib.contextmanager
def serving(
    when: str = PASS, wait_ms: float | None = None, more: str = "", below: str | None = None
) -> Iterator[Served]:
    """Run a service in a folder of its own."""
    wait = "" if wait_ms is None else f"wait_ms = {wait_ms}\n"
    with tempfile.TemporaryDirectory(prefix="visxai-bench-", dir=below) as folder:
        Path(folder, "a.toml").write_text(
            f'[policy]\nname = "p"\nrules = [{{category = "c", when = "{when}"}}]\n'
            f'[limits]\nbatch = {BATCH}\n{wait}[model]\nprecision = "fp32"\n{more}'
        )
        command = [sys.executable, "-m", "visxai", "serve", "--port", "0", "--config", "a.toml"]
        process = subprocess.Popen(
            command, cwd=folder, stdout=subprocess.PIPE, text=True, env=dict(os.environ)
        )
        assert process.stdout is not None
        try:
            port = key = None
            for line in process.stdout:
                port = port or re.search(r"http://127.0.0.1:(\d+)", line)
                key = re.search(r"vx_\w+", line)
                if key:
                    break
            assert port is not None, "the service didn't start"
            assert key is not None, "the service made no key"
            yield Served(process, int(port.group(1)), key.group())
        finally:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
            process.stdout.close()


class Client:
    """One connection that is kept open."""

    def __init__(self, served: Served) -> None:
        self._headers = {"Authorization": f"Bearer {served.key}"}
        self._connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=60)

    def send(
        self, method: str, path: str, body: bytes | None = None, kind: str = "application/json"
    ) -> tuple[int, dict[str, str], Any]:
        """Send a request; return status, headers and the answer's JSON."""
        headers = {**self._headers, **({"Content-Type": kind} if body else {})}
        try:
            self._connection.request(method, path, body, headers)
            answer = self._connection.getresponse()
            told = answer.read()
        except (http.client.HTTPException, OSError):
            self._connection.close()
            return 0, {}, None
        named = {name.lower(): value for name, value in answer.getheaders()}
        return answer.status, named, json.loads(told) if told else None

    def item(self, data: bytes, query: str = "") -> tuple[int, dict[str, str], Any]:
        """Send an item as a form."""
        edge = "visxai-edge"
        head = (
            f"--{edge}\r\nContent-Disposition: form-data; name=image; filename=a.jpg\r\n"
            "Content-Type: image/jpeg\r\n\r\n"
        )
        body = head.encode() + data + f"\r\n--{edge}--\r\n".encode()
        return self.send("POST", f"/v1/items{query}", body, f"multipart/form-data; boundary={edge}")


class Photographs:
    """Endlessly many different small photographs, as JPEG files."""

    def __init__(self, seed: int = 0) -> None:
        self._random = np.random.default_rng(seed)
        self._whole = [np.asarray(one) for one in measure.photographs(8)]

    def take(self, count: int) -> list[bytes]:
        """Make the next `count`."""
        made = []
        for _ in range(count):
            image = self._whole[self._random.integers(len(self._whole))]
            top, left = (self._random.integers(side - 223) for side in image.shape[:2])
            cut = image[top : top + 224, left : left + 224].copy()
            cut[:8, :8] = self._random.integers(0, 256, 3)  # no two have the same pixels
            file = io.BytesIO()
            Image.fromarray(cut).save(file, "JPEG", quality=90)
            made.append(file.getvalue())
        return made


def at_once(served: Served, clients: int, items: Sequence[bytes], query: str = "") -> list[float]:
    """Send items from several clients, each its next one after its answer; return the seconds."""
    waiting = iter(items)
    lock, seconds = threading.Lock(), []

    def work() -> None:
        client = Client(served)
        while True:
            with lock:
                item = next(waiting, None)
            if item is None:
                return
            began = time.perf_counter()
            status, _, told = client.item(item, query)
            assert status == 200, told
            seconds.append(time.perf_counter() - began)

    threads = [threading.Thread(target=work) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return seconds


def drained(served: Served) -> None:
    """Wait until no explanation waits or runs."""
    client = Client(served)
    client._headers["Accept"] = "text/plain"
    while True:
        client._connection.request("GET", "/metrics", headers=client._headers)
        told = client._connection.getresponse().read().decode()
        open_ = re.findall(r'visxai_jobs\{lane="\w+",state="(?:queued|running)"\} (\S+)', told)
        if not any(float(one) for one in open_):
            return
        time.sleep(0.02)


def sync_ms(below: str | None = None) -> float:
    """The median milliseconds until a small file and its folder are on the disk."""
    from visxai.files import keep

    took = []
    with tempfile.TemporaryDirectory(dir=below) as folder:
        for number in range(15):
            began = time.perf_counter()
            keep(Path(folder, str(number)), b"a photograph" * 1000)
            took.append(time.perf_counter() - began)
            time.sleep(0.02)
    return quantiles(took)["p50"]


def quantiles(seconds: Sequence[float]) -> dict[str, float]:
    """The quantiles in milliseconds."""
    names = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
    return {name: round(1000 * float(np.quantile(seconds, q)), 1) for name, q in names.items()}


# ---- the parts --------------------------------------------------------------------------------


def throughput(photos: Photographs, rounds: int, count: int) -> dict[str, Any]:
    """Items a second of the service and of the engine, for items that pass and for flagged ones."""
    import visxai
    from visxai.moderation import Moderator, Policy, Rule

    results: dict[str, Any] = {}
    kinds = [(how, when) for how in ("off", "onnx") for when in (PASS, FLAG)]
    for how, when in kinds:
        name = f"{'passing' if when == PASS else 'flagged'}, accelerate={how}"
        own = visxai.Engine(precision="fp32", batch_size=BATCH, accelerate=how)
        moderator = Moderator(own, Policy("p", (Rule("c", when),)))
        moderator.moderate(photos.take(BATCH))
        ours, service = [], []
        with serving(when, more=f'accelerate = "{how}"\n') as served:
            at_once(served, 2 * BATCH, photos.take(3 * BATCH))
            drained(served)
            for _ in range(rounds):
                items = photos.take(count)
                began = time.perf_counter()
                moderator.moderate(items)
                ours.append(count / (time.perf_counter() - began))
                items = photos.take(count)
                began = time.perf_counter()
                at_once(served, 2 * BATCH, items)
                drained(served)  # every flagged item has its explanation on record
                service.append(count / (time.perf_counter() - began))
        ratios = sorted(a / b for a, b in zip(service, ours, strict=True))
        results[name] = {
            "engine_items_s": round(float(np.median(ours)), 1),
            "service_items_s": round(float(np.median(service)), 1),
            "ratio": round(float(np.median(ratios)), 3),
            "ratios": [round(one, 3) for one in ratios],
        }
    return results


def latency(
    engine: Any, photos: Photographs, count: int, below: str | None = None
) -> dict[str, Any]:
    """What the service adds to the engine's time for one item, and what a cache hit takes."""
    from visxai.moderation import Moderator, Policy, Rule

    results: dict[str, Any] = {"sync_ms": sync_ms(below)}
    for name, when in (("passing", PASS), ("flagged", FLAG)):
        moderator = Moderator(engine, Policy("p", (Rule("c", when),)))
        alone, service, inside, hits = [], [], [], []
        with serving(when, below=below) as served:
            client = Client(served)
            for number, item in enumerate(photos.take(count + 5)):
                prepared = [engine.prepare(item)]
                began = time.perf_counter()
                prepared = [engine.prepare(item)]
                moderator.decide(prepared)
                own = time.perf_counter() - began
                began = time.perf_counter()
                status, headers, _ = client.item(item)
                took = time.perf_counter() - began
                assert status == 200
                drained(served)
                again, same, _ = client.item(item)
                assert again == 200
                if number >= 5:
                    alone.append(own)
                    service.append(took)
                    inside.append(_on_server(headers))
                    hits.append(_on_server(same))
        results[name] = {
            "engine_ms": quantiles(alone),
            "service_ms": quantiles(service),
            "added_p50_ms": round(
                1000 * float(np.median([a - b for a, b in zip(service, alone, strict=True)])), 1
            ),
            "on_server_ms": quantiles(inside),
            "cache_hit_on_server_ms": quantiles(hits),
        }
    return results


def _on_server(headers: dict[str, str]) -> float:
    told = re.search(r"total;dur=([\d.]+)", headers.get("server-timing", ""))
    assert told is not None
    return float(told.group(1)) / 1000


def equal(photos: Photographs) -> dict[str, Any]:
    """A hundred equal requests at once: how many were computed."""
    with serving(FLAG, more="[tiers.fast]\nqueue = 1000\n") as served:
        at_once(served, 4, photos.take(8))
        drained(served)
        client = Client(served)
        before = _figure(client, "visxai_decided_rows_total")
        (item,) = photos.take(1)
        seconds = at_once(served, 50, [item] * 100)
        drained(served)
        after = _figure(client, "visxai_decided_rows_total")
    return {"requests": 100, "rows_computed": int(after - before), "ms": quantiles(seconds)}


def _figure(client: Client, name: str) -> float:
    client._connection.request("GET", "/metrics", headers=client._headers)
    told = client._connection.getresponse().read().decode()
    found = re.search(rf"^{name} (\S+)", told, re.MULTILINE)
    assert found is not None, name
    return float(found.group(1))


def batching(photos: Photographs, waits: Sequence[float], count: int) -> list[dict[str, Any]]:
    """Latency and throughput by clients, with and without waiting for more items."""
    rows = []
    with contextlib.ExitStack() as stack:
        running = {wait: stack.enter_context(serving(PASS, wait)) for wait in waits}
        for served in running.values():
            at_once(served, 8, photos.take(32))
        for clients in (1, 8, 32):
            seconds: dict[float, list[float]] = {wait: [] for wait in waits}
            took = dict.fromkeys(waits, 0.0)
            for _ in range(3):  # turns, so that a noisy moment meets all
                for wait, served in running.items():
                    items = photos.take(count if clients > 1 else count // 3)
                    began = time.perf_counter()
                    seconds[wait] += at_once(served, clients, items)
                    took[wait] += time.perf_counter() - began
            rows += [
                {
                    "clients": clients,
                    "wait_ms": wait,
                    **quantiles(seconds[wait]),
                    "items_s": round(len(seconds[wait]) / took[wait], 1),
                }
                for wait in waits
            ]
    return rows


def _appeal(client: Client, id: str, end: float = float("inf")) -> float | None:
    """Contest a decision; return the seconds until its precise explanation is there."""
    began, body = time.perf_counter(), json.dumps({"reason": "look again"}).encode()
    status, _, told = client.send("POST", f"/v1/decisions/{id}/appeals", body)
    while status == 202 and time.perf_counter() < end:
        _, _, found = client.send("GET", f"/v1/explanations/{told['explanation']['id']}?wait=5000")
        if found and found.get("state") in ("done", "failed"):
            return time.perf_counter() - began
    return None


def overload(photos: Photographs, seconds: float, times: float = 10.0) -> dict[str, Any]:
    """Offer some times the capacity: what is refused, what memory does, whether appeals end."""
    limits = (
        '[tiers.fast]\nqueue = 100\n[tiers.precise]\nmethod = "occlusion(window=56)"\n'
        'seeded = "rise(masks=100, seed={seed})"\nseeds = 2\n'
    )
    with serving(FLAG, more=limits) as served:
        first, client = photos.take(4 * BATCH), Client(served)
        ids = [client.item(one)[2]["decision_id"] for one in first[:20]]
        began = time.perf_counter()
        at_once(served, 2 * BATCH, photos.take(6 * BATCH))
        drained(served)
        capacity = 6 * BATCH / (time.perf_counter() - began)
        rate, start = times * capacity, time.perf_counter()
        statuses: dict[int, int] = {}
        accepted, memory, appeals = [], [], []
        waits: set[str] = set()
        alone = _appeal(client, ids.pop(0))
        spare = photos.take(int(capacity * seconds * 1.5) + 64)
        lock, numbers = threading.Lock(), iter(range(int(rate * seconds)))
        start = time.perf_counter()

        def offer() -> None:
            mine = Client(served)
            item = None
            while True:
                with lock:
                    number = next(numbers, None)
                    item = item or (spare.pop() if spare else None)
                if number is None or item is None:
                    return
                time.sleep(max(0.0, start + number / rate - time.perf_counter()))
                began = time.perf_counter()
                status, headers, _ = mine.item(item)
                took = time.perf_counter() - began
                with lock:
                    statuses[status] = statuses.get(status, 0) + 1
                    if status == 200:
                        accepted.append(took)
                        item = None
                    elif status == 429:
                        waits.add(headers.get("retry-after", "none"))

        def appeal() -> None:
            mine = Client(served)
            for id in ids:
                took = _appeal(mine, id, start + seconds)
                if took is not None:
                    appeals.append(took)

        threads = [threading.Thread(target=offer) for _ in range(160)]
        threads.append(threading.Thread(target=appeal))
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            memory.append(served.memory())
            time.sleep(0.5)
        took = time.perf_counter() - start
        offered = sum(statuses.values())
    tenth = max(1, len(memory) // 10)
    return {
        "seconds": round(took, 1),
        "capacity_items_s": round(capacity, 1),
        "offered_items_s": round(offered / took, 1),
        "statuses": {str(status): count for status, count in sorted(statuses.items())},
        "retry_after": sorted(waits),
        "accepted_items_s": round(len(accepted) / took, 1),
        "accepted_ms": quantiles(accepted),
        "appeals_done": len(appeals),
        "appeal_s": round(float(np.median(appeals)), 2) if appeals else None,
        "appeal_alone_s": None if alone is None else round(alone, 2),
        "memory_mib_by_tenths": [round(memory[n]) for n in range(tenth - 1, len(memory), tenth)],
    }


def load(engine: Any, photos: Photographs, url: str | None, count: int) -> dict[str, Any]:
    """What one item asks of the database: statements and transactions, and bytes on Postgres."""
    from sqlalchemy import event, text

    from visxai.serve.config import Config
    from visxai.serve.intake import Item, moderate
    from visxai.serve.keys import Principal
    from visxai.serve.service import Places, Service
    from visxai.serve.worker import Worker

    who = Principal("bench", "default", "admin", "bench")
    results: dict[str, Any] = {}
    for name, when in (("passing", PASS), ("flagged", FLAG)):
        rules = {"policy": {"name": name, "rules": [{"category": "c", "when": when}]}}
        with tempfile.TemporaryDirectory(prefix="visxai-bench-") as folder:
            service = Service(Config.of(rules), Places.below(folder, url), engine=engine)
            worker, sent = Worker(service, "fast"), {"statements": 0, "transactions": 0}

            def count_statement(*_: Any, sent: dict[str, int] = sent) -> None:
                sent["statements"] += 1

            def count_begin(_: Any, sent: dict[str, int] = sent) -> None:
                sent["transactions"] += 1

            def written(service: Any = service) -> tuple[int, int]:
                if url is None:
                    return 0, 0
                with service.database.writing() as connection:
                    return tuple(
                        connection.execute(text(f"SELECT {one}")).scalar_one()
                        for one in (
                            "pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint",
                            "pg_database_size(current_database())",
                        )
                    )

            def work(items: list[bytes], service: Any = service, worker: Any = worker) -> None:
                for item in items:
                    moderate(service, who, Item(item))
                while worker.step():
                    pass

            items = photos.take(count)
            work(photos.take(BATCH))
            event.listen(service.database.engine, "before_cursor_execute", count_statement)
            event.listen(service.database.engine, "begin", count_begin)
            for kind, some in ((name, items), (f"{name}, seen before", items)):
                before, sent["statements"], sent["transactions"] = written(), 0, 0
                work(some)
                told = {what: round(n / count, 1) for what, n in sent.items()}
                if url is not None:
                    now = written()
                    for what, new, old in zip(("wal", "size"), now, before, strict=True):
                        told[f"{what}_kib"] = round((new - old) / count / 1024, 1)
                results[kind] = told
            service.close()
    return {"sqlite" if url is None else "postgresql": results}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parts = ("throughput", "latency", "equal", "batching", "load", "overload")
    parser.add_argument("--only", choices=parts, action="append", help="measure this part")
    parser.add_argument("--overload", type=float, default=120.0, metavar="SECONDS")
    parser.add_argument("--database", metavar="URL", help="an empty one, for the part load")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()

    import visxai

    engine = visxai.Engine(precision="fp32", batch_size=BATCH)
    photos = Photographs()
    works: dict[str, Callable[[], Any]] = {
        "throughput": lambda: throughput(photos, args.rounds, 10 * BATCH),
        "latency": lambda: {
            name: latency(engine, photos, 60, below)
            for name, below in (("disk", None), ("memory", "/dev/shm"))
            if below is None or Path(below).is_dir()
        },
        "equal": lambda: equal(photos),
        "batching": lambda: batching(photos, (0.0, 2.0, 10.0), 64),
        "load": lambda: load(engine, photos, args.database, 4 * BATCH),
        "overload": lambda: overload(photos, args.overload),
    }
    path = measure.RESULTS / "service.json"
    for name in args.only or parts:
        told = works[name]()
        told = {"sync_ms": sync_ms(), **(told if isinstance(told, dict) else {"rows": told})}
        print(json.dumps({name: told}, indent=1), flush=True)
        results = json.loads(path.read_text("utf-8")) if path.exists() else {}
        if name == "load":  # which has a part for each kind of database
            told = {**results.get(name, {}), **told}
        results.update({"batch": BATCH, name: told})
        kept = {one: results[one] for one in ("batch", *parts) if one in results}
        measure.save("service", kept, "python benchmarks/service.py")


if __name__ == "__main__":
    main()
