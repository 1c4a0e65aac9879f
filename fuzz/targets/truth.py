"""Files of labels, boxes and outlines, CSV or COCO's JSON: what is read lays down a mask."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

from visxai.evaluate.truth import Truth, mask
from visxai.references import Transform

WORDS = ("images", "annotations", "bbox", "segmentation", "counts", "size", "iscrowd", "file_name")
_PLACE = Transform((20, 16), (-2, 1, 24, 12))


def check(data: bytes) -> None:
    """The file, and a mask of each of its photographs."""
    file, path = tempfile.mkstemp()
    try:
        with os.fdopen(file, "wb") as stream:
            stream.write(data)
        truth = Truth.read(Path(path))
    finally:
        os.unlink(path)
    for name in list(truth.objects)[:8]:
        regions = truth.regions(name, None, len)
        assert mask(regions, _PLACE, (40, 32)).shape == (12, 24)
    truth.check([f"some/{name}" for name in truth.objects])


def seeds() -> dict[str, bytes]:
    """A CSV, and COCO with a box, polygons, and runs as lists and packed."""
    outlines = (
        None,
        [[1, 1, 9, 1, 5, 9], [0, 0, 4, 0, 4, 4, 0, 4]],
        {"size": [4, 5], "counts": [3, 4, 13]},
        {"size": [4, 5], "counts": "34=0"},
    )
    coco = {
        "images": [{"id": 1, "file_name": "a/owl.jpg"}],
        "categories": [{"id": 7, "name": "owl"}],
        "annotations": [
            {"image_id": 1, "category_id": 7, "bbox": [1, 2, 8, 9], "segmentation": one}
            for one in outlines
        ],
    }
    alone = {
        f"coco-{number}.json": json.dumps({**coco, "annotations": [one]}).encode()
        for number, one in enumerate(coco["annotations"])
    }
    rows = b"file,left,top,right,bottom,label\na/owl.jpg,1,2,9,11,owl\nb.jpg,,,,,cat\n"
    return {**alone, "coco.json": json.dumps(coco).encode(), "rows.csv": rows}
