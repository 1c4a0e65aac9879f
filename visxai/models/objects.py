"""Detected objects as classes: how well a detector still finds each object of one image (D-RISE).

    s_k(x) = max over detections j of x of  IoU(b_j, b_k) * agreement(p_j, p_k) * o_j

b is a detection's box, p its class probabilities and o its score, which stands for objectness. The
agreement is the cosine of p_j and p_k where the detector gives class probabilities, else 1 for the
same class and 0 for another. k are the objects that were found in the image as it is, so the scores
(b, objects) of masked copies say how far each object is still found, all from the same forwards;
a map of s_k by `rise` is D-RISE.

A detection is a mapping as torchvision's detectors return it: boxes (n, 4) as left, top, right and
bottom in pixels of the input, labels (n,) and scores (n,), and probabilities (n, classes) where the
detector gives them.

Source: Petsiuk et al., Black-box explanation of object detectors via saliency maps, CVPR 2021.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from visxai.errors import ModelError
from visxai.models.detection import overlap

Found = dict[str, Tensor]  # the detections of an image
Reader = Callable[[Any, tuple[int, int]], "list[Found]"]

_NEEDED = ("boxes", "labels", "scores")
_DOUBLE = 0.5  # boxes of one class that overlap by more are the same object


def read(output: Any, size: tuple[int, int]) -> list[Found]:
    """Read the detections that a detector gives as mappings, one for each image.

    Args:
        output: the mappings; their values are tensors or arrays.
        size: height and width of the input in pixels.

    Raises:
        ModelError: the output isn't such a sequence.
    """
    listed = isinstance(output, Sequence) and not isinstance(output, (str, bytes))
    if not listed or not all(isinstance(o, Mapping) and set(_NEEDED) <= set(o) for o in output):
        raise ModelError(
            "expected a detector to return a list with boxes, labels and scores for each image, "
            f"got {type(output).__name__}: wrap it in a function that returns such a list"
        )
    keys = (*_NEEDED, "probabilities")
    return [{key: torch.as_tensor(one[key]) for key in keys if key in one} for one in output]


def read_detr(output: Any, size: tuple[int, int], classes: int) -> list[Found]:
    """Read the output of a DETR-like model of Hugging Face.

    Args:
        output: `logits` (b, queries, k) and `pred_boxes` (b, queries, 4): centre, width and height
            in parts of the input.
        size: height and width of the input in pixels.
        classes: the number of classes. Where the logits have one more, it stands for no object, and
            probabilities are their softmax; else they are their sigmoid.
    """
    logits, boxes = output["logits"].float(), output["pred_boxes"].float()
    exclusive = logits.shape[-1] > classes
    chances = logits.softmax(-1)[..., :classes] if exclusive else logits.sigmoid()
    height, width = size
    corners = _corners(boxes) * boxes.new_tensor([width, height, width, height])
    return [_proposals(*pair) for pair in zip(corners, chances, strict=True)]


def read_yolo(output: Any, size: tuple[int, int]) -> list[Found]:
    """Read the output of an exported YOLO (ultralytics' versions 8 and later).

    Args:
        output: (b, 4 + classes, proposals), centre, width and height in pixels of the input and a
            probability for each class; or, as exports with `nms=True` give it, (b, n, 6): left,
            top, right, bottom, score and class.
        size: height and width of the input in pixels.

    Raises:
        ModelError: the output has neither form.
    """
    rows = torch.as_tensor(output).float()
    if rows.ndim == 3 and rows.shape[2] == 6:
        return [
            {"boxes": one[:, :4], "scores": one[:, 4], "labels": one[:, 5].long()} for one in rows
        ]
    if rows.ndim != 3 or rows.shape[1] < 5:
        raise ModelError(
            "expected a YOLO's output (batch, 4 + classes, proposals) or (batch, n, 6), got shape "
            f"{tuple(rows.shape)}: write a function that returns boxes, labels and scores"
        )
    return [_proposals(_corners(one[:4].T), one[4:].T) for one in rows]


def _corners(boxes: Tensor) -> Tensor:
    """Convert centre, width and height (..., 4) to left, top, right and bottom."""
    centre, half = boxes[..., :2], boxes[..., 2:] / 2
    return torch.cat([centre - half, centre + half], -1)


def _proposals(boxes: Tensor, chances: Tensor) -> Found:
    """Make detections of boxes (n, 4) and class probabilities (n, classes)."""
    scores, labels = chances.max(-1)
    return {"boxes": boxes, "labels": labels, "scores": scores, "probabilities": chances}


def distinct(found: Found, least: float, most: int) -> Found:
    """Keep the strongest detections, each object once: greedy non-maximum suppression.

    Args:
        found: the detections of an image.
        least: the smallest score.
        most: the most objects.

    Returns:
        The detections that stay, strongest first.
    """
    order = found["scores"].argsort(descending=True, stable=True)
    order = order[found["scores"][order] >= least]
    kept: list[int] = []
    while len(order) and len(kept) < most:
        first, order = int(order[0]), order[1:]
        kept.append(first)
        shared = overlap(found["boxes"][order], found["boxes"][first].tolist())
        double = (shared > _DOUBLE) & (found["labels"][order] == found["labels"][first])
        order = order[~double]
    return {key: values[kept].detach() for key, values in found.items()}


@dataclass(frozen=True, eq=False)
class Objects:
    """A function from a detector's output to scores (b, objects); see the module's docstring.

    Attributes:
        found: the detections of the objects.
        size: height and width of the input in pixels.
        read: a function from the detector's output and the input's size to detections.
    """

    found: Found
    size: tuple[int, int]
    read: Reader = read

    def __str__(self) -> str:
        digest = hashlib.sha256(self.found["boxes"].cpu().float().numpy().tobytes())
        return f"Objects({len(self.found['boxes'])}, {digest.hexdigest()[:12]})"

    def __call__(self, output: Any) -> Tensor:
        """Compute how well each object is found in each image, (b, objects) in 0..1."""
        return torch.stack([self._of(one) for one in self.read(output, self.size)])

    def _of(self, now: Found) -> Tensor:
        """Compute the scores (objects,) of an image's detections."""
        boxes, scores = now["boxes"].detach().float(), now["scores"].float()
        if not len(boxes):
            return scores.new_zeros(len(self.found["boxes"]))
        shared = torch.stack([overlap(boxes, one) for one in self.found["boxes"].tolist()], 1)
        if "probabilities" in now and "probabilities" in self.found:
            now_p, then_p = (
                torch.nn.functional.normalize(one["probabilities"].float(), dim=1)
                for one in (now, self.found)
            )
            agreement = now_p @ then_p.to(now_p).T
        else:
            agreement = now["labels"].unsqueeze(1) == self.found["labels"].to(boxes.device)
        return (shared * agreement * scores.unsqueeze(1)).amax(0)
