"""Folder runs: hostile files, dead workers, duplicates, and runs that stop and go on."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

import visxai
from visxai import pipeline, results
from visxai.cli import wording
from visxai.errors import ArgumentError, Failure, StoreError, TargetError, UnknownName
from visxai.images.sources import Found, find
from visxai.pipeline import request, run
from visxai.pipeline.progress import Progress
from visxai.pipeline.tasks import Style
from visxai.results import inputs

DEADLY = 91  # pixels wide


def deadly(image: Image.Image) -> Any:
    """A preprocessing that kills the process at certain images, as a bug in a decoder may."""
    if image.width == DEADLY:
        os._exit(9)
    pixels = np.asarray(image.resize((64, 64)), dtype=np.float32)
    return np.ascontiguousarray(pixels.transpose(2, 0, 1) / 255)


def photograph(path: Path, seed: int, size: tuple[int, int] = (90, 70), **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).save(path, **options)
    return path


def rows(out: Path, *without: str) -> list[dict[str, Any]]:
    table = pq.read_table(out / "explanations")
    return table.drop_columns(["created", "seconds", *without]).to_pylist()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for index in range(7):
        photograph(tmp_path / "in" / f"{index}.jpg", index)
    return tmp_path / "in"


@pytest.fixture
def four(engine: visxai.Engine) -> Any:
    """The default engine in batches of four."""
    before = engine.batch_size
    engine.batch_size = 4
    yield engine
    engine.batch_size = before


def test_a_hostile_folder_loses_only_its_hostile_files(
    tmp_path: Path, engine: visxai.Engine
) -> None:
    folder = tmp_path / "in"
    good = [
        photograph(folder / "a" / "x.jpg", 1, (301, 200)),
        photograph(folder / "b" / "x.jpg", 2),
        photograph(folder / "b" / "x.png", 3),
        photograph(folder / "lies.jpg", 4, format="PNG"),
        photograph(folder / "<b>%0Aname.png", 5),
    ]
    whole = good[0].read_bytes()
    (folder / "truncated.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.png").write_bytes(b"")
    (folder / "text.gif").write_text("hello")
    photograph(folder / "sliver.png", 6, (5000, 1))
    chunks = [
        b"IHDR" + struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0),
        b"IDAT" + zlib.compress(bytes(100)),
    ]
    framed = [struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in chunks]
    (folder / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(framed))
    outside = photograph(tmp_path / "secret.jpg", 7)
    (folder / "link.jpg").symlink_to(outside)
    outcome = pipeline.explain([folder], tmp_path / "out", engine, workers=2)
    assert outcome.complete
    assert outcome.counts == {"images": 11, "finished": 11, "maps": 5, "failures": 6}
    found = {Path(str(one.path)).name: one.reason for one in results.failures(tmp_path / "out")}
    expected = {
        "truncated.jpg": "damaged",
        "empty.png": "0 bytes",
        "text.gif": "something else",
        "sliver.png": "ratio",
        "bomb.png": "pixels",
        "link.jpg": "out of the folder",
    }
    assert set(found) == set(expected)
    for name, words in expected.items():
        assert words in found[name]
    explained = rows(tmp_path / "out")
    assert {row["path"] for row in explained} == {str(path) for path in good}
    for row in explained:
        with Image.open(tmp_path / "out" / "overlays" / row["overlay"]) as overlay:
            assert overlay.size == (row["width"], row["height"])
    assert sum(path.is_file() for path in (tmp_path / "out" / "overlays").rglob("*")) == 5


def test_an_image_that_kills_its_worker_is_a_failure_and_no_other(tmp_path: Path) -> None:
    engine = visxai.Engine(preprocess=deadly, device="cpu", precision="fp32", batch_size=4)
    for index in range(9):
        size = (DEADLY if index in (2, 7) else 90, 70)
        photograph(tmp_path / "in" / f"{index}.png", index, size)
    outcome = pipeline.explain([tmp_path / "in"], tmp_path / "out", engine, workers=2, style=None)
    assert outcome.counts == {"images": 9, "finished": 9, "maps": 7, "failures": 2}
    failed = results.failures(tmp_path / "out")
    assert [Path(str(one.path)).stem for one in failed] == ["2", "7"]
    assert all("killed the process" in one.reason for one in failed)


@pytest.mark.parametrize("options", [{"workers": 1}, {"timeout": 60}])
def test_one_image_gets_the_worker_that_is_asked_for(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    engine = visxai.Engine(preprocess=deadly, device="cpu", precision="fp32", batch_size=4)
    photograph(tmp_path / "in" / "0.png", 0, (DEADLY, 70))
    outcome = pipeline.explain([tmp_path / "in"], tmp_path / "out", engine, **options)
    assert outcome.counts["failures"] == 1
    (failed,) = results.failures(tmp_path / "out")
    assert failed.kind == "WorkerDied"
    # Nor does a run that goes on do without it.
    photograph(tmp_path / "in" / "1.png", 1, (DEADLY, 71))
    again = pipeline.explain([tmp_path / "in"], tmp_path / "out", engine, **options)
    assert again.counts["failures"] == 2


def test_an_evaluation_decodes_in_the_worker_that_is_asked_for(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    engine = visxai.Engine(preprocess=deadly, device="cpu", precision="fp32", batch_size=4)
    for index, width in enumerate((90, DEADLY)):
        photograph(tmp_path / "in" / f"{index}.png", index, (width, 70))
    found = visxai.evaluate.run(
        engine, [tmp_path / "in"], "saliency", ["sparseness"], tmp_path / "out", draws=10,
        examples=0, workers=1,
    )  # fmt: skip
    assert found.outcome.counts["failures"] == 1
    assert results.failures(tmp_path / "out")[0].kind == "WorkerDied"


def test_one_or_several_processes_write_the_same(
    tmp_path: Path, folder: Path, four: visxai.Engine
) -> None:
    for workers in (0, 2):
        pipeline.explain([folder], tmp_path / f"{workers}", four, workers=workers)
    assert rows(tmp_path / "0") == rows(tmp_path / "2")
    overlays = [
        {path.name: path.read_bytes() for path in (tmp_path / n / "overlays").iterdir()}
        for n in ("0", "2")
    ]
    assert overlays[0] == overlays[1]


def test_a_stopped_run_goes_on_to_the_same_rows(
    tmp_path: Path, folder: Path, four: visxai.Engine
) -> None:
    whole = pipeline.explain([folder], tmp_path / "whole", four, chunk_size=4, workers=0)
    assert whole.complete
    seen: list[Progress] = []
    part = pipeline.explain(
        [folder],
        tmp_path / "part",
        four,
        chunk_size=4,
        workers=0,
        progress=seen.append,
        stop=lambda: len(seen) >= 2,
    )
    assert not part.complete
    assert part.counts["finished"] == 4
    assert [one.done for one in seen] == [0, 4]
    state = (tmp_path / "part" / "run.json").read_text()
    assert '"interrupted"' in state
    rest = pipeline.explain([folder], tmp_path / "part", four, chunk_size=4, workers=0)
    assert rest.complete
    assert (rest.progress.before, rest.progress.done) == (4, 7)
    assert rows(tmp_path / "part") == rows(tmp_path / "whole")
    again = pipeline.explain([folder], tmp_path / "part", four, chunk_size=4, workers=0)
    assert again.counts == whole.counts
    photograph(folder / "later.jpg", 99)
    later = pipeline.explain([folder], tmp_path / "part", four, chunk_size=4, workers=0)
    assert later.counts["images"] == 8
    assert rows(tmp_path / "part")[:7] == rows(tmp_path / "whole")
    assert rows(tmp_path / "part")[7]["path"] == str(folder / "later.jpg")


@pytest.mark.parametrize("interval", [0.0, 1e9])
def test_what_is_computed_of_a_chunk_is_kept_and_goes_on_to_the_same_rows(
    tmp_path: Path,
    folder: Path,
    four: visxai.Engine,
    monkeypatch: pytest.MonkeyPatch,
    interval: float,
) -> None:
    """Batches of four in one chunk of twelve, among them copies of images of an earlier batch."""
    for name in ("4copy", "5copy", "7copy"):
        (folder / f"{name}.jpg").write_bytes((folder / "0.jpg").read_bytes())
    (folder / "3torn.jpg").write_bytes(b"torn")
    given: dict[str, Any] = {"chunk_size": 12, "workers": 0, "target": "top2"}
    whole = pipeline.explain([folder], tmp_path / "whole", four, **given)
    monkeypatch.setattr(run, "_INTERVAL", interval)
    out = tmp_path / "part"
    for done in (4, 8, 11):
        seen: list[Progress] = []
        part = pipeline.explain(
            [folder],
            out,
            four,
            **given,
            progress=seen.append,
            stop=lambda seen=seen: len(seen) >= 2,  # type: ignore[misc]
        )
        assert (part.complete, part.counts["finished"]) == (done == 11, done)
        assert part.progress.before == {4: 0, 8: 4, 11: 8}[done]
        assert len({one.input.path for one in results.read(out)}) == done - (done > 4)
        assert [Path(str(one.path)).name for one in part.failed] == ["3torn.jpg"] * (done > 4)
    assert part.counts == whole.counts
    assert rows(out) == rows(tmp_path / "whole")
    assert results.failures(out) == results.failures(tmp_path / "whole")
    pictures = [
        {path.name: path.read_bytes() for path in (place / "overlays").iterdir()}
        for place in (out, tmp_path / "whole")
    ]
    assert pictures[0] == pictures[1]


def test_what_was_computed_before_an_error_is_kept(
    tmp_path: Path, folder: Path, four: visxai.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed, original = [], four.explain_prepared

    def failing(batch: Any, *rest: Any) -> Any:
        computed.append(batch)
        if len(computed) == 2:
            raise MemoryError
        return original(batch, *rest)

    monkeypatch.setattr(four, "explain_prepared", failing)
    with pytest.raises(MemoryError):
        pipeline.explain([folder], tmp_path / "out", four, workers=0)
    assert len(list(results.read(tmp_path / "out"))) == 4


def test_the_same_bytes_are_computed_once(
    tmp_path: Path, folder: Path, four: visxai.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("0copy", "6copy", "7copy"):
        (folder / f"{name}.jpg").write_bytes((folder / "0.jpg").read_bytes())
    computed: list[int] = []
    original = four.explain_prepared

    def counting(batch: Any, *rest: Any) -> Any:
        computed.append(len(batch))
        return original(batch, *rest)

    monkeypatch.setattr(four, "explain_prepared", counting)
    method = ["grad_cam", "occlusion(window=160, stride=64)"]
    stopping: Callable[[], bool] = lambda: len(computed) >= 2  # noqa: E731
    out = tmp_path / "out"
    pipeline.explain([folder], out, four, method, chunk_size=4, workers=0, stop=stopping)
    pipeline.explain([folder], out, four, method, chunk_size=4, workers=0)
    assert sum(computed) == 7
    found = rows(out)
    assert [row["path"] for row in found[::2]] == [str(path) for path in sorted(folder.iterdir())]
    same = [row for row in found if Path(row["path"]).stem in ("0", "0copy", "6copy", "7copy")]
    assert len(same) == 8
    for row in same:
        assert (out / "overlays" / row["overlay"]).is_file()
        assert Path(row["path"]).name in row["overlay"]
        assert row["method"].partition("(")[0] in row["overlay"]
        first = same[row["method"].startswith("occlusion")]
        assert {**row, "path": "", "overlay": ""} == {**first, "path": "", "overlay": ""}


def test_overlays_are_named_by_method_and_class(
    tmp_path: Path, folder: Path, four: visxai.Engine
) -> None:
    methods = ["occlusion(window=160, stride=64)", "occlusion(window=200, stride=64)"]
    pipeline.explain(
        [folder / "0.jpg"], tmp_path / "out", four, methods, "top2", style=Style("webp", panel=True)
    )
    found = rows(tmp_path / "out")
    classes = [row["class_index"] for row in found]
    assert [row["overlay"] for row in found] == [
        f"0.jpg.{name}.{index}.webp"
        for name, index in zip(["occlusion"] * 2 + ["occlusion-2"] * 2, classes, strict=True)
    ]
    for row in found:
        with Image.open(tmp_path / "out" / "overlays" / row["overlay"]) as panel:
            assert panel.format == "WEBP"
            assert panel.width > row["width"]


def test_without_maps_or_overlays_images_are_finished_all_the_same(
    tmp_path: Path, folder: Path, four: visxai.Engine
) -> None:
    outcome = pipeline.explain(
        [folder], tmp_path / "out", four, target="above=0.9999", style=None, workers=0
    )
    assert outcome.counts == {"images": 7, "finished": 7, "maps": 0, "failures": 0}
    assert not (tmp_path / "out" / "overlays").exists()
    assert pq.read_table(tmp_path / "out" / "explanations").num_rows == 0


def test_own_preprocessing_that_cannot_travel_runs_here(tmp_path: Path, folder: Path) -> None:
    engine = visxai.Engine(preprocess=lambda image: deadly(image), device="cpu", precision="fp32")
    outcome = pipeline.explain([folder], tmp_path / "out", engine, workers=2)
    assert outcome.counts["maps"] == 7
    assert all(row["transform"]["assumed"] for row in rows(tmp_path / "out"))


def test_results_are_not_explained_again(tmp_path: Path, folder: Path, four: visxai.Engine) -> None:
    pipeline.explain([folder], folder / "deep" / "out", four, workers=0)
    for out in (folder / "deep" / "out", folder / "other"):
        items = [one.path for one in find([folder], out)]
        assert items == [str(folder / f"{n}.jpg") for n in range(7)]
    inside = list(find([folder / "deep" / "out" / "overlays"], tmp_path / "out"))
    assert len(inside) == 7
    with pytest.raises(ArgumentError, match="only results of visxai"):
        list(find([folder / "deep"], tmp_path / "out"))


def test_several_sources_share_a_root(tmp_path: Path) -> None:
    first = photograph(tmp_path / "in" / "a" / "x.jpg", 1)
    second = photograph(tmp_path / "in" / "b" / "x.jpg", 2)
    found = list(find([first, second.parent], tmp_path / "out"))
    assert found == [Found(str(path), str(tmp_path / "in")) for path in (first, second)]


def test_wrong_arguments_are_told_before_anything_is_written(
    tmp_path: Path, folder: Path, engine: visxai.Engine
) -> None:
    out = tmp_path / "out"
    for arguments, kind, words in [
        ({"target": "class=5000"}, TargetError, "from 0 to 999"),
        ({"target": "class=tabyy"}, UnknownName, "tabby"),
        ({"target": [1, 2]}, TargetError, "written down"),
        ({"target": lambda scores: scores[:, 0]}, TargetError, "written down"),
        ({"method": "gradcm"}, UnknownName, "grad_cam"),
        ({"style": Style("gif")}, UnknownName, "overlay format"),
        ({"style": Style(colormap="rainbow")}, UnknownName, "colormap"),
        ({"chunk_size": 17}, ArgumentError, "multiple of the batch size 16"),
        ({"workers": -1}, ArgumentError, "workers"),
    ]:
        with pytest.raises(kind, match=words):
            pipeline.explain([folder], out, engine, **arguments)
    with pytest.raises(ArgumentError, match="at least one"):
        pipeline.explain([], out, engine)
    with pytest.raises(ArgumentError, match="check the path"):
        pipeline.explain([tmp_path / "nope"], out, engine)
    (tmp_path / "bare").mkdir()
    with pytest.raises(ArgumentError, match="got none below"):
        pipeline.explain([tmp_path / "bare"], out, engine)


def test_chunks_are_whole_batches() -> None:
    assert [request.chunk_of(batch, None) for batch in (1, 16, 48, 64, 100)] == [
        64,
        64,
        96,
        64,
        100,
    ]
    assert request.chunk_of(4, 8) == 8


def test_other_settings_are_refused_in_the_words_of_the_surface(
    tmp_path: Path, folder: Path, four: visxai.Engine
) -> None:
    out = tmp_path / "out"
    pipeline.explain([folder], out, four, chunk_size=4, workers=0, style=Style("png", panel=True))
    with pytest.raises(StoreError) as refused:
        pipeline.explain([folder], out, four, "saliency", chunk_size=8, style=None, workers=0)
    said = str(refused.value)
    drawn = "style=Style(format='png', panel=True)"
    assert f"(method='grad_cam(relu=True)', chunk_size=4, {drawn}), got" in said
    assert "got method='saliency(signed=False)', chunk_size=8, style=None: give those" in said
    assert said.endswith("choose another out, or fresh=True to delete what is there and start over")
    said = wording.sentence(refused.value)
    assert "(--method grad_cam(relu=True), --chunk-size 4, --overlay-format png --panel)" in said
    assert "--method saliency(signed=False), --chunk-size 8, --overlay-format none:" in said
    assert said.endswith("choose another --out, or --fresh to delete what is there and start over")
    with pytest.raises(StoreError, match=r"\(only=None\), got only='top1<0\.5':") as refused:
        pipeline.explain([folder], out, four, only="top1<0.5", style=Style("png", panel=True))
    assert "(no --only), got --only top1<0.5:" in wording.sentence(refused.value)
    # A chunk size that isn't asked for is the one that is there.
    pipeline.explain([folder], out, four, workers=0, style=Style("png", panel=True))


def test_photographs_and_results_want_two_folders(folder: Path, four: visxai.Engine) -> None:
    with pytest.raises(ArgumentError, match=r"as source and out: choose another out"):
        pipeline.explain([folder], folder, four, fresh=True)


def test_a_vanished_image_keeps_its_place(
    tmp_path: Path, folder: Path, four: visxai.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def listed(*_: Any, **__: Any) -> Any:
        for name in ("0.jpg", "gone.jpg"):
            yield Found(str(folder / name), str(folder))
        odd = str(folder / "odd.jpg")
        yield Found(odd, str(folder), Failure(odd, "no reason"))

    monkeypatch.setattr(run, "find", listed)
    outcome = pipeline.explain([folder], tmp_path / "out", four, workers=0)
    assert outcome.counts == {"images": 3, "finished": 3, "maps": 1, "failures": 2}
    reasons = [one.reason for one in results.failures(tmp_path / "out")]
    assert "check the path" in reasons[0]
    assert reasons[1] == "no reason"


def test_workers_never_import_torch() -> None:
    code = (
        "import sys, visxai.pipeline.tasks, visxai.pipeline.workers; "
        "sys.exit('torch' in sys.modules or 'pyarrow' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_moved_folder_keeps_its_rows(
    four: visxai.Engine, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, moved = tmp_path / "out", tmp_path / "photos of 2026"
    (folder / "broken.jpg").write_bytes(b"no picture")
    pipeline.explain([folder], out, four, workers=0)
    before = rows(out, "path")
    folder.rename(moved)
    photograph(moved / "new.jpg", 99)
    # A process that is killed between the parts and the list leaves what the next one mends.
    write = inputs.Inputs.write
    monkeypatch.setattr(inputs.Inputs, "write", lambda self: (_ for _ in ()).throw(OSError(5, "")))
    with pytest.raises(StoreError):
        pipeline.explain([moved], out, four, workers=0)
    monkeypatch.setattr(inputs.Inputs, "write", write)
    outcome = pipeline.explain([moved], out, four, workers=0)
    after = rows(out)
    assert [row["path"] for row in after] == [
        *(str(moved / f"{n}.jpg") for n in range(7)),
        str(moved / "new.jpg"),
    ]
    assert [{k: v for k, v in row.items() if k != "path"} for row in after[:7]] == before
    assert [one.path for one in outcome.failed] == [str(moved / "broken.jpg")]
    assert results.scores(out)["path"].to_pylist() == [row["path"] for row in after]
    # A copy beside the photographs that are still there is another photograph.
    again = tmp_path / "copies"
    shutil.copytree(moved, again)
    pipeline.explain([again], out, four, workers=0)
    assert len(rows(out)) == 16
