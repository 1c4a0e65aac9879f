"""A folder run's results in the forms that other tools read.

    visxai.results.export("OUT", "coco")      # writes OUT/export/coco, returns where

    csv          explanations.csv, failures.csv: the rows without their maps
    coco         annotations.json: the strongest regions as boxes, run-length masks and scores
    fiftyone     samples.json, data/, fields/saliency/: a `FiftyOneDataset` to import
    tensorboard  an event file: photograph beside overlay, scores and figures by step
    wandb        an offline run of the same; `wandb sync` sends it, visxai doesn't

Each is written aside and renamed, so that an export is there whole or not at all. It lists its
files in .visxai-export: the next one replaces those and keeps what somebody added. Originals that
are gone or have changed since are left out where a picture is needed, and counted.
"""

from __future__ import annotations

import contextlib
import csv
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from visxai import files
from visxai.errors import ImageError, StoreError, UnknownName, require
from visxai.foreign import for_cell
from visxai.images.address import Origin
from visxai.images.decoding import decode, limits_of
from visxai.record.image import ImageExplanation
from visxai.results import reading
from visxai.results.rows import SCHEMA

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image

_SIDE = 1024  # pixels of a copied picture's longest side
_LOGGED = 320  # and of one in a log
_PATIENCE = 60.0  # seconds for an original behind a URL


@dataclass
class Export:
    """A written export: its folder, the explanations it holds, and those it left out because
    their original is gone or has changed."""

    path: Path
    written: int = 0
    left_out: int = 0


@dataclass
class _Job:
    """One export on its way into `folder`."""

    out: Path
    folder: Path
    about: dict[str, Any]
    progress: Callable[[int, int], None]
    remote: bool = False
    written: int = 0
    left_out: int = 0
    _photos: dict[str, Image | None] = field(default_factory=dict)

    def explanations(self) -> Iterator[ImageExplanation]:
        """All of them in order, the progress told."""
        total = reading.count(self.out)
        for done, explanation in enumerate(reading.read_images(self.out), 1):
            yield explanation
            self.progress(done, total)

    def photo(self, explanation: ImageExplanation, side: int) -> Image | None:
        """The original at `side` pixels, None where it is gone or has changed."""
        key = explanation.input.source_sha256
        if key not in self._photos:
            self._photos.clear()  # explanations of one image follow one another
            self._photos[key] = None
            with contextlib.suppress(ImageError, MemoryError):
                limits = limits_of(self.about["settings"])
                source = Origin.of(explanation.input.path or "")
                if not self.remote:
                    source = source.barred()
                elif source.remote:
                    source = source.fetch(limits.max_bytes, _PATIENCE)
                found = decode(source, limits)
                if found.sha256 == key:
                    found.image.thumbnail((side, side))
                    self._photos[key] = found.image
        self.left_out += self._photos[key] is None
        return self._photos[key]


def export(
    out: str | os.PathLike[str],
    to: str,
    *,
    folder: str | os.PathLike[str] | None = None,
    remote: bool = False,
    progress: Callable[[int, int], None] = lambda done, rows: None,
) -> Export:
    """Write the results in OUT for the tool `to`: one of `names()`.

    folder: where, OUT/export/NAME by default. remote: fetch originals behind URLs, which whoever
    wrote the rows has chosen. Raises UnknownName for another tool, MissingExtra
    where its package isn't installed, StoreError for a folder that is no run's, or a place that
    can't be written or holds something else.
    """
    if to not in _WRITERS:
        raise UnknownName("tool to export to", to, _WRITERS)
    source = Path(os.path.abspath(out))
    about = reading.about(source)
    if about is None:
        raise StoreError(
            f"expected a folder that `visxai explain --out` wrote, got {os.fspath(out)}: "
            "check the path"
        )
    target = source / "export" / to if folder is None else Path(os.path.abspath(folder))
    remedy = "make room there or choose another folder"
    with (
        files.one_sentence(f"to write {target}", remedy),
        files.replacing_folder(target, reading.EXPORTED) as aside,
    ):
        job = _Job(source, aside, about, progress, remote)
        _WRITERS[to](job)
    return Export(target, job.written, job.left_out)


def names() -> tuple[str, ...]:
    """The tools there are exports for."""
    return tuple(_WRITERS)


def _csv(job: _Job) -> None:
    """Rows without maps; lists, structs and JSON stay JSON."""
    columns = [name for name in SCHEMA.names if name != "map"]
    with (job.folder / "explanations.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        total = reading.count(job.out)
        for table in reading.tables(job.out, columns):
            for row in table.to_pylist():
                values = map(row.get, columns)
                told = (json.dumps(v) if isinstance(v, (dict, list)) else v for v in values)
                writer.writerow(map(for_cell, told))
                job.written += 1
            job.progress(job.written, total)
    with (job.folder / "failures.csv").open("w", encoding="utf-8", newline="") as file:
        failed = csv.DictWriter(file, ("path", "reason", "kind"))
        failed.writeheader()
        for one in reading.failures(job.out):
            failed.writerow({name: for_cell(told) for name, told in one.to_dict().items()})


def _coco(job: _Job) -> None:
    """A region an annotation: `score` is the model's, `share` the region's part of the evidence."""
    import cv2
    import numpy as np

    mask = require("pycocotools.mask", "export", "exporting COCO masks")
    images: dict[tuple[str | None, str], dict[str, Any]] = {}
    categories: dict[str, int] = {}
    annotations: list[dict[str, Any]] = []
    for one in job.explanations():
        about = one.input
        image = images.setdefault(
            (about.path, about.source_sha256),
            {
                "id": len(images) + 1,
                "file_name": about.path or about.source_sha256,
                "width": about.width,
                "height": about.height,
                "sha256": about.source_sha256,
            },
        )
        category = categories.setdefault(one.label, len(categories) + 1)
        parts = cv2.connectedComponents(one.mask().astype(np.uint8), None, 8)[1]
        for region in one.regions(top=5):
            left, top, right, bottom = region.box
            inside = _region(parts, region.box)
            rle = mask.encode(inside)
            rle["counts"] = rle["counts"].decode("ascii")
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image["id"],
                    "category_id": category,
                    "bbox": [left, top, right - left, bottom - top],
                    "area": int(inside.sum()),
                    "segmentation": rle,
                    "iscrowd": 0,
                    "score": one.score,
                    "share": region.share,
                    "method": one.method,
                }
            )
        job.written += 1
    told = {
        "info": {"description": f"Strongest evidence of {job.about['settings'].get('model')}"},
        "licenses": [],
        "images": list(images.values()),
        "categories": [{"id": number, "name": name} for name, number in categories.items()],
        "annotations": annotations,
    }
    (job.folder / "annotations.json").write_text(json.dumps(told), "utf-8")


def _region(parts: NDArray[Any], box: tuple[int, int, int, int]) -> NDArray[np.uint8]:
    """The pixels of the region in `box`, in the order COCO wants (Fortran).

    parts (H, W) numbers the connected parts of the area that the regions were cut from.
    """
    import numpy as np

    left, top, right, bottom = box
    cut = parts[top:bottom, left:right]
    # Several parts may reach into a box; its own touches all four sides of it.
    sides = (cut[0], cut[-1], cut[:, 0], cut[:, -1])
    own = set.intersection(*({int(part) for part in side} for side in sides)) - {0}
    sizes = np.bincount(cut.ravel(), minlength=2)
    sizes[0] = 0
    number = max(own, key=lambda part: int(sizes[part])) if own else int(sizes.argmax())
    inside = np.zeros(parts.shape, np.uint8, order="F")
    inside[top:bottom, left:right] = (cut == number) & (cut > 0)
    return inside


def _fiftyone(job: _Job) -> None:
    """One sample an explanation, in the layout of its `FiftyOneDataset` importer."""
    import numpy as np
    from PIL import Image

    data, saliency = job.folder / "data", job.folder / "fields" / "saliency"
    data.mkdir()
    saliency.mkdir(parents=True)
    samples = []
    for one in job.explanations():
        photo = job.photo(one, _SIDE)
        if photo is None:
            continue
        name = one.input.source_sha256[:24]
        picture = data / f"{name}.jpg"
        if not picture.exists():
            photo.save(picture, "JPEG", quality=92)
        field_map = saliency / f"{job.written:07d}.png"
        seen = np.nan_to_num(one.heatmap(photo.size), nan=0.0).clip(min=0)
        peak = float(seen.max(initial=0.0))
        Image.fromarray(np.rint(seen * (255 / peak if peak > 0 else 0)).astype(np.uint8)).save(
            field_map
        )
        boxes = [
            {
                "_cls": "Detection",
                "label": one.label,
                "bounding_box": [
                    region.box[0] / one.input.width,
                    region.box[1] / one.input.height,
                    (region.box[2] - region.box[0]) / one.input.width,
                    (region.box[3] - region.box[1]) / one.input.height,
                ],
                "confidence": region.share,
            }
            for region in one.regions()
        ]
        samples.append(
            {
                "filepath": f"data/{picture.name}",
                "tags": ["degenerate"] if one.degenerate else [],
                "prediction": {
                    "_cls": "Classification",
                    "label": one.label,
                    "confidence": one.score,
                },
                "saliency": {
                    "_cls": "Heatmap",
                    "map_path": f"fields/saliency/{field_map.name}",
                    "range": [0, 255],
                },
                "regions": {"_cls": "Detections", "detections": boxes},
                "source": one.input.path,
                "source_sha256": one.input.source_sha256,
                "method": one.method,
            }
        )
        job.written += 1
    (job.folder / "samples.json").write_text(json.dumps({"samples": samples}), "utf-8")


def _tensorboard(job: _Job) -> None:
    """Step i is explanation i: its pictures under the method's name, its figures beside them."""
    require("tensorboard", "export", "exporting to TensorBoard")
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(job.folder)) as writer:
        for step, one in enumerate(job.explanations()):
            photo = job.photo(one, _LOGGED)
            if photo is None:
                continue
            method = one.method.partition("(")[0]
            writer.add_image(f"{method}/overlay", _beside(one, photo), step, dataformats="HWC")
            writer.add_text(f"{method}/label", _plain(f"{one.label} · {one.input.path}"), step)
            writer.add_scalar(f"{method}/score", one.score, step)
            job.written += 1


def _plain(text: str) -> str:
    """Text that a viewer of Markdown shows as it is: indented code."""
    return "    " + " ".join(text.split())


def _wandb(job: _Job) -> None:
    """An offline run, step i being explanation i: its pictures and its score.

    No tables: they would be artifacts, which lie outside the run's folder until they are sent.
    """
    with _silenced():
        wandb = require("wandb", "export", "exporting to Weights & Biases")
        settings = wandb.Settings(
            console="off", x_disable_meta=True, x_disable_stats=True, disable_git=True, silent=True
        )
        run = wandb.init(
            project="visxai",
            mode="offline",
            dir=str(job.folder),
            config={k: v for k, v in job.about["settings"].items() if v is not None},
            settings=settings,
        )
        try:
            for step, one in enumerate(job.explanations()):
                photo = job.photo(one, _LOGGED)
                if photo is None:
                    continue
                method = one.method.partition("(")[0]
                caption = f"{one.label} · {one.score:.3f} · {one.input.path}"
                run.log(
                    {
                        f"{method}/overlay": wandb.Image(_beside(one, photo), caption=caption),
                        f"{method}/score": one.score,
                    },
                    step=step,
                )
                job.written += 1
        finally:
            run.finish()
            # Its own process may still be writing; only its end says that all is on the disk.
            wandb.teardown()


@contextlib.contextmanager
def _silenced() -> Iterator[None]:
    """wandb writes to the disk alone: no errors are reported to its makers, nothing is sent."""
    wanted = {"WANDB_MODE": "offline", "WANDB_ERROR_REPORTING": "false", "WANDB_SILENT": "true"}
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def _beside(one: ImageExplanation, photo: Image) -> NDArray[np.uint8]:
    """Photograph and overlay side by side, (h, 2 w, 3)."""
    import numpy as np

    from visxai.drawing import overlays

    return np.concatenate(
        [np.asarray(photo), np.asarray(overlays.overlay(one.placed, photo))], axis=1
    )


_WRITERS: dict[str, Callable[[_Job], None]] = {
    "csv": _csv,
    "coco": _coco,
    "fiftyone": _fiftyone,
    "tensorboard": _tensorboard,
    "wandb": _wandb,
}
