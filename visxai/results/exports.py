"""Exports of a run's results to the formats of other tools.

    visxai.results.export("OUT", "coco")      # writes OUT/export/coco

    csv          explanations.csv, failures.csv: the rows without their maps
    coco         annotations.json: the strongest regions as boxes, run-length masks and scores
    fiftyone     samples.json, data/, fields/saliency/: a `FiftyOneDataset` to import
    tensorboard  an event file: photograph beside overlay and score by step
    wandb        an offline run of the same; `wandb sync` uploads it, visxai doesn't

Each export is written aside and renamed, so that it is never incomplete. It lists its files in
.visxai-export: the next export replaces those files and keeps those that somebody added. Where a
picture is needed, explanations whose original is gone or has changed are left out and counted.
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
from visxai.results.rows import schema_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image

_SIDE = 1024  # pixels of a copied picture's longest side
_LOGGED = 320  # pixels of the longest side of a picture in a log
_PATIENCE = 60.0  # seconds for an original behind a URL


@dataclass
class Export:
    """A written export.

    Attributes:
        path: The export's folder.
        written: The number of exported explanations.
        left_out: The number of explanations left out, as their original is gone or has changed.
    """

    path: Path
    written: int = 0
    left_out: int = 0


@dataclass
class _Job:
    """An export while it is written into `folder`."""

    out: Path
    folder: Path
    about: dict[str, Any]
    progress: Callable[[int, int], None]
    remote: bool = False
    written: int = 0
    left_out: int = 0
    _photos: dict[str, Image | None] = field(default_factory=dict)

    def explanations(self) -> Iterator[ImageExplanation]:
        """Yield all explanations in order, and report the progress."""
        total = reading.count(self.out)
        for done, explanation in enumerate(reading.read_images(self.out), 1):
            yield explanation
            self.progress(done, total)

    def photo(self, explanation: ImageExplanation, side: int) -> Image | None:
        """Open the original, `side` pixels at most; return None where it is gone or has changed."""
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
    """Export the results in OUT for another tool.

    Args:
        out: The folder of a run.
        to: The tool, one of `names()`.
        folder: The folder to write, by default OUT/export/NAME.
        remote: Whether to fetch originals behind URLs, which whoever wrote the rows has chosen.
        progress: Called with the number of rows done and of all rows.

    Returns:
        The export's folder and counts.

    Raises:
        UnknownName: There is no export for this tool.
        MissingExtra: The tool's package isn't installed.
        StoreError: OUT isn't a run's folder, or `folder` can't be written or holds other files.
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
    kind = about["settings"].get("kind", "image")
    if kind != "image" and to != "csv":
        raise StoreError(
            expected=f"results about images to export to {to}",
            got=f"a run over {kind}s",
            remedy="export to csv",
            field="to",
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
    """List the tools that have an export."""
    return tuple(_WRITERS)


def _csv(job: _Job) -> None:
    """Write rows without maps; lists, structs and JSON stay JSON."""
    schema = schema_of(job.about["settings"].get("kind", "image"))
    columns = [name for name in schema.names if name != "map"]
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
    """Write each region as an annotation.

    `score` is the model's score, `share` the region's part of the evidence.
    """
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
    """Cut out the mask of the region in `box`.

    Args:
        parts: (H, W), the number of the connected part that each pixel belongs to, 0 for none.
        box: (left, top, right, bottom) of the region, ends exclusive.

    Returns:
        uint8 (H, W) of 0 and 1 in Fortran order, as COCO expects.
    """
    import numpy as np

    left, top, right, bottom = box
    cut = parts[top:bottom, left:right]
    # Several parts may reach into a box; the region's own part touches all four sides of it.
    sides = (cut[0], cut[-1], cut[:, 0], cut[:, -1])
    own = set.intersection(*({int(part) for part in side} for side in sides)) - {0}
    sizes = np.bincount(cut.ravel(), minlength=2)
    sizes[0] = 0
    number = max(own, key=lambda part: int(sizes[part])) if own else int(sizes.argmax())
    inside = np.zeros(parts.shape, np.uint8, order="F")
    inside[top:bottom, left:right] = (cut == number) & (cut > 0)
    return inside


def _fiftyone(job: _Job) -> None:
    """Write each explanation as a sample, in the layout of the `FiftyOneDataset` importer."""
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
    """Write explanation i as step i: its picture, label and score under the method's name."""
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
    """Indent text as code, so that a Markdown viewer shows it literally."""
    return "    " + " ".join(text.split())


def _wandb(job: _Job) -> None:
    """Write an offline run, explanation i as step i: its picture and its score.

    It has no tables: they would be artifacts, which lie outside the run's folder until they are
    uploaded.
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
            # wandb's own process may still be writing until it ends.
            wandb.teardown()


@contextlib.contextmanager
def _silenced() -> Iterator[None]:
    """Restrict wandb to the disk: it reports no errors to its makers and uploads nothing."""
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
    """Join photograph and overlay side by side, uint8 (h, 2 w, 3)."""
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
