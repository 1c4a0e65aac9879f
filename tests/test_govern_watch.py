"""Watching a log, its alerts, cards, wrapper, page and audit; the page in a real browser."""

from __future__ import annotations

import hashlib
import hmac
import importlib.util
import json
import logging
import re
import shutil
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, ClassVar

import databases
import numpy as np
import pytest
from sqlalchemy import text
from stores import explanation, fill, photograph

from visxai import cli, govern
from visxai.errors import ArgumentError, StoreError
from visxai.govern import auditing, daily, delivery, features
from visxai.govern.log import Item, Log
from visxai.ledger import Envelope, Ledger, Signer
from visxai.record.text import TextExplanation
from visxai.references import ModelRef, TextRef

HOSTILE = "<img src=x onerror=window.hacked=1>\"'</script>"
CHROMIUM = shutil.which("chromium")


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return photograph(tmp_path_factory.mktemp("photo") / "a.png", 1)


def stream(photo: Path, count: int, start: int, corner: bool = False, seed: int = 0) -> list[Item]:
    """Items an hour apart; in a corner is where the evidence of a changed model lies."""
    rng = np.random.default_rng(seed)
    items = []
    for at in range(start, start + count):
        peak = (0, 6) if corner else (int(rng.integers(1, 6)), int(rng.integers(1, 6)))
        made = explanation(
            photo,
            peak,
            score=float(rng.random()),
            label="cat" if rng.random() < 0.5 else HOSTILE,
            created=f"2026-04-{1 + at // 24:02d}T{at % 24:02d}:00:00+00:00",
        )
        told = {"site": "ns"[at % 2], "item": f"{HOSTILE}{at}"}
        items.append(Item(made, Envelope(metadata=told), {"brightness": float(rng.random())}))
    return items


@pytest.fixture
def log(tmp_path: Path, photo: Path) -> Iterator[Log]:
    """A reference of 40 items, 40 like them, and 40 of a changed model."""
    ledger = Ledger(tmp_path / "log.db", signer=Signer.open(tmp_path / "key"))
    with ledger, Log(ledger) as made:
        made.add(stream(photo, 80, 0))
        made.add(stream(photo, 40, 80, corner=True, seed=1))
        made.ledger.checkpoint()
        yield made


class Hook(BaseHTTPRequestHandler):
    """Keeps what it is sent; the first request of all fails."""

    got: ClassVar[list[tuple[dict[str, str], bytes]]] = []

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        Hook.got.append((dict(self.headers), body))
        self.send_response(503 if len(Hook.got) == 1 else 200)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


def test_a_drift_is_found_told_and_acknowledged(
    log: Log, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    server = HTTPServer(("127.0.0.1", 0), Hook)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setattr(delivery.time, "sleep", lambda seconds: None)
    Hook.got.clear()
    try:
        url = f"http://127.0.0.1:{server.server_port}/alerts"
        with caplog.at_level(logging.WARNING):
            found = govern.watch(log, size=40, webhook=url, secret="s")
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    assert (found.windows, len(found.alerts)) == (2, 1)
    assert "drift of m in explanation" in caplog.text
    (alert,) = govern.alerts(log)
    assert (alert["state"], alert["delivered"]) == ("open", "delivered")
    assert alert["alarms"] == ["explanation"]
    assert (alert["from"][:13], alert["n"]) == ("2026-04-04T08", 40)
    assert len(alert["records"]) == 5
    headers, body = Hook.got[-1]
    assert len(Hook.got) == 2
    assert json.loads(body)["alert"] == alert["id"]
    signed = hmac.new(b"s", headers["X-Visxai-Time"].encode() + b"." + body, hashlib.sha256)
    assert headers["X-Visxai-Signature"] == signed.hexdigest()
    assert govern.watch(log, size=40).windows == 0  # each window is tested once
    govern.annotate(log, alert["id"], "looking", "kim")
    govern.acknowledge(log, alert["id"], HOSTILE, "kim")
    (alert,) = govern.alerts(log)
    assert alert["state"] == "acknowledged"
    assert [note["text"] for note in alert["notes"]] == ["looking", HOSTILE]
    events = [entry.event for entry in log.ledger.history(alert["id"])]
    assert events == ["alert.raised", "alert.acknowledged"]
    with pytest.raises(ArgumentError, match="the id of an alert"):
        govern.acknowledge(log, "none", "x", "kim")
    with pytest.raises(ArgumentError, match="expected a note"):
        govern.annotate(log, alert["id"], " ", "kim")


def test_a_webhook_that_fails_stops_nothing(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery.time, "sleep", lambda seconds: None)
    found = govern.watch(log, size=40, webhook="http://127.0.0.1:9/", secret=None)
    assert len(found.alerts) == 1
    assert govern.alerts(log)[0]["delivered"].startswith("failed: expected a webhook that answers")


def test_a_card_says_who_answers_and_moves_the_reference(log: Log) -> None:
    govern.register(
        log,
        "m",
        owner=HOSTILE,
        purpose="flag | photographs",
        risk="high",
        threshold=0.5,
        reference=("2026-04-01", "2026-04-03"),
    )
    assert govern.watch(log, size=40).windows == 1  # 48 items are the reference, 72 follow
    told = govern.card(log, "m")
    assert "<img" not in told
    assert "flag \\| photographs" in told
    assert "| Explained | 120 items, 2026-04-01 to 2026-04-05 |" in told
    assert "2026-04-01T00:00:00.000000Z to 2026-04-03" in told
    with pytest.raises(ArgumentError, match="a risk class"):
        govern.register(log, "m", owner="a", purpose="b", risk="none")


class Fake:
    """An engine of made-up maps, which counts what it is asked for."""

    def __init__(self) -> None:
        self.asked: list[Any] = []

    def explain(self, inputs: Any, **options: Any) -> list[Any]:
        self.asked += inputs
        return [explanation(path, source=path, **options) for path in inputs]


def test_predictions_are_logged_with_their_share(tmp_path: Path, photo: Path) -> None:
    engine = Fake()
    with govern.logged(engine, tmp_path / "l.db", share=0.25, seed=1, label="cat") as log:

        @log
        def predict(path: Path) -> str:
            """Say what it is."""
            return "cat!"

        assert {predict(photo) for _ in range(40)} == {"cat!"}
        assert predict.__doc__ == "Say what it is."
        log.explain([photo], metadata=[{"site": "n"}], truth=["dog"])
        with pytest.raises(ArgumentError, match="expected 1 in truth"):
            log.explain([photo], truth=[])
    with Log(tmp_path / "l.db") as kept:
        seen = kept.observe(kept.model("m").id)
        assert len(seen) == len(engine.asked)
        assert 3 <= len(seen) <= 18
        assert set(seen.groups["sampled_share"]) == {"0.25"}
        assert "brightness" in seen.inputs
        with kept.ledger.database.reading() as connection:
            total = connection.execute(text("SELECT sum(seen) FROM govern_coverage")).scalar_one()
    assert total == 41
    with pytest.raises(ArgumentError, match="a share above 0"):
        govern.logged(engine, tmp_path / "l.db", share=0)


def test_features_of_a_text_by_hand() -> None:
    words = "this is NOT good !"
    spans = ((0, 4), (5, 7), (8, 11), (12, 16), (17, 18))
    one = TextExplanation(
        TextRef(words, spans, "d" * 64),
        ModelRef("t", "a" * 64, "none"),
        np.array([0, -1, 3, 0, 1], np.float32),
        "occlusion()",
        "top1",
        0,
        "bad",
        0.5,
        0.0,
    )
    found = govern.measure(one)
    assert (found["negation"], found["capitals"], found["symbols"]) == (0.75, 0.75, 0.25)
    assert found["against"] == 0.2
    assert found["centre_x"] == pytest.approx(0.75 * 0.5 + 0.25 * 0.9)
    assert found["third_1"] == pytest.approx(0.75)
    assert found["third_2"] == pytest.approx(0.25)
    assert features.features_of("text")[0].name == "concentration"


def test_the_audit_of_a_log(log: Log, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'log.db'}"
    first = {line.name: line for line in govern.audit(url, key=str(tmp_path / "key")).lines}
    assert first["coverage"].verdict == "pass"
    assert first["audit chain"].verdict == "pass"
    assert (first["drift"].verdict, first["fairness"].verdict) == ("warn", "warn")
    govern.watch(log, size=40)
    found = govern.audit(url)
    lines = {line.name: line for line in found.lines}
    assert lines["drift"].verdict == found.verdict == "fail"
    assert lines["audit chain"].verdict == "warn"  # no key was named
    found.write(tmp_path / "audit.html")
    assert json.loads((tmp_path / "audit.json").read_text("utf-8"))["verdict"] == "fail"
    with log.ledger.database.writing() as connection:
        row = "SELECT id FROM explanations LIMIT 1"
        connection.execute(text(f"UPDATE explanations SET data = x'00' WHERE id = ({row})"))
    damaged = {line.name: line for line in govern.audit(url).lines}
    assert damaged["audit chain"].verdict == "fail"
    assert damaged["records"].verdict == "fail"


def test_randomisation_checks_are_held_against_each_model_and_method(
    tmp_path: Path, photo: Path
) -> None:
    out = fill(tmp_path / "out", [explanation(photo)])

    def judged(value: float, count: int = 40, weights: str = "a" * 64) -> auditing.Line:
        entry = {"method": "grad_cam()", "value": value, "low": value - 0.05, "high": value + 0.05}
        metric = {"metric": "model_randomisation(stages=8)", "better": "lower"}
        told = {
            "settings": {"weights": weights},
            "metrics": [metric | {"methods": [entry | {"count": count}]}],
        }
        (tmp_path / "evaluation.json").write_text(json.dumps(told), "utf-8")
        found = govern.audit(out, evaluations=[tmp_path])
        return next(line for line in found.lines if line.name == "randomisation")

    assert judged(0.2).verdict == "pass"
    assert judged(0.2).said == "grad_cam() of aaaaaaaa: 0.20 (0.15 to 0.25, 40 images)"
    assert judged(0.9).verdict == "fail"
    assert judged(0.7).verdict == judged(0.2, count=9).verdict == "warn"
    assert "no check for grad_cam() of aaaaaaaa" in judged(0.2, weights="b" * 64).said
    with pytest.raises(StoreError, match="model_randomisation in"):
        govern.audit(out, evaluations=[out])


def test_the_audit_runs_randomisation_checks_itself(tmp_path: Path) -> None:
    import visxai

    engine = visxai.Engine("digits_vit", precision="fp32", accelerate="off")
    paths = [photograph(tmp_path / "in" / f"{at}.png", at) for at in range(4)]
    made = engine.explain(paths, method="attention_rollout")
    other = [replace(made[0], model=ModelRef("elsewhere", "b" * 64, ""))]
    out = fill(tmp_path / "out", [*made, *other])

    def line(**options: Any) -> auditing.Line:
        lines = govern.audit(out, **options).lines
        return next(one for one in lines if one.name == "randomisation")

    assert "no check for" in line().said
    found = line(randomise=3)
    weights, spec = made[0].model.weights_sha256, made[0].method
    checked = engine.explain(paths[:3], method=spec, check="model_randomisation")
    mean = np.mean([one.quality["model_randomisation"] for one in checked])
    assert f"{spec} of {weights[:8]}: {mean:.2f} (" in found.said
    assert "3 images), fewer than 30" in found.said
    assert f"no check for {spec} of bbbbbbbb" in found.said
    assert found.verdict == "warn"
    with Log(tmp_path / "log.db") as log:
        log.import_run(out)
    stored = govern.audit(tmp_path / "log.db", randomise=2, models=["digits_vit"])
    told = next(one.said for one in stored.lines if one.name == "randomisation")
    assert "2 images), fewer than 30" in told


def test_a_watcher_looks_by_the_clock(log: Log, caplog: pytest.LogCaptureFixture) -> None:
    with govern.watcher(log.ledger, every=0.05, size=40):
        databases.wait_until(lambda: govern.alerts(log))
        with log.ledger.database.writing() as connection:
            connection.execute(text("ALTER TABLE govern_gaps RENAME TO moved"))
        databases.wait_until(lambda: "watching for drift: expected" in caplog.text)
    assert len(govern.alerts(log)) == 1
    with pytest.raises(ArgumentError, match="a pause above 0"), govern.watcher("x.db", every=0):
        pass


def test_a_page_of_one_model_and_one_tenant(log: Log, photo: Path) -> None:
    other = explanation(
        photo, created="2026-03-01T00:00:00+00:00", model=ModelRef("n", "b" * 64, "")
    )
    theirs = Envelope(tenant="them", metadata={"site": "theirs-alone"})
    log.add([Item(other, theirs)])
    log.ledger.append(
        "decision.upheld",
        "decision-7",
        actor="key-3",
        tenant="us",
        body={"shown": "e5", "role": "review"},
    )
    govern.watch(log, size=40)
    both = govern.page(log)
    assert "theirs-alone" in both
    assert "form-action 'none'" in both
    first = govern.page(log, model="", act="/governance")
    assert "theirs-alone" not in first  # the latest used model is shown
    assert "form-action 'self'" in first
    id = log.model("n").id
    assert "theirs-alone" in govern.page(log, model=id)
    assert "theirs-alone" not in govern.page(log, model=id, tenant="us")
    ours = govern.page(log, tenant="us")
    assert '"key-3","review","decision.upheld","decision-7","e5"]' in ours
    assert str(photo) not in ours
    assert "decision-7" not in govern.page(log, tenant="them")


def test_tenants_see_their_own_alone(log: Log, photo: Path) -> None:
    log.add([replace(one, envelope=replace(one.envelope, tenant="them"))
             for one in stream(photo, 80, 0)])  # fmt: skip
    id = log.model("m").id
    assert log.tenants(id) == ["default", "them"]
    found = govern.watch(log, size=40)
    assert (found.windows, len(found.alerts)) == (3, 1)  # theirs didn't change
    (alert,) = govern.alerts(log, "default")
    assert govern.alerts(log, "them") == []
    with pytest.raises(ArgumentError, match="the id of an alert"):
        govern.acknowledge(log, alert["id"], "not mine", "kim", "them")
    assert [one.n for name in ("default", "them", None) for one in log.models(name)] == [
        120,
        80,
        200,
    ]
    assert len(log.observe(id, tenant="them")) == 80
    both, theirs = (summary(log, tenant) for tenant in (None, "them"))
    assert sum(day[1] for day in theirs["trends"][""]["score"]) == 80
    assert sum(day[1] for day in both["trends"][""]["score"]) == 200
    assert (theirs["coverage"], both["coverage"]) == ([80, 80], [200, 200])
    assert [one["tenant"] for one in theirs["windows"]] == ["them"]
    assert {one["tenant"] for one in both["gaps"]} == {"default", "them"}
    assert (len(theirs["alerts"]), len(both["alerts"])) == (0, 1)
    with log.ledger.database.reading() as connection:
        means = daily.means(connection, id, tenant="them")
    assert means["score"] == (80, pytest.approx(log.observe(id, tenant="them").scores.mean()))
    log.count_unexplained(id, 7, "them")
    assert summary(log, "them")["coverage"] == [87, 80]
    assert summary(log, "default")["coverage"] == [120, 120]


def summary(log: Log, tenant: str | None) -> Any:
    """What the page says of the only model."""
    html = govern.page(log, tenant=tenant)
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.S)
    assert found
    (model,) = json.loads(found[1])["models"]
    return model


def test_sums_of_an_earlier_version_are_divided(log: Log, photo: Path) -> None:
    theirs = replace(stream(photo, 1, 200)[0], envelope=Envelope(tenant="them", truth="dog"))
    log.add([theirs])
    govern.watch(log, size=40)
    log.count_unexplained(log.model("m").id, 5)
    before = [summary(log, tenant) for tenant in (None, "default", "them")]
    with log.ledger.database.writing() as connection:  # as the first version had it
        for name in ("daily", "coverage", "gaps"):
            connection.execute(text(f"DROP TABLE govern_{name}"))
        for name in ("windows", "alerts"):
            connection.execute(text(f"ALTER TABLE govern_{name} DROP COLUMN tenant"))
        connection.execute(text("DROP INDEX govern_measures_by_tenant"))
        key = (
            "model_id TEXT, day TEXT, label TEXT, figure TEXT, n INTEGER, total REAL, squares REAL"
        )
        connection.execute(text(f"CREATE TABLE govern_daily ({key})"))
        key = "model_id TEXT, day TEXT, seen INTEGER, explained INTEGER"
        connection.execute(text(f"CREATE TABLE govern_coverage ({key})"))
        connection.execute(text("CREATE TABLE govern_gaps (model_id TEXT)"))
        connection.execute(
            text("INSERT INTO govern_coverage VALUES (:id, '2026-04-01', 126, 121)"),
            {"id": before[0]["id"]},
        )
        connection.execute(text("UPDATE govern_version SET version_num = 'govern_0001'"))
    with Log(log.ledger) as again:
        after = [summary(again, tenant) for tenant in (None, "default", "them")]
        assert govern.alerts(again, "them") == []
        (alert,) = govern.alerts(again, "default")
        assert alert["records"] == []
    for old, new in zip(before, after, strict=True):
        assert new["trends"] == old["trends"]
        assert new["windows"] == old["windows"]
    assert [one["coverage"] for one in after] == [[126, 121], [125, 120], [1, 1]]
    assert "error" in after[2]["trends"][""]


def test_the_audit_of_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [photograph(tmp_path / "in" / f"{at}.png", at) for at in range(40)]
    made = [explanation(path, quality={"faithful": at % 4 > 0}) for at, path in enumerate(paths)]
    out = fill(tmp_path / "out", made)
    found = {line.name: line for line in govern.audit(out).lines}
    assert found["coverage"].said == "40 of 40 items explained, 100.0%"
    assert found["faithfulness"].said.startswith("75.0% ± 13.4% of 40")
    assert found["records"].verdict == "pass"
    with pytest.raises(SystemExit) as ended:
        cli.main(["govern", "audit", str(out), "--out", str(tmp_path / "a.html")])
    assert ended.value.code == 0
    assert "warn" in capsys.readouterr().out
    assert "Explanation audit" in (tmp_path / "a.html").read_text("utf-8")
    assert auditing.audit(out).verdict == "warn"


def test_the_commands(log: Log, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    url = f"sqlite:///{tmp_path / 'log.db'}"

    def run(*words: str) -> tuple[int, str]:
        with pytest.raises(SystemExit) as ended:
            cli.main(["govern", *words, "--database", url])
        return int(ended.value.code or 0), " ".join(capsys.readouterr().out.split())

    code, said = run("watch", "--window", "40")
    assert code == 1
    assert "2 windows tested, 1 alerts" in said
    (alert,) = govern.alerts(log)
    assert alert["id"] in run("alerts")[1]
    assert run("acknowledge", alert["id"], "--note", "a new camera", "--by", "kim")[0] == 0
    assert "kim: a new camera" in run("alerts")[1]
    assert run("card", "m", "--owner", "a", "--purpose", "b", "--risk", "high")[0] == 0
    assert run("card", "m", "--owner", "a")[0] == 2
    out = tmp_path / "r.html"
    assert run("report", "--out", str(out))[0] == 0
    assert out.is_file()


@pytest.mark.skipif(
    CHROMIUM is None or importlib.util.find_spec("playwright") is None,
    reason="no browser: install chromium, and playwright with 'visxai[browser]'",
)
@pytest.mark.xdist_group("browser")
def test_the_page_in_a_browser(log: Log, tmp_path: Path) -> None:
    from playwright.sync_api import sync_playwright

    govern.watch(log, size=40)
    target, served = govern.report(log, tmp_path / "report.html"), tmp_path / "served.html"
    served.write_text(govern.page(log, model="", act="/governance/alerts"), "utf-8")
    wrong: list[str] = []
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 420, "height": 900})
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda told: wrong.append(told.text) if told.type == "error" else None)
        page.goto(target.as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") <= 420
        assert page.evaluate("window.hacked") is None
        assert "intact" in page.locator("#audit .facts").inner_text()
        assert "explanation" in page.locator("#drift .alert").inner_text()
        assert "beyond chance" not in page.locator("#fairness").inner_text()
        page.set_viewport_size({"width": 1400, "height": 900})
        panel = page.locator("#trends .panel").first
        with page.expect_download() as waiting:
            panel.locator(".csv").click()
        rows = Path(waiting.value.path()).read_text("utf-8").splitlines()
        assert rows[0] == "series,at,value,low,high,n"
        assert rows[1].startswith("score,2026-04-01,")
        assert rows[1].endswith(",24")
        lines = panel.locator("svg path")
        before = lines.count()
        panel.locator(".legend button").first.click()
        assert lines.count() < before
        panel.locator(".legend button").first.click()
        box = panel.locator(".chart > svg").bounding_box()
        assert box is not None
        middle = box["y"] + 80
        page.mouse.move(box["x"] + box["width"] / 2, middle)
        assert "n = " in panel.locator(".tip").inner_text()
        page.mouse.move(box["x"] + 60, middle)
        page.mouse.down()
        page.mouse.move(box["x"] + box["width"] / 2, middle)
        page.mouse.up()
        assert panel.get_by_text("Show all").is_visible()
        panel.get_by_text("Show all").click()
        page.locator("#items input").fill("n site=n")
        page.locator("#items .open").first.click()
        assert "grad_cam()" in page.locator("#record").inner_text()
        page.get_by_text("Close").click()
        paper = "getComputedStyle(document.documentElement).backgroundColor"
        light = page.evaluate(paper)
        page.locator("#theme").click()
        assert page.evaluate(paper) != light
        page.goto(served.as_uri())
        alert = page.locator("#drift .alert.open")
        alert.get_by_label("Note").fill("a new camera")
        assert alert.get_by_label("acknowledge").is_checked()
        assert page.evaluate("document.forms[0].action").endswith("/governance/alerts")
        govern.audit(log.ledger.database.url).write(tmp_path / "audit.html")
        page.emulate_media(color_scheme="dark")
        for width in (1400, 420):
            page.set_viewport_size({"width": width, "height": 900})
            page.goto((tmp_path / "audit.html").as_uri())
            assert page.locator("tr").count() == 8
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            page.emulate_media(color_scheme="light")
        with Log(tmp_path / "empty.db") as empty:
            served.write_text(govern.page(empty), "utf-8")
        page.goto(served.as_uri())
        assert page.locator("select").count() == 0
        assert "Nothing is on record yet" in page.locator("#trends").inner_text()
        browser.close()
    assert not wrong
