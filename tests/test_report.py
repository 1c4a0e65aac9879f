"""The gallery: what is on the page, and that it works in a real browser, from disk."""

from __future__ import annotations

import base64
import csv
import importlib.util
import io
import json
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from stores import explanation, fill, photograph

from visxai import cli, report
from visxai.cli import terminal
from visxai.errors import Failure, StoreError
from visxai.images import address
from visxai.pipeline.progress import Outcome, Progress
from visxai.record.scores import Ranked
from visxai.references import ModelRef
from visxai.report import figures, gallery
from visxai.report.answers import right
from visxai.results import reading
from visxai.results.rows import SCHEMA
from visxai.web import page

CHROMIUM = shutil.which("chromium")
HOSTILE = "<img src=x onerror=window.hacked=1>\"'</script><b>&amp;\nمرحبا \u202egnp"

browser_only = [
    pytest.mark.skipif(
        CHROMIUM is None or importlib.util.find_spec("playwright") is None,
        reason="no browser: install chromium, and playwright with 'visxai[browser]'",
    ),
    pytest.mark.xdist_group("browser"),
]


def small_run(folder: Path, state: str = "complete") -> Path:
    """Six images of three classes, two methods for the first, a failure, and every flag."""
    paths = [
        photograph(folder / "in" / f"photo-{i}.png", i, (96 if i % 2 else 64, 72)) for i in range(6)
    ]
    made = [
        explanation(
            path,
            (i, 3),
            label=("tabby", "espresso", "tripod")[i % 3],
            score=0.1 + 0.15 * i,
            quality={"converged": i != 4, "faithful": i != 5, "evaluations": 128},
        )
        for i, path in enumerate(paths)
    ]
    flat = explanation(paths[3], values=np.zeros((7, 7), np.float32), degenerate=True, score=0.55)
    made[3] = flat
    made.insert(1, explanation(paths[0], (5, 5), method="saliency()", score=0.1))
    failed = [Failure(str(folder / "in" / "torn.png"), "expected an image, got 0 bytes")]
    return fill(folder / "out", made, failed, state)


def change_rows(out: Path, **changes: Any) -> None:
    """Rows as a stranger may have written them: the footers stay."""
    for part in reading.parts(out).values():
        table = pq.read_table(part)
        told = [row | changes for row in table.to_pylist()]
        made = pa.Table.from_pylist(told, SCHEMA)
        pq.write_table(made.replace_schema_metadata(table.schema.metadata), part)


def colours(page: Path) -> set[tuple[int, ...]]:
    """The colours of the overlays in a single-file report, coarsely."""
    found = set()
    for picture in data_of(page)["pictures"].values():
        data = base64.b64decode(picture.partition(",")[2])
        with Image.open(io.BytesIO(data)) as image:
            found.add(image.convert("RGB").resize((1, 1)).getpixel((0, 0)))
    return {tuple(value // 64 for value in colour) for colour in found}


@pytest.mark.parametrize("how", ["absolute", "upwards", "link", "linked folder"])
def test_a_strangers_rows_read_no_files_of_mine(how: str, tmp_path: Path) -> None:
    path = photograph(tmp_path / "in" / "a.png", 1)
    out = fill(tmp_path / "out", [explanation(path)])
    path.unlink()  # so that the overlay stands for the original
    secret = tmp_path / "mine" / "secret.png"
    secret.parent.mkdir()
    Image.new("RGB", (96, 64), (255, 0, 255)).save(secret)
    name = {"absolute": str(secret), "upwards": "../../mine/secret.png"}.get(how, "secret.png")
    if how == "link":
        (out / "overlays" / "secret.png").symlink_to(secret)
    if how == "linked folder":
        shutil.rmtree(out / "overlays")
        (out / "overlays").symlink_to(secret.parent)
    change_rows(out, overlay=name)
    made = report.build(out, single_file=True, workers=0)
    assert (3, 0, 3) not in colours(made.path)
    Image.new("RGB", (96, 64), (255, 0, 255)).save(tmp_path / "sure.png")
    if how == "absolute":  # the same picture is found where it may be
        (out / "overlays" / "own.png").write_bytes(secret.read_bytes())
        change_rows(out, overlay="own.png")
        assert (3, 0, 3) in colours(report.build(out, single_file=True, workers=0).path)


def test_urls_of_a_strangers_are_not_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = photograph(tmp_path / "in" / "a.png", 1)
    out = fill(tmp_path / "out", [explanation(path)])
    change_rows(out, path="http://127.0.0.1:9/a.tar/a.png")
    monkeypatch.setattr(address, "file_system", lambda url: pytest.fail(f"asked {url}"))
    for workers in (0, 1):
        made = report.build(out, workers=workers)
        assert made.missing == 1
    (note,) = data_of(made.path)["images"]["note"]
    assert "--remote" in note


@pytest.mark.parametrize("name", ["report", "report/pictures", "report/pictures/ab"])
def test_a_gallery_is_written_where_it_belongs(name: str, tmp_path: Path) -> None:
    path = photograph(tmp_path / "in" / "a.png", 1)
    out = fill(tmp_path / "out", [explanation(path)])
    (tmp_path / "elsewhere").mkdir()
    (out / name).parent.mkdir(parents=True, exist_ok=True)
    (out / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StoreError, match="symbolic link"):
        report.build(out, workers=0)
    assert not list((tmp_path / "elsewhere").iterdir())


def data_of(path: Path) -> dict[str, Any]:
    text = path.read_text("utf-8")
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert found
    data: dict[str, Any] = json.loads(found[1])
    return data


def test_the_page_holds_the_run_and_its_pictures_lie_beside_it(tmp_path: Path) -> None:
    out = small_run(tmp_path)
    told: list[tuple[int, int]] = []
    made = report.build(out, workers=0, progress=lambda *now: told.append(now))
    assert made.path == out / "report" / "index.html"
    assert (made.shown, made.rows, made.missing) == (7, 7, 0)
    assert told[0] == (0, 7)
    assert told[-1] == (7, 7)
    data = data_of(made.path)
    assert data["rows"]["image"] == [0, 0, 1, 2, 3, 4, 5]
    assert [data["strings"]["label"][i] for i in data["rows"]["label"]][:3] == [
        *("tabby", "tabby", "espresso")
    ]
    assert data["strings"]["method"] == ["grad_cam()", "saliency()"]
    assert data["rows"]["degenerate"].count(True) == 1
    assert data["failures"][0]["reason"] == "expected an image, got 0 bytes"
    names = [*data["images"]["photo"], *data["rows"]["overlay"], *data["rows"]["map"]]
    for name in names:
        assert (out / "report" / "pictures" / name[:2] / f"{name}.webp").exists()
    tabby = next(one for one in data["classes"] if one["label"] == "tabby")
    assert tabby["count"] == 3
    assert set(tabby["means"]) == {"grad_cam()", "saliency()"}


def test_a_second_report_draws_nothing_again(tmp_path: Path) -> None:
    out = small_run(tmp_path)
    report.build(out, workers=0)
    before = {path: path.stat().st_mtime_ns for path in (out / "report").rglob("*.webp")}
    report.build(out, workers=0)
    assert {p: p.stat().st_mtime_ns for p in (out / "report").rglob("*.webp")} == before
    assert not list(out.rglob("*.part"))


def test_workers_draw_the_same_pictures(tmp_path: Path) -> None:
    out = small_run(tmp_path)
    report.build(out, workers=0)
    here = {path.name: path.read_bytes() for path in (out / "report").rglob("*.webp")}
    shutil.rmtree(out / "report")
    report.build(out, workers=2)
    assert {path.name: path.read_bytes() for path in (out / "report").rglob("*.webp")} == here


def test_originals_that_are_gone_or_changed_are_said_to_be(tmp_path: Path) -> None:
    out = small_run(tmp_path)
    (tmp_path / "in" / "photo-1.png").unlink()
    photograph(tmp_path / "in" / "photo-2.png", 99)
    (tmp_path / "in" / "photo-4.png").write_bytes(b"torn")
    made = report.build(out, workers=0)
    assert made.missing == 3
    data = data_of(made.path)
    assert data["images"]["note"] == [
        None,
        "The original is gone.",
        "The original has changed since it was explained.",
        None,
        "The original can't be read any more.",
        None,
    ]
    # The run's own overlays are still there to be shown.
    assert None not in data["rows"]["overlay"]
    assert [name is None for name in data["images"]["photo"]] == [
        *(False, True, True, False, True, False)
    ]


def test_a_single_file_carries_its_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = small_run(tmp_path)
    made = report.build(out, single_file=True, workers=0)
    assert made.path == out / "report.html"
    assert not (out / "report").exists()
    data = data_of(made.path)
    for name in (*data["images"]["photo"], *data["rows"]["overlay"], *data["rows"]["map"]):
        assert data["pictures"][name].startswith("data:image/webp;base64,")
    monkeypatch.setattr(gallery, "EMBEDDED", 3)
    made = report.build(out, single_file=True, workers=0)
    assert (made.shown, made.rows) == (3, 7)
    assert sum(one["count"] for one in data_of(made.path)["classes"]) == 7


def test_an_unfinished_run_and_an_empty_one_have_pages(tmp_path: Path) -> None:
    made = report.build(small_run(tmp_path / "a", "interrupted"), workers=0)
    assert data_of(made.path)["run"]["state"] == "interrupted"
    assert report.build(fill(tmp_path / "b", []), workers=0).rows == 0


def labelled_run(folder: Path) -> Path:
    """Three images of a run with labels, the second of which the model takes for another."""
    paths = [photograph(folder / "in" / f"photo-{i}.png", i) for i in range(4)]
    spec = "occlusion(window=64, stride=32)"
    made = [
        explanation(paths[0], label="tabby", score=0.9),
        explanation(paths[1], label="tabby", score=0.6, method=spec),
        explanation(paths[1], label="tripod", score=0.3, method=spec),
        explanation(paths[2], label="espresso"),
    ]
    named = {str(paths[0]): "tabby", str(paths[1]): "tripod"}
    reason = "expected an image, got 0 bytes; " * 9
    failed = [Failure(str(paths[3]), reason)]
    return fill(folder / "lab", made, failed, expected=named, answers={"labelled": 2, "right": 1})


def test_labels_tell_what_is_right(tmp_path: Path) -> None:
    data = data_of(report.build(labelled_run(tmp_path), workers=0).path)
    assert data["images"]["expected"] == ["tabby", "tripod", None]
    assert data["images"]["right"] == [True, False, None]
    assert data["run"]["counts"]["right"] == 1
    rows = [{"label": "a", "score": 0.2, "expected": "b"}, {"label": "b", "score": 0.7}]
    assert right(rows, {"target": "top2"}) is True
    assert right(rows, {"target": "above=0.1"}) is True
    for settings in ({"target": "class=1"}, {"target": "top1", "activation": "sigmoid"}, {}):
        assert right(rows, settings) is None


def test_colours_are_told_by_method(tmp_path: Path) -> None:
    data = data_of(report.build(labelled_run(tmp_path), workers=0).path)
    assert data["rows"]["scale"] == [0, 1, 1, 0]
    ends = [scale["ends"] for scale in data["scales"]]
    assert ends == [["little", "much evidence"], ["against", "for"]]
    assert all(re.fullmatch("#[0-9a-f]{6}", one) for s in data["scales"] for one in s["colours"])


def test_the_end_of_a_run_says_how_often_the_model_is_right(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    counts = {"images": 24, "finished": 24, "maps": 24, "failures": 0, "labelled": 24, "right": 21}
    run = Progress(24, done=24, before=0, maps=24, failures=0, seconds=2.0)
    terminal.summary(Outcome(labelled_run(tmp_path), run, True, counts, {}, 0), "visxai explain")
    assert "The model got 21 of 24 right (87.5 %), by the images' labels" in capsys.readouterr().out


def test_data_stays_data() -> None:
    text = page.filled(HOSTILE, {"label": HOSTILE, "style": "{{code}}", "score": float("nan")})
    assert text.count("<img") == 0
    assert text.count("</script>") == 2
    found = re.search(r'id="data">(.*?)</script>', text)
    assert found
    assert json.loads(found[1]) == {"label": HOSTILE, "style": "{{code}}", "score": None}
    assert "default-src 'none'" in text
    assert "unsafe" not in text


def test_the_code_puts_nothing_on_the_page_as_markup() -> None:
    code = "".join(path.read_text("utf-8") for path in Path(page.__file__).parent.glob("*.js"))
    for forbidden in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
        assert forbidden not in code
    style = (Path(page.__file__).parent / "page.css").read_text("utf-8")
    assert not re.search(r"https?:", code.replace("http://www.w3.org/2000/svg", "") + style)


def test_spread_is_the_area_that_holds_half() -> None:
    assert figures.spread(np.ones((7, 7), np.float32)) == pytest.approx(0.5, abs=0.001)
    one = np.zeros((56, 56), np.float32)
    one[3, 4] = 2.0
    assert figures.spread(one) == pytest.approx(1 / 56**2)
    assert figures.spread(-one) is None
    assert figures.against(np.array([[3.0, -1.0]], np.float32)) == 0.25
    assert figures.against(np.zeros((2, 2), np.float32)) == 0.0


def test_another_models_maps_of_the_same_images_stand_beside(tmp_path: Path) -> None:
    out = small_run(tmp_path)
    photos = [tmp_path / "in" / f"photo-{i}.png" for i in (0, 2)]
    top = (Ranked(3, "tripod", 0.9), Ranked(7, "tabby", 0.05))
    model = ModelRef("other", "b" * 64, "no resize")
    made = [explanation(p, model=model, label="tripod", top_scores=top) for p in photos]
    made.append(explanation(photograph(tmp_path / "in" / "alone.png", 50), model=model))
    other = fill(tmp_path / "other", made)
    data = data_of(report.build(out, beside=[other], workers=0).path)
    assert data["rows"]["image"] == [0, 0, 0, 1, 2, 2, 3, 4, 5]
    assert data["total"] == 9
    named = [data["strings"]["method"][i] for i in data["rows"]["method"]]
    assert named[:3] == ["grad_cam() · m", "saliency() · m", "grad_cam() · other"]
    assert data["rows"]["file"][2] is None
    told = json.loads(data["strings"]["top"][data["rows"]["top"][2]])
    assert [(data["strings"]["name"][i], score) for i, score in told] == [
        *(("tripod", 0.9), ("tabby", 0.05))
    ]
    assert data["run"]["beside"] == ["other"]
    with pytest.raises(StoreError, match="check the path"):
        report.build(out, beside=[tmp_path / "in"])


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = small_run(tmp_path)
    with pytest.raises(SystemExit) as left:
        cli.main(["report", str(out), "--workers", "0"])
    assert left.value.code == 0
    assert "7 explanations in" in capsys.readouterr().out
    one = fill(tmp_path / "one", [explanation(tmp_path / "in" / "photo-0.png")])
    with pytest.raises(SystemExit):
        cli.main(["report", str(one), "--workers", "0"])
    assert "1 explanation in" in capsys.readouterr().out
    with pytest.raises(SystemExit) as left:
        cli.main(["report", str(tmp_path / "in")])
    assert left.value.code == 2
    assert capsys.readouterr().err.startswith("visxai: expected a folder that")
    with pytest.raises(StoreError, match="check the path"):
        report.build(tmp_path / "nowhere")


# ---- in a browser --------------------------------------------------------------------------------

FLAGS = (
    "--no-sandbox --disable-background-networking --disable-component-update --disable-sync "
    "--disable-quic --no-first-run"
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS.split())
        yield started
        started.close()


class Opened:
    """A page opened from disk; whatever it complains about is kept."""

    def __init__(self, browser: Any, path: Path, view: str = "together=0", **how: Any) -> None:
        how.setdefault("viewport", {"width": 1280, "height": 800})
        self.page = browser.new_page(**how)
        self.wrong: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda said: self.wrong.append(said.text))
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on("request", lambda asked: self.asked.append(asked.url))
        self.page.goto(f"{path.as_uri()}#{view}")
        self.page.wait_for_selector(".cell, #empty:not([hidden])")

    def items(self) -> list[int]:
        found: list[int] = self.page.evaluate(
            "[...document.querySelectorAll('.cell')].sort((a, b) => a.ariaPosInSet - "
            "b.ariaPosInSet).map(cell => +cell.dataset.item)"
        )
        return found

    def count(self) -> str:
        return str(self.page.locator("#count").inner_text())

    def focused(self) -> int:
        return int(
            self.page.evaluate("+(document.activeElement.closest('.cell')?.dataset.item ?? -1)")
        )


def until(page: Any, holds: str) -> None:
    """Wait for an expression; Playwright's own way would need a policy that allows eval."""
    end = time.monotonic() + 10
    while not page.evaluate(holds):
        assert time.monotonic() < end, holds
        page.wait_for_timeout(20)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return report.build(small_run(tmp_path_factory.mktemp("gallery")), workers=0).path


@pytest.fixture
def opened(browser: Any, written: Path) -> Iterator[Opened]:
    one = Opened(browser, written)
    yield one
    one.page.close()
    assert not one.wrong
    assert all(url.startswith(("file:", "data:")) for url in one.asked)


class TestBrowser:
    pytestmark = browser_only

    def test_it_loads_pictures_and_all(self, opened: Opened) -> None:
        assert opened.items() == list(range(8))
        assert opened.count() == "7 explanations, 1 failure"
        until(opened.page, "[...document.images].every(i => i.complete)")
        assert opened.page.evaluate("[...document.images].every(i => i.naturalWidth > 0)")
        assert opened.page.locator("#banner").is_hidden()
        assert opened.page.locator(".card.failed .why").inner_text().startswith("expected an image")
        assert opened.page.locator(".tag").all_inner_texts() == [
            *("Flat map", "Not converged", "Unfaithful", "Failed")
        ]

    def test_filters(self, opened: Opened) -> None:
        page = opened.page
        page.get_by_role("button", name="espresso 2").first.click()
        assert opened.items() == [2, 5]
        assert opened.count() == "2 of 8"
        page.locator("#clear").click()
        assert len(opened.items()) == 8
        for flag, want in (("degenerate", [4]), ("unconverged", [5]), ("unfaithful", [6])):
            page.locator(f'[data-flag="{flag}"]').click()
            assert opened.items() == want
            page.locator(f'[data-flag="{flag}"]').click()
        page.locator('[data-method="1"]').click()
        assert opened.items() == [1]
        page.locator("#clear").click()
        page.locator('[data-kind="failed"]').click()
        assert opened.items() == [7]
        page.locator('[data-kind="all"]').click()
        low = page.get_by_role("slider", name="Lowest score")
        low.focus()
        low.press("PageDown")
        for _ in range(12):
            low.press("PageUp")
        assert opened.items() == [5, 6]
        page.locator("#search").fill("nothing has this name")
        assert page.locator("#empty").is_visible()
        page.locator("#empty-clear").click()
        assert len(opened.items()) == 8

    def test_search_and_sort(self, opened: Opened) -> None:
        page = opened.page
        page.locator("#search").fill("PHOTO-3")
        assert opened.items() == [4]
        page.locator("#search").fill("0 bytes")
        assert opened.items() == [7]
        page.locator("#search").fill("")
        page.locator("#sort").select_option("high")
        assert opened.items() == [6, 5, 4, 3, 2, 0, 1, 7]
        page.locator("#sort").select_option("label")
        assert opened.items() == [2, 5, 0, 1, 4, 3, 6, 7]
        page.locator("#sort").select_option("focus")
        assert opened.items()[-2:] == [4, 7]  # no spread, then the failure

    def test_the_slider_goes_from_photograph_over_overlay_to_map(self, opened: Opened) -> None:
        page, shown = opened.page, []
        for value in ("0", "1", "2", "0.5"):
            page.locator("#mix").fill(value)
            shown.append(
                page.evaluate(
                    "['over', 'map'].map(c => +getComputedStyle("
                    "document.querySelector('.card .' + c)).opacity)"
                )
            )
        assert shown == [[0, 0], [1, 0], [1, 1], [0.5, 0]]

    def test_keys(self, opened: Opened) -> None:
        page = opened.page
        page.keyboard.press("/")
        assert page.evaluate("document.activeElement.id") == "search"
        page.keyboard.type("tabby")
        page.keyboard.press("Escape")
        assert len(opened.items()) == 8
        page.keyboard.press("Escape")
        assert opened.focused() == 0
        page.keyboard.press("ArrowRight")
        page.keyboard.press("ArrowRight")
        assert opened.focused() == 2
        page.keyboard.press("ArrowLeft")
        assert opened.focused() == 1
        page.keyboard.press("End")
        assert opened.focused() == 7
        page.keyboard.press("ArrowUp")
        assert opened.focused() < 7
        page.keyboard.press("Home")
        page.keyboard.press("Enter")
        assert page.locator("#viewer").is_visible()
        page.keyboard.press("ArrowRight")
        assert page.locator("#viewer-where").inner_text() == "2 of 8"
        page.keyboard.press("3")
        assert page.locator("#viewer-mix").input_value() == "2"
        page.keyboard.press("Escape")
        assert page.locator("#viewer").is_hidden()
        # A dialog tells that it is closed a moment later.
        until(page, "document.activeElement.closest('.cell')?.dataset.item === '1'")
        page.keyboard.press("?")
        assert page.locator("#keys").is_visible()
        page.keyboard.press("Escape")
        assert page.locator("#keys").is_hidden()

    def test_the_viewer_tells_everything(self, opened: Opened) -> None:
        page = opened.page
        page.locator(".card").first.click()
        told = page.locator(".viewer-told").inner_text()
        for words in ("tabby", "10 %", "Converged", "Faithful", "features.7", "128", "photo-0.png"):
            assert words in told
        page.get_by_role("button", name="tabby · saliency").click()
        assert page.locator("#viewer-where").inner_text() == "2 of 8"
        link = page.locator(".link").get_attribute("href")
        assert page.evaluate(
            "link => new Promise(done => { const i = new Image(); i.onload = () => done(true); "
            "i.onerror = () => done(false); i.src = link; })",
            link,
        )

    def test_classes_and_run(self, opened: Opened) -> None:
        page = opened.page
        page.get_by_role("tab", name="Classes").click()
        assert page.locator(".tile b").all_inner_texts() == ["tabby", "espresso", "tripod"]
        assert page.locator("#panel-classes .panel .plot").count() == 2
        until(page, "[...document.querySelectorAll('.tile img')].every(i => i.complete)")
        assert page.evaluate("document.querySelector('.tile img').naturalWidth") == 112
        page.locator("#panel-classes select").select_option("saliency()")
        assert page.locator(".tile .none").count() == 2
        page.locator(".tile").nth(1).click()
        assert opened.items() == [2, 5]
        page.get_by_role("tab", name="Run").click()
        assert "visxai explain in --out out" in page.locator("#panel-run").inner_text()

    def test_labels_and_colours_are_shown(self, browser: Any, tmp_path: Path) -> None:
        one = Opened(browser, report.build(labelled_run(tmp_path), workers=0).path)
        page = one.page
        assert page.locator("#answers button").all_inner_texts() == ["Right1", "Wrong2"]
        assert page.locator("#keys-shown .key").all_inner_texts() == [
            *("little\nmuch evidence", "against\nfor", "grey: not seen by the model")
        ]
        page.locator('[data-answer="wrong"]').click()
        assert one.items() == [1, 2]
        assert page.locator(".card .tag").all_inner_texts() == ["Wrong", "Wrong"]
        page.locator(".card").first.click()
        assert page.locator(".expected").inner_text() == "Labelled tripod"
        assert page.locator("#viewer-key .key").first.inner_text() == "against\nfor"
        bar = page.locator("#viewer-key i").first.evaluate(
            "bar => getComputedStyle(bar).backgroundImage"
        )
        assert bar.startswith("linear-gradient")
        page.keyboard.press("Escape")
        page.locator("#clear").click()
        assert page.locator(".why").evaluate("why => why.scrollHeight <= why.clientHeight")
        page.get_by_role("tab", name="Run").click()
        told = page.locator("#panel-run").inner_text()
        assert "50.0 %: 1 of 2 right" in told
        assert re.search(r"Started\s+\d+ \w+ \d{4}, \d\d:\d\d\b", told)
        page.close()
        assert not one.wrong

    def test_a_run_without_labels_has_none_of_that(self, opened: Opened) -> None:
        assert opened.page.locator("#answers-group").is_hidden()
        opened.page.locator(".card").first.click()
        told = opened.page.locator(".viewer-told").inner_text()
        assert "Labelled" not in told
        assert re.search(r"Peak\s+1\n", told)
        opened.page.keyboard.press("Escape")
        opened.page.get_by_role("tab", name="Run").click()
        assert "accuracy" not in opened.page.locator("#panel-run").inner_text()

    def test_histograms_have_an_axis_of_counts(self, opened: Opened, written: Path) -> None:
        spreads = [one for one in data_of(written)["rows"]["spread"] if one is not None]
        most = np.histogram(spreads, 32, (0, 0.5))[0].max()
        axes = opened.page.locator("#side .axis").all_inner_texts()
        assert [axis.split() for axis in axes] == [["2", "0"], [str(most), "0"]]

    def test_dark_mode_follows_the_system_and_the_button(
        self, browser: Any, written: Path, opened: Opened
    ) -> None:
        paper = "getComputedStyle(document.documentElement).backgroundColor"
        light = opened.page.evaluate(paper)
        other = Opened(browser, written, color_scheme="dark")
        dark = other.page.evaluate(paper)
        other.page.close()
        assert light != dark
        opened.page.locator("#theme").click()
        assert opened.page.evaluate(paper) == dark
        assert opened.page.locator("#theme").get_attribute("aria-pressed") == "true"
        opened.page.keyboard.press("d")
        assert opened.page.evaluate(paper) == light

    def test_a_phone_has_the_filters_in_a_drawer(self, browser: Any, written: Path) -> None:
        one = Opened(browser, written, viewport={"width": 390, "height": 844})
        assert one.page.evaluate("document.documentElement.scrollWidth") <= 390
        assert one.page.locator("#side").is_hidden()
        one.page.locator("#side-open").click()
        assert one.page.locator("#side").is_visible()
        one.page.keyboard.press("Escape")
        one.page.locator("#side").wait_for(state="hidden")
        one.page.close()
        assert not one.wrong

    def test_maps_of_an_image_are_one_card_and_stand_side_by_side(
        self, browser: Any, written: Path
    ) -> None:
        one = Opened(browser, written, "")
        page = one.page
        assert one.items() == [0, 2, 3, 4, 5, 6, 7]
        assert one.count() == "7 explanations of 6 images, 1 failure"
        assert page.locator(".strip .named").all_inner_texts() == ["grad_cam", "saliency"]
        page.locator(".card").first.click()
        page.keyboard.press("b")
        assert page.locator(".sheet button > span").all_inner_texts() == [
            *("grad_cam\n10 %", "saliency\n10 %")
        ]
        page.locator(".sheet button").nth(1).click()
        assert "saliency()" in page.locator(".viewer-told .facts").first.inner_text()
        page.keyboard.press("ArrowRight")
        assert page.locator("#viewer-where").inner_text() == "2 of 7"
        page.keyboard.press("Escape")
        page.locator("#together").click()
        assert one.items() == list(range(8))
        page.close()
        assert not one.wrong

    def test_counts_of_filters_follow_the_search_and_each_other(self, opened: Opened) -> None:
        page = opened.page

        def classes() -> list[str]:
            told: list[str] = page.locator("#class-list button").all_inner_texts()
            return [" ".join(one.split()) for one in told]

        assert classes() == ["tabby 3", "espresso 2", "tripod 2"]
        page.locator("#search").fill("saliency")
        assert classes() == ["tabby 1"]
        assert page.locator("#methods").inner_text().split() == ["grad_cam0", "saliency1"]
        page.locator("#search").fill("")
        page.locator('[data-method="1"]').click()
        assert classes() == ["tabby 1"]
        # A choice doesn't change its own filter's counts.
        assert page.locator("#methods").inner_text().split() == ["grad_cam6", "saliency1"]

    def test_the_address_leads_to_the_same_view(
        self, browser: Any, opened: Opened, written: Path
    ) -> None:
        page = opened.page
        page.locator("#search").fill("photo")
        page.locator('[data-flag="unfaithful"]').click()
        page.locator("#sort").select_option("high")
        page.locator("#mix").fill("2")
        page.locator(".card").first.click()
        until(page, "location.hash.includes('open=') && location.hash.includes('mix=2')")
        other = browser.new_page()
        other.goto(page.url)
        other.wait_for_selector("#viewer[open]")
        title = page.locator("#viewer-title").inner_text()
        assert other.locator("#viewer-title").inner_text() == title
        assert other.locator("#search").input_value() == "photo"
        assert other.locator("#count").inner_text() == "1 of 8"
        assert other.locator("#viewer-mix").input_value() == "2"
        other.keyboard.press("Escape")
        until(other, "!location.hash.includes('open=')")
        # What a stranger's link says can do nothing but choose among what is there.
        hostile = "#class=%3Cimg%20src=x%3E&sort=constructor&score=9,1&mix=NaN&open=..%2F..&tab=x"
        other.goto(f"{written.as_uri()}{hostile}")
        other.wait_for_selector(".cell")
        assert other.locator("#count").inner_text().startswith("7 explanations")
        other.close()

    def test_tags_and_the_selection_become_files(self, browser: Any, tmp_path: Path) -> None:
        names = ("a.png", "b\nc.png", "=1+1.png")
        paths = [photograph(tmp_path / "in" / name, i) for i, name in enumerate(names)]
        made = [explanation(path, label="=cmd()") for path in paths]
        failed = [Failure(str(tmp_path / "in" / "torn.png"), "expected an image, got 0 bytes")]
        one = Opened(browser, report.build(fill(tmp_path / "out", made, failed), workers=0).path)
        page = one.page

        def saved(button: str) -> str:
            page.locator("#export summary").click()
            with page.expect_download() as waiting:
                page.locator(button).click()
            page.locator("#export summary").click()
            return Path(waiting.value.path()).read_bytes().decode()

        page.locator(".card").first.focus()
        page.keyboard.press("x")
        page.keyboard.press("Enter")
        page.locator(".tagging input").fill(HOSTILE[:60])
        page.keyboard.press("Enter")
        tag = HOSTILE[:60].replace("\n", " ")
        assert page.locator(".tagging button").first.inner_text().startswith("<img src=x")
        page.keyboard.press("Escape")
        assert page.locator("#yours button").count() == 2
        assert saved("#export-list") == f"{paths[0]}\n"
        (row,) = csv.DictReader(io.StringIO(saved("#export-csv")))
        assert row["path"] == str(paths[0])
        assert row["label"] == "'=cmd()"
        assert (row["selected"], row["tags"]) == ("yes", tag)
        page.locator("[data-picked]").click()
        assert one.items() == [0]
        page.locator("#clear").click()
        # They are still there when the page is opened again.
        page.reload()
        page.wait_for_selector('.pick-box[aria-pressed="true"]')
        page.locator("#export summary").click()
        page.locator("#pick-none").click()
        page.locator("#export summary").click()
        listed = saved("#export-list").encode()
        from visxai.images.sources import Listing, from_input

        (found,) = from_input(["-"], io.BytesIO(listed))
        assert isinstance(found, Listing)
        assert list(found.paths) == [*map(str, paths), str(failed[0].path)]
        page.close()
        assert not one.wrong

    def test_hostile_names_and_labels_stay_text(self, browser: Any, tmp_path: Path) -> None:
        name = HOSTILE.replace("/", "∕")
        path = photograph(tmp_path / "in" / f"{name}.png", 1)
        failed = Failure(str(tmp_path / "in" / f"{name}2.png"), HOSTILE)
        out = fill(tmp_path / name, [explanation(path, label=HOSTILE)], [failed])
        one = Opened(browser, report.build(out, workers=0).path)
        page = one.page
        assert page.locator(".caption b").first.inner_text().startswith("<img src=x onerror")
        page.locator(".card").first.click()
        assert page.locator("#viewer-title").text_content() == HOSTILE
        assert "onerror" in page.locator(".viewer-told .facts").last.inner_text()
        page.keyboard.press("ArrowRight")
        assert page.locator("#viewer-body .note").text_content() == HOSTILE
        page.keyboard.press("Escape")
        page.get_by_role("tab", name="Classes").click()
        page.get_by_role("tab", name="Run").click()
        assert page.evaluate("window.hacked") is None
        assert page.locator('img[src="x"]').count() == 0
        page.close()
        assert not one.wrong

    def test_ten_thousand_stay_quick(self, browser: Any, written: Path) -> None:
        data, count = data_of(written), 10_000
        for table in (data["rows"], data["images"]):
            for column, values in table.items():
                table[column] = [values[i % len(values)] for i in range(count)]
        data["rows"]["image"] = list(range(count))
        data["rows"]["score"] = [i / count for i in range(count)]
        data["images"]["path"] = [f"/in/{i:05d}.png" for i in range(count)]
        data["total"] = count
        path = written.with_name("many.html")
        path.write_text(page.filled("many", data), "utf-8")
        one = Opened(browser, path)
        tab = one.page
        assert one.count() == "10,000 explanations, 1 failure"
        nodes = "document.getElementsByTagName('*').length"
        assert tab.evaluate(nodes) < 1500
        for top in (50_000, 200_000, 100_000):
            tab.evaluate(f"window.scrollTo(0, {top})")
            tab.wait_for_timeout(50)
            assert tab.evaluate(nodes) < 1500
            assert one.items()
        timed = """(change) => {
            const began = performance.now();
            change();
            document.body.offsetHeight;
            return performance.now() - began;
        }"""
        search = "const s = document.getElementById('search'); s.value = %r; "
        for words in ("0042", "tabby", "9"):
            spent = tab.evaluate(
                f"({timed})(() => {{ {search % words} s.dispatchEvent(new Event('input')); }})"
            )
            assert spent < 200
        assert one.count().endswith("of 10,001")
        tab.locator("#clear").click()
        spent = tab.evaluate(
            f"({timed})(() => {{ const s = document.getElementById('sort'); s.value = 'high'; "
            "s.dispatchEvent(new Event('change')); })"
        )
        assert spent < 200
        assert one.items()[0] == count - 1
        tab.locator(".card").first.focus()
        tab.keyboard.press("End")
        assert one.focused() == count
        tab.close()
        assert not one.wrong

    def test_a_single_file_works_alone(self, browser: Any, tmp_path: Path) -> None:
        out = small_run(tmp_path, "interrupted")
        made = report.build(out, single_file=True, workers=0)
        alone = tmp_path / "elsewhere" / "gallery.html"
        alone.parent.mkdir()
        shutil.move(made.path, alone)
        shutil.rmtree(out)
        one = Opened(browser, alone)
        until(one.page, "[...document.images].every(i => i.complete)")
        assert one.page.evaluate("[...document.images].every(i => i.naturalWidth > 0)")
        assert "isn’t finished" in one.page.locator("#banner").inner_text()
        one.page.close()
        assert not one.wrong
        assert all(url.startswith(("file:", "data:")) for url in one.asked)
