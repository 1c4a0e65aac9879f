"""Files and folders written aside: modes, names, and replacing a folder that somebody added to."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

import pytest

from visxai import files
from visxai.errors import StoreError

MARK = ".mark"


def tree(folder: Path) -> dict[str, str]:
    """The files below a folder and their contents, without the list of those written."""
    found = (path for path in folder.rglob("*") if path.is_file() and path.name != MARK)
    return {path.relative_to(folder).as_posix(): path.read_text() for path in found}


def put(target: Path, **content: str) -> None:
    with files.replacing_folder(target, MARK) as aside:
        for name, text in content.items():
            path = aside / name.replace("_", "/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)


@pytest.mark.skipif(os.name != "posix", reason="umask")
@pytest.mark.parametrize("mask", [0o022, 0o002, 0o077])
def test_files_get_the_modes_that_the_umask_leaves(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        files.write(tmp_path / "x", "content")
        put(tmp_path / "folder", a="1")
        os.close(files.lock(tmp_path / "lock", StoreError("taken")))
    finally:
        os.umask(before)
    for path in (tmp_path / "x", tmp_path / "folder" / "a", tmp_path / "lock"):
        assert path.stat().st_mode & 0o777 == 0o666 & ~mask
    assert (tmp_path / "folder").stat().st_mode & 0o777 == 0o777 & ~mask


def test_only_names_of_its_own_are_swept(tmp_path: Path) -> None:
    mine = [".part", ".x.part", ".0123.part", f".{uuid.uuid1().hex}.part", "a.part"]
    mine += [f".{uuid.uuid4()}.part", f"{uuid.uuid4().hex}.part", f".{uuid.uuid4().hex}.part.jpg"]
    for name in mine:
        (tmp_path / name).write_text("mine")
    files.temporary(tmp_path / "x").write_text("half")
    files.temporary(tmp_path / "x").mkdir()
    files.sweep(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == set(mine)


def test_what_fails_leaves_the_old(tmp_path: Path) -> None:
    files.write(tmp_path / "x", "old")

    def fail() -> None:
        with files.replacing(tmp_path / "x") as partial:
            partial.write_text("new")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert tree(tmp_path) == {"x": "old"}


def test_a_folder_is_replaced_and_what_was_added_stays(tmp_path: Path) -> None:
    place = tmp_path / "place"
    put(place, a="1", b_c="1")
    (place / "mine").mkdir()
    (place / "mine" / "notes").write_text("mine")
    (place / "b" / "also").write_text("mine")
    put(place, a="2", d="2")
    assert tree(place) == {"a": "2", "d": "2", "mine/notes": "mine", "b/also": "mine"}
    for name in ("mine", "b_also", "mine_notes_deep"):
        with pytest.raises(StoreError, match="no file of yours named"):
            put(place, **{name: "3"})
    assert tree(place)["a"] == "2"
    files.remove_listed(place, MARK)
    assert tree(place) == {"mine/notes": "mine", "b/also": "mine"}
    with pytest.raises(StoreError, match="choose another folder"):
        put(place, a="4")
    assert [path.name for path in tmp_path.iterdir()] == ["place"]


class Killed(BaseException):
    """Stands for the end of the process."""


@pytest.mark.parametrize("call", range(4))
def test_a_folder_whose_replacing_was_broken_off_comes_back(
    tmp_path: Path, call: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "place"
    put(place, a="1")
    (place / "mine").write_text("mine")
    calls, rename = [], os.rename

    def dying(*paths: Path) -> None:
        calls.append(paths)
        if len(calls) > call:  # nothing works any more, as if the process were gone
            raise Killed
        rename(*paths)

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", dying)
        try:
            put(place, a="2")
        except Killed:
            assert call < 3
    found = [path for path in tmp_path.rglob("mine") if path.is_file()]
    assert len(found) == 1
    put(place, a="3", b="3")
    assert tree(place) == {"a": "3", "b": "3", "mine": "mine"}
    assert [path.name for path in tmp_path.iterdir()] == ["place"]


def test_a_hostile_list_names_nothing_outside(tmp_path: Path) -> None:
    place = tmp_path / "place"
    put(place, a="1")
    (tmp_path / "outside").write_text("kept")
    (place / MARK).write_text('{"files": ["a", "../outside", "/etc/hostname"]}')
    put(place, a="2")
    files.remove_listed(place, MARK)
    assert tree(tmp_path) == {"outside": "kept"}
