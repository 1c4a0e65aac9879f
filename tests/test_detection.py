"""Detectors and segmenters: hand-computed scores, then tiny random ones through the methods."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
import zoo
from torch import Tensor

import visxai
from visxai import methods, models
from visxai.engine.batch import compute
from visxai.errors import ArgumentError, ModelError
from visxai.models.detection import Detections, Segmentation, describe, overlap
from visxai.models.probe import Probe
from visxai.models.pytorch.model import TorchModel
from visxai.target import Target

CLASSES = 5
TINY = {"min_size": zoo.SIZE, "max_size": zoo.SIZE, "num_classes": CLASSES}
DETECTORS: dict[str, dict[str, Any]] = {
    "fasterrcnn_resnet50_fpn": {"box_score_thresh": 0.0, "rpn_post_nms_top_n_test": 50},
    "maskrcnn_resnet50_fpn": {"box_score_thresh": 0.0, "box_detections_per_img": 5},
    "retinanet_resnet50_fpn": {"score_thresh": 0.0, "topk_candidates": 50},
    "fcos_resnet50_fpn": {"score_thresh": 0.0, "topk_candidates": 50},
}
SEGMENTERS = ("deeplabv3_resnet50", "fcn_resnet50", "lraspp_mobilenet_v3_large")


@cache
def model(name: str) -> TorchModel:
    """A tiny random member, its weights drawn by a generator of their own."""
    options = {**TINY, **DETECTORS[name]} if name in DETECTORS else {"num_classes": CLASSES}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        found = models.load(f"torchvision:{name}", weights=False, build=options)
    assert isinstance(found, TorchModel)
    return found


def run(found: TorchModel, spec: str, x: Tensor, target: Target) -> Tensor:
    return compute(methods.load(spec), Probe(found, x), x, target).values


def pixels(count: int = 2) -> Tensor:
    return zoo.inputs(count).mul(0.2).add(0.5).clamp(0, 1)


# ---- scores by hand ----------------------------------------------------------------------------

BOXES = torch.tensor([[0.0, 0, 10, 10], [20, 20, 40, 40], [0, 0, 10, 20]])
FOUND = {
    "boxes": BOXES,
    "labels": torch.tensor([1, 1, 3]),
    "scores": torch.tensor([0.4, 0.9, 0.5]),
}
NONE = {
    "boxes": torch.zeros(0, 4),
    "labels": torch.zeros(0, dtype=torch.long),
    "scores": torch.zeros(0),
}


def test_a_class_scores_its_strongest_detection() -> None:
    scores = Detections(4)([FOUND, NONE])
    assert torch.equal(scores, torch.tensor([[0, 0.9, 0, 0.5], [0, 0, 0, 0]]))


def test_overlap_is_intersection_over_union() -> None:
    assert torch.allclose(overlap(BOXES, (0, 0, 10, 10)), torch.tensor([1.0, 0.0, 0.5]))


def test_a_box_weighs_detections_by_overlap() -> None:
    scores = Detections(4, box=(0, 0, 10, 10))([FOUND])
    assert torch.allclose(scores, torch.tensor([[0, 0.4, 0, 0.25]]))


def test_masks_weigh_detections_by_certainty() -> None:
    masks = torch.zeros(3, 1, 4, 4)
    masks[1, 0, 0, :2] = torch.tensor([0.6, 0.8])
    scores = Detections(4, masks=True)([{**FOUND, "masks": masks}])
    assert torch.allclose(scores, torch.tensor([[0, 0.9 * 0.7, 0, 0]]))


def test_a_class_of_a_segmenter_scores_where_it_wins() -> None:
    logits = torch.tensor([[[3.0, 0.0]], [[1.0, 2.0]], [[-1.0, -5.0]]]).unsqueeze(0)
    # Means 1 and -1: class 0 wins the first of two pixels by 2, class 1 the second by 3.
    assert torch.allclose(Segmentation()({"out": logits}), torch.tensor([[1.0, 1.5, 0.0]]))
    region = torch.tensor([[False, True]])
    assert torch.allclose(Segmentation(region)(logits), torch.tensor([[0.0, 2.0, -5.0]]))


def test_wrong_arguments_are_one_sentence() -> None:
    with pytest.raises(ArgumentError, match="left, top, right, bottom"):
        Detections(4, box=(10, 0, 0, 10))
    with pytest.raises(ArgumentError, match="without: use masks=False"):
        Detections(4, masks=True)([FOUND])
    with pytest.raises(ArgumentError, match="region of"):
        Segmentation(torch.zeros(2, 2, dtype=torch.bool))(torch.zeros(1, 2, 2, 2))
    with pytest.raises(ModelError, match="boxes, labels and scores"):
        Detections(4)([torch.zeros(3)])  # type: ignore[list-item]
    with pytest.raises(ModelError, match="got Tensor"):
        Segmentation()(torch.zeros(1, 2))


@pytest.mark.parametrize("name", [*DETECTORS, *SEGMENTERS])
def test_scores_and_layer(name: str) -> None:
    found = model(name)
    x = pixels()
    scores = found.scores(x)
    assert scores.shape == (2, CLASSES)
    assert bool((scores >= 0).all())
    assert bool((scores.amax(1) > 0).all())
    assert found.activation == "none"
    expected = "backbone.body.layer4" if name in DETECTORS else "backbone.layer4"
    assert found.layer(x) == ("backbone.16" if "mobilenet" in name else expected)
    singles = torch.cat([found.scores(x[i : i + 1]) for i in range(2)])
    # A pixel between two classes may fall to either: 1 of 4096 pixels moves a score by 4e-4.
    assert torch.allclose(scores, singles, rtol=1e-3, atol=1e-3)


SPECS = ("grad_cam(relu=False)", "saliency", "occlusion(window=32, stride=32)")


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("name", ["fasterrcnn_resnet50_fpn", "fcn_resnet50"])
def test_methods_run_and_do_not_depend_on_batch_mates(name: str, spec: str) -> None:
    found, x, target = model(name), pixels(), Target.of("top1")
    maps = run(found, spec, x, target)
    assert maps.shape[0] == 2
    assert maps.isfinite().all()
    assert bool((maps.flatten(1).abs().amax(1) > 0).all())
    for index in range(2):
        single = run(found, spec, x[index : index + 1], target)[0]
        similar = torch.nn.functional.cosine_similarity(single.flatten(), maps[index].flatten(), 0)
        assert similar > 0.999


@pytest.mark.parametrize(
    "name", ["maskrcnn_resnet50_fpn", "fcos_resnet50_fpn", "deeplabv3_resnet50"]
)
def test_grad_cam_reaches_the_backbone(name: str) -> None:
    maps = run(model(name), "grad_cam(relu=False)", pixels(1), Target.of("top1"))
    assert float(maps.abs().max()) > 0


def test_a_detector_read_at_a_box() -> None:
    found, x = model("fasterrcnn_resnet50_fpn"), pixels(1)
    at = found.with_output(Detections(CLASSES, box=(0, 0, 32, 32)))
    assert bool((at.scores(x) <= found.scores(x)).all())
    assert at.module is found.module
    assert "box=(0, 0, 32, 32)" in at.ref.name
    assert at.ref.weights_sha256 == found.ref.weights_sha256
    maps = run(at, "grad_cam(relu=False)", x, Target.of("top1"))
    assert float(maps.abs().max()) > 0


def test_masks_are_differentiable() -> None:
    found = model("maskrcnn_resnet50_fpn").with_output(Detections(CLASSES, masks=True))
    maps = run(found, "grad_cam(relu=False)", pixels(1), Target.of("top1"))
    assert maps.isfinite().all()


def test_no_detection_gives_a_degenerate_map() -> None:
    options = {**TINY, "box_score_thresh": 0.999}
    found = models.load("torchvision:fasterrcnn_resnet50_fpn", weights=False, build=options)
    maps = run(found, "grad_cam", pixels(1), Target.of("class=1"))  # type: ignore[arg-type]
    assert float(maps.abs().max()) == 0


def test_a_photograph_is_seen_whole_and_named() -> None:
    options = {key: value for key, value in TINY.items() if key != "num_classes"}
    found = models.load(
        "torchvision:fasterrcnn_resnet50_fpn",
        weights=False,
        build={**options, "box_score_thresh": 0.0},
        preprocess=visxai.Preprocess((64, 64), 64, side="long"),
    )
    engine = visxai.Engine(found)
    photograph = (pixels(1)[0, :, :40].permute(1, 2, 0) * 255).byte().numpy()
    (person,) = engine.explain(photograph, "grad_cam", "class=person")
    assert person.label == "person"
    assert not bool(torch.from_numpy(person.heatmap()).isnan().any())


def test_a_module_of_the_callers_is_recognised() -> None:
    known = describe(model("retinanet_resnet50_fpn").module)
    assert known["output"] == Detections(CLASSES)
    assert describe(zoo.module("conv")) == {}
    engine = visxai.Engine(model("fcn_resnet50").module, device="cpu", precision="fp32")
    assert engine.attribute(pixels(1), "grad_cam").shape == (1, zoo.SIZE, zoo.SIZE)
