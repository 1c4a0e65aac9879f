"""Text and paths from strangers: on terminals, on pages, in sheets, in folders."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from rich.console import Console

from visxai.foreign import below, for_cell, for_html, for_terminal, shown

HOSTILE = "\x1b]0;owned\x07\x1b[2Jcat\r\u202e\x9b31m.png"


def test_what_steers_a_terminal_is_escaped() -> None:
    for told in (shown(HOSTILE), for_html(HOSTILE), for_terminal(HOSTILE)):
        assert told.isprintable()
        assert "\\x1b" in told
        assert "\\u202e" in told
    assert shown("a\udcff") == "a\\udcff"
    assert shown(Path("añ/木.png")) == f"añ{os.sep}木.png"


def test_a_terminal_shows_markup_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    Console(width=80).print(for_terminal("[red]x[/red] [link=http://a]y"))
    assert capsys.readouterr().out == "[red]x[/red] [link=http://a]y\n"


def test_html_stays_text() -> None:
    assert for_html('<b title="\'">&') == "&lt;b title=&quot;&#x27;&quot;&gt;&amp;"


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "\n"])
def test_a_sheet_computes_no_text(start: str) -> None:
    assert for_cell(f"{start}1+1") == f"'{start}1+1"


@pytest.mark.parametrize("value", [-1.5, None, True, "a=b", "", 7])
def test_other_cells_stay(value: object) -> None:
    assert for_cell(value) is value


def test_paths_stay_below_their_folder(tmp_path: Path) -> None:
    out = tmp_path / "out"
    (out / "overlays" / "a").mkdir(parents=True)
    (tmp_path / "secret.jpg").write_bytes(b"x")
    (out / "overlays" / "link.jpg").symlink_to(tmp_path / "secret.jpg")
    (out / "overlays" / "loop").symlink_to(out / "overlays" / "loop")
    folder = out / "overlays"
    assert below(folder, "a/x.jpg") == folder.resolve() / "a" / "x.jpg"
    for name in (
        str(tmp_path / "secret.jpg"), "../../secret.jpg", "a/../../../secret.jpg", "link.jpg",
        "", ".", "a/..", "loop/x", "a\0b",
    ):  # fmt: skip
        assert below(folder, name) is None, name
    # The folder itself may be the trap, and those above it anywhere.
    (tmp_path / "alias").symlink_to(out)
    assert below(tmp_path / "alias" / "overlays", "a/x.jpg") is not None
    other = tmp_path / "other"
    other.mkdir()
    (other / "overlays").symlink_to(tmp_path)
    assert below(other / "overlays", "secret.jpg") is None
