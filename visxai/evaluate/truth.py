"""Labels and objects of the photographs, read from a file.

CSV, with a header; label may be missing, and the box's columns where only labels are known:

    file,left,top,right,bottom,label
    birds/owl.jpg,120,40,380,410,great grey owl

or COCO's JSON (images, annotations with bbox, categories), whose crowd annotations are left out;
where an annotation has a segmentation (polygons or runs), it replaces the box.
Boxes are in pixels of the upright photograph, as viewers show it, right and bottom exclusive. A
file is named by its path or by any end of it: `owl.jpg`, `birds/owl.jpg`.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visxai.errors import ArgumentError
from visxai.evaluate.outlines import Polygons, Runs
from visxai.images import tables
from visxai.images.tables import LABELS, PATHS, Table
from visxai.references import Transform

Box = tuple[float, float, float, float]  # left, top, right, bottom
Outline = Polygons | Runs

_SIDES = ("left", "top", "right", "bottom")
_LIKE = "write CSV with the columns file,left,top,right,bottom,label, or COCO's JSON"


@dataclass(frozen=True)
class Known:
    """An object of a photograph.

    Attributes:
        label: The label of its class, "" when unknown.
        box: Its box in pixels of the upright photograph, None when unknown.
        outline: Its outline, None when unknown.
    """

    label: str
    box: Box | None
    outline: Outline | None = None


@dataclass(frozen=True)
class Truth:
    """The content of a file of labels, boxes or outlines.

    Attributes:
        objects: The objects of each photograph, by its name in the file.
        sha256: The sha256 of the file.
    """

    objects: Mapping[str, tuple[Known, ...]]
    sha256: str

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Truth:
        """Read a CSV or COCO file; raise ArgumentError for a file that is neither."""
        try:
            data = Path(path).read_bytes()
            text = data.decode("utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it isn't UTF-8"
            raise ArgumentError(
                f"expected a readable file of labels or boxes, got {os.fspath(path)} "
                f"({reason.lower()}): {_LIKE}"
            ) from None
        if text.lstrip()[:1] == "{":
            found = _coco(text, path)
        else:
            found = _table(tables.of_csv(os.fspath(path), text), path)
        return cls({name: tuple(known) for name, known in found.items()}, _sha256(data))

    def of(self, path: str | None) -> tuple[Known, ...]:
        """List the objects of a photograph; the longest name that ends its path counts."""
        parts = _parts(path or "")
        ends = ("/".join(parts[start:]) for start in range(len(parts)))
        return next((self.objects[end] for end in ends if end in self.objects), ())

    def classes(self, path: str | None, class_of: Callable[[str], int]) -> list[int]:
        """List the classes of a photograph's objects, without repetitions, in the file's order.

        Args:
            path: The path of the photograph.
            class_of: A function from labels to indices of classes.
        """
        return list(dict.fromkeys(class_of(one.label) for one in self.of(path) if one.label))

    def regions(
        self, path: str | None, class_index: int | None, class_of: Callable[[str], int]
    ) -> list[Box | Outline]:
        """List the outlines, or else the boxes, of a photograph's objects.

        Args:
            path: The path of the photograph.
            class_index: The class whose objects count; None for all objects.
            class_of: A function from labels to indices of classes.
        """
        return [
            region
            for one in self.of(path)
            if (region := one.outline or one.box)
            and (class_index is None or (one.label and class_of(one.label) == class_index))
        ]

    def check(self, paths: Iterable[str]) -> None:
        """Raise ArgumentError unless the file names at least one of the photographs."""
        if not any(self.of(path) for path in paths):
            named = next(iter(self.objects), "none")
            raise ArgumentError(
                f"expected labels or boxes of the photographs, got a file that names none of them "
                f"(its first is {named!r}): name the files by the end of their path"
            )


def mask(
    regions: Sequence[Box | Outline], transform: Transform, size: tuple[int, int]
) -> NDArray[np.bool_]:
    """Mark the pixels of the model's view whose centres lie in a region of the upright photograph.

    Args:
        regions: Boxes and outlines, in pixels of the upright photograph.
        transform: How the photograph became the model's view, as its record states it.
        size: Width and height of the upright photograph in pixels.

    Returns:
        A mask (h, w).
    """
    left, top, width, height = transform.crop
    fx, fy = transform.resized[0] / size[0], transform.resized[1] / size[1]
    found = np.zeros((height, width), dtype=bool)
    xs, ys = np.arange(width) + 0.5 + left, np.arange(height) + 0.5 + top
    for region in regions:
        if isinstance(region, Outline):
            found |= region.holds(xs / fx, ys / fy)
            continue
        x0, y0, x1, y1 = region
        columns = (xs >= x0 * fx) & (xs < x1 * fx)
        rows = (ys >= y0 * fy) & (ys < y1 * fy)
        found |= rows[:, None] & columns
    return found


def _parts(path: str) -> tuple[str, ...]:
    parts = PurePosixPath(path.replace("\\", "/")).parts
    return tuple(part for part in parts if part not in ("/", "."))


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _table(table: Table, path: Any) -> dict[str, list[Known]]:
    names, labelled = table.find(PATHS), table.find(LABELS)
    found_sides = [table.find((side,)) for side in _SIDES]
    boxes = [side for side in found_sides if side is not None]
    boxed = len(boxes) == len(_SIDES)
    if names is None or not (boxed or labelled):
        raise ArgumentError(
            f"expected the columns file and label or {','.join(_SIDES)} in {os.fspath(path)}, got "
            f"{','.join(table.columns)[:80] or 'none'}: {_LIKE}"
        )
    files = table.column(names)
    labels = [""] * len(files) if labelled is None else table.column(labelled)
    sides = zip(*map(table.column, boxes), strict=True) if boxed else [("",) * 4] * len(files)
    found: dict[str, list[Known]] = {}
    for line, (name, label, four) in enumerate(zip(files, labels, sides, strict=True), 2):
        try:
            box = _box(four) if any(four) else None
        except ValueError:
            raise _wrong(path, f"line {line}") from None
        found.setdefault("/".join(_parts(name)), []).append(Known(label, box))
    return found


def _coco(text: str, path: Any) -> dict[str, list[Known]]:
    where = "its structure"
    try:
        data = json.loads(text)
        names = {one["id"]: str(one["name"]) for one in data.get("categories", ())}
        files = {one["id"]: "/".join(_parts(str(one["file_name"]))) for one in data["images"]}
        found: dict[str, list[Known]] = {}
        for number, one in enumerate(data["annotations"]):
            where = f"annotation {number}"
            if one.get("iscrowd"):
                continue
            left, top, width, height = map(float, one["bbox"])
            # Published files have a few boxes of zero width or height, which contain no pixel.
            flat = 0 in (width, height)
            box = None if flat else _box((left, top, left + width, top + height))
            label = names.get(one.get("category_id"), "")
            where = f"annotation {number}'s segmentation"
            outline = _outline(one.get("segmentation"))
            where = f"annotation {number}"
            found.setdefault(files[one["image_id"]], []).append(Known(label, box, outline))
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
        raise _wrong(path, where) from None
    return found


def _box(sides: Sequence[Any]) -> Box:
    left, top, right, bottom = (float(side) for side in sides)
    if not all(map(math.isfinite, (left, top, right, bottom))) or right <= left or bottom <= top:
        raise ValueError
    return left, top, right, bottom


def _outline(found: Any) -> Outline | None:
    """Read a segmentation of COCO; None without any."""
    if not found:
        return None
    if isinstance(found, Mapping):
        return Runs.of(found["size"], found["counts"])
    return Polygons.of(found)


def _wrong(path: Any, where: str) -> ArgumentError:
    return ArgumentError(
        f"expected boxes with finite sides, right of left and below top, and whole outlines in "
        f"{os.fspath(path)}, got something else at {where}: {_LIKE}"
    )
