"""A packed model held against the engine, on photographs and at several batch sizes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from visxai.engine import Engine
from visxai.errors import ArgumentError, ModelError, require
from visxai.images.prepared import Prepared
from visxai.methods.base import Method
from visxai.models.probe import Probe
from visxai.target import Target

BATCHES = (1, 3, 8)
_SAMPLES = ("astronaut.png", "camera.png", "chelsea.png", "coffee.png", "rocket.jpg")


@dataclass(frozen=True)
class Agreement:
    """How closely a packed model agreed with the engine.

    Attributes:
        scores: The largest difference of a row of scores, as a share of its largest magnitude.
        maps: The same of maps.
        photographs: How many photographs were compared.
    """

    scores: float
    maps: float
    photographs: int

    @property
    def worst(self) -> float:
        """The larger of both differences."""
        return max(self.scores, self.maps)


def photographs(engine: Engine, images: Sequence[Any] | None) -> list[NDArray[np.uint8]]:
    """Return photographs cut for a model, uint8 (h, w, c) each, two or more.

    Args:
        engine: The model.
        images: Photographs, None for those that scikit-image brings along.

    Raises:
        ArgumentError: There are no photographs.
        MissingExtra: scikit-image isn't installed.
    """
    if images is None:
        home = require("skimage", "segments", "checking a packed model without images of yours")
        folder = Path(str(home.__file__)).parent / "data"
        images = [str(folder / name) for name in _SAMPLES if (folder / name).is_file()]
    ready = map(engine.prepare, images)
    cut = [one.pixels for one in ready if isinstance(one, Prepared)]
    if not cut:
        raise ArgumentError(
            expected="photographs to check the packed model on",
            got="none",
            remedy="give a few of your own",
            field="images",
        )
    return cut if len(cut) > 1 else [cut[0], np.ascontiguousarray(cut[0][:, ::-1])]


def agreement(
    engine: Engine,
    cam: Method,
    target: int | None,
    given: bool,
    content: bytes,
    pixels: Sequence[NDArray[np.uint8]],
) -> Agreement:
    """Compare a packed model with the engine.

    Args:
        engine: The model, in float32 and not accelerated.
        cam: The method.
        target: The class that was explained, None for the strongest.
        given: Whether the packed model takes classes; then every image's weakest is compared too.
        content: The packed model.
        pixels: The photographs, repeated where they are fewer than a batch.

    Raises:
        ModelError: ONNX Runtime can't run it.
    """
    session = opened(content)
    wanted = Target.of("top1" if target is None else target)
    worst = [0.0, 0.0]
    for batch in BATCHES:
        x = engine.tensor([pixels[(batch + i) % len(pixels)] for i in range(batch)])
        scores = Probe(engine.model, x).scores(x)
        weakest = scores.argmin(1).tolist()
        cases: list[tuple[Target, list[int]]] = [(wanted, [-1] * batch)]
        cases += [(Target.of(weakest), weakest)] if given else []
        for case, classes in cases:
            maps = cam(engine.model, x, case).values
            found = run(session, x, classes if given else None)
            for i, (one, other) in enumerate(zip(found, (scores, maps), strict=True)):
                worst[i] = max(worst[i], _difference(one, other))
    return Agreement(worst[0], worst[1], len(pixels))


def opened(content: bytes) -> Any:
    """Open a packed model in ONNX Runtime on the CPU."""
    ort: Any = require("onnxruntime", "onnx", "packing a model")
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = torch.get_num_threads()
    try:
        return ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise ModelError(
            f"expected a packed model that ONNX Runtime opens, but it doesn't ({error}): choose "
            "another method or layer"
        ) from error


def run(session: Any, x: Tensor, classes: Sequence[int] | None) -> list[Tensor]:
    """Return the scores and maps that a packed model gives for x (b, c, h, w)."""
    fed = {"images": x.cpu().numpy()}
    if classes is not None:
        fed["class"] = np.asarray(classes, np.int64)
    return [torch.from_numpy(one) for one in session.run(["scores", "maps"], fed)]


def _difference(one: Tensor, other: Tensor) -> float:
    """Return the largest difference of two rows, as a share of the second's largest magnitude."""
    if one.shape != other.shape:
        return float("inf")
    other = other.cpu().float()
    largest = other.flatten(1).abs().amax(1).clamp_min(1e-12)
    away = (one - other).flatten(1).abs().amax(1)
    return float((away / largest).max().nan_to_num(float("inf")))
