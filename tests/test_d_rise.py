"""D-RISE: similarity by hand, a planted object, a constant detector, real ones by their outputs."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import visxai
from visxai import models
from visxai.detection import Detector
from visxai.errors import ArgumentError, ModelError
from visxai.models.objects import Objects, distinct, read, read_detr, read_yolo

SIDE = 64
WHOLE = visxai.Preprocess((SIDE, SIDE), SIDE, mean=(0.0,) * 3, std=(1.0,) * 3, side="long")
PLANTED = (24, 8, 56, 40)


def detections(boxes: list[Any], labels: list[int], scores: list[float]) -> dict[str, Tensor]:
    return {
        "boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        "labels": torch.tensor(labels, dtype=torch.long),
        "scores": torch.tensor(scores),
    }


def photograph() -> np.ndarray[Any, Any]:
    """A grey picture with a red square in the middle of the planted box, a blue one elsewhere."""
    picture = np.full((SIDE, SIDE, 3), 20, np.uint8)
    left, top, right, bottom = PLANTED
    picture[top + 4 : bottom - 4, left + 4 : right - 4] = (250, 20, 20)
    picture[46:58, 4:16] = (20, 20, 240)
    return picture


def planted(pixels: Tensor) -> list[dict[str, Tensor]]:
    """Find a red object in the planted box, and a blue one, as far as their colours are seen."""
    left, top, right, bottom = PLANTED
    red = pixels[:, 0, top + 4 : bottom - 4, left + 4 : right - 4].mean((1, 2))
    blue = pixels[:, 2, 46:58, 4:16].mean((1, 2))
    boxes = [PLANTED, (2, 44, 18, 60)]
    return [
        detections(boxes, [1, 2], list(pair))
        for pair in zip(red.tolist(), blue.tolist(), strict=True)
    ]


def constant(pixels: Tensor) -> list[dict[str, Any]]:
    """Find the same object wherever one looks; lists and arrays are detections, too."""
    found = {"boxes": np.array([[8.0, 8, 40, 40]]), "labels": [0], "scores": [0.9]}
    return [found for _ in pixels]


def test_similarity_by_hand() -> None:
    found = detections([(0, 0, 10, 10), (20, 20, 40, 40)], [1, 2], [0.9, 0.8])
    objects = Objects(found, (SIDE, SIDE))
    now = detections([(0, 0, 10, 20), (0, 0, 10, 10), (20, 20, 40, 40)], [1, 2, 2], [0.6, 1, 0.5])
    # Half of the first box at 0.6, the whole of it as another class; the second box at 0.5.
    assert torch.allclose(objects([now]), torch.tensor([[0.3, 0.5]]))
    assert torch.equal(objects([detections([], [], [])]), torch.zeros(1, 2))


def test_class_probabilities_agree_by_their_cosine() -> None:
    one = {**detections([(0, 0, 9, 9)], [0], [0.5]), "probabilities": torch.tensor([[1.0, 0.0]])}
    other = {**one, "probabilities": torch.tensor([[3.0, 4.0]])}
    assert torch.allclose(Objects(one, (9, 9))([other]), torch.tensor([[0.5 * 0.6]]))


def test_distinct_keeps_each_object_once() -> None:
    boxes = [(0, 0, 10, 9), (0, 0, 10, 10), (0, 0, 10, 10), (30, 30, 40, 40)]
    found = distinct(detections(boxes, [1, 1, 2, 1], [0.6, 0.9, 0.7, 0.4]), 0.5, 10)
    assert found["scores"].tolist() == pytest.approx([0.9, 0.7])
    assert len(distinct(found, 0.5, 1)["boxes"]) == 1
    assert len(distinct(found, 0.95, 5)["boxes"]) == 0


def test_a_planted_object_holds_the_evidence() -> None:
    detector = Detector(planted, preprocess=WHOLE, labels=["other", "red", "blue"])
    red, blue = detector.explain(photograph(), "rise(masks=8000, grid=16)")
    assert (red.label, blue.label) == ("red", "blue")
    assert red.box == pytest.approx(PLANTED)
    assert red.score == pytest.approx(red.explanation.score, abs=1e-5)
    assert red.inside >= 0.9
    assert not red.explanation.degenerate
    heat = blue.explanation.heatmap()
    assert np.unravel_index(heat.argmax(), heat.shape)[0] > 40  # the blue one's map is its own
    assert "% of the evidence for it lies in its box" in red.describe()


def test_all_objects_come_from_the_same_forwards() -> None:
    rows = 0

    def counted(pixels: Tensor) -> list[dict[str, Tensor]]:
        nonlocal rows
        rows += len(pixels)
        return planted(pixels)

    assert len(Detector(counted, preprocess=WHOLE).explain(photograph(), "rise(masks=50)")) == 2
    assert rows == 1 + 1 + 50  # detected, clean, masks


def test_a_constant_detector_gives_a_degenerate_map() -> None:
    (found,) = Detector(constant, preprocess=WHOLE).explain(photograph(), "rise(masks=100)")
    assert found.explanation.degenerate
    assert not found.explanation.values.any()
    assert found.inside == 0
    assert "is flat and says nothing about where" in found.describe()


def test_a_box_is_placed_and_drawn_on_the_original() -> None:
    wide = np.zeros((96, 192, 3), np.uint8)  # 192x96 becomes 64x32 with 16 rows of padding
    (found,) = Detector(constant, preprocess=WHOLE).explain(wide, "rise(masks=4)")
    assert found.box == pytest.approx((24, 0, 120, 72))
    drawn = np.asarray(found.overlay())
    assert drawn.shape == wide.shape
    assert tuple(drawn[40, 24]) == (255, 255, 255)


def test_nothing_found_is_an_empty_list() -> None:
    assert Detector(planted, preprocess=WHOLE).explain(np.zeros((64, 64, 3), np.uint8)) == []


def test_wrong_detectors_are_one_sentence() -> None:
    with pytest.raises(ArgumentError, match="preprocessing is known"):
        Detector(planted)
    with pytest.raises(ModelError, match="list with boxes, labels and scores"):
        Detector(lambda x: x.mean((2, 3)), preprocess=WHOLE).explain(photograph())
    with pytest.raises(ModelError, match="YOLO"):
        read_yolo(torch.zeros(1, 3), (SIDE, SIDE))


# ---- real detectors ------------------------------------------------------------------------------


def test_a_yolo_is_read_in_both_forms() -> None:
    raw = torch.zeros(1, 6, 3)
    raw[0, :, 1] = torch.tensor([32.0, 24, 16, 8, 0.1, 0.7])
    (found,) = read_yolo(raw.numpy(), (SIDE, SIDE))
    best = distinct(found, 0.5, 5)
    assert best["boxes"].tolist() == [[24, 20, 40, 28]]
    assert best["labels"].tolist() == [1]
    (final,) = read_yolo(torch.tensor([[[24.0, 20, 40, 28, 0.7, 1]]]), (SIDE, SIDE))
    assert torch.equal(final["boxes"], best["boxes"])
    assert torch.equal(final["labels"], best["labels"])


def test_detr_outputs_are_read_with_and_without_a_class_for_nothing() -> None:
    boxes = torch.tensor([[[0.5, 0.5, 0.5, 0.25]]])
    logits = torch.tensor([[[0.0, 1.0, 2.0]]])
    (one,) = read_detr({"logits": logits, "pred_boxes": boxes}, (40, 80), 2)
    assert one["boxes"].tolist() == [[20, 15, 60, 25]]
    assert torch.allclose(one["probabilities"], logits[0].softmax(-1)[:, :2])
    (other,) = read_detr({"logits": logits, "pred_boxes": boxes}, (40, 80), 3)
    assert torch.allclose(other["scores"], torch.tensor([2.0]).sigmoid())


@cache
def fcos() -> Detector:
    options = {"min_size": SIDE, "max_size": SIDE, "num_classes": 5, "score_thresh": 0.0}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        found = models.load(
            "torchvision:fcos_resnet50_fpn",
            weights=False,
            build={**options, "topk_candidates": 20},
            preprocess=WHOLE,
        )
    return Detector(found)


@pytest.mark.parametrize("method", ["rise(masks=6)", "grad_cam(relu=False)"])
def test_a_torchvision_detector_by_scores_and_by_gradients(method: str) -> None:
    found = fcos().explain(photograph(), method, least=0.0, most=2)
    assert len(found) == 2
    assert all(np.isfinite(one.explanation.values).all() for one in found)
    assert any(one.explanation.values.any() for one in found)
    assert "read by Objects(2," in found[0].explanation.model.name


def test_a_detr_of_hugging_face() -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.YolosConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        image_size=[SIDE, SIDE],
        num_detection_tokens=4,
        num_labels=3,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = transformers.YolosForObjectDetection(config).eval()
    found = Detector(module, preprocess=WHOLE).explain(
        photograph(), "rise(masks=20)", least=0.0, most=3
    )
    assert found
    assert found[0].label.startswith("LABEL_")
    assert found[0].explanation.values.any()


def test_mappings_alone_are_detections() -> None:
    with pytest.raises(ModelError, match="got str"):
        read("boxes", (SIDE, SIDE))
