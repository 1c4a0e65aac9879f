"""Detectors and segmenters as models with scores (b, classes).

A detector returns any number of boxes; its score for a class is that of its strongest detection:

    s_k = max over boxes i of class k of  p_i,       0 where no box has class k

so that "top1" and "class=person" keep their meaning. With `box`, detections count by how much
they overlap it: s_k = max_i p_i IoU(box_i, box), which selects a single object among several.

A segmenter scores every pixel; the score of a class is its mean logit over the pixels it wins:

    s_k = 1/n  Σ over pixels p where k is the strongest of  ( z_kp - mean_j z_jp ),   n pixels

The mean over classes is subtracted because softmax doesn't depend on it; the winner's term is then
never negative, and a class that wins no pixel scores 0. With `region`, s_k is the mean of z_kp over
the region's pixels.

Which boxes are detected, and which pixels a class wins, depends on the image: when a method masks a
part, boxes vanish or appear, and the target follows the strongest box that is left. A drop of s_k
is
a drop of that maximum, not of a particular box; `box` and `region` tie it to a place. Gradients are
taken at the boxes and winning pixels of the image as it is.

Source: Petsiuk et al., Black-box explanation of object detectors via saliency maps, CVPR 2021 (the
overlap); Vinogradova et al., Towards interpretable semantic segmentation via gradient-weighted
class activation mapping, AAAI 2020 (the region).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from visxai.errors import ArgumentError, ModelError
from visxai.images.preprocess import Preprocess

Detection = Mapping[str, Tensor]

# The length of the longer side in pixels that torchvision's weights expect.
_DETECTION_SIDE = 800
_SEGMENTATION_SIDE = 520


@dataclass(frozen=True)
class Detections:
    """A function from a detector's output to scores (b, classes).

    The output holds {boxes (n, 4), labels (n,), scores (n,)} for each image.

    Attributes:
        classes: the number of classes.
        box: (left, top, right, bottom) in pixels of the model's input; None counts all boxes fully.
        masks: whether each score is multiplied by the mean probability inside its mask (above 0.5),
            for models that output masks.
    """

    classes: int
    box: tuple[float, float, float, float] | None = None
    masks: bool = False

    def __post_init__(self) -> None:
        if self.box is not None and (
            len(self.box) != 4 or self.box[0] >= self.box[2] or self.box[1] >= self.box[3]
        ):
            raise ArgumentError(
                f"expected a box (left, top, right, bottom) in input pixels, got {self.box}"
            )

    def __call__(self, output: Sequence[Detection]) -> Tensor:
        """Compute the scores (b, classes), each of the strongest detection of its class.

        Raises:
            ModelError: the output isn't a detector's.
            ArgumentError: `masks` is set, but the output has no masks.
        """
        return torch.stack([self._of(found) for found in output])

    def _of(self, found: Detection) -> Tensor:
        """Compute the scores (classes,) of an image."""
        if not isinstance(found, Mapping) or not {"boxes", "labels", "scores"} <= set(found):
            raise ModelError(
                "expected a detector to output boxes, labels and scores an image, got "
                f"{type(found).__name__}: pass output=, a function from the model's output to "
                "scores (batch, classes)"
            )
        scores = found["scores"].float()
        if self.box is not None:
            scores = scores * overlap(found["boxes"].detach(), self.box)
        if self.masks:
            scores = scores * _certainty(found, scores)
        zeros = scores.new_zeros(self.classes)
        return zeros.scatter_reduce(0, found["labels"], scores, "amax")


@dataclass(frozen=True, eq=False)
class Segmentation:
    """A function from a segmenter's logits to scores (b, k).

    The logits are (b, k, h, w), or a mapping with them as "out".

    Attributes:
        region: (h, w) bool, the pixels of the model's input to average over; None scores each class
            over the pixels it wins.
    """

    region: Tensor | None = None

    def __str__(self) -> str:
        if self.region is None:
            return "Segmentation()"
        digest = hashlib.sha256(self.region.cpu().bool().numpy().tobytes()).hexdigest()[:12]
        return f"Segmentation(region of {int(self.region.sum())} pixels, {digest})"

    def __call__(self, output: Any) -> Tensor:
        """Compute the scores (b, k), over the region or the pixels that each class wins.

        Raises:
            ModelError: the output isn't a segmenter's.
            ArgumentError: the region is empty or isn't of the logits' size.
        """
        logits = output["out"] if isinstance(output, Mapping) and "out" in output else output
        if not isinstance(logits, Tensor) or logits.ndim != 4:
            raise ModelError(
                "expected a segmenter to output logits (batch, classes, height, width), got "
                f"{type(output).__name__}: pass output=, a function from the model's output to "
                "scores (batch, classes)"
            )
        logits = logits.float()
        if self.region is None:
            winner = logits.detach().argmax(1, keepdim=True)
            above = logits - logits.mean(1, keepdim=True)
            mine = torch.zeros_like(logits, requires_grad=False).scatter_(1, winner, 1.0)
            return (above * mine).mean((2, 3))
        region = self.region.to(logits)
        if region.shape != logits.shape[2:] or not bool(region.any()):
            raise ArgumentError(
                f"expected a region of {tuple(logits.shape[2:])} pixels that isn't empty, got "
                f"{tuple(region.shape)} with {int(region.sum())} pixels set"
            )
        return (logits * region).sum((2, 3)) / region.sum()


def overlap(boxes: Tensor, box: Sequence[float]) -> Tensor:
    """Compute the intersection over union (n,) of boxes (n, 4) with a box.

    Args:
        boxes: (left, top, right, bottom) of each box, in pixels.
        box: the same of a single box.
    """
    one = boxes.new_tensor(tuple(box))
    low, high = torch.maximum(boxes[:, :2], one[:2]), torch.minimum(boxes[:, 2:], one[2:])
    shared = (high - low).clamp_min(0).prod(1)
    areas = (boxes[:, 2:] - boxes[:, :2]).clamp_min(0).prod(1) + (one[2:] - one[:2]).prod()
    return shared / (areas - shared).clamp_min(1e-9)


def _certainty(found: Detection, scores: Tensor) -> Tensor:
    """Compute the mean probability (n,) inside each mask, 0 for an empty mask."""
    if "masks" not in found:
        raise ArgumentError("expected a model that gives masks, got one without: use masks=False")
    masks = found["masks"].float().reshape(len(scores), -1)
    inside = (masks.detach() > 0.5).float()
    return (masks * inside).sum(1) / inside.sum(1).clamp_min(1)


def describe(module: nn.Module) -> dict[str, Any]:
    """Describe a torchvision detector or segmenter by the arguments of a model.

    Args:
        module: any module.

    Returns:
        output, preprocess and activation, and layer where the backbone is known; empty for any
        other module.
    """
    from torchvision.models.detection.fcos import FCOS
    from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN
    from torchvision.models.detection.retinanet import RetinaNet
    from torchvision.models.detection.ssd import SSD
    from torchvision.models.segmentation._utils import _SimpleSegmentationModel
    from torchvision.models.segmentation.lraspp import LRASPP

    if isinstance(module, (_SimpleSegmentationModel, LRASPP)):
        # Weights are all trained on ImageNet's mean and standard deviation.
        mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
        known: dict[str, Any] = {
            "output": Segmentation(),
            "preprocess": _whole(_SEGMENTATION_SIDE, mean, std),
        }
    elif isinstance(module, (GeneralizedRCNN, RetinaNet, FCOS, SSD)):
        # Detectors resize and normalise inside; they take the whole image in 0..1.
        known = {
            "output": Detections(_classes(module)),
            "preprocess": _whole(_DETECTION_SIDE, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
        }
    else:
        return {}
    layer = _last_stage(module)
    return {**known, "activation": "none"} | ({"layer": layer} if layer else {})


def _whole(
    side: int, mean: tuple[float, float, float], std: tuple[float, float, float]
) -> Preprocess:
    """Return the preprocessing that fits the whole image into a square, so that batches stack.

    Args:
        side: the square's side in pixels; what the image doesn't cover is black.
        mean: the mean of each channel that is subtracted.
        std: the standard deviation of each channel that is divided by.
    """
    return Preprocess((side, side), side, "bilinear", mean, std, side="long")


def _classes(module: Any) -> int:
    """Return the number of classes of a detector, its background included."""
    if hasattr(module, "roi_heads"):
        return int(module.roi_heads.box_predictor.cls_score.out_features)
    head = module.head.classification_head
    return int(head.num_classes if hasattr(head, "num_classes") else head.num_columns)


def _last_stage(module: Any) -> str | None:
    """Return the name of the backbone's last stage: a ResNet's layer4, a MobileNet's last block."""
    from torchvision.models._utils import IntermediateLayerGetter

    for name in ("backbone.body", "backbone"):
        try:
            stages = module.get_submodule(name)
        except AttributeError:
            continue
        if isinstance(stages, IntermediateLayerGetter):
            return f"{name}.{list(stages.keys())[-1]}"
    return None
