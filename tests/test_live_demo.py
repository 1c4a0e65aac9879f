"""The live demo: its calls, what it refuses, and its pages in a real browser."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import io
import shutil
import struct
import sys
import threading
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import uvicorn
from PIL import Image
from starlette.testclient import TestClient
from test_service import photo
from test_service_pages import HOSTILE, _contrast, browser_only

import visxai
from visxai.demo import others, studio
from visxai.demo.app import create
from visxai.demo.studio import Bounds, Stroke, Studio, covered, hidden
from visxai.references import Transform
from visxai.serve import run
from visxai.serve.errors import Missing, Overloaded

CHROMIUM = shutil.which("chromium")
MODEL = "efficientnet_lite0"
SPACE = Path(__file__).parents[1] / "examples" / "space"


@pytest.fixture(scope="module")
def made(engine: visxai.Engine) -> Iterator[Studio]:
    one = Studio(bounds=Bounds(max_bytes=2**20, maps=8, patience=240.0), engines={MODEL: engine})
    yield one
    one.close()


@pytest.fixture(scope="module")
def client(made: Studio) -> Iterator[httpx.Client]:
    with TestClient(create(made), base_url="http://127.0.0.1:8010") as client:
        yield client


def upload(client: httpx.Client, data: bytes, name: str = "a.png") -> httpx.Response:
    return client.post("/api/images", files={"image": (name, data)})


def explain(client: httpx.Client, image: str, **changes: Any) -> httpx.Response:
    return client.post("/api/explain", json={"image": image, "model": MODEL, **changes})


def test_a_photograph_is_explained_as_the_engine_explains_it(
    client: httpx.Client, engine: visxai.Engine
) -> None:
    data = photo(3)
    sent = upload(client, data).json()
    told = explain(client, sent["id"], methods=["grad_cam", "saliency"], target="top2").json()
    wanted = engine.explain(data, "grad_cam,saliency", "top2")
    assert [(one["label"], one["method"]) for one in told["maps"]] == [
        (one.label, one.method) for one in wanted
    ]
    record = client.get(told["maps"][0]["record"]).json()
    assert record["map"] == wanted[0].to_dict()["map"]
    assert record["source_sha256"] == hashlib.sha256(data).hexdigest()
    assert len(told["top"]) == 5
    drawn = client.get(told["maps"][0]["overlay"])
    assert Image.open(io.BytesIO(drawn.content)).size == (80, 64)
    assert client.get(sent["photo"]).headers["content-type"] == "image/jpeg"
    named = explain(client, sent["id"], target="class=tabby", layer="blocks.5").json()["maps"]
    assert [(one["label"], one["layer"]) for one in named] == [("tabby", "blocks.5")]


def test_another_model_has_its_own_methods(client: httpx.Client) -> None:
    told = client.get("/api/choices?model=digits_vit").json()
    assert told["models"] == [MODEL, "digits_vit"]
    specs = [one["spec"] for one in told["methods"]]
    assert "chefer" in specs
    assert "chefer" not in [m["spec"] for m in client.get("/api/choices").json()["methods"]]
    sent = upload(client, photo(4)).json()
    assert explain(client, sent["id"], model="digits_vit", methods=["chefer"]).status_code == 200
    assert client.get("/api/choices?model=..%2Fsecret").status_code == 422


def test_what_costs_too_much_or_is_not_on_offer_is_refused(client: httpx.Client) -> None:
    id = upload(client, photo(5)).json()["id"]
    for changes in (
        {"methods": ["occlusion(stride=1)"]},
        {"methods": ["grad_cam", "saliency"], "target": "top5"},
        {"methods": []},
        {"methods": ["grad_cam"] * 9},
        {"methods": ["saliency", "hires_cam", "layer_cam"], "check": True},
        {"target": "above=0"},
        {"target": "top6"},
        {"target": "class=nothing of the kind"},
        {"layer": "no.such.layer"},
        {"model": "timm:resnet50"},
        {"more": 1},
    ):
        told = explain(client, id, **changes)
        assert told.status_code == 422, changes
        assert told.json()["error"]["message"]
    assert explain(client, "no-such-id").status_code == 404
    assert client.get("/api/maps/none.jpg").status_code == 404


def chunk(kind: bytes, data: bytes) -> bytes:
    body = kind + data
    return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))


def test_hostile_uploads_are_sentences_without_names(client: httpx.Client) -> None:
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")
    for data in (b"", b"GIF89a", HOSTILE.encode(), bomb, photo(1)[:200]):
        told = upload(client, data, f"../../{HOSTILE}.png")
        assert told.status_code == 422
        said = told.json()["error"]["message"]
        assert "hacked" not in said
        assert hashlib.sha256(data).hexdigest() not in said
    assert upload(client, b"\0" * (2**20 + 2**17)).status_code == 413
    assert client.post("/api/images", json={}).status_code == 422


def test_other_hosts_and_other_sites_are_refused(client: httpx.Client) -> None:
    assert client.get("/", headers={"Host": "evil.example"}).status_code == 403
    evil = {"Origin": "http://evil.example"}
    assert client.post("/api/examples/cat", headers=evil).status_code == 403
    assert client.get("/", headers={"Host": "localhost:8010"}).status_code == 200
    page = client.get("/")
    assert "script-src 'self'" in page.headers["content-security-policy"]
    for name in ("../app.py", "..%2fapp.py", "demo.py"):
        assert client.get(f"/static/{name}").status_code == 404
        assert client.get(f"/examples/{name}.jpg").status_code == 404


def test_a_brush_covers_the_pixels_that_the_model_sees() -> None:
    # A photograph of 200 x 100 is seen at half its size, without 10 columns at each side.
    transform = Transform((100, 50), (10, 0, 80, 50))
    mask = covered([Stroke(0.1, [(0.5, 0.5)])], transform)
    ys, xs = np.nonzero(mask)
    assert mask.shape == (50, 80)
    assert abs(xs.mean() - 40) < 0.6
    assert abs(ys.mean() - 25) < 0.6
    assert abs(mask.sum() - np.pi * 10**2) < 30
    assert not covered([Stroke(0.02, [(0.05, 0.5)])], transform).any()  # outside the view
    pixels = np.random.default_rng(0).integers(0, 256, (50, 80, 3), np.uint8)
    grey = hidden(pixels, mask, "grey")
    assert (grey[~mask] == pixels[~mask]).all()
    assert (grey[mask] == pixels.reshape(-1, 3).mean(0).round()).all()
    assert (hidden(pixels, mask, "blur")[~mask] == pixels[~mask]).all()


def test_hiding_nothing_that_is_seen_changes_nothing(
    client: httpx.Client, engine: visxai.Engine
) -> None:
    data = photo(6, (160, 64))
    id = upload(client, data).json()["id"]
    asked = {"image": id, "model": MODEL, "strokes": [{"radius": 0.02, "points": [[0.01, 0.5]]}]}
    told = client.post("/api/hide", json=asked).json()
    assert told["area"] == 0
    assert told["before"] == told["after"]
    (best,) = engine.predict(data)
    assert told["before"][0]["label"] == best.label
    assert told["before"][0]["before"] == pytest.approx(best.score, abs=1e-5)
    asked["strokes"] = [{"radius": 0.5, "points": [[0.5, 0.5], [0.5, 0.6]]}]
    told = client.post("/api/hide", json=asked).json()
    assert told["area"] == 1
    assert told["after"][0]["before"] != told["after"][0]["after"]
    asked["strokes"] = [{"radius": float(9), "points": [[0.5, 0.5]]}]
    assert client.post("/api/hide", json=asked).status_code == 422


def test_too_many_at_once_are_told_to_come_again() -> None:
    one = Studio(bounds=Bounds(at_once=1, waiting=1, patience=0.05))
    try:
        with one.turn():
            with pytest.raises(Overloaded), one.turn():  # waits, and loses patience
                pass
            one._waiting += 1
            with pytest.raises(Overloaded), one.turn():  # no room to wait
                pass
            one._waiting -= 1
        with one.turn():
            pass
    finally:
        one.close()


def test_older_photographs_make_room() -> None:
    one = Studio(bounds=Bounds(uploads=2))
    try:
        first, *rest = [one.uploads.add(photo(number)) for number in range(3)]
        with pytest.raises(Missing):
            one.uploads.get(first.id)
        assert [one.uploads.get(kept.id) for kept in rest] == rest
    finally:
        one.close()


def test_every_method_on_offer_can_be_loaded() -> None:
    for spec in studio.METHODS:
        assert studio._method(spec, None)


def test_a_comment_is_explained(client: httpx.Client) -> None:
    asked = {"text": "You are stupid 😀 indeed", "method": "leave_one_out", "target": "class=toxic"}
    told = client.post("/api/text", json=asked).json()
    words = [told["text"][start:end] for start, end in told["spans"]]
    assert words[int(np.argmax(told["values"]))] == "stupid"
    assert told["top"][0]["score"] >= told["top"][1]["score"]
    assert client.post("/api/text", json={"text": "x" * 2001}).status_code == 422
    assert client.post("/api/text", json={"text": "x", "method": "lime"}).status_code == 422


@pytest.mark.skipif(not others.Loans.installed, reason="needs the extra tables")
def test_a_loan_is_explained(client: httpx.Client) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what shap imports
        importlib.import_module("shap")
    names = {one["name"] for one in client.get("/api/columns").json()}
    assert not {"age", "personal_status_sex", "foreign_worker"} & names
    row = {"duration": 72, "amount": 18000, "savings": "below 100 DM", "status": "below 0 DM"}
    told = client.post("/api/row", json={"row": row}).json()
    assert told["favourable"] is False
    assert 1 <= len(told["reasons"]) <= 4
    for wrong in ({"savings": "<b>"}, {"duration": -1}, {"duration": "long"}):
        assert client.post("/api/row", json={"row": wrong}).status_code == 422


@pytest.fixture(scope="module")
def url(made: Studio) -> Iterator[str]:
    listener = run.listen("127.0.0.1", 0)
    server = uvicorn.Server(
        uvicorn.Config(create(made), log_level="warning", access_log=False, ws="none")
    )
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    server.should_exit = True
    thread.join(20)
    listener.close()


def test_a_client_of_another_toolkit_talks_to_it(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SPACE))
    client = importlib.import_module("client")
    demo = client.Demo(url)
    choices = demo.choices()
    image = Image.open(io.BytesIO(photo(7)))
    overlays, scores = demo.explain(image, choices["model"], ["grad_cam"], "top2")
    assert [drawn.size for drawn, _ in overlays] == [image.size] * 2
    assert len(scores) == 5
    with pytest.raises(RuntimeError, match="unknown method"):
        demo.explain(image, choices["model"], ["occlusion(stride=1)"])
    demo._http.close()
    del sys.modules["client"]
    # Gradio can't be in one environment with visxai, so its page is read, not run.
    tree = ast.parse((SPACE / "app.py").read_text("utf-8"))
    assert {"gradio", "client"} <= {
        getattr(node, "module", None) or node.names[0].name
        for node in ast.walk(tree)
        if isinstance(node, (ast.Import, ast.ImportFrom))
    }


FAKE_CAMERA = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]


class TestBrowser:
    pytestmark = browser_only

    def test_a_visit(self, url: str, tmp_path: Path) -> None:
        from playwright.sync_api import sync_playwright

        file = tmp_path / (HOSTILE.replace("/", "∕").replace("\n", " ") + ".png")
        file.write_bytes(photo(8, (320, 240)))
        with sync_playwright() as play:
            browser = play.chromium.launch(
                executable_path=CHROMIUM, args=["--no-sandbox", *FAKE_CAMERA]
            )
            try:
                self._visit(browser, url, file)
                self._address(browser, url)
            finally:
                browser.close()

    def _visit(self, browser: Any, url: str, file: Path) -> None:
        context = browser.new_context(color_scheme="light", viewport={"width": 1400, "height": 900})
        page, said = context.new_page(), []
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.goto(url)
        page.wait_for_selector("body[data-ready]", timeout=180_000)
        page.locator('#methods input[value="saliency"]').check()
        page.locator("#file").set_input_files(file)
        page.wait_for_selector('#maps[data-made="1"]', timeout=180_000)
        assert page.locator("#maps figure").count() == 2
        pictures = "() => [...document.images].every((one) => one.complete && one.naturalWidth > 0)"
        page.wait_for_function(pictures)
        page.locator("#strength").fill("40")
        opacity = "(one) => getComputedStyle(one).opacity"
        assert page.locator("#maps .map").first.evaluate(opacity) == "0.4"
        page.locator("#top button").nth(1).click()
        page.wait_for_selector('#maps[data-made="2"]', timeout=180_000)
        second = page.locator("#top li bdi").nth(1).inner_text()
        assert page.locator("#maps figure bdi").first.inner_text() == second
        page.locator("#brush").scroll_into_view_if_needed()
        box = page.locator("#brush").bounding_box()
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        page.mouse.down()
        page.mouse.move(box["x"] + box["width"] / 2 + 60, box["y"] + box["height"] / 2, steps=3)
        page.mouse.up()
        page.locator("#hide").click()
        page.wait_for_selector("#hidden li", timeout=180_000)
        assert "of the model’s view hidden" in page.locator("#hidden").inner_text()
        assert page.evaluate("window.hacked") is None
        self._look(page)
        page.locator("#camera").click()
        page.locator("#shoot").click()
        page.wait_for_selector('#maps[data-made="3"]', timeout=180_000)
        # Pasted, and no photograph at all: a sentence.
        page.evaluate(
            "() => { const data = new DataTransfer(); data.items.add(new File(['no'], 'x.png', "
            "{ type: 'image/png' })); document.dispatchEvent(new ClipboardEvent('paste', "
            "{ clipboardData: data, bubbles: true, cancelable: true })); }"
        )
        page.wait_for_selector("#trouble:not([hidden])")
        assert page.locator("#trouble").inner_text().startswith("Expected ")
        page.locator("#tab-text").click()
        page.locator("#text").fill("You are <b>stupid</b>")
        page.locator("#text-form button").click()
        page.wait_for_selector("#words span", timeout=180_000)
        assert page.locator("#words").inner_text() == "You are <b>stupid</b>"
        assert [line for line in said if "422" not in line] == []
        context.close()

    def _address(self, browser: Any, url: str) -> None:
        context = browser.new_context(color_scheme="dark", viewport={"width": 420, "height": 900})
        page = context.new_page()
        page.goto(f"{url}/#image=espresso&method=layer_cam&target=class%3Despresso&layer=blocks.5")
        page.wait_for_selector('#maps[data-made="1"]', timeout=180_000)
        told = page.locator("#maps figcaption").inner_text()
        assert told.startswith("espresso")
        assert "layer_cam" in told
        assert "blocks.5" in told
        assert "image=espresso" in page.url
        self._look(page)
        context.close()

    def _look(self, page: Any) -> None:
        assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
        assert _contrast(page) == []

    def test_ten_users_at_once_get_their_own_maps(self, url: str, tmp_path: Path) -> None:
        from playwright.sync_api import sync_playwright

        with sync_playwright() as play:
            browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
            pages, wanted = [], []
            for number in range(10):
                page = browser.new_context().new_page()
                page.goto(url)
                pages.append(page)
                data = photo(20 + number)
                wanted.append(hashlib.sha256(data).hexdigest())
                (tmp_path / f"{number}.png").write_bytes(data)
            for page in pages:
                page.wait_for_selector("body[data-ready]", timeout=180_000)
            for number, page in enumerate(pages):
                page.locator("#file").set_input_files(tmp_path / f"{number}.png")
            found = []
            for page in pages:
                page.wait_for_selector('#maps[data-made="1"]', timeout=240_000)
                record = page.locator("#maps a").get_attribute("href")
                found.append(httpx.get(f"{url}{record}").json()["source_sha256"])
            browser.close()
        assert found == wanted
