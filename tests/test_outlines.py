"""Outlines of objects: polygons and runs by hand, as pycocotools reads them, in COCO's files."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zoo

from visxai import metrics
from visxai.errors import ArgumentError
from visxai.evaluate.outlines import Polygons, Runs, unpacked
from visxai.evaluate.truth import Truth, mask
from visxai.labels import class_finder
from visxai.metrics.base import Case
from visxai.references import Transform
from visxai.target import Target

LABELS = [f"thing {index}" for index in range(zoo.CLASSES)]


def centres(size: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.arange(size) + 0.5


def drawn(outline: Polygons | Runs, width: int, height: int) -> list[str]:
    found = outline.holds(centres(width), centres(height))
    return ["".join("#" if inside else "." for inside in row) for row in found]


def test_polygons_hold_the_centres_inside() -> None:
    square = Polygons.of([[1, 1, 4, 1, 4, 3, 1, 3]])
    assert drawn(square, 5, 4) == [".....", ".###.", ".###.", "....."]
    # The diagonal runs through centres; both triangles together are the square, none twice.
    upper, lower = (Polygons.of([part]) for part in ([0, 0, 4, 0, 4, 4], [0, 0, 4, 4, 0, 4]))
    both = [p.holds(centres(4), centres(4)).astype(int) for p in (upper, lower)]
    assert (both[0] + both[1] == 1).all()
    concave = Polygons.of([[0, 0, 6, 0, 6, 4, 4, 4, 4, 1, 2, 1, 2, 4, 0, 4]])
    assert drawn(concave, 6, 4) == ["######", "##..##", "##..##", "##..##"]


def test_polygons_of_one_object_are_joined_and_may_overlap() -> None:
    two = Polygons.of([[0, 0, 2, 0, 2, 2, 0, 2], [1, 1, 3, 1, 3, 3, 1, 3]])
    assert drawn(two, 4, 4) == ["##..", "###.", ".##.", "...."]


def test_runs_go_down_the_columns() -> None:
    # 3 rows, 4 columns: 4 out, 2 in, 1 out, 1 in, 4 out.
    runs = Runs.of([3, 4], [4, 2, 1, 1, 4])
    assert drawn(runs, 4, 3) == ["....", ".##.", ".#.."]
    assert not runs.holds(centres(4) + 4, centres(3)).any()  # beyond the raster
    assert not runs.holds(centres(4), centres(3) - 3).any()


def test_packed_runs_are_those_of_the_reference() -> None:
    coco = pytest.importorskip("pycocotools.mask")
    for seed, share in enumerate((0.0, 0.02, 0.5, 1.0)):
        pixels = np.random.default_rng(seed).random((37, 300)) < share
        packed = coco.encode(np.asfortranarray(pixels.astype(np.uint8)))
        found = Runs.of(packed["size"], packed["counts"].decode())
        assert np.array_equal(found.holds(centres(300), centres(37)), pixels)


def test_polygons_agree_with_the_reference_but_on_borders() -> None:
    coco = pytest.importorskip("pycocotools.mask")
    corners = [20.3, 10.1, 180.7, 33.2, 150.2, 120.9, 60.5, 90.4, 33.3, 140.8]
    with warnings.catch_warnings():  # its own, about numpy
        warnings.simplefilter("ignore")
        reference = coco.decode(coco.frPyObjects([corners], 160, 200))[:, :, 0].astype(bool)
    found = Polygons.of([corners]).holds(centres(200), centres(160))
    assert (found != reference).sum() < 0.02 * reference.sum()


WRONG = [
    [[0, 0, 1, 1]],
    [[0, 0, 1, 1, 2, 2, 3]],
    [[0, 0, 1, float("nan"), 2, 2]],
    ["abcdef"],
    3,
    {"size": [2, 2], "counts": [1, 2]},
    {"size": [2, 2], "counts": [5, -1]},
    {"size": [2], "counts": [4]},
    {"size": [10**12, 10**12], "counts": [10**24]},
    {"size": [2, 2], "counts": "oooooooooooooooooooo"},
    {"size": [2, 2], "counts": "\x00"},
    {"counts": [4]},
]


@pytest.mark.parametrize("segmentation", WRONG)
def test_a_broken_outline_is_one_sentence(tmp_path: Path, segmentation: Any) -> None:
    file = coco_file(tmp_path, segmentation)
    with pytest.raises(ArgumentError, match="annotation 0's segmentation"):
        Truth.read(file)


def test_an_unfinished_count_is_refused() -> None:
    assert unpacked("04") == [0, 4]
    with pytest.raises(ValueError, match="unfinished"):
        unpacked("0o")


def coco_file(folder: Path, segmentation: Any) -> Path:
    annotation = {"image_id": 1, "category_id": 1, "bbox": [0, 0, 8, 8]}
    if segmentation is not None:
        annotation["segmentation"] = segmentation
    content = {
        "images": [{"id": 1, "file_name": "x.jpg"}],
        "categories": [{"id": 1, "name": "thing 3"}],
        "annotations": [annotation],
    }
    (folder / "coco.json").write_text(json.dumps(content))
    return folder / "coco.json"


@pytest.mark.parametrize(
    "segmentation",
    [[[0, 0, 4, 0, 4, 8, 0, 8]], {"size": [8, 8], "counts": [0, 32, 32]}],
)
def test_a_segmentation_stands_in_the_boxs_place(tmp_path: Path, segmentation: Any) -> None:
    class_of = class_finder(LABELS)
    whole = Truth.read(coco_file(tmp_path, None)).regions("x.jpg", 3, class_of)
    assert whole == [(0, 0, 8, 8)]
    assert Truth.read(coco_file(tmp_path, [])).regions("x.jpg", 3, class_of) == whole
    regions = Truth.read(coco_file(tmp_path, segmentation)).regions("x.jpg", 3, class_of)
    # The original's left half; the view has twice its size and starts a quarter to the right.
    view = Transform((16, 16), (4, 0, 12, 16))
    found = mask(regions, view, (8, 8))
    assert found[:, :4].all()
    assert not found[:, 4:].any()


def test_a_box_without_extent_holds_nothing(tmp_path: Path) -> None:
    """Published files have a few: they name a class, and no pixel."""
    content = json.loads(coco_file(tmp_path, None).read_text())
    content["annotations"] += [{"image_id": 1, "category_id": 1, "bbox": [3, 3, 1.5, 0]}]
    (tmp_path / "coco.json").write_text(json.dumps(content))
    truth, class_of = Truth.read(tmp_path / "coco.json"), class_finder(LABELS)
    assert truth.regions("x.jpg", 3, class_of) == [(0, 0, 8, 8)]
    assert truth.classes("x.jpg", class_of) == [3]
    content["annotations"][1]["bbox"] = [3, 3, -1, 5]
    (tmp_path / "coco.json").write_text(json.dumps(content))
    with pytest.raises(ArgumentError, match="annotation 1"):
        Truth.read(tmp_path / "coco.json")


def test_the_outline_itself_is_the_perfect_map() -> None:
    view = Transform((zoo.SIZE, zoo.SIZE), (0, 0, zoo.SIZE, zoo.SIZE))
    corners = [zoo.SIZE * at for at in (0.2, 0.1, 0.9, 0.2, 0.7, 0.8, 0.3, 0.7)]
    inside = torch.from_numpy(mask([Polygons.of([corners])], view, (zoo.SIZE, zoo.SIZE)))[None]
    model, x = zoo.model("conv"), zoo.inputs(1)
    case = Case(model, x, Target.of("top1"), inside.float(), objects=inside)
    found = metrics.load("segmentation")(case)
    assert found.values.tolist() == [1]
    assert {figure.item() for figure in found.figures.values()} == {1}
