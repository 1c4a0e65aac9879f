"""Sources of a run: lists, tables, tars, URLs, labels; decoders that hang; failures done again."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shutil
import tarfile
import threading
import time
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from stores import photograph

import visxai
from visxai import pipeline, report, results
from visxai.engine.gate import Gate
from visxai.errors import ArgumentError, ImageError, MissingExtra, StoreError, TargetError
from visxai.images import address, parquet, sources, tables, tars
from visxai.images.address import Origin
from visxai.images.decoding import Limits, decode
from visxai.images.sources import Listing, find
from visxai.labels import class_finder

HANGING = 91  # pixels wide


def hanging(image: Image.Image) -> Any:
    """A preprocessing that never comes back from certain images, as a bug in a decoder may."""
    while image.width == HANGING:
        time.sleep(0.01)
    pixels = np.asarray(image.resize((64, 64)), dtype=np.float32)
    return np.ascontiguousarray(pixels.transpose(2, 0, 1) / 255)


def rows(out: Path, *without: str) -> list[dict[str, Any]]:
    table = pq.read_table(out / "explanations")
    return table.drop_columns(["created", "seconds", *without]).to_pylist()


def run_json(out: Path) -> dict[str, Any]:
    told: dict[str, Any] = json.loads((out / "run.json").read_text())
    return told


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for index in range(6):
        photograph(tmp_path / "in" / f"{index}.png", index)
    return tmp_path / "in"


@pytest.fixture
def small() -> visxai.Engine:
    return visxai.Engine(device="cpu", precision="fp32", accelerate="off", batch_size=2)


def pack(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            about = tarfile.TarInfo(name)
            about.size = len(data)
            tar.addfile(about, io.BytesIO(data))
    return path


class _Pipe(io.BytesIO):
    def isatty(self) -> bool:
        return False


def test_standard_input_lists_sources() -> None:
    for data in (b"a.jpg\nb c.jpg\r\n\n\xe9.jpg\n", b"a.jpg\0b c.jpg\0\xe9.jpg\0"):
        listed = sources.from_input(["x", "-"], _Pipe(data))
        assert listed == ["x", Listing(("a.jpg", "b c.jpg", os.fsdecode(b"\xe9.jpg")))]
    assert sources.from_input(["x"], _Pipe(b"y")) == ["x"]
    with pytest.raises(ArgumentError, match="got none: check the command"):
        sources.from_input(["-"], _Pipe(b"\n"))
    terminal = _Pipe()
    terminal.isatty = lambda: True  # type: ignore[method-assign]
    with pytest.raises(ArgumentError, match="got a terminal"):
        sources.from_input(["-"], terminal)


def test_what_a_list_names_in_vain_is_a_failure(folder: Path, tmp_path: Path) -> None:
    listing = Listing((str(folder / "1.png"), str(folder / "gone.png"), str(folder)))
    found = list(find([listing], tmp_path / "out"))
    assert [Path(one.path).name for one in found[:3]] == ["1.png", "gone.png", "0.png"]
    assert found[1].failure is not None
    assert "existing" in found[1].failure.reason
    with pytest.raises(ArgumentError, match="existing"):
        list(find([folder / "gone.png"], tmp_path / "out"))


def test_a_list_that_grew_appends(folder: Path, tmp_path: Path, small: visxai.Engine) -> None:
    paths = [str(folder / f"{index}.png") for index in range(6)]
    out = tmp_path / "out"
    pipeline.explain([Listing(tuple(paths[:3]))], out, small, workers=0, chunk_size=2)
    first = rows(out)
    outcome = pipeline.explain([Listing(tuple(paths))], out, small, workers=0, chunk_size=2)
    assert outcome.counts["images"] == 6
    assert rows(out)[:3] == first
    assert [row["path"] for row in rows(out)] == paths


def test_columns_are_found_by_name(folder: Path, tmp_path: Path) -> None:
    odd = os.fsencode(folder) + b"/\xe9.png"
    shutil.copy(folder / "0.png", odd)
    (tmp_path / "a.csv").write_bytes(
        b'\xef\xbb\xbfid,Filename,CLASS\n1,in/0.png,tabby\n2,"in/1.png"\n3,in/\xe9.png, 7\n4,,\n'
    )
    found = list(find([tmp_path / "a.csv"], tmp_path / "out"))
    assert [(one.path, one.label) for one in found] == [
        (str(folder / "0.png"), "tabby"),
        (str(folder / "1.png"), None),
        (os.fsdecode(odd), "7"),
    ]
    assert {one.root for one in found} == {str(tmp_path)}
    table = {"n": [1, 2], "where": ["in/0.png", str(folder / "1.png")], "y": [3.0, None]}
    pq.write_table(pa.table(table), tmp_path / "b.parquet")
    columns = {"path_column": "where", "label_column": "y"}
    found = list(find([tmp_path / "b.parquet"], tmp_path / "out", **columns))
    assert [(one.path, one.label) for one in found] == [
        (str(folder / "0.png"), "3"),
        (str(folder / "1.png"), None),
    ]
    found = list(find([tmp_path / "a.csv"], tmp_path / "out", label_column="none"))
    assert not any(one.label for one in found)


def test_wrong_tables_are_told_in_a_sentence(folder: Path, tmp_path: Path) -> None:
    def told(content: bytes, words: str, name: str = "t.csv", **columns: str) -> None:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ArgumentError, match=words):
            sources.check([tmp_path / name], tmp_path / "out", **columns)

    told(b"a,b\n1,2\n", "column of paths in .*got a, b: name it with path_column")
    told(b"", "empty file")
    told(b"path\n", "without any")
    told(b"path,x\nq.jpg,1\n", "unknown column .*'label'", label_column="label")
    told(b"path,x\nq.jpg,1\n", "unknown column .*'pth'.*path", path_column="pth")
    told(b"PAR1 nonsense", "damaged", "t.parquet")
    pq.write_table(pa.table({"image": [{"bytes": b"", "path": ""}]}), tmp_path / "s.parquet")
    with pytest.raises(ArgumentError, match="got struct"):
        sources.check([tmp_path / "s.parquet"], tmp_path / "out")
    with pytest.raises(ArgumentError, match="expected a table"):
        sources.check([folder], tmp_path / "out", path_column="path")


def test_labels_become_classes() -> None:
    finder = class_finder(["crane", "tabby, cat", "crane", "7"])
    assert [finder(label) for label in ("cat", "tabby, cat", "0", "7")] == [1, 1, 0, 3]
    with pytest.raises(TargetError, match="the classes 0, 2"):
        finder("crane")
    with pytest.raises(TargetError, match="from 0 to 3, got 9"):
        finder("9")
    assert class_finder(None)("12") == 12


def test_labels_tell_accuracy_and_what_is_wrong(
    folder: Path, tmp_path: Path, small: visxai.Engine
) -> None:
    shutil.copy(folder / "0.png", folder / "same.png")  # with another label: no copy
    predicted = [one.class_index for one in small.predict([folder / f"{i}.png" for i in range(6)])]
    labels = [predicted[0], (predicted[1] + 1) % 1000, predicted[2], (predicted[3] + 1) % 1000, ""]
    lines = [f"in/{index}.png,{label}" for index, label in enumerate(labels)]
    lines += ["in/gone.png,3", f"in/same.png,{(predicted[0] + 1) % 1000}"]
    table = tmp_path / "labels.csv"
    table.write_text("\n".join(["file,label", *lines]))
    out = tmp_path / "all"
    outcome = pipeline.explain([table], out, small, workers=0, chunk_size=2)
    assert outcome.counts["labelled"] == 5
    assert outcome.counts["right"] == 2
    assert run_json(out)["accuracy"] == 0.4
    names = small.model.labels
    assert names is not None
    said = {Path(row["path"]).stem: row["expected"] for row in rows(out)}
    assert said["0"] == names[predicted[0]]
    assert said["4"] is None
    seen = list[Any]()
    for _ in range(2):  # interrupted, then to its end
        pipeline.explain(
            [table], tmp_path / "wrong", small, only="wrong", workers=0, chunk_size=2,
            progress=seen.append, stop=lambda: len(seen) == 3,
        )  # fmt: skip
    wrong = {Path(row["path"]).stem for row in rows(tmp_path / "wrong")}
    assert wrong == {"1", "3", "same"}
    assert run_json(tmp_path / "wrong")["accuracy"] == 0.4
    pipeline.explain([table], tmp_path / "right", small, only="right", workers=0)
    assert {Path(row["path"]).stem for row in rows(tmp_path / "right")} == {"0", "2"}
    table.write_text(f"file,label\nin/0.png,{(predicted[0] + 1) % 1000}\n")
    with pytest.raises(StoreError, match=r"another for .*0\.png"):
        pipeline.explain([table], out, small, workers=0, chunk_size=2)


def test_what_cannot_be_wrong_is_refused(
    folder: Path, tmp_path: Path, small: visxai.Engine
) -> None:
    with pytest.raises(ArgumentError, match="images with labels"):
        pipeline.explain([folder], tmp_path / "out", small, only="wrong")
    with pytest.raises(ArgumentError, match="condition on scores"):
        small.explain([folder / "0.png"], only="wrong")
    assert Gate.of("right").right
    several = visxai.Engine(activation="sigmoid", device="cpu", precision="fp32")
    table = tmp_path / "t.csv"
    table.write_text("file,label\nin/0.png,tabby\n")
    with pytest.raises(ArgumentError, match="sigmoid"):
        pipeline.explain([table], tmp_path / "out", several, only="wrong")
    outcome = pipeline.explain([table], tmp_path / "out", several)
    assert "labelled" not in outcome.counts
    assert rows(tmp_path / "out")[0]["expected"].startswith("tabby")
    table.write_text("file,label\nin/0.png,tabyb\n")
    with pytest.raises(ArgumentError, match=r"'tabyb' for .*0\.png .*label_column='none'"):
        pipeline.explain([table], tmp_path / "out", small)


@pytest.fixture
def tar(folder: Path, tmp_path: Path) -> Path:
    return pack(
        tmp_path / "shard-000000.tar",
        {
            "./a/0.png": (folder / "0.png").read_bytes(),
            "a/0.cls": b"7\n",
            "1.seg.PNG": (folder / "1.png").read_bytes(),
            "1.json": b'{"Label": "tabby", "split": 3}',
            "2.png": (folder / "2.png").read_bytes(),
            "2.txt": b"a caption",
            "._2.png": b"left by a Mac",
        },
    )


def test_members_are_read_at_their_places(tar: Path, tmp_path: Path, folder: Path) -> None:
    found = list(find([tar], tmp_path / "out"))
    assert [one.path for one in found] == [f"{tar}/{n}" for n in ("a/0.png", "1.seg.PNG", "2.png")]
    assert [one.label for one in found] == ["7", "tabby", None]
    (split,) = {one.label for one in find([tar], tmp_path, label_column="split")} - {"7", None}
    assert split == "3"
    assert Origin.of(found[2].path).read(10**6) == (folder / "2.png").read_bytes()
    assert len(Origin.of(found[2].path).read(99)) == 100
    with pytest.raises(ImageError, match="at most 99 bytes"):
        decode(found[2].path, Limits(max_bytes=99))
    with pytest.raises(ImageError, match=r"expected 9\.png in the tar"):
        decode(f"{tar}/9.png")
    inside = tmp_path / "folder.tar"
    shutil.copytree(folder, inside)
    assert Origin.of(inside / "0.png").member is None
    assert len(list(find([inside], tmp_path / "out"))) == 6


def test_a_tar_is_explained_reported_and_exported(
    tar: Path, tmp_path: Path, small: visxai.Engine
) -> None:
    out = tmp_path / "out"
    outcome = pipeline.explain([tar], out, small, workers=2)
    assert outcome.counts["maps"] == 3
    assert (out / "overlays" / "shard-000000.tar" / "a" / "0.png.jpg").is_file()
    first = next(results.read(out))
    assert first.input.path == f"{tar}/a/0.png"
    assert first.overlay().size == (first.input.width, first.input.height)
    assert report.build(out, workers=0).missing == 0
    assert results.export(out, "fiftyone").left_out == 0
    (out / "report" / "mine.txt").write_text("kept")
    (out / "export" / "mine").mkdir()
    pipeline.explain([tar], out, small, workers=0, fresh=True)
    left = sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.parent != out)
    assert [name for name in left if name.startswith(("report", "export"))] == [
        "export/mine",
        "report/mine.txt",
    ]


def test_hostile_tars_lose_only_what_is_hostile(tmp_path: Path, folder: Path) -> None:
    good = (folder / "0.png").read_bytes()
    members = {"../../up.png": good, "/abs.png": good, "ok.png": good, "x\n\x07.png": good}
    tar = pack(tmp_path / "odd.tar", members)
    with tarfile.open(tar, "a") as more:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE):
            about = tarfile.TarInfo(f"k{kind.decode()}.png")
            about.type, about.linkname = kind, "/etc/passwd"
            more.addfile(about)
    found = {one.path.rpartition("/")[2]: one for one in find([tar], tmp_path / "out")}
    assert set(found) == {"up.png", "abs.png", "ok.png", "x\n\x07.png"}
    assert {name for name, one in found.items() if one.failure} == {"up.png", "abs.png"}
    with pytest.raises(ImageError):
        decode(f"{tar}/../../up.png")
    # A header that claims a gigabyte of name is not believed.
    about = tarfile.TarInfo("long")
    about.type, about.size = tarfile.GNUTYPE_LONGNAME, 2**30
    blob = about.tobuf()
    with (tmp_path / "bomb.tar").open("wb") as file:
        file.write(blob)
        file.truncate(2**30 + 4096)
    (failed,) = find([tmp_path / "bomb.tar"], tmp_path / "out")
    assert failed.failure is not None
    assert "a header of" in failed.failure.reason


def test_a_truncated_tar_gives_what_came_before(
    tar: Path, tmp_path: Path, small: visxai.Engine
) -> None:
    whole = tar.read_bytes()
    place = address.look(str(tar)).members["2.png"].offset
    for cut, good in ((place + 100, 2), (place - 100, 2), (len(whole) // 512 * 512 - 10240, None)):
        tar.write_bytes(whole[:cut])
        os.utime(tar, ns=(cut, cut))
        found = list(find([tar], tmp_path / "out"))
        assert found[-1].path == str(tar)
        assert found[-1].failure is not None
        assert "whole tar" in found[-1].failure.reason
        if good is not None:
            outcome = pipeline.explain([tar], tmp_path / f"out{cut}", small, workers=0, style=None)
            assert outcome.counts["maps"] == good
            assert outcome.counts["failures"] in (1, 2)
    for name, data, words in (
        ("t.tar", b"not a tar" * 100, "whole tar"),
        ("x.tar.gz", b"", "compressed"),
    ):
        (tmp_path / name).write_bytes(data)
        try:
            (one,) = find([tmp_path / name], tmp_path / "out")
            assert one.failure is not None
            assert words in one.failure.reason
        except ArgumentError as error:
            assert words in str(error)  # noqa: PT017
    pack(tmp_path / "bare.tar", {"a.txt": b"-"})
    with pytest.raises(ArgumentError, match="got none in the tar"):
        list(find([tmp_path / "bare.tar"], tmp_path / "out"))
    (tmp_path / "only").mkdir()
    pack(tmp_path / "only" / "a.tar", {"a.txt": b"-"})
    with pytest.raises(ArgumentError, match=r"name its tars themselves, as in .*\*\.tar"):
        list(find([tmp_path / "only"], tmp_path / "out"))


def test_random_bytes_never_break_the_index() -> None:
    rng = np.random.default_rng(0)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for index in range(4):
            about = tarfile.TarInfo(f"{'ü' * 120}{index}.png")
            about.size = 700
            tar.addfile(about, io.BytesIO(bytes(700)))
    for _ in range(300):
        data = bytearray(buffer.getvalue())
        for at in rng.integers(0, len(data), 6):
            data[at] = rng.integers(0, 256)
        shard = tars.index(io.BytesIO(bytes(data)), ("label",))
        assert all(member.size >= 0 for member in shard.members.values())


@pytest.fixture
def memory(folder: Path, tar: Path) -> Any:
    fsspec = pytest.importorskip("fsspec")
    system = fsspec.filesystem("memory")
    for path in sorted(folder.iterdir()):
        system.pipe(f"/bucket/photos/{path.name}", path.read_bytes())
    system.pipe("/bucket/photos/.hidden.png", b"-")
    system.pipe("/bucket/shards/a.tar", tar.read_bytes())
    system.pipe("/bucket/t.csv", b"path,label\nphotos/0.png,tabby\nmemory://bucket/photos/1.png,\n")
    yield system
    system.store.clear()


def test_urls_are_files_folders_tars_and_tables(memory: Any, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    found = list(find(["memory://bucket/photos"], out))
    assert [one.path for one in found] == [f"memory://bucket/photos/{n}.png" for n in range(6)]
    assert {one.root for one in found} == {"memory://bucket/photos"}
    assert all(one.stamp and one.stamp[0] > 0 and one.stamp[1] > 0 for one in found)
    assert [one.path for one in find(["memory://bucket/photos/3.png"], out)] == [found[3].path]
    assert decode(found[3].path).sha256 == decode(folder / "3.png").sha256
    starred = list(find(["memory://bucket/shards/*.tar"], out))
    assert starred[0].path == "memory://bucket/shards/a.tar/a/0.png"
    assert decode(starred[0].path).sha256 == decode(folder / "0.png").sha256
    table = list(find(["memory://bucket/t.csv"], out))
    assert [(one.path, one.label) for one in table] == [
        ("memory://bucket/photos/0.png", "tabby"),
        ("memory://bucket/photos/1.png", None),
    ]
    local = list(find([f"local://{folder}"], out))
    assert [one.path for one in local] == [f"local://{folder}/{n}.png" for n in range(6)]
    plain = list(find([f"file://{folder}"], out))
    assert [one.path for one in plain] == [str(folder / f"{n}.png") for n in range(6)]


def test_urls_are_explained_drawn_and_reported(
    memory: Any, folder: Path, tmp_path: Path, small: visxai.Engine
) -> None:
    memory.pipe("/bucket/photos/7.png", b"no image")
    listing = [
        "memory://bucket/photos",
        "memory://bucket/photos/gone.png",
    ]  # the batches of a folder
    for workers in (0, 2):
        out = tmp_path / f"out{workers}"
        outcome = pipeline.explain([Listing(tuple(listing))], out, small, workers=workers)
        assert outcome.counts == {"images": 8, "finished": 8, "maps": 6, "failures": 2}
        assert len([p for p in (out / "overlays").rglob("*") if p.is_file()]) == 6
    assert rows(tmp_path / "out0") == rows(tmp_path / "out2")
    pipeline.explain([folder], tmp_path / "plain", small, workers=0)
    without = ("path", "overlay")
    assert rows(tmp_path / "out2", *without) == rows(tmp_path / "plain", *without)
    assert report.build(tmp_path / "out2", workers=2).missing == 6  # nothing is fetched unasked
    assert report.build(tmp_path / "out2", workers=2, remote=True).missing == 0
    assert next(results.read(tmp_path / "out2")).overlay().size[0] > 0


def test_wrong_urls_are_told_in_a_sentence(
    memory: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for url, words in (
        ("foo://a/b", "fsspec knows"),
        ("memory://bucket/nowhere", "there is none"),
        ("memory://bucket/shards", "got none below"),
        ("simplecache::memory://bucket/photos", "existing|chains"),
        ("memory://bucket/x::y", "chains"),
    ):
        with pytest.raises(ArgumentError, match=words):
            list(find([url], tmp_path / "out"))
    with pytest.raises(ImageError, match="no such file"):
        decode("memory://bucket/none.png")

    def missing(*_: Any) -> Any:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr("fsspec.core.url_to_fs", missing)
    with pytest.raises(MissingExtra, match="s3fs"):
        list(find(["s3://bucket/photos"], tmp_path / "out"))


def test_an_image_that_hangs_its_worker_is_a_failure_and_no_other(tmp_path: Path) -> None:
    engine = visxai.Engine(preprocess=hanging, device="cpu", precision="fp32", batch_size=4)
    for index in range(6):
        photograph(tmp_path / "in" / f"{index}.png", index, (HANGING if index == 2 else 90, 70))
    outcome = pipeline.explain(
        [tmp_path / "in"], tmp_path / "out", engine, workers=2, style=None, timeout=2
    )
    assert outcome.counts == {"images": 6, "finished": 6, "maps": 5, "failures": 1}
    (failed,) = results.failures(tmp_path / "out")
    assert Path(str(failed.path)).name == "2.png"
    assert "busy for 2 s, twice" in failed.reason
    with pytest.raises(ArgumentError, match="more than 0 seconds"):
        pipeline.explain([tmp_path / "in"], tmp_path / "out", engine, timeout=0)


def test_failures_are_done_again(folder: Path, tmp_path: Path, small: visxai.Engine) -> None:
    whole, out = tmp_path / "whole", tmp_path / "out"
    pipeline.explain([folder], whole, small, workers=0, chunk_size=2)
    kept = (folder / "3.png").read_bytes()
    (folder / "3.png").write_bytes(b"not yet")
    listed = [*map(str, sorted(folder.glob("*.png"))), str(folder / "away.png")]
    first = pipeline.explain([Listing(tuple(listed))], out, small, workers=0, chunk_size=2)
    assert first.counts == {"images": 7, "finished": 7, "maps": 5, "failures": 2}
    (folder / "3.png").write_bytes(kept)
    again = pipeline.explain([Listing(tuple(listed))], out, small, workers=0, chunk_size=2)
    assert again.counts["failures"] == 2  # only when it is asked for
    # Stopped before the first chunk, everything is as it was.
    stopped = pipeline.explain(
        [Listing(tuple(listed))], out, small, workers=0, chunk_size=2,
        retry_failures=True, stop=lambda: True,
    )  # fmt: skip
    assert not stopped.complete
    assert len(results.failures(out)) == 2
    # What isn't named any more isn't waited for.
    done = pipeline.explain(
        [Listing(tuple(listed[:-1]))], out, small, workers=0, chunk_size=2, retry_failures=True
    )
    assert done.counts == {"images": 6, "finished": 6, "maps": 6, "failures": 0}
    assert rows(out) == rows(whole)


def test_parts_and_inputs_of_earlier_versions_are_read(
    folder: Path, tmp_path: Path, small: visxai.Engine
) -> None:
    out = tmp_path / "out"
    pipeline.explain([folder], out, small, workers=0, chunk_size=2)
    before = rows(out)
    for path in [*(out / "explanations").iterdir(), out / "inputs.parquet"]:
        table = pq.read_table(path)
        pq.write_table(table.drop_columns(["expected"]), path)
    shutil.copy(folder / "0.png", folder / "6.png")
    pipeline.explain([folder], out, small, workers=0, chunk_size=2)
    found = list(results.read(out))
    assert [one.input.path for one in found] == [str(folder / f"{n}.png") for n in range(7)]
    assert results.dataset(out).to_table().column("expected").null_count == 7
    assert rows(out)[0] | {"expected": None} == before[0]
    assert results.export(out, "csv").written == 7


def test_every_name_of_the_local_disk_reads_only_regular_files(tmp_path: Path) -> None:
    pytest.importorskip("fsspec")
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(ImageError, match="a regular file"):
        decode(f"local://{tmp_path}/pipe.png")


@pytest.mark.parametrize("workers", [0, 1])
def test_what_never_answers_is_a_failure(
    workers: int, memory: Any, folder: Path, tmp_path: Path, small: visxai.Engine,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    plain, over = address._remote, threading.Event()

    def slow(url: str) -> Any:
        if url.endswith("3.png"):
            over.wait(60)
        return plain(url)

    monkeypatch.setattr(address, "_remote", slow)
    # In this process only fetching ends in time, so a timeout can't be asked for: it has its own.
    monkeypatch.setattr("visxai.pipeline.run.TIMEOUT", 2.0)
    try:
        outcome = pipeline.explain(
            ["memory://bucket/photos"], tmp_path / "out", small, workers=workers
        )
    finally:
        over.set()
    assert outcome.counts == {"images": 6, "finished": 6, "maps": 5, "failures": 1}
    (failed,) = results.failures(tmp_path / "out")
    assert "memory://bucket/photos/3.png within 2 s" in failed.reason


@pytest.mark.parametrize(
    ("scheme", "said", "pip"),
    [
        ("https", 'HTTPFileSystem requires "requests" and "aiohttp" to be installed', "'visxai[re"),
        ("s3", "Install s3fs to access S3", "s3fs"),
        ("gs", "Please install gcsfs to access Google Storage", "gcsfs"),
        ("sftp", 'SFTPFileSystem requires "paramiko" to be installed', "paramiko"),
        ("odd", "it can't be had", "'visxai[remote]'"),
    ],
)
def test_a_missing_package_of_a_file_system_is_told_with_its_pip_line(
    monkeypatch: pytest.MonkeyPatch, scheme: str, said: str, pip: str
) -> None:
    fsspec = pytest.importorskip("fsspec")

    def missing(url: str) -> None:
        raise ImportError(said)

    monkeypatch.setattr(fsspec.core, "url_to_fs", missing)
    with pytest.raises(MissingExtra, match=re.escape(f"pip install {pip}")) as told:
        address.file_system(f"{scheme}://place/one.jpg")
    assert len(str(told.value).splitlines()) == 1


def test_the_extra_for_urls_brings_what_https_needs() -> None:
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text("utf-8"))
    extra = " ".join(project["project"]["optional-dependencies"]["remote"])
    assert all(name in extra for name in ("fsspec", "requests", "aiohttp"))


def test_a_file_of_less_than_no_bytes_ends_a_tar() -> None:
    header = tarfile.TarInfo("owl.jpg")
    header.size = -1
    shard = tars.index(io.BytesIO(header.tobuf(tarfile.GNU_FORMAT) + bytes(1024)), ())
    assert not shard.members
    assert shard.flaw == "a file of less than no bytes"


@pytest.mark.parametrize("place", [4, 8, 60, 100, 200])
def test_a_damaged_parquet_table_is_told(place: int) -> None:
    stream = io.BytesIO()
    pq.write_table(pa.table({"path": ["a.jpg", "b.jpg"], "label": ["owl", "cat"]}), stream)
    for value in (0x00, 0x97, 0xFF):
        data = bytearray(stream.getvalue())
        data[place] = data[-place] = value
        with contextlib.suppress(ArgumentError):
            tables.read("mine.parquet", bytes(data)).paths()


def test_a_table_that_would_fill_the_memory_is_refused() -> None:
    # A constant column is a few hundred bytes in the file and over a gigabyte as text.
    stream = io.BytesIO()
    path = pa.DictionaryArray.from_arrays(np.zeros(800_000, np.int32), ["x" * 5000])
    pq.write_table(pa.table({"path": path}), stream)
    with pytest.raises(ArgumentError, match="damaged or too large"):
        tables.read("mine.parquet", stream.getvalue()).paths()


def test_a_table_that_never_ends_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "_SECONDS", 0.2)
    monkeypatch.setattr(parquet, "_CHILD", "import time; time.sleep(60)")
    with pytest.raises(ArgumentError, match="damaged or too large"):
        tables.read("mine.parquet", b"PAR1")


def test_the_process_of_a_table_ends_with_it() -> None:
    stream = io.BytesIO()
    pq.write_table(pa.table({"path": ["a.jpg"]}), stream)
    table = parquet.ParquetTable("mine.parquet", stream.getvalue())
    child = table._child
    assert child.poll() is None
    assert table.cells(0) == ["a.jpg"]
    del table
    assert child.wait(10) is not None
