"""docs/choosing.md says what the experiments' results say."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from visxai import methods

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "choosing.md"
SCRIPT = ROOT / "benchmarks" / "quality" / "page.py"


@pytest.fixture(autouse=True)
def _paths(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(SCRIPT.parents[1])
    monkeypatch.syspath_prepend(SCRIPT.parent)
    monkeypatch.delitem(sys.modules, "page", raising=False)  # benchmarks has another


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def run(*arguments: str | Path) -> None:
        import page

        monkeypatch.setattr(sys, "argv", [str(SCRIPT), *map(str, arguments)])
        page.main()

    return run


def test_the_page_is_what_the_results_say(page: Callable[..., None]) -> None:
    page("--check")


def test_a_method_without_a_figure_has_a_sentence_why_not() -> None:
    text = PAGE.read_text("utf-8")
    lines = re.findall(r"^\| `(\w+)(.*)", text, flags=re.M)
    judged = {name for name, _ in lines}
    holes = {name for name, line in lines if "not measured" in line}
    excused = re.findall(r"`(\w+)`", text.partition("## Without a figure\n")[2].split("##")[0])
    assert (set(methods.names()) - judged | holes) <= set(excused)


@pytest.fixture
def results(tmp_path: Path) -> Path:
    def row(method: str, value: float, better_than: list[str], count: int = 3) -> dict[str, object]:
        interval = {"value": value, "low": value - 0.1, "high": value + 0.1}
        rank = {"value": 1, "low": 1, "high": 2}
        return {
            "method": method, **interval, "count": count, "rank": rank, "better_than": better_than
        }  # fmt: skip

    rise, cam = "rise(masks=8, grid=7)", "grad_cam(layer=None, relu=True)"
    ig = "integrated_gradients(steps=8)"
    rows = [row(cam, 0.5, [rise], 9), row(rise, 0.25, [], 2), row(ig, 0.25, [], 9)]
    refused = {f"difull {rise}": "expected a linear head"}
    found = {"images": 7, "grid_pointing": rows, "difull": [row(cam, 0.9, [])], "refused": refused}
    (tmp_path / "grid_pointing.json").write_text(json.dumps(found))
    return tmp_path


def test_figures_and_verdicts_are_filled_in(
    page: Callable[..., None], results: Path, tmp_path: Path
) -> None:
    text = tmp_path / "page.md"
    text.write_text(
        "Grad-CAM <!-- figure grid_pointing/grid_pointing/grad_cam -->?<!-- /figure -->, of "
        "<!-- figure grid_pointing/images -->?<!-- /figure --> and "
        "<!-- figure sanity/methods/lime -->1<!-- /figure -->\n"
        "<!-- table published -->old<!-- /table -->\n<!-- table check -->old<!-- /table -->\n"
        "<!-- table pointing -->old<!-- /table -->\n<!-- table glance -->old<!-- /table -->\n"
    )
    with pytest.raises(SystemExit, match=r"run page\.py"):
        page("--check", "--results", results, "--page", text)
    page("--results", results, "--page", text)
    told = text.read_text("utf-8")
    assert "grad_cam -->0.500 (0.400 to 0.600)<!-- /figure -->, of" in told
    assert "images -->7<!--" in told
    assert "lime -->not measured<!--" in told
    assert "`grad_cam` 0.500 (0.400 to 0.600), `rise` 0.250 (0.150 to 0.350) | yes |" in told
    assert "| `grad_cam` | 0.500 (0.400 to 0.600) | 0.900 (0.800 to 1.000) |" in told
    assert "| `rise(masks=8)` | 0.250 (0.150 to 0.350), n = 2 | can't be asked |" in told
    assert "| `grad_cam` | unsure, 0.50 | not measured |" in told
    assert "| `integrated_gradients` | **no**, 0.25 | not measured |" in told
    assert "| `rise` | unsure, 0.25 | not measured |" in told  # by 2 grids alone
    assert "old" not in told
    page("--check", "--results", results, "--page", text)
    assert "<svg" in (tmp_path / "ranks.svg").read_text("utf-8")


def test_what_is_done_of_an_experiment_is_kept(tmp_path: Path) -> None:
    import experiment

    first = experiment.Kept(tmp_path, "x", {"steps": 4})
    assert first("a", lambda: [1.5, float("nan")])[0] == 1.5
    again = experiment.Kept(tmp_path, "x", {"steps": 4})
    assert again("a", lambda: [2.0])[0] == 1.5
    assert experiment.Kept(tmp_path, "x", {"steps": 8})("a", lambda: 3) == 3
    assert experiment.Kept(None, "x", {"steps": 8})("a", lambda: 4) == 4


def test_who_is_better_is_said_only_beyond_doubt() -> None:
    import experiment

    noise = [0.0, 0.9, 0.1, 0.8, 0.4, 0.6, 0.2, 0.7]
    above = [value + 0.1 for value in noise]  # by as much on every image
    apart = [1 - value for value in noise]
    rows = experiment.compared({"noise": noise, "above": above, "apart": apart}, "higher")
    assert {row["method"]: row["better_than"] for row in rows} == {
        "above": ["noise"], "noise": [], "apart": []
    }  # fmt: skip


def test_a_later_run_adds_what_an_earlier_one_hasnt() -> None:
    import experiment

    def row(method: str, value: float, count: int) -> dict[str, object]:
        return {"method": method, "value": value, "low": 0.0, "high": 1.0, "count": count}

    before = {
        "command": "x --images 20", "passed": [row("cam", 0.9, 20), row("control", 0.4, 20)]
    }  # fmt: skip
    added = [row("fem", 0.7, 4), row("control", 0.6, 4)]  # of fewer images, so no contradiction
    results, pages = experiment.joined(before, {"passed": added}, {"passed": added})
    assert results["passed"] == pages["passed"]
    assert results["passed"] == [
        row("cam", 0.9, 20), row("fem", 0.7, 4), row("control", 0.4, 20)
    ]  # fmt: skip
    assert results["command"] == "x --images 20"
    other = [row("fem", 0.7, 20), row("control", 0.6, 20)]
    with pytest.raises(SystemExit, match=r"control was 0\.4, now 0\.6"):
        experiment.joined(before, {"passed": other}, {"passed": other})
