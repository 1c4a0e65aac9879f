"""What the service calls: images by URL and webhooks, against real servers on loopback."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import databases
import httpx
import pytest
from sqlalchemy import insert, select
from starlette.testclient import TestClient
from test_service import config, drain, key, nearby, photo, post

import visxai
from visxai.errors import ArgumentError
from visxai.govern import Log
from visxai.govern import tables as governed
from visxai.ledger import audit
from visxai.serve import cases, outside, run, tables
from visxai.serve.app import create
from visxai.serve.config import Config, Webhook
from visxai.serve.intake import Item, moderate
from visxai.serve.keys import Principal
from visxai.serve.service import Places, Service
from visxai.serve.webhooks import Courier

LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"),)
WHO = Principal("k", "acme", "admin", "")


@dataclass
class Site:
    """A server that keeps what it was asked, and answers by path."""

    url: str = ""
    asked: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)  # of the next posts; then 204


@pytest.fixture
def site() -> Iterator[Site]:
    made = Site()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            made.asked.append((self.path, dict(self.headers), b""))
            if self.path == "/away":
                self.send_response(302)
                self.send_header("Location", f"{made.url}/image.png")
                self.end_headers()
                return
            if self.path == "/gone":
                self.send_error(404)
                return
            self.send_response(200)
            self.end_headers()
            try:
                if self.path == "/endless":
                    while True:
                        self.wfile.write(bytes(2**16))
                elif self.path == "/slow":
                    for _ in range(100):
                        self.wfile.write(b"x")
                        time.sleep(0.05)
                else:
                    self.wfile.write(photo(1))
            except OSError:
                return

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            made.asked.append((self.path, dict(self.headers), body))
            self.send_response(made.statuses.pop(0) if made.statuses else 204)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    made.url = f"http://127.0.0.1:{server.server_port}"
    yield made
    server.shutdown()
    server.server_close()
    thread.join(10)


# ---- requests --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1", "10.0.0.1", "169.254.169.254", "192.168.1.1", "100.64.0.1", "0.0.0.0"),
        *("::1", "fe80::1", "fd00::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::a00:1"),
        *("2002:7f00:1::", "224.0.0.1", "localhost", "2130706433", "0x7f.1", "255.255.255.255"),
    ],
)
def test_addresses_that_are_not_public_are_refused(host: str) -> None:
    with pytest.raises(ArgumentError, match=r"a private address|one that isn't"):
        outside.resolve(host, 80)


def test_public_addresses_and_named_networks_may_be_reached() -> None:
    assert outside.resolve("93.184.216.34", 80) == "93.184.216.34"
    assert outside.resolve("127.0.0.1", 80, LOOPBACK) == "127.0.0.1"
    assert outside.resolve("::ffff:127.0.0.1", 80, LOOPBACK) == "::ffff:127.0.0.1"
    with pytest.raises(ArgumentError, match="private address"):
        outside.resolve("10.0.0.1", 80, LOOPBACK)


@pytest.mark.parametrize(
    "url",
    [
        *("", "cat.jpg", "file:///etc/passwd", "gopher://a/", "http://", "http://a:0/"),
        *("http://a:99999/", "http://user:word@a/", "http://a/\r\nX: y", "http://[::1", "ftp://a/"),
    ],
)
def test_what_is_no_url_of_the_web_is_refused(url: str) -> None:
    with pytest.raises(ArgumentError, match="expected a URL"):
        outside.parse(url)


def test_a_name_is_resolved_once_and_the_checked_address_is_called(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    lookups: list[str] = []
    real = socket.getaddrinfo

    def looked_up(host: Any, port: Any, *more: Any, **named: Any) -> Any:
        if host == "images.example":
            lookups.append(host)
            return real("127.0.0.1", port, *more, **named)
        return real(host, port, *more, **named)

    monkeypatch.setattr(socket, "getaddrinfo", looked_up)
    url = site.url.replace("127.0.0.1", "images.example") + "/image.png?a=b"
    assert outside.request(url, private=LOOPBACK).data == photo(1)
    assert lookups == ["images.example"]
    path, headers, _ = site.asked[0]
    assert path == "/image.png?a=b"
    assert headers["Host"].startswith("images.example:")
    with pytest.raises(ArgumentError, match="private address"):
        outside.request(url)
    assert len(site.asked) == 1


def test_redirects_long_answers_and_slow_ones_are_refused(site: Site) -> None:
    with pytest.raises(ArgumentError, match="got a redirect"):
        outside.request(f"{site.url}/away", private=LOOPBACK)
    with pytest.raises(ArgumentError, match="at most 100000 bytes"):
        outside.request(f"{site.url}/endless", private=LOOPBACK, most=100_000)
    began = time.monotonic()
    with pytest.raises(ArgumentError, match="too long"):  # a byte comes every 50 ms
        outside.request(f"{site.url}/slow", private=LOOPBACK, seconds=0.4)
    assert time.monotonic() - began < 3
    with pytest.raises(ArgumentError, match="got none"):  # nobody speaks TLS there
        outside.request(site.url.replace("http", "https"), private=LOOPBACK)


# ---- items by URL ----------------------------------------------------------------------------


def test_items_come_from_sites_that_are_allowed_and_from_no_other(
    site: Site, engine: visxai.Engine, tmp_path: Path
) -> None:
    reach = {"sources": [site.url], "private": ["127.0.0.0/8"], "seconds": 1.0}
    service = Service(nearby(config(outside=reach)), Places.below(tmp_path), engine=engine)
    try:
        own = key(service, "submit")
        with TestClient(create(service)) as client:

            def send(url: str) -> httpx.Response:
                return client.post("/v1/items", headers=own, json={"url": url})

            fetched = send(f"{site.url}/image.png").json()
            sent = post(client, own, photo(1)).json()
            assert fetched["scores"] == sent["scores"]
            asked = {"items": [{"url": f"{site.url}/image.png"}, {"url": f"{site.url}/gone"}]}
            told = client.post("/v1/explanations", headers=own, json=asked).json()
            assert [one["state"] for one in told["explanations"]] == ["queued", "refused"]
            count = len(site.asked)
            other = site.url.replace("127.0.0.1", "localhost")
            for url in (other, "http://127.0.0.1:1/a", "https://example.org/a", "file:///a"):
                answer = send(url)
                assert answer.status_code == 422, url
                assert answer.json()["error"]["field"] == "url"
            assert len(site.asked) == count
            assert "redirect" in send(f"{site.url}/away").json()["error"]["message"]
            both = {"url": f"{site.url}/image.png", "text": "hi"}
            assert client.post("/v1/items", headers=own, json=both).status_code == 422
        drain(service)
    finally:
        service.close()


def test_urls_are_off_by_default(engine: visxai.Engine, tmp_path: Path, site: Site) -> None:
    service = Service(nearby(config()), Places.below(tmp_path), engine=engine)
    try:
        with TestClient(create(service)) as client:
            sent = {"url": f"{site.url}/image.png"}
            answer = client.post("/v1/items", headers=key(service, "submit"), json=sent)
        assert answer.status_code == 422
        assert "outside.sources" in answer.json()["error"]["message"]
        assert site.asked == []
    finally:
        service.close()


def test_mistakes_in_the_settings_are_sentences() -> None:
    for wrong in (
        {"outside": {"private": ["10.0.0.1/8"]}},
        {"outside": {"sources": ["example.org"]}},
        {"webhooks": [{"url": "http://user:word@a/"}]},
        {"webhooks": [{"url": "http://a/", "events": ["item.seen"]}]},
    ):
        with pytest.raises(ArgumentError):
            Config.of(wrong)


# ---- webhooks --------------------------------------------------------------------------------


@pytest.fixture(params=databases.KINDS)
def told(
    request: pytest.FixtureRequest, engine: visxai.Engine, tmp_path: Path, site: Site
) -> Iterator[Service]:
    """A service that tells a site of decisions, by a clock that tests may turn."""
    hooks = [{"url": f"{site.url}/hook", "events": EVENTS}]
    made = config(webhooks=hooks, outside={"private": ["127.0.0.0/8"], "seconds": 2.0})
    database = databases.address(request.param, tmp_path)
    service = Service(nearby(made), Places.below(tmp_path, database), engine=engine)
    yield service
    service.close()


EVENTS = ["item.flagged", "decision.upheld", "decision.appealed", "alert.raised"]


def states(service: Service) -> list[tuple[str, str, int]]:
    rows = tables.deliveries
    with service.database.reading() as connection:
        found = connection.execute(select(rows).order_by(rows.c.sequence)).all()
    return [(row.event, row.state, row.attempts) for row in found]


def test_decisions_and_alerts_are_posted_signed_once_each(told: Service, site: Site) -> None:
    moderate(told, WHO, Item(photo(0)))  # before the webhook was there
    courier = Courier(told, told.config.webhooks, "secret")
    first = moderate(told, WHO, Item(photo(1)))["decision_id"]
    cases.act(told, WHO, first, "uphold")
    cases.appeal(told, WHO, first, "it is art")
    with Log(told.ledger), told.ledger.writing() as (connection, at):
        row = {"id": "a" * 32, "model_id": "m", "window_id": "w", "at": at, "state": "open"}
        row["tenant"] = "acme"
        body = json.dumps({"alarms": ["score"]})
        connection.execute(insert(governed.alerts).values(**row, body=body, delivered=""))
        audit.append(connection, at, "alert.raised", "a" * 32, tenant="acme")
    assert courier.step() == 4
    assert courier.step() == 0
    said = [json.loads(body) for _, _, body in site.asked]
    assert [one["event"] for one in said] == [EVENTS[0], EVENTS[1], EVENTS[2], EVENTS[3]]
    assert {one["subject"] for one in said[:3]} == {first}
    assert said[3]["facts"] == {"alarms": ["score"]}
    for (_, headers, body), one in zip(site.asked, said, strict=True):
        assert headers["X-Visxai-Delivery"] == one["id"]
        signed = hmac.new(
            b"secret", headers["X-Visxai-Time"].encode() + b"." + body, hashlib.sha256
        )
        assert headers["X-Visxai-Signature"] == signed.hexdigest()
        assert b"art" not in body  # ids and facts, never what people wrote
    with told.database.reading() as connection:
        assert connection.execute(select(governed.alerts.c.delivered)).scalar_one() == "delivered"


def test_what_is_not_taken_is_sent_again_later_and_fails_in_the_end(
    told: Service, site: Site
) -> None:
    now = [1_000_000.0]
    told.database._clock = lambda: now[0]
    lines: list[str] = []
    courier = Courier(told, told.config.webhooks, "secret", lines.append)
    moderate(told, WHO, Item(photo(2)))
    site.statuses = [500, 302]
    assert courier.step() == 1
    assert courier.step() == 0  # it waits
    assert states(told) == [("item.flagged", "waiting", 1)]
    now[0] += 2.1
    assert courier.step() == 1
    now[0] += 2.1
    assert courier.step() == 0  # and longer each time
    now[0] += 8
    assert courier.step() == 1
    assert states(told) == [("item.flagged", "delivered", 3)]
    assert len({headers["X-Visxai-Delivery"] for _, headers, _ in site.asked}) == 1
    assert "got 500" in lines[0]
    assert "redirect" in lines[1]
    site.statuses = [503] * 20
    moderate(told, WHO, Item(photo(3)))
    for _ in range(12):
        now[0] += 90_000
        courier.step()
    assert states(told)[-1] == ("item.flagged", "failed", 10)


# A process of its own that kills itself where it would claim, send, or say what it has sent.
DEADLY = """
import os, signal, sys, types
from visxai.ledger.database import Database
from visxai.serve.config import Config
from visxai.serve.webhooks import Courier
url, settings, now, step = sys.argv[1:]
config = Config.model_validate_json(settings)
database = Database(url, clock=lambda: float(now))
service = types.SimpleNamespace(config=config, database=database)
courier = Courier(service, config.webhooks, "secret")
setattr(courier, step, lambda *_: os.kill(os.getpid(), signal.SIGKILL))
courier.step()
"""


def sendable(service: Service) -> Config:
    """The settings of a service as a file may hold them: without `nearby`."""
    limits = service.config.limits.model_copy(update={"decoders": 1})
    return service.config.model_copy(update={"limits": limits})


def test_a_process_that_is_killed_loses_no_delivery(told: Service, site: Site) -> None:
    now = [1_000_000.0]
    told.database._clock = lambda: now[0]
    courier = Courier(told, told.config.webhooks, "secret")
    for number in range(3):
        moderate(told, WHO, Item(photo(number)))
    steps = ("_claim", "_deliver", "_settle") if told.database.sqlite else ("_settle",)
    for step in steps:
        given = told.database.url, sendable(told).model_dump_json(), str(now[0]), step
        ran = subprocess.run([sys.executable, "-c", DEADLY, *given], timeout=120)
        assert ran.returncode == -signal.SIGKILL
        now[0] += 121  # its lease is over
    posted = len(site.asked)
    assert posted == 1  # sent, but the process ended before it said so
    assert courier.step() == 3
    assert [state for _, state, _ in states(told)] == ["delivered"] * 3
    ids = [headers["X-Visxai-Delivery"] for _, headers, _ in site.asked]
    assert len(ids) == 4
    assert len(set(ids)) == 3  # a receiver knows the one that came twice by its id


@pytest.mark.parametrize("told", ["sqlite"], indirect=True)
def test_private_addresses_tenants_and_missing_secrets(told: Service, site: Site) -> None:
    with pytest.raises(ArgumentError, match="VISXAI_WEBHOOK_SECRET"):
        Courier(told, told.config.webhooks, None)
    hidden = Config.model_validate({**sendable(told).model_dump(), "outside": {}})
    told.config = hidden
    hooks = [Webhook(url=f"{site.url}/acme", tenant="acme"), Webhook(url=site.url, tenant="b")]
    courier = Courier(told, hooks, "secret")
    moderate(told, WHO, Item(photo(5)))
    assert courier.step() == 1  # the other tenant's webhook hears nothing
    assert site.asked == []
    with told.database.reading() as connection:
        reason = connection.execute(select(tables.deliveries.c.reason)).scalar_one()
    assert "outside.private" in reason


@pytest.mark.parametrize("told", ["sqlite"], indirect=True)
def test_the_processes_deliver_by_themselves(told: Service, site: Site) -> None:
    with run.working(told, (), lambda _: None, secret="secret"):
        moderate(told, WHO, Item(photo(6)))
        databases.wait_until(lambda: len(site.asked) == 1)
    assert states(told) == [("item.flagged", "delivered", 1)]
