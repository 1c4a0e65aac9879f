"""The first minutes: `visxai hello`, short lists, help in groups, figures that can be read."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

import visxai
from visxai import cli
from visxai.bench import report
from visxai.cli import hello, terminal
from visxai.images.example import PHOTOGRAPH


def visxai_(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    return int(ended.value.code or 0)


def test_hello_explains_the_photograph_that_travels_with_visxai(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert visxai_("hello") == 0
    told = capsys.readouterr().out
    assert "“espresso”" in told
    assert "visxai_hello.jpg" in told
    with Image.open(tmp_path / "visxai_hello.jpg") as drawn:
        assert drawn.width > 600
    assert visxai_("hello", "--out", "hello.gif") == 2
    assert PHOTOGRAPH.with_suffix(".LICENSE").is_file()


def test_a_capable_terminal_shows_the_picture() -> None:
    pixels = np.zeros((40, 60, 3), np.uint8)
    pixels[:20] = (255, 0, 0)
    drawn = hello.blocks(Image.fromarray(pixels), 30)
    lines = drawn.plain.splitlines()
    assert [len(line) for line in lines] == [30] * 10  # a character holds two pixels
    console = Console(force_terminal=True, color_system="truecolor", width=80)
    with console.capture() as captured:
        console.print(drawn)
    assert "255;0;0" in captured.get()


@pytest.mark.parametrize(
    ("command", "names"),
    [("methods", visxai.methods.names()), ("metrics", visxai.metrics.names())],
)
def test_lists_take_a_line_for_each_name(
    command: str,
    names: tuple[str, ...],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    assert visxai_(command) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= len(names) + 5
    assert [line.split()[0] for line in lines[1 : len(names) + 1]] == list(names)
    assert visxai_(command, names[0]) == 0
    assert "Source:" in capsys.readouterr().out


def test_the_help_of_explain_is_grouped(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    assert visxai_("explain", "--help") == 0
    told = capsys.readouterr().out
    places = [told.index(f"─ {name} ─") for name in ("Options", "Model", "Results", "Machine")]
    assert sorted(places) == sorted(set(places))
    assert told.index("--colormap") > told.index("─ Results ─")


def test_a_narrow_terminal_keeps_the_intervals_of_an_evaluation(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    from types import SimpleNamespace

    entry = {"value": 0.5, "low": 0.25, "high": 0.75}
    summary = {
        "images": 12,
        "methods": [{"name": "grad_cam", "control": False, "seconds": 0.1}],
        "metrics": [
            {"name": f"metric_{number}", "better": "higher", "methods": [entry]}
            for number in range(4)
        ],
    }
    outcome = SimpleNamespace(out=tmp_path, failed=())
    found = SimpleNamespace(summary=summary, outcome=outcome)
    for width in ("60", "200"):
        monkeypatch.setenv("COLUMNS", width)
        terminal.evaluation(found, "visxai evaluate")  # type: ignore[arg-type]
        assert capsys.readouterr().out.count("0.500 (0.250 to 0.750)") == 4


def test_slow_methods_stay_apart_in_the_plot(tmp_path: Path) -> None:
    matplotlib = pytest.importorskip("matplotlib.figure")
    drawn = []
    original = matplotlib.Figure.savefig
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            matplotlib.Figure,
            "savefig",
            lambda self, path: (drawn.append(self), original(self, path)),
        )
        lines = {"fast": [(1, 900.0), (8, 1200.0)], "slow": [(1, 0.5), (8, 0.6)]}
        report.plot_lines(lines, tmp_path / "plot.png", "", "x", "y", log=True, log_y=True)
    assert drawn[0].axes[0].get_yscale() == "log"


@pytest.mark.parametrize(
    ("first", "settings", "patient"),
    [
        ("visxai", {}, True),
        ("torch, visxai", {}, False),
        ("visxai", {"VISXAI_WAIT": "torch"}, False),
        ("visxai", {"OMP_WAIT_POLICY": "active"}, False),
    ],
)
def test_threads_wait_as_the_environment_says(
    first: str, settings: dict[str, str], patient: bool
) -> None:
    plain = {
        n: v for n, v in os.environ.items() if not n.startswith(("OMP_WAIT", "GOMP_", "VISXAI"))
    }
    # PyTorch itself isn't needed to see who came first.
    code = f"""
import sys, types
sys.modules.update(torch=types.ModuleType("torch")) if "torch" in {first!r} else None
import {first}
from visxai.process import waits_patiently
print(waits_patiently())
"""
    done = subprocess.run(
        [sys.executable, "-c", code], env=plain | settings, capture_output=True, text=True
    )
    assert done.stdout.strip() == str(patient), done.stderr
