"""Two runs compared: agreement by hand, decisions, gates, the exit code, JUnit XML, the page."""

from __future__ import annotations

import importlib.util
import json
import math
import shutil
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stores import explanation, fill, photograph

from visxai import cli, compare
from visxai.compare.comparison import agreement_of
from visxai.compare.correlation import rank_correlation
from visxai.errors import StoreError
from visxai.references import ModelRef

HOSTILE = "<img src=x onerror=alert(1)>"
CHROMIUM = shutil.which("chromium")


def two_runs(folder: Path, b: dict[int, dict[str, Any]], count: int = 4) -> tuple[Path, Path]:
    """Two runs over the same photographs; `b` says by position what the second has otherwise."""
    paths = [photograph(folder / "in" / f"{at}.png", at) for at in range(count)]
    first = [explanation(path) for path in paths]
    second = [
        explanation(path, **({"model": ModelRef("m2", "b" * 64, "no resize")} | b.get(at, {})))
        for at, path in enumerate(paths)
    ]
    return fill(folder / "a", first), fill(folder / "b", second)


def test_rank_correlation_by_hand() -> None:
    assert rank_correlation(np.array([1, 2, 3]), np.array([10, 20, 90])) == 1
    assert rank_correlation(np.array([1, 2, 3]), np.array([3, 2, 1])) == -1
    # Ranks 1 2 3 and 1 3 2: 1 - 6 * 2 / (3 * 8) = 0.5.
    assert rank_correlation(np.array([1, 2, 3]), np.array([1, 3, 2])) == pytest.approx(0.5)
    # Ties share a rank: 1.5 1.5 3 against 1 2 3.
    assert rank_correlation(np.array([0, 0, 1]), np.array([1, 2, 3])) == pytest.approx(
        np.corrcoef([1.5, 1.5, 3], [1, 2, 3])[0, 1]
    )
    assert math.isnan(rank_correlation(np.array([1, 1, 1]), np.array([1, 2, 3])))


def test_a_run_agrees_with_itself(tmp_path: Path) -> None:
    a, _ = two_runs(tmp_path, {})
    found = compare.run(a, a)
    assert (found.agreement.value, found.agreement.low, found.changed) == (1, 1, 0)
    assert all(gate.passed for gate in found.gates(1.0, 0.0))


def test_maps_of_other_resolution_meet_on_the_original(tmp_path: Path) -> None:
    path = photograph(tmp_path / "a.png", 1)
    coarse = explanation(path)
    fine = explanation(path, values=np.kron(coarse.values, np.ones((3, 3), np.float32)))
    assert agreement_of(coarse, fine) > 0.97
    turned = explanation(path, values=coarse.values[::-1, ::-1].copy())
    assert agreement_of(coarse, turned) < 0.9


def test_what_changed_comes_first(tmp_path: Path) -> None:
    turned = -explanation(photograph(tmp_path / "x.png", 0)).values
    flat = {"values": np.zeros((7, 7), np.float32), "degenerate": True}
    a, b = two_runs(tmp_path, {2: {"values": turned}, 1: {"label": "dog"}, 3: flat})
    found = compare.run(a, b)
    assert Path(found.pairs[0].id).name == "2.png"
    assert found.pairs[0].agreement == pytest.approx(-1)
    assert Path(found.pairs[-1].id).name == "3.png"
    assert (found.changed, found.flat) == (1, 1)
    assert found.changes.value == 0.25
    assert found.agreement.value == pytest.approx(1 / 3)
    assert [gate.passed for gate in found.gates(0.5, 0.2)] == [True, False, False]
    assert [gate.passed for gate in found.gates(0.3, 0.25)] == [True, True, True]


def test_flat_maps_alone_pass_no_threshold(tmp_path: Path) -> None:
    flat = {"values": np.zeros((7, 7), np.float32), "degenerate": True}
    found = compare.run(*two_runs(tmp_path, {0: flat}, 1))
    assert not found.gates(min_agreement=-1)[1].passed


def test_inputs_of_one_run_alone_fail(tmp_path: Path) -> None:
    a, b = two_runs(tmp_path, {})
    other = photograph(tmp_path / "in" / "9.png", 99)
    c = fill(tmp_path / "c", [explanation(other), explanation(tmp_path / "in" / "0.png")])
    found = compare.run(a, c)
    assert (len(found.pairs), found.only_a, found.only_b) == (1, 3, 1)
    assert not found.gates()[0].passed
    d = fill(tmp_path / "d", [explanation(other)])
    with pytest.raises(StoreError, match="two runs over the same inputs, got 4 inputs"):
        compare.run(b, d)


def test_the_command_gates_a_release(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = two_runs(tmp_path, {0: {"label": HOSTILE}})
    page, junit, figures = (tmp_path / name for name in ("p.html", "j.xml", "f.json"))
    words = ["compare", str(a), str(b), "--page", str(page), "--junit", str(junit)]
    words += ["--json", str(figures), "--min-agreement", "0.9"]
    with pytest.raises(SystemExit) as ended:
        cli.main([*words, "--max-changed", "0.5"])
    assert ended.value.code == 0
    suite = ET.parse(junit).getroot()[0]
    assert (suite.get("tests"), suite.get("failures")) == ("3", "0")
    with pytest.raises(SystemExit) as ended:
        cli.main([*words, "--max-changed", "0.1"])
    assert ended.value.code == 1
    printed = capsys.readouterr().out
    assert "1 decision changed, 25.0% (0.0% to 75.0%)" in " ".join(printed.split())
    suite = ET.parse(junit).getroot()[0]
    assert suite.get("failures") == "1"
    (failure,) = suite.iter("failure")
    assert HOSTILE in str(failure.text)
    text = page.read_text("utf-8")
    assert HOSTILE not in text
    assert "&lt;img src=x" in text
    assert text.count("data:image/jpeg") == 8
    told = json.loads(figures.read_text("utf-8"))
    assert (told["n"], told["changed"], told["gates"][2]["passed"]) == (4, 1, False)


@pytest.mark.skipif(
    CHROMIUM is None or importlib.util.find_spec("playwright") is None,
    reason="no browser: install chromium, and playwright with 'visxai[browser]'",
)
@pytest.mark.xdist_group("browser")
def test_the_page_in_a_browser(tmp_path: Path) -> None:
    from playwright.sync_api import sync_playwright

    from visxai.compare.page import page as to_page

    turned = -explanation(photograph(tmp_path / "x.png", 0)).values
    flat = {"values": np.zeros((7, 7), np.float32), "degenerate": True}
    changes = {0: {"label": HOSTILE * 3}, 2: {"values": turned}, 3: flat}
    found = compare.run(*two_runs(tmp_path, changes))
    path = tmp_path / "compare.html"
    path.write_text(to_page(found, found.gates(0.9, 0.1)), "utf-8")
    wrong: list[str] = []
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page()
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda told: wrong.append(told.text) if told.type == "error" else None)
        papers = set()
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
            for width in (420, 1400):
                page.set_viewport_size({"width": width, "height": 900})
                page.goto(path.as_uri())
                assert page.evaluate("document.documentElement.scrollWidth") <= width
                papers.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
        assert len(papers) == 2
        loaded = "[...document.images].every((one) => one.naturalWidth > 0)"
        assert page.evaluate(loaded)
        assert page.locator("figure").count() == 4
        # Every figure has its number of items and its interval.
        cells = page.locator("table").nth(1).locator("tr").all_inner_texts()
        mean, share = found.agreement, found.changes
        assert f"{mean.value:.3f} ({mean.low:.3f} to {mean.high:.3f}, n = 3)" in cells[0]
        assert f"{share.value:.1%} ({share.low:.1%} to {share.high:.1%}, n = 4)" in cells[1]
        assert page.locator(".bad").count() == 2
        assert page.locator("figure").first.locator("figcaption").inner_text().startswith("agree")
        browser.close()
    assert not wrong


def test_the_page_does_without_originals(tmp_path: Path) -> None:
    from visxai.compare.page import page

    a, b = two_runs(tmp_path, {})
    (tmp_path / "in" / "0.png").unlink()
    found = compare.run(a, b)
    text = page(found, found.gates())
    assert text.count("The original is gone") == 2
    assert text.count("data:image/jpeg") == 6
