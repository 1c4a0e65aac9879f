"""The frames of a video, decoded in a confined process of their own.

A video may come from a stranger. Containers are recognised by content and restricted to an
allow-list, so that no playlist can name other files or addresses; FFmpeg may open nothing but
files; sizes are checked before a frame is decoded; and a decoder that crashes or doesn't end takes
only its own process with it (see `visxai.pipeline.workers`).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visxai.errors import Failure, ImageError
from visxai.foreign import shown
from visxai.images import decoding
from visxai.images.address import Origin
from visxai.images.decoding import Limits
from visxai.images.prepared import Prepared
from visxai.images.preprocess import Opaque, Preprocess
from visxai.pipeline.tasks import Setup, WorkerState, cut
from visxai.pipeline.workers import Workers
from visxai.references import ImageRef

ENDINGS = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi")
_FFMPEG = "OPENCV_FFMPEG_CAPTURE_OPTIONS"
_RATES = (0.1, 1000.0)  # frames a second that are believed


@dataclass(frozen=True)
class About:
    """What a video says of itself.

    Attributes:
        width: Of a frame, in pixels.
        height: Of a frame, in pixels.
        rate: Frames a second.
        frames: The number of frames, 0 where it isn't known. It needn't be true.
    """

    width: int
    height: int
    rate: float
    frames: int


@dataclass(frozen=True, eq=False)
class Frame:
    """A decoded frame.

    Attributes:
        index: Its position in the video, from 0.
        seconds: Its time.
        pixels: (h, w, 3) uint8, RGB.
        prepared: The frame as the model takes it.
    """

    index: int
    seconds: float
    pixels: NDArray[np.uint8]
    prepared: Prepared


@dataclass
class _Open:
    """A video that a worker process keeps open between its tasks."""

    capture: Any
    about: About
    at: int = 0  # the index of the next frame


_opened: dict[str, _Open] = {}


def about(worker: WorkerState, source: Origin) -> About | Failure:
    """Open a video and read what it says of itself; runs in a worker process."""
    try:
        with worker.timed():
            return _open(str(source), worker.setup.limits).about
    except ImageError as error:
        return Failure(str(source), str(error), "ImageError")


def read(
    worker: WorkerState, source: Origin, first: int, every: int, count: int
) -> list[Frame] | Failure:
    """Decode frames first, first + every, ... ; runs in a worker process.

    Args:
        worker: The worker's state.
        source: The video.
        first: The index of the first frame.
        every: The distance between two frames.
        count: The most frames.

    Returns:
        The frames, fewer than `count` at the end of the video, or why it can't be read.
    """
    try:
        with worker.timed():
            video = _opened.get(str(source))
            if video is None or video.at > first:
                video = _open(str(source), worker.setup.limits)
            return list(_frames(video, str(source), worker.setup, first, every, count))
    except (ImageError, MemoryError) as error:
        return Failure(str(source), str(error) or "too large for memory", type(error).__name__)


def _frames(
    video: _Open, path: str, setup: Setup, first: int, every: int, count: int
) -> Iterator[Frame]:
    import cv2

    for index in range(first, first + every * count, every):
        while video.at < index:
            if not video.capture.grab():
                return
            video.at += 1
        whole, bgr = video.capture.read()
        video.at += 1
        if not whole:
            return
        if bgr.shape != (video.about.height, video.about.width, 3):
            raise ImageError(
                f"expected frames of {video.about.width}x{video.about.height}, got another size in "
                f"{shown(path)}: convert the video"
            )
        rgb = cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)
        photo = decoding.decode(rgb, setup.limits)
        pixels, transform = cut(setup.preprocess, photo)
        reference = ImageRef(*photo.image.size, transform, photo.sha256, path)
        seconds = index / video.about.rate
        yield Frame(index, seconds, np.asarray(rgb), Prepared(pixels, reference))


def _open(path: str, limits: Limits) -> _Open:
    """Open a video from its start; raise ImageError where it is none, or too large."""
    import cv2

    if _kind(path) is None:
        raise ImageError(
            f"expected a video (MP4, MOV, Matroska, WebM or AVI), got something else in "
            f"{shown(path)}: convert it"
        )
    # Nothing that a file names may be fetched.
    os.environ[_FFMPEG] = "protocol_whitelist;file"
    capture = cv2.VideoCapture(os.path.abspath(path), cv2.CAP_FFMPEG)
    width = int(capture.get(cv2.CAP_PROP_FRAME_WIDTH))
    height = int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT))
    if not capture.isOpened() or width < 1 or height < 1:
        raise ImageError(f"expected a video that can be decoded, got {shown(path)}: convert it")
    if width * height > limits.max_pixels:
        raise ImageError(
            f"expected frames of at most {limits.max_pixels} pixels, got {width}x{height} in "
            f"{shown(path)}: make the video smaller, or raise the limit"
        )
    rate = capture.get(cv2.CAP_PROP_FPS)
    rate = rate if np.isfinite(rate) and _RATES[0] <= rate <= _RATES[1] else 25.0
    frames = capture.get(cv2.CAP_PROP_FRAME_COUNT)
    told = int(frames) if np.isfinite(frames) and 0 < frames < 2**31 else 0
    _opened[path] = _Open(capture, About(width, height, float(rate), told))
    return _opened[path]


def _kind(path: str) -> str | None:
    """Recognise a container by its first bytes."""
    try:
        with Path(path).open("rb") as file:
            start = file.read(12)
    except OSError:
        return None
    if start[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free"):
        return "mp4"
    if start[:4] == b"\x1a\x45\xdf\xa3":
        return "matroska"
    return "avi" if start[:4] == b"RIFF" and start[8:12] == b"AVI " else None


class Frames:
    """The chosen frames of a video, read ahead in a process of their own.

    Args:
        path: The video.
        preprocess: The model's preprocessing.
        every: The distance between two frames.
        batch: Frames that are read at a time.
        limits: The limits on a frame.
        seconds: How long decoding a batch may take.

    Raises:
        ImageError: It is no video that can be decoded.
    """

    def __init__(
        self,
        path: str,
        preprocess: Preprocess | Opaque,
        every: int,
        batch: int,
        limits: Limits,
        seconds: float,
    ) -> None:
        setup = Setup(preprocess, limits, style=None, cache=2**28, timeout=seconds)
        self._workers = Workers(setup, 1)
        self._source = Origin.of(os.path.abspath(path))
        self._every, self._batch = every, batch
        try:
            self.about: About = self._result(self._workers.submit(about, self._source))
        except BaseException:
            self.close()
            raise

    def __iter__(self) -> Iterator[list[Frame]]:
        """Yield batches of frames; the next one is decoded meanwhile.

        Raises:
            ImageError: The rest can't be decoded.
        """
        step, first = self._every * self._batch, 0
        task = self._submit(first)
        while True:
            frames: list[Frame] = self._result(task)
            if len(frames) == self._batch:
                first += step
                task = self._submit(first)
            if frames:
                yield frames
            if len(frames) < self._batch:
                return

    def close(self) -> None:
        """Stop the process."""
        self._workers.close()

    def _submit(self, first: int) -> Any:
        return self._workers.submit(read, self._source, first, self._every, self._batch)

    def _result(self, task: Any) -> Any:
        made = self._workers.result(task)
        if isinstance(made, Failure):
            raise ImageError(made.reason)
        return made
