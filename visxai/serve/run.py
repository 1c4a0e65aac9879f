"""What `visxai serve` and `visxai worker` run: the processes, from start to stop."""

from __future__ import annotations

import contextlib
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Sequence

import uvicorn

from visxai.errors import ArgumentError, StoreError
from visxai.govern import watcher
from visxai.ledger import audit
from visxai.serve import erasure, keys
from visxai.serve.app import create
from visxai.serve.config import Webhook
from visxai.serve.service import Service
from visxai.serve.webhooks import Courier
from visxai.serve.worker import Worker

WATCH = 300.0  # seconds between two looks for drift
TIDY = 300.0  # seconds between two looks for what is too old
LANES = ("fast", "precise")
_SWITCH = 0.0005  # seconds


def first_keys(service: Service) -> dict[str, str]:
    """Make an admin's key for each tenant that has no key yet; return them by tenant."""
    made = {}
    with service.ledger.writing() as (connection, at):
        now = service.database.now(connection)
        for tenant in service.config.tenants:
            if keys.count(connection, tenant) == 0:
                made[tenant] = keys.make(connection, now, tenant, "admin", "first key")
                id = made[tenant].split("_")[1]
                audit.append(connection, at, "key.made", id, tenant=tenant, body={"role": "admin"})
    return made


def listen(host: str, port: int) -> socket.socket:
    """Open the socket to listen on; port 0 is a free one.

    Raises:
        ArgumentError: The address can't be listened on.
    """
    try:
        made = socket.create_server((host, port), reuse_port=False, backlog=512)
        # Head and body of an answer are written apart: without this, the second waits for the
        # client's acknowledgement of the first, some 40 ms.
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return made
    except (OSError, OverflowError) as error:
        raise ArgumentError(
            expected=f"to listen on {host}:{port}",
            got=(getattr(error, "strerror", None) or str(error)).lower(),
            remedy="choose another --port or --host",
            field="port",
        ) from error


@contextlib.contextmanager
def working(
    service: Service,
    lanes: Sequence[str],
    log: Callable[[str], None],
    hooks: Sequence[Webhook] = (),
    secret: str | None = None,
) -> Iterator[list[Worker]]:
    """Run a worker for each lane, the webhooks, and the tidying, while the context lasts."""
    courier = Courier(service, (*service.config.webhooks, *hooks), secret, log)
    workers = [Worker(service, lane, log) for lane in lanes]
    over = threading.Event()

    def tidy() -> None:
        while not over.wait(TIDY):
            try:
                erasure.tidy(service)
            except StoreError as error:
                log(f"tidying: {error}")

    tidying = threading.Thread(target=tidy, name="visxai-tidy", daemon=True)
    for worker in workers:
        worker.start()
    courier.start()
    tidying.start()
    service.ends.here = bool(lanes)
    try:
        yield workers
    finally:
        service.ends.here = False
        over.set()
        for worker in workers:
            worker.stop()
        courier.stop()
        tidying.join(5.0)


def serve(
    service: Service,
    listener: socket.socket,
    *,
    lanes: Sequence[str] = LANES,
    log: Callable[[str], None] = lambda _: None,
    started: Callable[[], None] = lambda: None,
    alerts: str | None = None,
    secret: str | None = None,
) -> None:
    """Answer requests until the process is asked to stop.

    Args:
        service: The service.
        listener: The socket to listen on.
        lanes: The lanes of workers inside this process; none for an API alone.
        log: Takes lines about what goes wrong.
        started: Called once requests are answered.
        alerts: A webhook for alerts of drift, besides those of the settings.
        secret: The key that webhooks are signed with.
    """
    # Threads that answer requests and the one that computes change places more often than by
    # default (5 ms), which is as long as a small forward.
    sys.setswitchinterval(_SWITCH)
    # uvicorn hands the signal on once it has stopped: then everything here is closed in order.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    config = uvicorn.Config(
        create(service),
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_keep_alive=20,
        timeout_graceful_shutdown=20,
    )
    server = uvicorn.Server(config)

    def watch() -> None:
        while not server.started and not server.should_exit:
            over.wait(0.02)
        started()

    over = threading.Event()
    hooks = [] if alerts is None else [Webhook(url=alerts, events=("alert.raised",))]
    drift = watcher(service.ledger, every=WATCH)
    with working(service, lanes, log, hooks, secret), drift:
        threading.Thread(target=watch, daemon=True).start()
        server.run(sockets=[listener])


def work(
    service: Service,
    lanes: Sequence[str],
    log: Callable[[str], None],
    secret: str | None = None,
) -> None:
    """Work on lanes until the process is asked to stop (SIGINT, SIGTERM).

    Args:
        service: The service.
        lanes: The lanes.
        log: Takes lines about what goes wrong.
        secret: The key that webhooks are signed with.
    """
    over = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: over.set())
    with working(service, lanes, log, secret=secret):
        while not over.wait(0.5):
            pass
