"""A run over a video.

    OUT/frames.parquet   a row for each explained frame and method: its record, `frame`, `time`
    OUT/overlay.mp4      the explained frames with their maps, several methods side by side

A run that was stopped or killed goes on where it was: frames that it had explained are decoded and
drawn again, since a video is written in one go, but not explained again (see `visxai.video.kept`).

Smoothing is for the eye alone. The drawn map is an average over time,

    m_t = m_(t-1) + (1 - exp(-dt / s)) (map_t - m_(t-1)),

of the same class's maps with the time constant s; it starts anew where the explained class changes.
Rows hold each frame's own map.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

from visxai import files
from visxai.drawing.overlays import overlay
from visxai.errors import ArgumentError, Failure, ImageError, StoreError
from visxai.images.decoding import Limits
from visxai.record.image import ImageExplanation
from visxai.results.rows import Row, image_of, row_of
from visxai.target import Target
from visxai.video.frames import About, Frame, Frames
from visxai.video.kept import KeptFrames
from visxai.video.reading import OVERLAY, SCHEMA, TABLE

if TYPE_CHECKING:
    from visxai.engine.engine import Engine, Methods
    from visxai.methods.base import Method

SECONDS = 60.0  # that decoding a batch of frames may take
_BATCH = 8  # frames that are held at a time
_WIDEST = 4  # methods side by side
_CODEC = "mp4v"  # OpenCV's own packages bring it


@dataclass(frozen=True)
class VideoRun:
    """A finished run.

    Attributes:
        out: The folder.
        frames: The number of explained frames.
        maps: The number of rows.
        about: What the video says of itself.
        problem: Why the run ended before the video did, None where it didn't.
        stopped: Whether it was asked to stop.
    """

    out: Path
    frames: int
    maps: int
    about: About
    problem: str | None = None
    stopped: bool = False


def explain(
    video: str | os.PathLike[str],
    out: str | os.PathLike[str],
    engine: Engine,
    method: Methods = "grad_cam",
    target: str = "top1",
    *,
    every: int = 1,
    smooth: float = 0.0,
    colormap: str | None = None,
    limits: Limits = Limits(),  # noqa: B008 - frozen
    timeout: float = SECONDS,
    fresh: bool = False,
    progress: Callable[[int, int], None] = lambda done, frames: None,
    stop: Callable[[], bool] = lambda: False,
) -> VideoRun:
    """Explain every n-th frame of a video into OUT, going on with an earlier run that was ended.

    Args:
        video: A file: MP4, MOV, Matroska, WebM or AVI.
        out: The folder for the results.
        engine: The engine that explains.
        method: One method, or up to four, which the overlay shows side by side.
        target: A target of one map a frame, such as "top1" or "class=207".
        every: Explain frames 0, n, 2n, ...; the overlay holds these, at the video's own speed.
        smooth: The time constant in seconds of the drawn maps' average, 0 for none.
        colormap: The colour map, as for `visxai.drawing.overlays.overlay`.
        limits: The limits on a frame's pixels.
        timeout: How long decoding a batch of frames may take, in seconds.
        fresh: Whether to replace the results of an earlier run in OUT.
        progress: Called with the number of explained frames and of frames to explain, 0 where the
            video doesn't say.
        stop: Called before each batch; True ends the run, and OUT keeps what is finished.

    Returns:
        What was done. A video that can't be decoded to its end keeps its first frames, and
        `problem` says why.

    Raises:
        ArgumentError: An argument is wrong.
        ImageError: The file is no video that can be decoded, or holds no frame.
        StoreError: OUT can't be written, or holds a finished run, or one with other settings.
    """
    from visxai.engine.engine import load_methods
    from visxai.engine.settings import settings_of

    methods = load_methods(method)
    parsed = Target.of(target, engine.model.labels)
    if every < 1 or not (math.isfinite(smooth) and smooth >= 0):
        raise ArgumentError(
            f"expected every of 1 or more and smooth of 0 or more seconds, got {every} and {smooth}"
        )
    one = parsed.kind in ("class", "any", "diff") or (parsed.kind == "top" and parsed.value == 1)
    if not one or len(methods) > _WIDEST:
        raise ArgumentError(
            expected=f"one class and at most {_WIDEST} methods for a video",
            got=f"{target!r} and {len(methods)} methods",
            remedy="write top1, class=281, any=281,282 or diff=281,282",
            field="target",
        )
    for single in methods:
        engine.check(single)
    if engine.model.preprocess is None:
        raise ArgumentError("expected a model with preprocessing, got one without")
    folder = Path(os.path.abspath(out))
    if (folder / TABLE).exists() and not KeptFrames.there(folder) and not fresh:
        raise StoreError(
            f"expected no earlier run in {folder}, got one: choose another, or --fresh"
        )
    with ExitStack() as stack:
        frames = Frames(os.fspath(video), engine.model.preprocess, every, _BATCH, limits, timeout)
        stack.callback(frames.close)
        stack.enter_context(files.one_sentence(f"to write {folder}", "make room there"))
        folder.mkdir(parents=True, exist_ok=True)
        kept = KeptFrames(folder, settings_of(engine, methods, parsed), fresh=fresh)
        stack.callback(kept.write)
        table = stack.enter_context(files.replacing(folder / TABLE))
        film = stack.enter_context(_film(folder / OVERLAY))
        rows = stack.enter_context(pq.ParquetWriter(table, SCHEMA, compression="zstd"))
        rate = frames.about.rate / every
        screen = stack.enter_context(_Screen(film, frames.about, rate, len(methods)))
        painter = _Painter(smooth, colormap)
        done = maps = 0
        problem, stopped = None, False
        wanted = -(-frames.about.frames // every)
        progress(0, wanted)
        batches = iter(frames)
        while not (stopped := stop()):
            try:
                batch = next(batches, None)
            except ImageError as error:
                problem = str(error)
                break
            if batch is None:
                break
            rows_of = _explained(engine, methods, parsed, batch, kept)
            for frame, told in zip(batch, rows_of, strict=True):
                rows.write_table(pa.Table.from_pylist(told, SCHEMA))
                made = [image_of(row) for row in told]
                screen.show(painter.draw(frame, made))
                done, maps = done + 1, maps + len(made)
            progress(done, wanted)
        if not stopped:
            kept.forget()
        if not done and not stopped:
            raise ImageError(problem or "expected a video with frames, got one without: convert it")
        if not stopped and problem is None and done < wanted:
            problem = f"the video says that it has {frames.about.frames} frames, but ends earlier"
    return VideoRun(folder, done, maps, frames.about, problem, stopped)


def _explained(
    engine: Engine,
    methods: Sequence[Method],
    target: Target,
    batch: Sequence[Frame],
    kept: KeptFrames,
) -> list[list[Row]]:
    """Return the rows of each frame of a batch; those of an earlier run aren't computed again."""
    known = {one.index: kept.of(one.index, one.prepared.input.source_sha256) for one in batch}
    new = [one for one in batch if known[one.index] is None]
    given = [one.prepared for one in new]
    found = engine.explain_prepared(given, methods, target) if given else []
    for frame, explained in zip(new, found, strict=True):
        if isinstance(explained, Failure):
            raise ImageError(explained.reason)
        known[frame.index] = rows = [
            {"frame": frame.index, "time": frame.seconds, **row_of(e, None)}
            for e in explained.explanations
        ]
        kept.add(rows)
    return [known[one.index] or [] for one in batch]


@contextlib.contextmanager
def _film(path: Path) -> Iterator[Path]:
    """Yield a temporary path that ends as OpenCV wants it, which replaces `path` at the end."""
    partial = files.temporary(path)
    partial = partial.with_name(partial.name + path.suffix)
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


class _Painter:
    """Draws a frame's maps, averaged over time."""

    def __init__(self, smooth: float, colormap: str | None) -> None:
        self._smooth, self._colormap = smooth, colormap
        self._known: dict[int, tuple[int | None, float, NDArray[np.float32]]] = {}

    def draw(self, frame: Frame, made: Sequence[ImageExplanation]) -> list[Image.Image]:
        image = Image.fromarray(frame.pixels)
        drawn = []
        for number, one in enumerate(made):
            placed = replace(one.placed, values=self._averaged(number, frame.seconds, one))
            drawn.append(overlay(placed, image, colormap=self._colormap))
        return drawn

    def _averaged(self, number: int, now: float, one: ImageExplanation) -> Any:
        before = self._known.get(number)
        values = one.values
        same = before is not None and before[0] == one.class_index
        if before is not None and same and self._smooth and before[2].shape == values.shape:
            share = 1 - math.exp(-(now - before[1]) / self._smooth)
            values = before[2] + np.float32(share) * (values - before[2])
        self._known[number] = (one.class_index, now, values)
        return values


class _Screen:
    """Writes the overlay; OpenCV wants even sides, so an odd one loses a pixel."""

    def __init__(self, path: Path, about: About, rate: float, count: int) -> None:
        import cv2

        self._size = (about.width * count // 2 * 2, about.height // 2 * 2)
        code = cv2.VideoWriter.fourcc(*_CODEC)
        self._writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, code, rate, self._size)
        if not self._writer.isOpened():
            raise StoreError(
                f"expected OpenCV to write a video of {self._size[0]}x{self._size[1]} at {rate:g} "
                f"frames a second to {path.name}, but it can't: install opencv-python"
            )

    def __enter__(self) -> _Screen:
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.release()

    def show(self, drawn: Sequence[Image.Image]) -> None:
        import cv2

        whole = np.concatenate([np.asarray(one) for one in drawn], axis=1)
        width, height = self._size
        self._writer.write(cv2.cvtColor(whole[:height, :width], cv2.COLOR_RGB2BGR))
