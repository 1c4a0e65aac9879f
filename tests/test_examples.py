"""The worked projects run as they stand, and their notebooks show what their scripts do."""

from __future__ import annotations

import importlib.util
import json
import re
import runpy
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"


def notebooks() -> ModuleType:
    """scripts/notebooks.py, which makes them."""
    spec = importlib.util.spec_from_file_location("notebooks", ROOT / "scripts" / "notebooks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: object
) -> str:
    """Run an example in this process, which has PyTorch already; return what it printed."""
    monkeypatch.setattr(sys, "argv", [name, *map(str, words)])
    runpy.run_path(str(EXAMPLES / name), run_name="__main__")
    return capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "words", "told", "made"),
    [
        (
            "heatmap/heatmap.py",
            (EXAMPLES.parent / "visxai/images/example/espresso.jpg", "efficientnet_lite0", "out"),
            r"espresso falls from 0\.9\d to 0\.[01]",
            ["overlay.jpg", "figure.pdf", "methods.png"],
        ),
        ("heatmap/digits.py", ("out",), r"3: [67]\d% .*\n7: [123]\d% ", ["digits.png"]),
        (
            "benchmark/my_backbone.py",
            ("digits_vit", "out", 0.05),
            r"forward +batch 8: .* 1\.00 plain forwards",
            ["first.json", "first.md"],
        ),
        (
            "right_for_the_wrong_reason/watermark.py",
            ("out", 3),
            "evidence for odd in the corner",
            ["results/report/index.html"],
        ),
    ],
)
def test_an_example_runs(
    name: str,
    words: tuple[object, ...],
    told: str,
    made: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for package in ("matplotlib", "sklearn"):
        pytest.importorskip(package)
    monkeypatch.chdir(tmp_path)
    assert re.search(told, run(name, monkeypatch, capsys, *words))
    assert all((tmp_path / "out" / one).stat().st_size for one in made)


def test_the_moderation_pipeline_flags_stores_and_verifies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("sqlalchemy")
    monkeypatch.chdir(tmp_path)
    printed = run("moderation/pipeline.py", monkeypatch, capsys)
    assert printed.count("flag  ") == 1
    assert printed.count("pass ") == 3
    assert "can't be read" in printed
    assert "flag by drinks-1" in printed
    assert "decision.upheld" in printed
    assert (tmp_path / "moderation_out" / "case-0.jpg").stat().st_size


@pytest.mark.parametrize(
    "path",
    [path.with_suffix(".py") for path in sorted(EXAMPLES.glob("*/*.ipynb"))],
    ids=lambda path: str(path.relative_to(EXAMPLES)),
)
def test_a_notebook_is_its_script_executed(path: Path) -> None:
    made = json.loads(path.with_suffix(".ipynb").read_text("utf-8"))
    kept = [(cell["cell_type"], "".join(cell["source"])) for cell in made["cells"]]
    assert kept == notebooks().cells(path.read_text("utf-8"))
    outputs = [one for cell in made["cells"] for one in cell.get("outputs", ())]
    assert outputs
    assert not [one for one in outputs if one["output_type"] == "error"]
    assert str(EXAMPLES.parent) not in json.dumps(made)  # no paths of the machine that ran it


def test_every_example_is_listed() -> None:
    listed = (EXAMPLES / "README.md").read_text("utf-8")
    for path in EXAMPLES.glob("*/*.py"):
        assert path.relative_to(EXAMPLES).as_posix() in listed, path
