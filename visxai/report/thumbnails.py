"""The pictures of one image, drawn in a worker process that a hostile file may kill."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from visxai.drawing.overlays import overlay, save
from visxai.errors import ImageError
from visxai.images import decoding
from visxai.images.address import UNASKED, Origin
from visxai.images.decoding import Limits
from visxai.record.image import ImageExplanation

_QUALITY = 80


@dataclass(frozen=True)
class Drawing:
    """An explanation to draw.

    Attributes:
        explanation: The explanation.
        overlay: The file for its overlay.
        map: The file for its map.
        drawn: The run's own overlay, None where the run drew none.
    """

    explanation: ImageExplanation
    overlay: Path
    map: Path
    drawn: Path | None


@dataclass(frozen=True)
class Drawn:
    """The result of drawing an image's pictures.

    Attributes:
        note: The reason why there is no photograph, None where there is a photograph.
        overlays: Whether each overlay exists, in the order of the drawings.
    """

    note: str | None
    overlays: list[bool]


def picture(worker: Any, source: Origin, photo: Path, wanted: list[Drawing], side: int) -> Drawn:
    """Draw an image's missing pictures; runs in a worker process.

    Args:
        worker: The worker's state, which decodes images.
        source: The original.
        photo: The file for the photograph.
        wanted: The explanations to draw, at least one.
        side: The longest side of a picture, in pixels.
    """
    original, note = None, None
    try:
        found = worker.decoded(source)
        if found.sha256 == wanted[0].explanation.input.source_sha256:
            original = _small(found.image, side)
        else:
            note = "The original has changed since it was explained."
    except ImageError:
        left = source.exists()
        note = "The original can't be read any more." if left else "The original is gone."
        if source.fetched == UNASKED:
            note = "The original lies behind a URL, which isn't asked without --remote."
    except MemoryError:
        note = "The original is too large for memory."
    if original is not None:
        _save(original, photo)
    there, colormap = [], worker.setup.style.colormap
    for one in wanted:
        record = one.explanation.input
        if original is not None:
            _save(overlay(one.explanation.placed, original, colormap=colormap), one.overlay)
        elif one.drawn is not None:
            _copy(one.drawn, one.overlay, side, worker.setup.limits)
        there.append(one.overlay.exists())
        size = _fit(record.width, record.height, side // 2)
        grey = Image.new("RGB", size, (128, 128, 128))
        _save(overlay(one.explanation.placed, grey, colormap=colormap, alpha=1.0), one.map)
    return Drawn(note, there)


def _copy(overlay: Path, target: Path, side: int, limits: Limits) -> None:
    """Copy the run's own overlay at a smaller size, as its photograph can't be read any more."""
    try:
        _save(_small(decoding.decode(overlay, limits).image, side), target)
    except ImageError:
        return


def _fit(width: int, height: int, side: int) -> tuple[int, int]:
    factor = min(1.0, side / max(width, height))
    return max(1, round(width * factor)), max(1, round(height * factor))


def _small(image: Image.Image, side: int) -> Image.Image:
    size = _fit(*image.size, side)
    return image if size == image.size else image.resize(size, Image.Resampling.LANCZOS, None, 2.0)


def _save(image: Image.Image, path: Path) -> None:
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        save(image, path, quality=_QUALITY)
