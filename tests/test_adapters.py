"""Other libraries' objects: regions as detections of supervision, maps inside of boxes."""

from __future__ import annotations

import importlib
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stores import explanation, photograph

import visxai
from visxai.errors import ArgumentError, Failure

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of what supervision imports
    sv = pytest.importorskip("supervision", reason="needs the extra supervision")
    detections = importlib.import_module("visxai.adapters.detections")


def scene(size: tuple[int, int] = (120, 160)) -> np.ndarray:
    small = np.random.default_rng(3).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return small.repeat(size[0] // 6, 0).repeat(size[1] // 8, 1)


def boxes(*several: tuple[float, float, float, float]) -> Any:
    return sv.Detections(xyxy=np.array(several, np.float32))


def test_regions_are_detections(tmp_path: Path) -> None:
    made = explanation(photograph(tmp_path / "a.png", 1, (96, 64)), (2, 3))
    found = detections.regions([made], top=1)
    (region,) = made.regions(top=1)
    assert found.xyxy.tolist() == [list(region.box)]
    assert found.confidence.tolist() == [0.5]
    assert found.class_id.tolist() == [7]
    assert found["class_name"].tolist() == ["tabby"]
    assert found["share"].tolist() == [region.share]
    ys, xs = np.nonzero(found.mask[0])
    left, top, right, bottom = region.box
    assert (xs.min(), ys.min()) == (left, top)
    assert xs.max() < right + 1
    assert ys.max() < bottom + 1
    drawn = sv.BoxAnnotator().annotate(np.zeros((64, 96, 3), np.uint8), found)
    assert drawn.any()


def test_an_image_without_evidence_has_no_detections(tmp_path: Path) -> None:
    path = photograph(tmp_path / "a.png", 1)
    flat = explanation(path, values=np.zeros((7, 7), np.float32), degenerate=True)
    assert len(detections.regions([flat])) == 0
    other = explanation(photograph(tmp_path / "b.png", 2, (50, 40)))
    with pytest.raises(ArgumentError, match="one image"):
        detections.regions([flat, other])


def test_each_box_is_explained_as_its_pixels_alone(engine: visxai.Engine) -> None:
    whole = scene()
    found = boxes((10, 20, 90, 110), (-5, -5, 40.2, 50), (200, 0, 300, 50), (5, 5, 5, 90))
    made = detections.explain(engine, whole, found, "grad_cam", "class=tabby")
    assert [one is None for one in made] == [False, False, True, True]
    crops = [whole[20:110, 10:90, ::-1], whole[0:50, 0:41, ::-1]]
    alones = engine.explain([one.copy() for one in crops], "grad_cam", "class=tabby")
    for one, alone in zip(made[:2], alones, strict=True):
        assert one is not None
        assert not isinstance(alone, Failure)
        assert one.label == "tabby"
        np.testing.assert_array_equal(one.values, alone.values)
    with pytest.raises(ArgumentError, match="one map a box"):
        detections.explain(engine, whole, found, "grad_cam", "top2")
    assert detections.explain(engine, whole, sv.Detections.empty()) == []


def test_maps_are_drawn_inside_of_their_boxes(engine: visxai.Engine) -> None:
    whole = scene()
    before = whole.copy()
    found = boxes((10, 20, 90, 110), (200, 0, 300, 50))
    made = detections.explain(engine, whole, found)
    drawn = detections.MapAnnotator().annotate(whole, found, made)
    assert (whole == before).all()
    changed = (drawn != whole).any(-1)
    assert changed[20:110, 10:90].mean() > 0.1
    changed[20:110, 10:90] = False
    assert not changed.any()
    with pytest.raises(ArgumentError, match="each of 2 boxes"):
        detections.MapAnnotator().annotate(whole, found, made[:1])
