"""The store: chunks finished whole, listed inputs, locks, and what other tools read of it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from visxai import files, results
from visxai.errors import Failure, StoreError
from visxai.images.sources import Found
from visxai.record.image import ImageExplanation
from visxai.references import ImageRef, ModelRef, Transform
from visxai.results import reading
from visxai.results.rows import SCHEMA, of_row, record_of, row_of
from visxai.results.store import Store

SETTINGS = {"model": "m", "methods": ["grad_cam()"], "target": "top1", "chunk": 2}


def explanation(path: str, value: float = 1.0) -> ImageExplanation:
    values = np.linspace(-value, value, 12, dtype=np.float32).reshape(3, 4)
    digest = f"{abs(hash(path)):064x}"[-64:]
    return ImageExplanation(
        input=ImageRef(40, 30, Transform((40, 30), (4, 0, 30, 30), 6), digest, path),
        model=ModelRef("m", "a" * 64, "no resize"),
        values=values,
        method="grad_cam()",
        target="top1",
        class_index=7,
        label="tabby, 猫",
        score=0.25,
        logit=1.5,
        layer=None,
        quality={"completeness": 0.01, "converged": True, "bad": None},
        versions={"torch": "2"},
        created="2026-01-01T00:00:00+00:00",
        seconds=0.5,
    )


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    folder = tmp_path / "in"
    folder.mkdir()
    paths = [folder / f"{index}.jpg" for index in range(5)]
    for path in paths:
        path.write_bytes(path.name.encode())
    return paths


def listed(paths: list[Path]) -> list[Found]:
    return [Found(str(path), str(path.parent)) for path in paths]


def fill(store: Store) -> None:
    for chunk in store.pending():
        rows = [row_of(explanation(one.path), one.name) for one in store.inputs(chunk)]
        store.commit(chunk, rows[1:], [Failure(store.inputs(chunk)[0].path, "why")])


def test_a_store_reads_back(tmp_path: Path, images: list[Path]) -> None:
    with Store(tmp_path / "out", SETTINGS, command="visxai explain in") as store:
        assert store.add(listed(images)) == (5, 0)
        assert store.pending() == [0, 1, 2]
        fill(store)
        assert not store.pending()
        store.finish("complete")
    found = list(results.read(tmp_path / "out"))
    assert [one.input.path for one in found] == [str(images[1]), str(images[3])]
    want = explanation(str(images[1]))
    assert found[0].to_dict() == want.to_dict()
    assert found[0].quality == want.quality
    assert [one.path for one in results.failures(tmp_path / "out")] == [
        str(images[index]) for index in (0, 2, 4)
    ]
    table = pq.read_table(tmp_path / "out" / "failures.parquet")
    assert table.to_pylist()[0] == {"path": str(images[0]), "reason": "why", "kind": "ImageError"}
    run = json.loads((tmp_path / "out" / "run.json").read_text())
    assert run["counts"] == {"images": 5, "finished": 5, "maps": 2, "failures": 3}
    assert (run["state"], run["command"]) == ("complete", "visxai explain in")
    assert set(SCHEMA.names) == {*want.row(), "overlay", "expected"}


def test_pandas_polars_and_duckdb_read_it(tmp_path: Path, images: list[Path]) -> None:
    duckdb = pytest.importorskip("duckdb")
    pandas, polars = pytest.importorskip("pandas"), pytest.importorskip("polars")
    with Store(tmp_path / "out", SETTINGS) as store:
        store.add(listed(images))
        fill(store)
        store.finish("complete")
    folder = tmp_path / "out" / "explanations"
    frame = pandas.read_parquet(folder)
    assert list(frame["label"]) == ["tabby, 猫"] * 2
    assert dict(frame["transform"][0])["orientation"] == 6
    assert of_row(frame.iloc[0].to_dict()).values.shape == (3, 4)
    frame = polars.read_parquet(folder / "*.parquet")
    assert frame["map_shape"].to_list() == [[3, 4]] * 2
    assert of_row(frame.row(0, named=True)).score == 0.25
    stored = frame.row(0, named=True)
    assert record_of(stored) == of_row(stored).to_dict()
    query = f"select path, transform.crop[3], quality->>'$.converged' from '{folder}/*.parquet'"
    assert duckdb.sql(query).fetchall()[0] == (str(images[1]), 30, "true")
    assert results.dataset(tmp_path / "out").count_rows() == 2


def test_an_uncommitted_chunk_is_pending_again_and_new_files_become_chunks(
    tmp_path: Path, images: list[Path]
) -> None:
    out = tmp_path / "out"
    with Store(out, SETTINGS) as store:
        store.add(listed(images[:3]))
        store.commit(0, [row_of(explanation(str(images[0])), None)], [])
    (out / "overlays" / "a").mkdir()
    for folder in ("", "explanations", "overlays", "overlays/a"):
        files.temporary(out / folder / "x").write_bytes(b"half")
        (out / folder / ".0123.part").write_bytes(b"somebody's download")
    os.utime(images[0], ns=(1, 1))
    os.utime(images[2], ns=(1, 1))
    with Store(out, SETTINGS) as store:
        assert {path.name for path in out.rglob("*.part")} == {".0123.part"}
        assert store.counts == {"images": 3, "finished": 2, "maps": 1, "failures": 0}
        # Of the two that changed only one is finished.
        assert store.add(listed(images)) == (2, 1)
        assert [[Path(one.path).name for one in store.inputs(n)] for n in store.pending()] == [
            ["2.jpg"],
            ["3.jpg", "4.jpg"],
        ]


def test_other_settings_are_refused_unless_nothing_is_finished(
    tmp_path: Path, images: list[Path]
) -> None:
    out = tmp_path / "out"
    with Store(out, SETTINGS) as store:
        store.add(listed(images))
    other = SETTINGS | {"methods": ["occlusion(window=32)"]}
    with Store(out, other) as store:
        store.add(listed(images))
        fill(store)
    with pytest.raises(
        StoreError,
        match=r"\(method='occlusion\(window=32\)'\), got method='grad_cam.*, or fresh=True to",
    ) as refused:
        Store(out, SETTINGS)
    assert refused.value.field == "method"
    assert "--" not in str(refused.value)
    (out / "mine.txt").write_text("kept")
    with Store(out, SETTINGS, fresh=True) as store:
        assert store.add(listed(images)) == (5, 0)
        assert store.counts["finished"] == 0
    assert (out / "mine.txt").read_text() == "kept"


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    with (
        Store(tmp_path / "out", SETTINGS),
        pytest.raises(StoreError, match="another process"),
    ):
        Store(tmp_path / "out", SETTINGS)
    Store(tmp_path / "out", SETTINGS).close()


def test_strangers_folders_are_left_alone(tmp_path: Path) -> None:
    stranger = tmp_path / "out" / "explanations" / "part-00000.parquet"
    stranger.parent.mkdir(parents=True)
    stranger.write_bytes(b"not ours")
    for fresh in (False, True):
        with pytest.raises(StoreError, match=r"without their run\.json"):
            Store(tmp_path / "out", SETTINGS, fresh=fresh)
    assert stranger.read_bytes() == b"not ours"
    with pytest.raises(StoreError, match="visxai explain --out"):
        list(results.read(tmp_path / "out"))


def test_unwritable_places_are_one_sentence(tmp_path: Path, images: list[Path]) -> None:
    with pytest.raises(StoreError, match=r"expected to write below .*another out"):
        Store(images[0] / "out", SETTINGS)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_keeps_what_is_finished(
    tmp_path: Path, images: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    with Store(tmp_path / "out", SETTINGS) as store:
        store.add(listed(images))
        store.commit(0, [row_of(explanation(str(images[0])), None)], [])

        def full(*_: Any, **__: Any) -> None:
            with open("/dev/full", "w") as file:
                file.write("x")

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            with pytest.raises(StoreError, match="no space left on device"):
                store.commit(1, [row_of(explanation(str(images[2])), None)], [])
        assert not list((tmp_path / "out").rglob("*.part"))
    with Store(tmp_path / "out", SETTINGS) as store:
        assert store.pending() == [1, 2]
        assert store.counts["maps"] == 1


def test_names_never_collide_and_odd_paths_survive(tmp_path: Path) -> None:
    first, second = tmp_path / "a" / "x.jpg", tmp_path / "b" / "x.jpg"
    odd = tmp_path / "a" / os.fsdecode(b"\xff\n.jpg")
    with Store(tmp_path / "out", SETTINGS | {"chunk": 9}) as store:
        store.add(listed([first, second, odd]))
        names = [one.name for one in store.inputs(0)]
        assert names[0] == "x.jpg"
        assert names[1].startswith("x.jpg~")
        assert len(set(names)) == 3
    with Store(tmp_path / "out", SETTINGS | {"chunk": 9}) as store:
        # Nothing was finished, so the list is made anew; it comes out the same.
        store.add(listed([first, second, odd]))
        assert [one.name for one in store.inputs(0)] == names
        assert store.inputs(0)[2].path == str(odd)
        rows = [row_of(explanation(str(odd)), None)]
        store.commit(0, rows, [Failure(str(odd), "why")])
        store.finish("complete")
    assert next(iter(results.read(tmp_path / "out"))).input.path.endswith("\\udcff\n.jpg")


def everything(folder: Path) -> dict[str, bytes]:
    found = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


@pytest.mark.parametrize("place", ["notes.txt", "overlays/mine.png", "report/mine.html", "run.txt"])
def test_a_folder_of_somebody_elses_is_refused_and_untouched(tmp_path: Path, place: str) -> None:
    out = tmp_path / "out"
    (out / place).parent.mkdir(parents=True, exist_ok=True)
    (out / place).write_text("mine")
    for fresh in (False, True):
        with pytest.raises(StoreError, match=r"empty or the results.*choose another out"):
            Store(out, SETTINGS, fresh=fresh)
    assert [path for path in out.rglob("*") if path.is_file()] == [out / place]


@pytest.mark.parametrize("fresh", [False, True])
def test_a_run_that_starts_over_removes_what_runs_wrote_and_nothing_else(
    tmp_path: Path, images: list[Path], fresh: bool
) -> None:
    out = tmp_path / "out"
    style = {"format": "jpg", "colormap": None, "panel": False}
    settings = SETTINGS | {"overlays": style, "methods": ["grad_cam()", "occlusion(window=9)"]}
    mine = {
        "notes.txt",
        "explanations/part-mine.parquet",
        "explanations/notes.txt",
        "overlays/mine.jpg",
        "overlays/0.jpg.notes.jpg",
        "overlays/0.jpg.grad_cam.png",
        "overlays/deep/.mine.part",
        "report/notes.html",
        "report/pictures/mine.webp",
        "export/mine/x.csv",
    }
    ours = {
        "overlays/0.jpg.jpg",
        "overlays/1.jpg.grad_cam.jpg",
        "overlays/2.jpg.occlusion-2.7.jpg",
        "report/index.html",
        f"report/pictures/0a/{'0a' * 12}.webp",
    }
    with Store(out, settings) as store:
        store.add(listed(images))
        if fresh:
            fill(store)
    for name in mine | ours:
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text("x")
    with Store(out, settings, fresh=fresh) as store:
        assert set(everything(out)) == mine | {"run.json"}
        store.add(listed(images))
        fill(store)
        store.finish("complete")
    assert mine < set(everything(out))
    assert len(list(results.read(out))) == 2


def test_a_chunk_that_is_done_in_steps_is_that_of_one_step(
    tmp_path: Path, images: list[Path]
) -> None:
    settings = SETTINGS | {"chunk": 4}

    def commit(store: Store, chunk: int, start: int, stop: int) -> None:
        inputs = store.inputs(chunk)[start:stop]
        rows = [row_of(explanation(one.path), None) for one in inputs if "1" not in one.name]
        failed = [Failure(one.path, "why") for one in inputs if "1" in one.name]
        store.commit(chunk, rows, failed, {"labelled": len(inputs), "right": 1}, images=stop)

    for name, cuts in (("whole", [(0, 4)]), ("steps", [(0, 1), (1, 3), (3, 4)])):
        for start, stop in cuts:
            with Store(tmp_path / name, settings) as store:
                store.add(listed(images))
                assert (store.pending(), store.begun(0)) == ([0, 1], start)
                commit(store, 0, start, stop)
                assert store.counts["finished"] == stop
                assert len(list(results.read(tmp_path / name))) == stop - (stop > 1)
                store.finish("interrupted")
        with Store(tmp_path / name, settings) as store:
            store.add(listed(images))
            assert store.pending() == [1]
            store.finish("interrupted")
    parts = [reading.Part.read(reading.part_of(tmp_path / n, 0)) for n in ("whole", "steps")]
    assert parts[0].table().to_pylist() == parts[1].table().to_pylist()
    assert parts[0].failures == parts[1].failures
    assert (parts[0].images, parts[1].images) == (4, 4)
    assert [part.answers for part in parts] == [
        {"labelled": 4, "right": 1},
        {"labelled": 4, "right": 3},
    ]


def test_a_begun_chunk_that_is_done_again_keeps_what_it_holds(
    tmp_path: Path, images: list[Path]
) -> None:
    out, settings = tmp_path / "out", SETTINGS | {"chunk": 5}
    with Store(out, settings) as store:
        store.add(listed(images))
        rows = [row_of(explanation(str(images[0])), None)]
        store.commit(0, rows, [Failure(str(images[1]), "why")], images=2)
    with Store(out, settings, retry=True) as store:
        store.add(listed(images))
        assert store.pending() == [0]
        assert not store.divisible(0)
        assert (store.begun(0), store.counts["finished"]) == (0, 0)
    assert len(list(results.read(out))) == 1
    with Store(out, settings) as store:
        store.add(listed(images))
        assert (store.begun(0), store.counts["finished"]) == (2, 2)
    with Store(out, settings, retry=True) as store:
        store.add(listed(images))
        store.commit(0, [row_of(explanation(str(path)), None) for path in images], [])
        assert not store.failed
    assert [one.input.path for one in results.read(out)] == [str(path) for path in images]


def test_failures_of_other_images_are_not_this_runs(tmp_path: Path, images: list[Path]) -> None:
    out = tmp_path / "out"
    with Store(out, SETTINGS) as store:
        store.add(listed(images[:2]))
        store.commit(0, [], [Failure(str(path), "why") for path in images[:2]])
        assert len(store.failed) == 2
    for given, failed in ((images[1:2], images[1:2]), (images[2:4], [])):
        with Store(out, SETTINGS) as store:
            store.add(listed(given))
            for chunk in store.pending():
                store.commit(chunk, [], [])
            assert [one.path for one in store.failed] == [str(path) for path in failed]
            assert store.counts["failures"] == 2
