"""The examples about texts run, and say what is true."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest

HERE = Path(__file__).parents[1] / "examples" / "text"


def test_why_a_comment_was_flagged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(HERE / "toxic_comment.py"))["main"](tmp_path)
    told = capsys.readouterr().out.splitlines()
    assert "flagged      strongest word 'stupid'" in told[1]
    assert "not flagged" in told[-2]
    records = json.loads((tmp_path / "why.json").read_text("utf-8"))
    page = (tmp_path / "why.html").read_text("utf-8")
    assert len(records) == len(told) - 1 == page.count("<figure")
    assert "<script" not in page
