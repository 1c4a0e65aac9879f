"""What differs on Windows and macOS, simulated: their names, paths, encodings and missing calls."""

from __future__ import annotations

import ast
import ctypes
import io
import ntpath
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from visxai.bench import measure
from visxai.cli import base, terminal
from visxai.errors import ArgumentError, ImageError
from visxai.images import address
from visxai.images.address import Origin
from visxai.images.sources import from_input
from visxai.results.names import output_name
from visxai.scale import cluster

PACKAGE = Path(__file__).parents[1] / "visxai"
POSIX = {"fcntl", "grp", "posix", "pty", "pwd", "resource", "syslog", "termios", "tty"}


@pytest.fixture
def windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: p.stem)
def test_no_module_imports_what_windows_lacks(path: Path) -> None:
    tree = ast.parse(path.read_text("utf-8"))
    for node in tree.body:  # inside a function or behind a condition it may stand
        if isinstance(node, ast.Import):
            assert not POSIX & {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.module not in POSIX


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_what_an_encoding_lacks_is_printed_escaped(encoding: str) -> None:
    code = (
        "from visxai import cli; "
        "cli.app.command('say')(lambda: print('\\u2026 \\u732b \\udce9')); cli.main(['say'])"
    )
    said = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        env=os.environ | {"PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"},
    )
    assert said.returncode == 0, said.stderr
    assert said.stdout.decode(encoding).strip().endswith("\\u732b \\udce9")


@pytest.mark.usefixtures("windows")
def test_a_command_is_quoted_for_its_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "given", ["explain", "my photos", "--fresh"])
    assert base.command_line("--fresh") == 'visxai explain "my photos"'


@pytest.mark.usefixtures("windows")
@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("file:///C:/photos/an%20owl.jpg", "C:/photos/an owl.jpg"),
        ("file://localhost/C:/owl.jpg", "C:/owl.jpg"),
        ("file:///photos/owl.jpg", "/photos/owl.jpg"),
        ("C:/photos/owl.jpg", "C:/photos/owl.jpg"),
    ],
)
def test_file_urls_name_drives(url: str, path: str) -> None:
    assert address.local(url) == path


@pytest.mark.usefixtures("windows")
def test_members_of_tars_follow_a_backslash(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os.path, "isfile", lambda path: path == "C:\\in\\a.tar")
    found = Origin.of("C:\\in\\a.tar\\owls\\1.jpg")
    assert (found.file, found.member) == ("C:\\in\\a.tar", "owls/1.jpg")
    assert Origin.of("\\\\?\\C:\\owl.jpg").file == "\\\\?\\C:\\owl.jpg"


def test_a_folder_that_may_not_be_opened_is_called_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(ImageError, match="got the folder"):
        Origin.of(tmp_path).read(10)
    (tmp_path / "a.jpg").write_bytes(b"")
    with pytest.raises(ImageError, match="permission denied"):
        Origin.of(tmp_path / "a.jpg").read(10)


@pytest.mark.parametrize("name", ["com¹.jpg", "LPT³", "conin$.png", "CONOUT$", "Com9 .jpg"])
def test_names_of_devices_are_never_written(name: str) -> None:
    assert output_name(f"/in/{name}", "/in").startswith("%")


@pytest.mark.usefixtures("windows")
def test_names_leave_room_in_a_windows_path() -> None:
    deep = "/in/" + "/".join(["n" * 30] * 6)
    names = ["/in/" + "n" * 150 + ".jpg", "/in/" + "n" * 151 + ".jpg", f"{deep}/x.jpg"]
    made = [output_name(name, "/in") for name in [*names, f"{deep}/y.jpg", "/in/a/x.jpg"]]
    assert len(set(made)) == 5
    assert max(map(len, made)) <= 120
    assert made[-1] == "a/x.jpg"


def test_lists_of_paths_say_which_encoding_they_need(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsdecode", lambda line: line.decode("utf-8", "surrogatepass"))
    (listing,) = from_input(["-"], io.BytesIO("\ufeffC:\\caf\u00e9.jpg\r\nb.jpg\r\n".encode()))
    assert getattr(listing, "paths", None) == ("C:\\caf\u00e9.jpg", "b.jpg")
    with pytest.raises(ArgumentError, match="UTF-8"):
        from_input(["-"], io.BytesIO("caf\u00e9.jpg".encode("cp1252")))


def test_images_of_several_drives_are_listed_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os.path, "commonpath", ntpath.commonpath)
    paths = ["C:/in/a.jpg", "D:/in/b.jpg"]
    rows: list[Any] = [
        SimpleNamespace(
            kind="image",
            input=SimpleNamespace(path=path),
            method="m",
            degenerate=False,
            label="owl",
            score=1.0,
        )
        for path in paths
    ]
    table = terminal.top_labels(rows)
    assert list(table.columns[0].cells) == paths


def test_the_sockets_of_ray_get_short_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/var/folders/zz/zyxvpxvq6csfxvn_n0000000000000/T")
    assert cluster._scratch() == "/tmp"
    monkeypatch.setattr(tempfile, "tempdir", "/var/tmp")
    assert cluster._scratch() == "/var/tmp"


def test_memory_is_weighed_or_not_without_the_c_library(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_: None) -> ctypes.CDLL:
        raise TypeError("LoadLibrary() argument 1 must be str, not None")

    monkeypatch.setattr(ctypes, "CDLL", missing)
    monkeypatch.setattr(Path, "write_text", lambda *_: (_ for _ in ()).throw(OSError("no /proc")))
    assert measure._resident_peak(lambda: None) is None
