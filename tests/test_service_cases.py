"""The case pages of posts and of rows in a real browser, and the form that sends an item."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from PIL import Image
from test_service import CHEAP, FLAG_ALL, drain, key, nearby, photo
from test_service_outside import Site, site
from test_service_pages import CHROMIUM, browser_only, look, serving

import visxai
from visxai.serve.config import Config
from visxai.serve.service import Places, Service

__all__ = ["site"]

HOSTILE = (
    "You idiot <img src=x onerror=window.hacked=1>\"'</script><b>{{7*7}} \u202egnp "
    "and everybody who reads this is a fool"
)


def _picture() -> bytes:
    file = io.BytesIO()
    Image.open(io.BytesIO(photo(4, (640, 420)))).save(file, "JPEG")
    return file.getvalue()


class TestBrowser:
    pytestmark = browser_only

    def test_posts_and_rows_by_keyboard(
        self, engine: visxai.Engine, site: Site, tmp_path: Path
    ) -> None:
        from playwright.sync_api import sync_playwright
        from test_service_posts import CARD
        from test_service_rows import POOR, make_card

        (tmp_path / "harmful.toml").write_text(CARD, "utf-8")
        config = Config.of(
            {
                **FLAG_ALL,
                "tiers": CHEAP,
                "post": {"model": str(tmp_path / "harmful.toml"), "precise": "leave_one_out"},
                "table": {"model": str(make_card(tmp_path)), "actions": {"savings": "raise"}},
                "outside": {"sources": [site.url], "private": ["127.0.0.0/8"]},
            }
        )
        service = Service(nearby(config), Places.below(tmp_path / "data"), engine=engine)
        own = key(service, "admin", "default")["Authorization"].partition(" ")[2]
        with serving(service) as url, sync_playwright() as play:
            client = visxai.serve.Client(url, own)
            browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
            for scheme, width in (("light", 1400), ("dark", 420)):
                row = client.moderate(features=POOR, name=HOSTILE)
                drain(service)
                context = browser.new_context(
                    color_scheme=scheme, viewport={"width": width, "height": 900}
                )
                page = context.new_page()
                said: list[str] = []
                page.on("console", lambda one, said=said: said.append(one.text))  # type: ignore[misc]
                page.on("pageerror", lambda one, said=said: said.append(str(one)))  # type: ignore[misc]
                page.goto(f"{url}/login")
                page.keyboard.type(own)
                page.keyboard.press("Enter")
                page.wait_for_url(f"{url}/review")
                self._send(page, site, scheme, tmp_path, service)
                self._post(page, scheme, tmp_path, client, service)
                page.goto(f"{url}/review/{row['decision_id']}")
                self._row(page, scheme, tmp_path)
                assert page.evaluate("window.hacked") is None
                # The browser notes the form's mistakes, which are answered with 422.
                assert all("422" in one for one in said), said
                context.close()
            browser.close()
            client.close()

    def _send(self, page: Any, site: Site, scheme: str, folder: Path, service: Service) -> None:
        """Send a post by the form: with a file, and with a link; a mistake is one sentence."""
        page.get_by_role("link", name="Send").click()
        page.get_by_role("button", name="Send").click()
        assert "expected a file" in page.get_by_role("alert").inner_text()
        look(page, folder, f"send-{scheme}")
        if scheme == "light":
            told = {"name": "a.jpg", "mimeType": "image/jpeg", "buffer": _picture()}
            page.get_by_label("Image", exact=True).set_input_files(told)
        else:
            page.get_by_label("link").fill("http://127.0.0.2:1/a.png")
            page.get_by_role("button", name="Send").click()
            assert "another site" in page.get_by_role("alert").inner_text()
            page.get_by_label("link").fill(f"{site.url}/a.png")
        page.get_by_label("Text").fill(HOSTILE)
        page.get_by_label("Name").fill(HOSTILE)
        page.get_by_role("button", name="Send").click()
        page.wait_for_selector(".facts")
        assert "queued" in page.locator(".post").inner_text()
        drain(service)

    def _post(self, page: Any, scheme: str, folder: Path, client: Any, service: Service) -> None:
        """Look at a post's case, contest it, and decide by keyboard."""
        id = page.url.rpartition("/")[2]
        client.appeal(id, HOSTILE)
        drain(service, "precise")
        page.reload()
        assert page.locator("h1 bdi").inner_text() == HOSTILE
        assert page.locator(".post").count() == 2  # both tiers
        frames = [one for one in page.frames if "part=text" in one.url]
        for frame in frames:
            frame.wait_for_selector("figcaption")
            assert frame.evaluate("document.querySelectorAll('img, b, script').length") == 0
            assert "<img src=x" in frame.locator("figure").inner_text()
        assert len(frames) == 2
        stacks = page.locator(".post .stack")
        assert stacks.count() == 4  # the photograph and its words, of each tier, are veiled
        filters = "(all) => all.map((one) => getComputedStyle(one).filter)"
        assert all("blur" in one for one in stacks.evaluate_all(filters))
        page.keyboard.press("b")
        page.keyboard.press("b")
        assert set(stacks.evaluate_all(filters)) == {"none"}
        before = page.locator(".map").first.evaluate("(one) => one.style.opacity")
        page.keyboard.press("[")
        assert page.locator(".map").first.evaluate("(one) => one.style.opacity") != before
        loaded = "() => [...document.images].every((one) => one.complete && one.naturalWidth > 0)"
        page.wait_for_function(loaded)
        boxes = [stacks.nth(at).bounding_box() for at in (0, 1)]
        beside = abs(boxes[0]["y"] - boxes[1]["y"]) < 2
        assert beside == (scheme == "light")  # below each other where the window is narrow
        look(page, folder, f"post-{scheme}")
        page.keyboard.press("o")
        page.wait_for_function("(id) => !location.href.includes(id)", arg=id)
        assert client.decision(id)["action"] == "overturn"

    def _row(self, page: Any, scheme: str, folder: Path) -> None:
        """Look at a row's case: its reasons, effects, and no tools for pictures."""
        assert page.locator("h1 bdi").inner_text() == HOSTILE
        assert page.locator("#tools").is_hidden()
        assert page.locator(".row tbody tr").count() == 2
        assert page.locator(".facts ol li").count() >= 1
        assert page.locator(".row svg").first.get_attribute("aria-label") is not None
        look(page, folder, f"row-{scheme}")
        page.keyboard.press("u")
        page.wait_for_url("**/review")
