"""Explanations and the `supervision` library: regions as detections, and maps inside of boxes.

    from visxai.adapters import detections

    found = detections.regions(engine.explain(photo))        # an sv.Detections of the regions
    scene = sv.BoxAnnotator().annotate(scene, found)

    made = detections.explain(engine, scene, boxes)          # why is each box what it is?
    scene = detections.MapAnnotator().annotate(scene, boxes, made)

It needs `pip install 'visxai[supervision]'`. Scenes are arrays (h, w, 3) uint8 in BGR, as
supervision and OpenCV take them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from visxai.drawing.overlays import overlay
from visxai.errors import ArgumentError, Failure, require
from visxai.record.image import ImageExplanation

require("supervision", "supervision", "detections of supervision")

import supervision as sv  # noqa: E402

if TYPE_CHECKING:
    from visxai.engine.engine import Engine, Methods

Scene = NDArray[np.uint8]


def regions(
    explanations: Iterable[ImageExplanation], top: int = 3, share: float = 0.5
) -> sv.Detections:
    """Turn the strongest regions of explanations of one image into detections.

    Args:
        explanations: The explanations, all of one image.
        top: The most regions of each.
        share: The part of the positive evidence that the regions of an explanation hold together,
            0 to 1.

    Returns:
        A detection for each region: `xyxy` and `mask` in the original's pixels, `confidence` the
        class's score, `class_id`, and in `data` `class_name`, `share` (of the evidence) and
        `method`.

    Raises:
        ArgumentError: The explanations are of images of several sizes.
    """
    boxes, masks, scores, indices = [], [], [], []
    data: dict[str, list[Any]] = {"class_name": [], "share": [], "method": []}
    sizes = set()
    for one in explanations:
        sizes.add((one.input.height, one.input.width))
        for region in one.regions(top, share):
            boxes.append(region.box)
            masks.append(_filled(region.polygon, (one.input.height, one.input.width)))
            scores.append(one.score)
            indices.append(-1 if one.class_index is None else one.class_index)
            for name, value in zip(data, (one.label, region.share, one.method), strict=True):
                data[name].append(value)
    if len(sizes) > 1:
        raise ArgumentError(
            f"expected explanations of one image, got {len(sizes)} sizes: call it for each image"
        )
    if not boxes:
        return sv.Detections.empty()
    return sv.Detections(
        xyxy=np.array(boxes, np.float32),
        mask=np.stack(masks),
        confidence=np.array(scores, np.float32),
        class_id=np.array(indices),
        data={name: np.array(values) for name, values in data.items()},
    )


def explain(
    engine: Engine,
    scene: Scene,
    detections: sv.Detections,
    method: Methods = "grad_cam",
    target: Any = "top1",
) -> list[ImageExplanation | None]:
    """Explain what a classifier says about the content of each box.

    Args:
        engine: The engine of a classifier.
        scene: The image that the boxes lie in.
        detections: The boxes.
        method: One method.
        target: A target of one map an image, for all boxes.

    Returns:
        For each box the explanation of its pixels, which are an image of their own: whole pixels
        that the box touches, inside the scene. None for a box outside the scene.

    Raises:
        ArgumentError: The method or target gives several maps, or doesn't fit the model.
        TargetError: The target can't be read.
    """
    places = [_inside(box, scene) for box in detections.xyxy]
    crops = [
        np.ascontiguousarray(scene[top:bottom, left:right, ::-1])
        for left, top, right, bottom in (place for place in places if place is not None)
    ]
    made = engine.explain(crops, method, target) if crops else []
    if len(made) != len(crops):
        raise ArgumentError(
            f"expected a method and target of one map a box, got {len(made)} maps of {len(crops)} "
            "boxes: write top1 or class=tabby"
        )
    found = iter(made)
    return [None if place is None else _explained(next(found)) for place in places]


@dataclass(frozen=True)
class MapAnnotator:
    """Draws maps inside of boxes, in the manner of supervision's annotators.

    Attributes:
        colormap: The colour map, as for `visxai.drawing.overlays.overlay`.
        strength: The largest opacity, 0 to 1.
    """

    colormap: str | None = None
    strength: float = 0.75

    def annotate(
        self,
        scene: Scene,
        detections: sv.Detections,
        explanations: Sequence[ImageExplanation | None],
    ) -> Scene:
        """Draw over a copy of a scene.

        Args:
            scene: The image.
            detections: The boxes.
            explanations: What `explain` gave for them.

        Returns:
            The copy, (h, w, 3) uint8 BGR.

        Raises:
            ArgumentError: There aren't as many explanations as boxes, or they are of others.
        """
        if len(explanations) != len(detections):
            raise ArgumentError(
                f"expected an explanation for each of {len(detections)} boxes, got "
                f"{len(explanations)}: pass what explain() gave for them"
            )
        drawn = scene.copy()
        for box, one in zip(detections.xyxy, explanations, strict=True):
            place = _inside(box, scene)
            if one is None or place is None:
                continue
            left, top, right, bottom = place
            photo = Image.fromarray(np.ascontiguousarray(scene[top:bottom, left:right, ::-1]))
            mapped = overlay(
                one.placed,
                photo,
                colormap=self.colormap,
                strength=self.strength,
                unseen="keep",
            )
            drawn[top:bottom, left:right] = np.asarray(mapped)[:, :, ::-1]
        return drawn


def _inside(box: Any, scene: Scene) -> tuple[int, int, int, int] | None:
    """Return the whole pixels of a scene that a box touches, ends exclusive; None without any."""
    height, width = scene.shape[:2]
    if not np.isfinite(box).all():
        return None
    left, top = max(0, int(np.floor(box[0]))), max(0, int(np.floor(box[1])))
    right, bottom = min(width, int(np.ceil(box[2]))), min(height, int(np.ceil(box[3])))
    return (left, top, right, bottom) if left < right and top < bottom else None


def _explained(one: ImageExplanation | Failure) -> ImageExplanation:
    assert not isinstance(one, Failure)  # crops are pixels already, which can always be read
    return one


def _filled(polygon: Sequence[tuple[int, int]], size: tuple[int, int]) -> NDArray[np.bool_]:
    import cv2

    mask = np.zeros(size, np.uint8)
    points = np.array(polygon, np.int32).reshape(-1, 1, 2)
    return cast(NDArray[np.bool_], cv2.fillPoly(mask, [points], 1).astype(bool))
