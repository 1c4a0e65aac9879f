"""The service's pages in a real browser: a day's work by keyboard, and hostile names stay text."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from sqlalchemy import insert
from test_service import CHEAP, FLAG_ALL, drain, key, nearby, photo

import visxai
from visxai import govern
from visxai.govern import tables
from visxai.serve import run
from visxai.serve.app import create
from visxai.serve.config import Config
from visxai.serve.service import Places, Service

CHROMIUM = shutil.which("chromium")
HOSTILE = "<img src=x onerror=window.hacked=1>\"'</script><b>{{7*7}} \u202egnp"

browser_only = [
    pytest.mark.skipif(
        CHROMIUM is None or importlib.util.find_spec("playwright") is None,
        reason="no browser: install chromium, and playwright with 'visxai[browser]'",
    ),
    pytest.mark.xdist_group("browser"),
]


@contextlib.contextmanager
def serving(service: Service) -> Iterator[str]:
    """Serve on a loopback port, and close everything afterwards."""
    listener = run.listen("127.0.0.1", 0)
    server = uvicorn.Server(
        uvicorn.Config(create(service), log_level="warning", access_log=False, ws="none")
    )
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(20)
        listener.close()
        service.close()


@pytest.fixture(scope="module")
def served(
    engine: visxai.Engine, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Service, str, str]]:
    """The service, three flagged items with hostile names, and a key."""
    config = Config.of({**FLAG_ALL, "tiers": CHEAP})
    service = Service(nearby(config), Places.below(tmp_path_factory.mktemp("pages")), engine=engine)
    with serving(service) as url:
        own = key(service, "admin", "default")
        for number in range(3):
            files = {"image": ("a.png", photo(number, (320, 240)))}
            told = {"files": files, "data": {"name": HOSTILE}, "timeout": 60.0}
            sent = httpx.post(f"{url}/v1/items", headers=own, **told)
            assert sent.status_code == 200
        drain(service)
        yield service, url, own["Authorization"].partition(" ")[2]


def test_pages_need_a_session_and_its_own_origin(served: tuple[Service, str, str]) -> None:
    _, url, secret = served
    with httpx.Client(base_url=url, timeout=60.0) as client:
        assert client.get("/review").status_code == 401
        assert "API key" in client.get("/dashboard").text
        assert client.post("/login", data={"key": "vx_a_b"}).status_code == 401
        answer = client.post("/login", data={"key": secret})
        cookie = answer.headers["set-cookie"]
        assert answer.status_code == 303
        assert "HttpOnly" in cookie
        assert "samesite=strict" in cookie.lower()
        page = client.get("/review")
        assert page.status_code == 200
        assert HOSTILE not in page.text
        assert "script-src 'self'" in page.headers["content-security-policy"]
        assert client.post("/review/next").status_code == 401  # from no page of the service's
        evil = {"Origin": "http://evil.example"}
        assert client.post("/review/next", headers=evil).status_code == 401
        own = {"Origin": url}
        assert client.post("/review/next", headers=own).status_code == 303
        for name in ("../app.py", "..%2fapp.py", "%2e%2e/app.py"):
            assert client.get(f"/static/{name}").status_code == 404
        assert client.get("/static/service.py").status_code == 404
        assert client.post("/logout", headers=own).status_code == 303
        assert client.get("/review").status_code == 401


def _alert(log: govern.Log, id: str) -> str:
    """An alert on record, as drift raises one."""
    body = {"from": "", "to": "", "n": 3, "alarms": ["score"], "moved": [], "records": []}
    row = {
        "id": id,
        "model_id": log.models()[0].id,
        "tenant": "default",
        "window_id": "w",
        "at": "2026",
        "state": "open",
    }
    with log.ledger.writing() as (connection, _):
        connection.execute(insert(tables.alerts).values(**row, body=json.dumps(body), delivered=""))
    return id


def test_governance_is_for_auditors(served: tuple[Service, str, str]) -> None:
    service, url, _ = served
    for who, code in (("review", 403), ("audit", 200)):
        got = httpx.get(f"{url}/governance", headers=key(service, who, "default"), timeout=60.0)
        assert got.status_code == code
    assert "form-action 'self'" in got.text
    assert httpx.get(f"{url}/governance", timeout=60.0).status_code == 401


def _contrast(page: Any) -> list[str]:
    """Texts whose contrast with the ground behind them is below 4.5 (WCAG AA)."""
    found: list[str] = page.evaluate(
        """() => {
        const rgb = (t) => t.match(/[\\d.]+/g).map(Number);
        const light = ([r, g, b]) => [r, g, b].map((v) => { v /= 255;
            return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; })
            .reduce((s, v, i) => s + v * [0.2126, 0.7152, 0.0722][i], 0);
        const low = [];
        for (const one of document.querySelectorAll("body *")) {
            const own = [...one.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
            if (!own || !one.offsetParent) continue;
            let back = one, ground = [0, 0, 0, 0];
            while (back && (ground = rgb(getComputedStyle(back).backgroundColor))[3] === 0)
                back = back.parentElement;
            const [a, b] = [light(rgb(getComputedStyle(one).color)), light(ground)];
            const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
            if (ratio < 4.5) low.push(`${one.tagName} ${one.textContent.trim()} ${ratio}`);
        }
        return low; }"""
    )
    return found


class TestBrowser:
    pytestmark = browser_only

    def test_a_days_work_by_keyboard(
        self, served: tuple[Service, str, str], tmp_path: Path
    ) -> None:
        from playwright.sync_api import sync_playwright

        service, url, secret = served
        with sync_playwright() as play:
            browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
            try:
                for scheme, width in (("light", 1400), ("dark", 420)):
                    self._work(browser, service, url, secret, scheme, width, tmp_path)
            finally:
                browser.close()

    def _work(
        self,
        browser: Any,
        service: Service,
        url: str,
        secret: str,
        scheme: str,
        width: int,
        folder: Path,
    ) -> None:
        context = browser.new_context(color_scheme=scheme, viewport={"width": width, "height": 900})
        page, said = context.new_page(), []
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.goto(f"{url}/login")
        page.wait_for_selector("input[name=key]:focus")  # the page puts the cursor there
        page.keyboard.type(secret)
        page.keyboard.press("Enter")
        page.wait_for_url(f"{url}/review")
        look(page, folder, f"queue-{scheme}")
        page.keyboard.press("n")
        page.wait_for_selector(".facts")
        first = page.url
        assert page.locator("h1 bdi").inner_text() == HOSTILE
        assert page.evaluate("window.hacked") is None
        stack = page.locator(".stack").first
        assert "blur" in stack.evaluate("(one) => getComputedStyle(one).filter")
        page.keyboard.press("b")
        assert "grayscale" in stack.evaluate("(one) => getComputedStyle(one).filter")
        before = page.locator(".map").first.evaluate("(one) => one.style.opacity")
        page.keyboard.press("]")
        assert page.locator(".map").first.evaluate("(one) => one.style.opacity") != before
        pictures = "() => [...document.images].every((one) => one.complete && one.naturalWidth > 0)"
        page.wait_for_function(pictures)
        look(page, folder, f"case-{scheme}")
        page.keyboard.press("u")
        page.wait_for_function("(old) => location.href !== old", arg=first)
        # The preference is remembered on the next case.
        if page.locator("#veil").count():
            assert page.locator("#veil").input_value() == "grey"
        closed = first.rpartition("/")[2]
        events = [one.event for one in service.ledger.history(closed)]
        assert events[-1] == "decision.upheld"
        assert '"shown":"' in service.ledger.history(closed)[-1].body
        page.goto(f"{url}/dashboard")
        page.wait_for_selector("table")
        look(page, folder, f"dashboard-{scheme}")
        with govern.Log(service.ledger) as log:
            log.catch_up()
            alert = _alert(log, f"alert-{scheme}")
        page.get_by_role("link", name="Governance").click()
        page.wait_for_selector("#trends .chart")
        look(page, folder, f"governance-{scheme}")
        assert HOSTILE not in page.inner_html("#items")
        assert "decision.upheld" in page.locator("#audit").inner_text()
        form = page.locator(".alert.open form")
        form.get_by_label("Note").fill("a new camera")
        form.get_by_role("button").click()
        page.wait_for_selector(".alert.acknowledged")
        (told,) = (one for one in govern.alerts(log) if one["id"] == alert)
        assert [note["text"] for note in told["notes"]] == ["a new camera"]
        assert said == []
        context.close()


def look(page: Any, folder: Path, name: str) -> None:
    """See that a page is no wider than its window and easy to read; keep a screenshot."""
    wide = page.evaluate("document.documentElement.scrollWidth - innerWidth")
    assert wide <= 0, f"{name} is {wide} pixels too wide"
    assert _contrast(page) == []
    page.screenshot(path=folder / f"{name}.png", full_page=True)
