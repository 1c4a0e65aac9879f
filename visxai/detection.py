"""Why a detector found each object: D-RISE and its relatives, for any detector.

    detector = Detector("torchvision:fasterrcnn_resnet50_fpn")
    for found in detector.explain("street.jpg", method="rise(masks=1000, grid=16)"):
        found.overlay().save(f"{found.label}.jpg")

The objects of an image become the classes of a model of their own (`visxai.models.objects`), so
every method that needs scores alone explains them, all objects from the same forwards; with a
detector of torchvision or Hugging Face the methods at a layer or at the input serve as well.

Source: Petsiuk et al., Black-box explanation of object detectors via saliency maps, CVPR 2021.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from visxai.engine.engine import Engine
from visxai.errors import ArgumentError
from visxai.images.preprocess import Preprocess
from visxai.labels import label_of
from visxai.models import detectors, loading
from visxai.models.blackbox import BlackBox
from visxai.models.devices import pick_device
from visxai.models.interface import Model
from visxai.models.objects import Found, Objects, Reader, distinct, read, read_detr, read_yolo
from visxai.models.pytorch.model import TorchModel

if TYPE_CHECKING:
    from PIL.Image import Image

    from visxai.labels import Labels
    from visxai.methods.base import Method
    from visxai.record.image import ImageExplanation
    from visxai.references import ImageRef

__all__ = ["D_RISE", "DetectedObject", "Detector", "read_yolo"]

D_RISE = "rise(masks=5000, grid=16)"  # the masks of the paper

Box = tuple[float, float, float, float]


@dataclass(frozen=True, eq=False)
class DetectedObject:
    """A detected object and the map that explains it.

    Attributes:
        explanation: The record; its score is how well the object is found, in 0..1.
        box: (left, top, right, bottom) in pixels of the upright original.
        label: The object's class.
        score: The detector's own score.
    """

    explanation: ImageExplanation
    box: Box
    label: str
    score: float

    @property
    def inside(self) -> float:
        """The share of the positive evidence that lies in the box, 0 without such evidence."""
        left, top, right, bottom = (round(side) for side in self.box)
        evidence = np.nan_to_num(self.explanation.heatmap()).clip(min=0)
        total = float(evidence.sum(dtype=np.float64))
        within = float(evidence[top:bottom, left:right].sum(dtype=np.float64))
        return within / total if total > 0 else 0.0

    def describe(self) -> str:
        """Say in plain sentences what was found, where the evidence lies, how much in the box."""
        said = self.explanation.describe()
        if self.explanation.degenerate:
            return said
        return f"{said} {self.inside:.0%} of the evidence for it lies in its box."

    def overlay(self, image: Any = None, **style: Any) -> Image:
        """Draw the map over the original, and the object's box with its class and score.

        Args:
            image: The original, as for `ImageExplanation.overlay`.
            **style: The keyword arguments of `visxai.drawing.overlay`.

        Raises:
            ImageError: The original can't be read, has changed, or isn't the explained image.
        """
        from visxai.drawing import overlays

        return overlays.boxed(
            self.explanation.overlay(image, **style), self.box, f"{self.label} {self.score:.2f}"
        )


class _Kept:
    """An output function that keeps the detections it reads."""

    def __init__(self, reader: Reader, size: tuple[int, int]) -> None:
        self.read, self.size = reader, size
        self.found: list[Found] = []

    def __call__(self, output: Any) -> Tensor:
        self.found = self.read(output, self.size)
        return torch.zeros(len(self.found), 1, device=self.found[0]["scores"].device)


class Detector:
    """A detector whose objects are explained.

    Args:
        model: A detector's name (torchvision:fasterrcnn_resnet50_fpn, hf:FOLDER, or onnx:FILE for a
            YOLO that ultralytics exported), a detector of torchvision or a DETR-like one of Hugging
            Face, or a function from float32 pixels (n, c, h, w) in model space to a list of n
            mappings: boxes (m, 4) as left, top, right and bottom in pixels of the input, labels
            (m,), scores (m,) and, where they are known, probabilities (m, classes). `read_yolo`
            makes such a list.
        preprocess: How an image becomes the input; a detector by name knows its own.
        labels: Names of the classes, or a file of them.
        device: "auto" or a torch device.
        batch_size: The rows of one forward, as for `visxai.Engine`.

    Raises:
        ArgumentError: The model is of another kind, or its preprocessing is unknown.
    """

    def __init__(
        self,
        model: Any,
        *,
        preprocess: Any = None,
        labels: Labels | None = None,
        device: str | torch.device = "auto",
        batch_size: int | None = None,
    ) -> None:
        given = {"preprocess": preprocess, "labels": labels, "activation": "none"}
        if isinstance(model, str) and (found := detectors.load(model)) is not None:
            model, known = found
            given = {**known, **{key: value for key, value in given.items() if value is not None}}
        if isinstance(model, str):
            own = {key: value for key, value in given.items() if value is not None}
            model = loading.load(model, device=pick_device(device), **own)
        elif not isinstance(model, Model):
            model = loading.wrap(model, device, given)
        if not isinstance(model, (TorchModel, BlackBox)):
            raise ArgumentError(
                f"expected a detector as a module or a function, got {type(model).__name__}: pass "
                "a function from pixels to boxes, labels and scores"
            )
        if not isinstance(model.preprocess, Preprocess):
            raise ArgumentError(
                "expected a detector whose preprocessing is known, got one without: pass "
                'preprocess=visxai.Preprocess((640, 640), 640, side="long")'
            )
        self.model: TorchModel | BlackBox = model
        self.labels = model.labels
        self._size: tuple[int, int] = model.preprocess.size
        self._batch_size = batch_size
        self._device = device
        self._read = _reader(model)

    def explain(
        self,
        image: Any,
        method: str | Method = D_RISE,
        *,
        least: float = 0.5,
        most: int = 10,
    ) -> list[DetectedObject]:
        """Explain the objects that are found in an image.

        Args:
            image: A path, bytes, PIL image or array, as for `visxai.Engine.explain`.
            method: The method; the default is D-RISE with the paper's 5000 forwards, which a fifth
                of the masks approximates.
            least: The smallest score of an object.
            most: The most objects.

        Returns:
            The objects, strongest first; empty where nothing is found.

        Raises:
            ImageError: The image can't be read.
            ArgumentError: The detector can't serve the method.
        """
        kept = _Kept(self._read, self._size)
        engine = self._engine(kept)
        prepared = engine.prepare(image)
        engine.model.scores(engine.tensor([prepared.pixels]))  # type: ignore[union-attr]
        found = distinct(kept.found[0], least, most)
        if not (count := len(found["boxes"])):
            return []
        names = [label_of(self.labels, label) for label in found["labels"].tolist()]
        engine = self._engine(Objects(found, self._size, self._read), names)
        records: Any = engine.explain([image], method, f"top{count}")
        by_place = {record.class_index: record for record in records}
        return [
            DetectedObject(
                by_place[place],
                _placed(box, self._size, by_place[place].input),
                names[place],
                score,
            )
            for place, (box, score) in enumerate(
                zip(found["boxes"].tolist(), found["scores"].tolist(), strict=True)
            )
        ]

    def _engine(self, output: Callable[[Any], Tensor], labels: list[str] | None = None) -> Engine:
        """Build an engine around the detector, read by `output`."""
        model = copy.copy(self.model.with_output(output))
        model.labels = None if labels is None else tuple(labels)
        model.activation = "none"
        # Which boxes there are depends on the pixels: tracers would fix their number.
        return Engine(
            model,
            device=self._device,
            precision="fp32",
            accelerate="off",
            batch_size=self._batch_size,
        )


def _reader(model: TorchModel | BlackBox) -> Reader:
    """Return the function that reads a model's output: DETR-like ones have a form of their own."""
    config = getattr(getattr(model, "module", None), "config", None)
    if config is not None and hasattr(config, "num_labels"):
        return partial(read_detr, classes=int(config.num_labels))
    return read


def _placed(box: list[float], size: tuple[int, int], image: ImageRef) -> Box:
    """Move a box from pixels of the input (height, width) to those of the upright original."""
    x0, y0, crop_w, crop_h = image.transform.crop
    wide, tall = image.transform.resized

    def along(at: float, pixels: int, start: int, crop: int, resized: int, original: int) -> float:
        return min(max((at * crop / pixels + start) * original / resized, 0.0), float(original))

    left, right = (along(at, size[1], x0, crop_w, wide, image.width) for at in box[::2])
    top, bottom = (along(at, size[0], y0, crop_h, tall, image.height) for at in box[1::2])
    return left, top, right, bottom
