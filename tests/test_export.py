"""Exports, each read back by the tool it is for."""

from __future__ import annotations

import csv
import json
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from stores import explanation, fill, photograph

from visxai import cli, results
from visxai.errors import Failure, MissingExtra, StoreError, UnknownName
from visxai.results import exports, reading
from visxai.results.rows import SCHEMA, row_of

NAMES = exports.names()


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Three images of two classes, the last one gone since, and a failure."""
    paths = [photograph(tmp_path / "in" / f"{i}, ünï.png", i) for i in range(3)]
    made = [
        explanation(paths[0], (2, 3), score=0.25),
        explanation(paths[0], (5, 5), method="saliency()"),
        explanation(paths[1], (3, 1), label='"espresso", =1+1'),
        explanation(paths[2]),
    ]
    folder = fill(tmp_path / "out", made, [Failure(str(tmp_path / "in" / "torn.png"), "0 bytes")])
    paths[2].unlink()
    return folder


def test_csv_reads_back(out: Path) -> None:
    pandas = pytest.importorskip("pandas")
    made = results.export(out, "csv")
    assert (made.path, made.written, made.left_out) == (out / "export" / "csv", 4, 0)
    table = pandas.read_csv(made.path / "explanations.csv")
    assert list(table["label"]) == ["tabby", "tabby", '"espresso", =1+1', "tabby"]
    assert list(table["score"]) == [0.25, 0.5, 0.5, 0.5]
    assert "map" not in table.columns
    assert json.loads(table["transform"][0])["crop"] == [16, 0, 64, 64]
    with (made.path / "failures.csv").open(encoding="utf-8", newline="") as file:
        assert [row["reason"] for row in csv.DictReader(file)] == ["0 bytes"]


# pycocotools' own classes don't know numpy 2's copy= yet.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_coco_reads_back(out: Path) -> None:
    coco = pytest.importorskip("pycocotools.coco")
    made = results.export(out, "coco")
    assert made.written == 4
    loaded = coco.COCO(str(made.path / "annotations.json"))
    assert len(loaded.getImgIds()) == 3
    assert {one["name"] for one in loaded.loadCats(loaded.getCatIds())} == {
        *("tabby", '"espresso", =1+1')
    }
    first = next(results.read(out))
    found = [
        one
        for one in loaded.loadAnns(loaded.getAnnIds(imgIds=[1]))
        if one["method"] == "grad_cam()"
    ]
    masks = [loaded.annToMask(one).astype(bool) for one in found]
    assert np.array_equal(np.logical_or.reduce(masks), first.mask())
    for one, mask, region in zip(found, masks, first.regions(top=5), strict=True):
        left, top, width, height = one["bbox"]
        assert (left, top, left + width, top + height) == region.box
        assert one["area"] == mask.sum()
        assert one["share"] == pytest.approx(region.share)
        rows, columns = np.nonzero(mask)
        assert (columns.min(), rows.min()) == (left, top)
        assert (columns.max() + 1, rows.max() + 1) == (left + width, top + height)


def test_a_coco_mask_holds_only_its_own_region() -> None:
    """A part inside another one's box isn't taken for it."""
    parts = np.zeros((8, 8), np.int32)
    parts[0, :] = parts[:, 0] = parts[7, :] = parts[:, 7] = 1
    parts[3:5, 3:5] = 2
    assert np.array_equal(exports._region(parts, (0, 0, 8, 8)), parts == 1)
    assert np.array_equal(exports._region(parts, (3, 3, 5, 5)), parts == 2)
    assert exports._region(parts, (0, 0, 8, 8)).flags["F_CONTIGUOUS"]


SAMPLES: dict[str, Any] = {
    "type": "object",
    "required": ["samples"],
    "properties": {
        "samples": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["filepath", "prediction", "saliency"],
                "properties": {
                    "filepath": {"type": "string", "pattern": "^data/[0-9a-f]+\\.jpg$"},
                    "tags": {"type": "array", "items": {"type": "string"}},
                    "prediction": {
                        "type": "object",
                        "required": ["_cls", "label", "confidence"],
                        "properties": {
                            "_cls": {"const": "Classification"},
                            "label": {"type": "string"},
                            "confidence": {"type": "number"},
                        },
                    },
                    "saliency": {
                        "type": "object",
                        "required": ["_cls", "map_path", "range"],
                        "properties": {
                            "_cls": {"const": "Heatmap"},
                            "map_path": {"type": "string", "pattern": "^fields/saliency/.+\\.png$"},
                            "range": {"const": [0, 255]},
                        },
                    },
                    "regions": {
                        "type": "object",
                        "required": ["_cls", "detections"],
                        "properties": {
                            "_cls": {"const": "Detections"},
                            "detections": {
                                "type": "array",
                                "items": {
                                    "type": "object",
                                    "required": ["_cls", "label", "bounding_box"],
                                    "properties": {
                                        "_cls": {"const": "Detection"},
                                        "bounding_box": {
                                            "type": "array",
                                            "minItems": 4,
                                            "maxItems": 4,
                                            "items": {"type": "number", "minimum": 0, "maximum": 1},
                                        },
                                    },
                                },
                            },
                        },
                    },
                },
            },
        }
    },
}


def test_fiftyone_has_the_layout_its_importer_reads(out: Path) -> None:
    made = results.export(out, "fiftyone")
    assert (made.written, made.left_out) == (3, 1)
    told = json.loads((made.path / "samples.json").read_text("utf-8"))
    jsonschema.validate(told, SAMPLES)
    assert len(told["samples"]) == 3
    explanations = list(results.read(out))
    for sample, one in zip(told["samples"], explanations, strict=False):
        with Image.open(made.path / sample["filepath"]) as picture:
            size = picture.size
        with Image.open(made.path / sample["saliency"]["map_path"]) as drawn:
            assert (drawn.size, drawn.mode) == (size, "L")
            seen = np.asarray(drawn)
        want = np.nan_to_num(one.heatmap(size))
        assert np.abs(seen / 255 - want / want.max()).max() < 1 / 255
        assert sample["source"] == one.input.path


def test_tensorboard_reads_back(out: Path) -> None:
    module = "tensorboard.backend.event_processing.event_accumulator"
    accumulator = pytest.importorskip(module)
    made = results.export(out, "tensorboard")
    assert (made.written, made.left_out) == (3, 1)
    read = accumulator.EventAccumulator(str(made.path)).Reload()
    assert [one.value for one in read.Scalars("grad_cam/score")] == [0.25, 0.5]
    assert [one.step for one in read.Scalars("saliency/score")] == [1]
    image = read.Images("grad_cam/overlay")[0]
    assert (image.width, image.height) == (2 * 96, 64)


def test_wandb_reads_back_and_sends_nothing(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "online")
    made = results.export(out, "wandb")
    assert (made.written, made.left_out) == (3, 1)
    (run,) = (made.path / "wandb").glob("offline-run-*")
    assert list(run.glob("run-*.wandb"))
    history = wandb_history(run)
    assert [one.get("grad_cam/score") for one in history] == [0.25, None, 0.5]
    for one in history:
        (logged,) = (value for name, value in one.items() if name.endswith("/path"))
        with Image.open(run / "files" / logged) as picture:
            assert picture.size == (2 * 96, 64)
    assert '"espresso", =1+1' in history[2]["grad_cam/overlay/caption"]
    # Nothing that was written knows the folder it was written in.
    assert b".part" not in b"".join(path.read_bytes() for path in run.glob("*.wandb"))


def wandb_history(run: Path) -> list[dict[str, Any]]:
    """What each step of an offline run logged, in wandb's own messages.

    They lie in LevelDB's log format: blocks of 32 KiB, pieces of (crc, length, kind) and content,
    kind 1 being whole and 2, 3, 4 the first, middle and last piece of a record.
    """
    from wandb.proto import wandb_internal_pb2

    data, at, found, record = next(run.glob("run-*.wandb")).read_bytes(), 7, [], b""
    while at + 7 <= len(data):
        if (room := 32768 - at % 32768) < 7:
            at += room
            continue
        _, length, kind = struct.unpack("<IHB", data[at : at + 7])
        record = record * (kind > 2) + data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):
            message = wandb_internal_pb2.Record()
            message.ParseFromString(record)
            items = message.history.item
            if items:
                names = {i.key or "/".join(i.nested_key): json.loads(i.value_json) for i in items}
                found.append(names)
    return found


@pytest.mark.parametrize("name", NAMES)
def test_an_export_replaces_its_own_and_nothing_else(
    name: str, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(exports._WRITERS, name, lambda job: (job.folder / "old").write_text("old"))
    place = tmp_path / "place"
    assert results.export(out, name, folder=place).path == place
    (place / "notes").mkdir()
    (place / "notes" / "mine").write_text("mine")
    monkeypatch.setitem(exports._WRITERS, name, lambda job: (job.folder / "x").write_text("new"))
    results.export(out, name, folder=place)
    assert sorted(path.name for path in place.iterdir()) == [".visxai-export", "notes", "x"]
    assert (place / "notes" / "mine").read_text() == "mine"
    monkeypatch.setitem(exports._WRITERS, name, lambda job: (job.folder / "notes").write_text("x"))
    with pytest.raises(StoreError, match="no file of yours named notes"):
        results.export(out, name, folder=place)
    (place / ".visxai-export").unlink()
    with pytest.raises(StoreError, match="choose another folder"):
        results.export(out, name, folder=place)
    assert (place / "x").exists()


def test_what_fails_leaves_nothing(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(job: Any) -> None:
        (job.folder / "half").write_text("half")
        raise OSError(28, "No space left on device")

    monkeypatch.setitem(exports._WRITERS, "csv", full)
    with pytest.raises(StoreError, match="no space left"):
        results.export(out, "csv")
    assert not list((out / "export").iterdir())
    with pytest.raises(UnknownName, match="did you mean coco"):
        results.export(out, "coko")
    with pytest.raises(StoreError, match="check the path"):
        results.export(out / "overlays", "csv")
    monkeypatch.setitem(__import__("sys").modules, "pycocotools", None)
    monkeypatch.delitem(__import__("sys").modules, "pycocotools.mask", raising=False)
    with pytest.raises(MissingExtra, match=r"visxai\[export\]"):
        results.export(out, "coco")


def test_the_command(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        cli.main(["export", str(out), "--to", "fiftyone"])
    assert left.value.code == 0
    printed = capsys.readouterr().out
    assert "3 explanations in" in printed
    assert "1 explanation left out" in printed
    with pytest.raises(SystemExit) as left:
        cli.main(["export", str(out), "--to", "nothing"])
    assert left.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_sheets_compute_nothing_of_a_strangers(tmp_path: Path) -> None:
    hostile = '=HYPERLINK("http://a","b")'
    path = photograph(tmp_path / "in" / "a.png", 1)
    failed = [Failure("@SUM(1+1)", "+1")]
    out = fill(tmp_path / "out", [explanation(path, label=hostile, score=-0.5)], failed)
    made = results.export(out, "csv")
    with (made.path / "explanations.csv").open(encoding="utf-8", newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["label"], row["score"]) == ("'" + hostile, "-0.5")
    with (made.path / "failures.csv").open(encoding="utf-8", newline="") as file:
        assert next(csv.DictReader(file)) == {
            "path": "'@SUM(1+1)", "reason": "'+1", "kind": "ImageError"
        }  # fmt: skip


def test_nothing_is_fetched_unasked(tmp_path: Path) -> None:
    fsspec = pytest.importorskip("fsspec")
    path = photograph(tmp_path / "in" / "a.png", 1)
    fsspec.filesystem("memory").pipe("/away/a.png", path.read_bytes())
    one = explanation(path)
    far = replace(one, input=replace(one.input, path="memory://away/a.png"))
    out = fill(tmp_path / "out", [replace(one)])
    for part in reading.parts(out).values():
        table = pq.read_table(part)
        told = [row_of(far, None)]
        pq.write_table(
            pa.Table.from_pylist(told, SCHEMA).replace_schema_metadata(table.schema.metadata),
            part,
        )
    assert results.export(out, "fiftyone").left_out == 1
    assert results.export(out, "fiftyone", remote=True).left_out == 0
