"""One file of OUT damaged at random: reading, reporting, resuming and exporting end in a sentence
or a right result.

    VISXAI_THOROUGH=1 pytest tests/test_damage.py      # 500 trials rather than 60
"""

from __future__ import annotations

import csv
import json
import os
import random
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from stores import SETTINGS, explanation, fill, photograph

from visxai import report, results
from visxai.errors import Failure, StoreError, VisxaiError
from visxai.images.sources import Found
from visxai.results import reading
from visxai.results.rows import row_of
from visxai.results.store import Store

TRIALS = 500 if os.environ.get("VISXAI_THOROUGH") == "1" else 60


def flip(rng: random.Random, path: Path, _: list[Path]) -> None:
    data = bytearray(path.read_bytes())
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(data)


def truncate(rng: random.Random, path: Path, _: list[Path]) -> None:
    os.truncate(path, rng.randrange(path.stat().st_size))


def swap(rng: random.Random, path: Path, others: list[Path]) -> None:
    other = rng.choice(others)
    mine, its = path.read_bytes(), other.read_bytes()
    path.write_bytes(its)
    other.write_bytes(mine)


DAMAGES: tuple[Callable[[random.Random, Path, list[Path]], None], ...] = (flip, truncate, swap)


def listed(folder: Path) -> list[Found]:
    return [Found(str(path), str(folder / "in")) for path in sorted((folder / "in").iterdir())]


def resume(folder: Path, out: Path) -> None:
    """Goes on where a run stopped, as `visxai explain` does."""
    with Store(out, SETTINGS) as store:
        store.add(listed(folder))
        for chunk in store.pending():
            rows, failed = [], []
            for one in store.inputs(chunk)[store.begun(chunk) :]:
                if Path(one.path).suffix == ".torn":
                    failed.append(Failure(one.path, "0 bytes"))
                else:
                    rows.append(row_of(explanation(Path(one.path)), f"{one.name}.0.jpg"))
            store.commit(chunk, rows, failed)
        store.finish("complete")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in two chunks with a gallery and an export; two images came later."""
    folder = tmp_path_factory.mktemp("damage")
    paths = [photograph(folder / "in" / f"{index}.png", index) for index in range(9)]
    (folder / "in" / "9.torn").write_bytes(b"torn")
    (folder / "secret.txt").write_text("outside")
    out = folder / "whole"
    fill(out, [explanation(path) for path in paths[:8]])
    report.build(out, workers=0)
    results.export(out, "csv")
    return folder


def found(out: Path) -> list[dict[str, Any]]:
    return [one.to_dict() for one in results.read(out)]


def sentence(step: Callable[[], None], what: str) -> str | None:
    """What visxai says where a step fails; AssertionError where anything else goes wrong."""
    try:
        step()
    except VisxaiError as error:
        return str(error)
    except BaseException as error:
        raise AssertionError(what) from error
    return None


def opened_outside(folder: Path, opened: list[str]) -> list[str]:
    """The files of the folder's own that were opened though they lie outside OUT and the input."""
    allowed = (str(folder / "out"), str(folder / "in"))
    return [
        path for path in opened if path.startswith(str(folder)) and not path.startswith(allowed)
    ]


class Watch:
    """Notes what is opened while it is on; an audit hook can't be removed."""

    def __init__(self) -> None:
        self.opened: list[str] | None = None
        sys.addaudithook(self.hook)

    def hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and self.opened is not None and isinstance(arguments[0], (str, Path)):
            self.opened.append(str(arguments[0]))


@pytest.fixture(scope="module")
def watch() -> Watch:
    return Watch()


def test_one_damaged_file_never_gives_a_wrong_row(folder: Path, watch: Watch) -> None:
    out, sentences = folder / "out", 0
    shutil.copytree(folder / "whole", out)
    resume(folder, out)
    want = {row["path"]: row for row in found(out)}
    assert len(want) == 9
    shutil.rmtree(out)
    for trial in range(TRIALS):
        rng = random.Random(trial)
        shutil.copytree(folder / "whole", out)
        files = sorted(p for p in out.rglob("*") if p.is_file() and p.stat().st_size)
        path = rng.choice(files)
        damage = rng.choice(DAMAGES)
        damage(rng, path, [other for other in files if other != path])
        what = f"trial {trial}: {damage.__name__} of {path.relative_to(out)}"
        watch.opened = []

        def read() -> None:
            rows = found(out)
            assert all(row == want[row["path"]] for row in rows), "a wrong row"
            assert len(rows) in (8, 9), "rows are missing"

        def exported() -> None:
            made = results.export(out, "csv", folder=out / "export" / "other")
            with (made.path / "explanations.csv").open(encoding="utf-8", newline="") as file:
                for row in csv.DictReader(file):
                    assert row["source_sha256"] == want[row["path"]]["source_sha256"]
                    assert float(row["score"]) == want[row["path"]]["score"]
            results.export(out, "csv")

        def reported() -> None:
            page = report.build(out, workers=0).path.read_text("utf-8")
            assert json.dumps(str(folder / "in" / "0.png")) in page

        for step in (read, reported, exported, lambda: resume(folder, out), read):
            said = sentence(step, what)
            sentences += said is not None
            assert said is None or (said.startswith("expected ") and "\n" not in said), what
        assert not opened_outside(folder, watch.opened), what
        watch.opened = None
        shutil.rmtree(out)
    assert sentences > TRIALS // 10


@pytest.mark.parametrize("name", ["explanations/part-00000.parquet", "inputs.parquet", "run.json"])
def test_every_byte_counts(folder: Path, name: str, tmp_path: Path) -> None:
    """A flipped bit at any of many places is noticed, or changes nothing."""
    whole = folder / "whole"
    want, data = found(whole), (whole / name).read_bytes()
    shutil.copytree(whole, tmp_path / "out")
    path, noticed = tmp_path / "out" / name, 0
    places = range(0, len(data), max(1, len(data) // 150))
    for place in places:
        path.write_bytes(data[:place] + bytes([data[place] ^ 4]) + data[place + 1 :])
        try:
            with Store(tmp_path / "out", SETTINGS) as store:
                store.add(listed(folder))
            assert found(tmp_path / "out") == want
        except StoreError:
            noticed += 1
        for other in ("run.json", "inputs.parquet", name):
            shutil.copy(whole / other, tmp_path / "out" / other)
    assert noticed > 0.9 * len(places)


def test_a_damaged_part_that_is_deleted_is_done_again(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(folder / "whole", out)
    want, part = found(out), reading.part_of(out, 1)
    part.write_bytes(part.read_bytes()[:-100])
    with pytest.raises(StoreError, match=r"part-00001\.parquet.*damaged: delete it"):
        found(out)
    with pytest.raises(StoreError, match="damaged: delete it"):
        resume(folder, out)
    part.unlink()
    resume(folder, out)
    assert found(out)[:8] == want
