"""Overlays: maps drawn over their photographs.

Only the visible result is computed at full size: maps are coloured on a grid of at most 1024 pixels
a side, enlarged as bytes and blended strip by strip, so a 12-megapixel photograph takes a few
tenths of a second. The area outside the model's view is marked, not drawn as zero evidence.

Maps of a method that has no evidence against the target run from 0 to their largest value. Maps of
any other method are symmetric around 0, even a map without evidence against the target, so that all
maps of a method are read alike. Maps of single pixels (64 cells a side or more, such as integrated
gradients) are noise with outliers when drawn raw, so they are smoothed by about 1/150 of their side
and scaled by the 99th percentile of their magnitude. The record keeps the map unchanged.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from PIL import Image

from visxai import files
from visxai.drawing import lettering
from visxai.drawing.colours import Pixels, coloured, scale_of
from visxai.errors import ArgumentError, UnknownName
from visxai.images import heatmap
from visxai.images.heatmap import Array, PlacedMap

_FORMATS = {".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP", ".png": "PNG"}
_GRID = 1024  # pixels a side that a map is coloured at
_FINE = 64  # cells a side from which a map counts as a map of single pixels
_STRIP = 512  # rows blended at a time
_LEVELS = (0.5, 0.8)  # shares of the evidence that contour lines enclose

_INK = (24, 24, 27)


def overlay(
    placed: PlacedMap,
    image: Image.Image,
    *,
    colormap: str | None = None,
    alpha: float | Literal["evidence"] = "evidence",
    strength: float = 0.75,
    contours: bool = False,
    boxes: int = 0,
    unseen: Literal["dim", "keep"] = "dim",
) -> Image.Image:
    """Draw the map over an image; a flat map draws nothing but the area outside the view.

    Args:
        placed: The map.
        image: The upright photograph, at the explained size or any smaller or larger copy of it.
        colormap: "viridis", "plasma", "cividis", "inferno", "magma", "turbo", "jet" or "diverging"
            (blue against, red for); None takes viridis, or diverging for a method with evidence
            against the target. All but turbo and jet can be read with any colour vision.
        alpha: "evidence" is transparent without evidence and `strength` opaque at the strongest
            evidence; a number from 0 to 1 is the opacity everywhere.
        strength: The largest opacity of alpha="evidence", 0 to 1.
        contours: Whether to draw lines around the smallest areas that hold 50 % and 80 % of the
            positive evidence.
        boxes: The number of strongest regions to box, each labelled with its share of that
            evidence.
        unseen: "dim" greys out and frames the area outside the model's view, "keep" leaves it.

    Returns:
        RGB, at the size of `image`.

    Raises:
        ArgumentError: The opacity is out of range, or `image` has another shape than the original.
        UnknownName: The colour map or `unseen` isn't among the choices.
    """
    opacity = strength if alpha == "evidence" else alpha
    if not isinstance(opacity, (int, float)) or not 0 <= opacity <= 1:
        name = "strength" if alpha == "evidence" else 'alpha="evidence" or'
        raise ArgumentError(f"expected {name} a number from 0 to 1, got {opacity!r}: try 0.5")
    if unseen not in ("dim", "keep"):
        raise UnknownName("drawing of the unseen part", unseen, ("dim", "keep"))
    pixels = _pixels(placed, image)
    box = placed.seen(image.size)
    field = _field(placed, box, image.width, image.height)
    if field is not None:
        tints = coloured(field, scale_of(placed, colormap))
        left, top, right, bottom = box
        _blend(
            pixels[top:bottom, left:right],
            tints,
            opacity,
            np.abs(field) if alpha == "evidence" else None,
        )
    if unseen == "dim":
        _dim(pixels, box)
    if contours and field is not None:
        _contours(pixels, field, box, _fine(placed))
    if boxes > 0 and field is not None:
        _boxes(pixels, placed, boxes)
    return Image.fromarray(pixels)


def boxed(image: Image.Image, box: tuple[float, float, float, float], label: str) -> Image.Image:
    """Draw a labelled box over a picture, such as a detected object's.

    Args:
        image: The picture.
        box: (left, top, right, bottom) in its pixels, ends exclusive.
        label: What stands at the box; it is left out where it would hide a small picture.

    Returns:
        RGB, at the size of `image`.
    """
    pixels = np.array(image.convert("RGB"))
    left, top, right, bottom = (round(side) for side in box)
    _box(pixels, (left, top, right, bottom), label)
    return Image.fromarray(pixels)


def save(image: Image.Image, path: str | os.PathLike[str], quality: int = 90) -> None:
    """Write an image as JPEG, WebP or PNG atomically, by the ending of the path.

    The file isn't synced to the disk (see `visxai.files.sync`), as a run does that for many
    pictures together.

    Args:
        image: The image.
        path: The file to write; its folder must exist.
        quality: 1 to 100, for JPEG and WebP.

    Raises:
        UnknownName: The ending is of another format.
    """
    target = Path(path)
    if target.suffix.lower() not in _FORMATS:
        raise UnknownName("ending of a picture's name", target.suffix, _FORMATS)
    with files.replacing(target, durable=False) as partial, partial.open("wb") as file:
        image.save(file, _FORMATS[target.suffix.lower()], quality=quality)


def _pixels(placed: PlacedMap, image: Image.Image) -> Pixels:
    """Copy an image to writable RGB; raise ArgumentError unless it has the original's shape."""
    width, height = placed.width, placed.height
    # Rounding both sides of a copy to whole pixels moves the products by at most their sum.
    if abs(image.width * height - image.height * width) > width + height:
        raise ArgumentError(
            f"expected the upright image of {width}x{height} pixels or a scaled copy, got "
            f"{image.width}x{image.height}: pass the photograph that was explained"
        )
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))


def _fine(placed: PlacedMap) -> bool:
    return bool(min(placed.values.shape) >= _FINE)


def _field(
    placed: PlacedMap, box: tuple[int, int, int, int], width: int, height: int
) -> Array | None:
    """Scale the map inside `box` for display.

    Returns:
        float32 in -1 to 1 on a grid of at most 1024 pixels a side; None where nothing can be drawn,
        as the map is degenerate or flat, or none of it was seen.
    """
    left, top, right, bottom = box
    values = np.nan_to_num(placed.values, nan=0.0, posinf=0.0, neginf=0.0)
    if placed.degenerate or right <= left or bottom <= top:
        return None
    fine = _fine(placed)
    if fine:
        values = cv2.GaussianBlur(values, (0, 0), max(values.shape) / 150)
    transform = placed.transform

    def cells(
        start: int, end: int, size: int, resized: int, crop: tuple[int, int], n: int
    ) -> Array:
        count = min(end - start, _GRID)
        pixel = start + (np.arange(count) + 0.5) * ((end - start) / count)
        cell = (pixel * (resized / size) - crop[0]) * (n / crop[1]) - 0.5
        return cell.astype(np.float32)

    x0, y0, crop_w, crop_h = transform.crop
    field = heatmap.resample(
        values,
        cells(top, bottom, height, transform.resized[1], (y0, crop_h), values.shape[0]),
        cells(left, right, width, transform.resized[0], (x0, crop_w), values.shape[1]),
    )
    magnitude = np.abs(field)
    peak = float(magnitude.max())
    if not peak > 0 or float(np.ptp(field)) <= 1e-6 * peak:
        return None
    # In a map that is zero nearly everywhere the percentile is zero.
    scale = (float(np.percentile(magnitude, 99)) if fine else peak) or peak
    scaled: Array = np.clip(field / scale, -1, 1)
    return scaled


def _blend(region: Pixels, tints: Pixels, opacity: float, weight: Array | None) -> None:
    """Mix `tints` into `region` (h, w, 3) in place, by `opacity` times `weight` (0 to 1)."""
    height, width = region.shape[:2]
    tints = cv2.resize(tints, (width, height), interpolation=cv2.INTER_LINEAR)
    if weight is None:
        region[:] = cv2.addWeighted(tints, opacity, region, 1 - opacity, 0)
        return
    small = np.rint(weight * (255 * opacity)).astype(np.uint8)
    full = cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)
    for row in range(0, height, _STRIP):
        part = slice(row, row + _STRIP)
        share = full[part].astype(np.float32) / np.float32(255)
        region[part] = cv2.blendLinear(tints[part], region[part], share, 1 - share)


def _dim(pixels: Pixels, box: tuple[int, int, int, int]) -> None:
    """Grey out the area outside `box`, and draw the outer side of its edge."""
    height, width = pixels.shape[:2]
    left, top, right, bottom = box
    line = max(1, round(max(height, width) / 600))
    edged = pixels[top:bottom, left:right]
    bands = (
        (slice(0, top), slice(0, width), (slice(-line, None), slice(left, right))),
        (slice(bottom, height), slice(0, width), (slice(0, line), slice(left, right))),
        (slice(top, bottom), slice(0, left), (slice(None), slice(-line, None))),
        (slice(top, bottom), slice(right, width), (slice(None), slice(0, line))),
    )
    for rows, columns, edge in bands:
        band = pixels[rows, columns]
        if band.size:
            grey = cv2.cvtColor(np.ascontiguousarray(band), cv2.COLOR_RGB2GRAY)
            band[:] = (grey * np.float32(0.5) + 18).astype(np.uint8)[..., None]
            if edged.size:
                band[edge] = 190


def _contours(pixels: Pixels, field: Array, box: tuple[int, int, int, int], fine: bool) -> None:
    """Draw lines around the smallest areas of `field` that hold 50 % and 80 % of its evidence."""
    left, top, right, bottom = box
    rows, columns = field.shape
    # Lines around every grain of a noisy map would hide the picture.
    smooth = cv2.GaussianBlur(field, (0, 0), max(rows, columns) / (40 if fine else 200) + 0.5)
    scale = np.array([(right - left) / columns, (bottom - top) / rows], np.float32)
    width = max(1, round(max(pixels.shape[:2]) / 320))
    for share in _LEVELS:
        area = heatmap.smallest_area(smooth, share).astype(np.uint8)
        outlines, _ = cv2.findContours(area, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
        lines = [
            # OpenCV draws to 1/16 of a pixel: the last argument of polylines.
            np.rint(((line + 0.5) * scale + (left, top) - 0.5) * 16).astype(np.int32)
            for line in outlines
            if cv2.contourArea(line) > area.size / 1000
        ]
        thin = max(1, width // 2) if share == max(_LEVELS) else width
        for colour, thickness in (((20, 20, 20), thin + 2 * max(1, thin // 2)), ((255,) * 3, thin)):
            cv2.polylines(pixels, lines, True, colour, thickness, cv2.LINE_AA, 4)


def _boxes(pixels: Pixels, placed: PlacedMap, count: int) -> None:
    """Draw boxes around the `count` strongest regions, each labelled with its share of evidence."""
    height, width = pixels.shape[:2]
    fx, fy = width / placed.width, height / placed.height
    for region in reversed(placed.regions(top=count)):  # the strongest lies on top
        box = heatmap.scaled(region, fx, fy, width, height).box
        _box(pixels, box, f"{region.share:.0%}".replace("%", " %"))


def _box(pixels: Pixels, box: tuple[int, int, int, int], label: str) -> None:
    """Draw a labelled box (left, top, right, bottom) in pixels of the picture, ends exclusive."""
    height, width = pixels.shape[:2]
    line = max(1, round(max(width, height) / 320))
    size = max(11, round(max(width, height) / 38))
    pad = size // 3
    left, top, right, bottom = box
    corners = (left, top), (max(left, right - 1), max(top, bottom - 1))
    cv2.rectangle(pixels, *corners, (20, 20, 20), 3 * line)
    cv2.rectangle(pixels, *corners, (255, 255, 255), line)
    text = lettering.ink(label, size, bold=True)
    tall, wide = text.shape[0], text.shape[1] + 2 * pad
    if wide > width or 2 * tall > height:
        return  # a label would hide a picture this small
    x = min(max(0, left - line // 2), width - wide)
    y = top - tall if top >= tall else min(top, height - tall)
    pixels[y : y + tall, x : x + wide] = 255
    lettering.stamp(pixels, text, x + pad, y, _INK)
