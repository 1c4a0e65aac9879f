"""What is done with an item's bytes, always in a confined worker process (`visxai.pipeline`)."""

from __future__ import annotations

import hashlib
import io
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visxai.errors import Failure, ImageError, VisxaiError
from visxai.images import decoding
from visxai.images.address import Origin
from visxai.images.pdq import Hash, pdq
from visxai.images.preprocess import Opaque, Preprocess
from visxai.pipeline.tasks import WorkerState, cut
from visxai.record.image import ImageExplanation
from visxai.references import ImageRef

_VIEW = 1280  # pixels of the longer side of what pages show


@dataclass(frozen=True, eq=False)
class Examined:
    """The result of decoding an item.

    Attributes:
        pixels: The pixels, resized and cropped for the model.
        input: The image's reference, without a path.
        pixel_sha256: SHA-256 of the upright RGB pixels and their size.
        whole: (h, w, 3) uint8, the upright image, None where it wasn't asked for.
        seconds: The seconds that it took.
        hash: The image's PDQ hash, None where it wasn't asked for.
        text: The text that belongs to the image, None for an image alone.
    """

    pixels: Any
    input: ImageRef
    pixel_sha256: str
    whole: NDArray[np.uint8] | None
    seconds: float
    hash: Hash | None = None
    text: str | None = None


def origin(content_sha256: str, data: bytes) -> Origin:
    """Wrap bytes as worker processes take them."""
    return Origin(content_sha256, content_sha256, fetched=data)


def examine(
    worker: WorkerState,
    source: Origin,
    whole: bool = False,
    hashed: bool = False,
    preprocess: Preprocess | Opaque | None = None,
) -> Examined | Failure:
    """Decode an item, hash it, and cut it for the model.

    Args:
        worker: The worker's state.
        source: The item's bytes.
        whole: Whether the upright image is wanted as well.
        hashed: Whether its PDQ hash is.
        preprocess: How it is cut; None is as for the worker's own model.

    Returns:
        The result, or why the bytes can't be read as an image.
    """
    began = time.perf_counter()
    try:
        with worker.timed():
            photo = decoding.decode(source, worker.setup.limits)
            pixels, transform = cut(preprocess or worker.setup.preprocess, photo)
            upright = np.asarray(photo.image)
            hash = pdq(photo.image) if hashed else None
    except (ImageError, MemoryError) as error:
        said = str(error) or "expected an image that fits into memory, got a larger one"
        return Failure(None, said.replace(str(source), "the item"), type(error).__name__)
    digest = hashlib.sha256(f"{photo.image.width}x{photo.image.height}:".encode())
    digest.update(np.ascontiguousarray(upright).data)
    width, height = photo.image.size
    return Examined(
        pixels,
        ImageRef(width, height, transform, photo.sha256, None),
        digest.hexdigest(),
        upright if whole else None,
        time.perf_counter() - began,
        hash,
    )


def draw(
    worker: WorkerState, source: Origin, explanation: ImageExplanation | None, side: int = _VIEW
) -> bytes | Failure:
    """Draw an item as a JPEG without any of its file's metadata, with its map or without.

    Args:
        worker: The worker's state.
        source: The item's bytes.
        explanation: The explanation whose map lies over it, None for the photograph alone.
        side: The most pixels of the longer side.

    Returns:
        The JPEG, or why there is none.
    """
    from visxai.drawing import overlays

    try:
        with worker.timed():
            image = decoding.decode(source, worker.setup.limits).image
            if explanation is not None:
                image = overlays.overlay(explanation.placed, image)
            image.thumbnail((side, side))
            file = io.BytesIO()
            image.convert("RGB").save(file, "JPEG", quality=88)
    except (VisxaiError, MemoryError) as error:
        said = str(error) or "expected an image that fits into memory, got a larger one"
        return Failure(None, said.replace(str(source), "the item"), type(error).__name__)
    return file.getvalue()
