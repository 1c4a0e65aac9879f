"""docs/choosing.md says what the experiments' results say."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "benchmarks" / "quality" / "page.py"


def page(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, SCRIPT, *arguments], capture_output=True, text=True, check=False
    )


def test_the_page_is_what_the_results_say() -> None:
    done = page("--check")
    assert done.returncode == 0, done.stderr


@pytest.fixture
def results(tmp_path: Path) -> Path:
    def row(method: str, value: float, better_than: list[str]) -> dict[str, object]:
        interval = {"value": value, "low": value - 0.1, "high": value + 0.1}
        rank = {"value": 1, "low": 1, "high": 2}
        return {
            "method": method, **interval, "count": 3, "rank": rank, "better_than": better_than
        }  # fmt: skip

    rise, cam = "rise(masks=8, grid=7)", "grad_cam(layer=None, relu=True)"
    rows = [row(cam, 0.5, [rise]), row(rise, 0.25, [])]
    found = {"images": 7, "grid_pointing": rows}
    (tmp_path / "grid_pointing.json").write_text(json.dumps(found))
    return tmp_path


def test_figures_and_verdicts_are_filled_in(results: Path, tmp_path: Path) -> None:
    text = tmp_path / "page.md"
    text.write_text(
        "Grad-CAM <!-- figure grid_pointing/grid_pointing/grad_cam -->?<!-- /figure -->, of "
        "<!-- figure grid_pointing/images -->?<!-- /figure --> and "
        "<!-- figure sanity/methods/lime -->1<!-- /figure -->\n"
        "<!-- table published -->old<!-- /table -->\n<!-- table check -->old<!-- /table -->\n"
    )
    assert page("--check", "--results", results, "--page", text).returncode != 0
    assert page("--results", results, "--page", text).returncode == 0
    told = text.read_text("utf-8")
    assert "grad_cam -->0.500 (0.400 to 0.600)<!-- /figure -->, of" in told
    assert "images -->7<!--" in told
    assert "lime -->not measured<!--" in told
    assert "`grad_cam` 0.500 (0.400 to 0.600), `rise` 0.250 (0.150 to 0.350) | yes |" in told
    assert "old" not in told
    assert page("--check", "--results", results, "--page", text).returncode == 0
    assert "<svg" in (tmp_path / "ranks.svg").read_text("utf-8")


def test_what_is_done_of_an_experiment_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(SCRIPT.parent)
    monkeypatch.syspath_prepend(SCRIPT.parents[1])
    import experiment

    first = experiment.Kept(tmp_path, "x", {"steps": 4})
    assert first("a", lambda: [1.5, float("nan")])[0] == 1.5
    again = experiment.Kept(tmp_path, "x", {"steps": 4})
    assert again("a", lambda: [2.0])[0] == 1.5
    assert experiment.Kept(tmp_path, "x", {"steps": 8})("a", lambda: 3) == 3
    assert experiment.Kept(None, "x", {"steps": 8})("a", lambda: 4) == 4


def test_who_is_better_is_said_only_beyond_doubt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(SCRIPT.parent)
    monkeypatch.syspath_prepend(SCRIPT.parents[1])
    import experiment

    noise = [0.0, 0.9, 0.1, 0.8, 0.4, 0.6, 0.2, 0.7]
    above = [value + 0.1 for value in noise]  # by as much on every image
    apart = [1 - value for value in noise]
    rows = experiment.compared({"noise": noise, "above": above, "apart": apart}, "higher")
    assert {row["method"]: row["better_than"] for row in rows} == {
        "above": ["noise"], "noise": [], "apart": []
    }  # fmt: skip
