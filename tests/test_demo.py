"""The demo that the README begins with."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[1] / "scripts" / "demo.py"


def test_the_demo_leaves_a_contact_sheet(tmp_path: Path, capsys: Any) -> None:
    pytest.importorskip("skimage.data", reason="photographs come with the extra demo")
    demo = runpy.run_path(str(SCRIPT))
    demo["main"].__globals__.update(PHOTOGRAPHS=("coffee",), METHODS=("grad_cam",))
    demo["main"](tmp_path)
    assert (tmp_path / "sheet.jpg").is_file()
    assert len(list((tmp_path / "results" / "overlays").rglob("*.jpg"))) == 1
    assert "sheet.jpg" in capsys.readouterr().out
