"""The gallery of a run: a page that opens from disk, with its pictures beside it.

    OUT/report/index.html      the page: data, styles and code are inside it, it needs no server
    OUT/report/pictures/...    photograph, overlay and map of each explanation, at 512 pixels

    visxai.report.build("OUT")
    visxai.report.build("OUT", single_file=True)    # OUT/report.html, the first 500 embedded
    visxai.report.build("OUT", beside=["OTHER"])    # with another run's maps of the same images

Pictures are named after their content, so a second call draws only new pictures. The page and each
picture are written aside and renamed. Originals are decoded in worker processes; where an original
is gone or has changed, its cards note it and show the other pictures. The page of an unfinished run
shows the finished part and notes that it isn't finished.
"""

from __future__ import annotations

import base64
import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from visxai import files
from visxai.errors import StoreError
from visxai.foreign import shown
from visxai.report import pairs, tables, texts
from visxai.report.figures import Figures
from visxai.report.pictures import SIDE, Album
from visxai.results import reading
from visxai.web import page

EMBEDDED = 500  # explanations whose pictures a single file embeds
_SMALLER = 320  # pixels of a picture inside a single file


@dataclass(frozen=True)
class Report:
    """A written gallery.

    Attributes:
        path: The page.
        shown: The number of explanations on the page.
        rows: The number of all explanations.
        missing: The number of images whose original is gone or has changed.
    """

    path: Path
    shown: int
    rows: int
    missing: int


def build(
    out: str | os.PathLike[str],
    *,
    single_file: bool = False,
    workers: int | None = None,
    remote: bool = False,
    beside: Sequence[str | os.PathLike[str]] = (),
    progress: Callable[[int, int], None] = lambda done, rows: None,
) -> Report:
    """Write the gallery of the run in OUT, finished or not.

    Args:
        out: The folder of a run.
        single_file: Whether to write a single page OUT/report.html that embeds the pictures of the
            first 500 explanations and shows only those; its plots and mean maps are of all
            explanations.
        workers: The number of processes that draw pictures; None takes one for each core, 0 none.
        remote: Whether to fetch originals behind URLs, which whoever wrote the rows has chosen.
        beside: The folders of other runs, of other models or methods: their explanations of OUT's
            images are shown beside OUT's own. Images are matched by their content.
        progress: Called with the number of OUT's rows done and of all its rows.

    Returns:
        The page's path and counts.

    Raises:
        StoreError: OUT or another folder isn't a run's over images, OUT can't be written, or a
            symbolic link would lead the gallery elsewhere.
    """
    folder = Path(os.path.abspath(out))
    about = _about(out)
    others = [Path(os.path.abspath(one)) for one in beside]
    kinds = [
        about["settings"].get("kind"),
        *(_about(one)["settings"].get("kind") for one in others),
    ]
    if others and "text" in kinds:
        raise StoreError("expected runs over images beside each other, got one over texts")
    if kinds[0] == "text":
        return Report(*texts.build(folder, about, progress), 0)
    if kinds[0] == "pair":
        return Report(*pairs.build(folder, about, progress), 0)
    if about["settings"].get("kind") == "table":
        return Report(*tables.build(folder, about, progress, single_file), 0)
    target = folder / "report.html" if single_file else folder / "report" / "index.html"
    remedy = "make room there and run it again"
    with files.one_sentence(f"to write {target}", remedy):
        _check_links(folder / "report")
        target.parent.mkdir(exist_ok=True)
        with _pictures(folder, single_file) as pictures:
            side, limit = (_SMALLER, EMBEDDED) if single_file else (SIDE, None)
            album = Album(folder, pictures, about["settings"], side, limit, remote, others)
            figures = Figures((about["settings"].get("overlays") or {}).get("colormap"))
            data = album.collect(figures, workers, progress)
            data["run"] = _run(folder, about, single_file) | {
                "beside": [one.name for one in others]
            }
            data["classes"] = figures.classes()
            data["failures"] = [one.to_dict() for one in reading.failures(folder)]
            data["pictures"] = _embedded(pictures) if single_file else {}
            files.write(target, page.filled(folder.name, data))
    return Report(target, len(data["rows"]["image"]), data["total"], album.missing)


def _about(out: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a run's run.json; raise StoreError where there is none."""
    about = reading.about(Path(os.path.abspath(out)))
    if about is None:
        raise StoreError(
            f"expected a folder that `visxai explain --out` wrote, got {os.fspath(out)}: "
            "check the path"
        )
    return about


def _check_links(report: Path) -> None:
    """Raise StoreError where a folder of the gallery is a link, as OUT may be a stranger's."""
    pictures = report / "pictures"
    for place in (report, pictures, *pictures.glob("*")):
        if place.is_symlink():
            raise StoreError(
                f"expected a folder of visxai's own, got the symbolic link {shown(place)}: delete "
                "it and run it again"
            )


def _run(folder: Path, about: dict[str, Any], single_file: bool) -> dict[str, Any]:
    """Collect what the page shows about the run."""
    settings = about["settings"]
    known = ("command", "state", "started", "updated", "counts", "seconds")
    return {
        "name": folder.name,
        "single": single_file,
        **{name: about.get(name) for name in known},
        **{name: settings.get(name) for name in ("model", "weights", "methods", "target")},
        "device": f"{settings.get('device')}, {settings.get('precision')}",
    }


@contextlib.contextmanager
def _pictures(folder: Path, single_file: bool) -> Iterator[Path]:
    if not single_file:
        yield folder / "report" / "pictures"
        return
    with tempfile.TemporaryDirectory(prefix="visxai-report-") as temporary:
        yield Path(temporary)


def _embedded(pictures: Path) -> dict[str, str]:
    return {
        path.stem: "data:image/webp;base64," + base64.b64encode(path.read_bytes()).decode("ascii")
        for path in pictures.rglob("*.webp")
    }
