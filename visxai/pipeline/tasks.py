"""What a worker process does: decode a photograph, draw its overlays."""

from __future__ import annotations

import contextlib
import faulthandler
import multiprocessing
import multiprocessing.connection
import multiprocessing.spawn
import os
import pickle
import signal
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from visxai.errors import Failure, ImageError, StoreError
from visxai.foreign import shown
from visxai.images import decoding
from visxai.images.address import Origin
from visxai.images.decoding import Limits, Photo
from visxai.images.preprocess import Opaque, Preprocess
from visxai.pipeline import sandbox
from visxai.process import keep_memory
from visxai.record.image import ImageExplanation
from visxai.references import ImageRef, Transform

TIMEOUT = 60.0  # seconds that decoding an image may take, where nothing else is asked for
_CACHE = 256 * 2**20  # bytes of decoded photographs that all workers keep together

_GRACE = 2.0  # seconds of computing after which the kernel ends what the clock didn't


@dataclass(frozen=True)
class Style:
    """How overlays are drawn: the ending of their names ("jpg", "webp", "png"), colormap (None:
    by the map's signs), and whether each is a captioned panel instead."""

    format: str = "jpg"
    colormap: str | None = None
    panel: bool = False


@dataclass(frozen=True)
class Setup:
    """What every task of a run shares. timeout: the seconds that decoding an image may take, in
    worker processes, and that fetching it may take; cache: bytes of photographs that are kept to be
    drawn on; writes: the only folders that worker processes may write to."""

    preprocess: Preprocess | Opaque
    limits: Limits = field(default_factory=Limits)
    style: Style | None = field(default_factory=Style)
    cache: int = _CACHE
    timeout: float = TIMEOUT
    writes: tuple[str, ...] = ()

    @property
    def computing(self) -> float:
        """Seconds of computing after which decoding an image is ended: a preprocessing that isn't
        ours may use every core."""
        cores = 1 if isinstance(self.preprocess, Preprocess) else os.cpu_count() or 1
        return cores * (self.timeout + _GRACE)

    @property
    def memory(self) -> int:
        """Bytes that a worker may need beyond what it has when it starts: four copies of the
        largest image (four bytes a pixel), of its file, the photographs kept, and some more."""
        return 16 * self.limits.max_pixels + 4 * self.limits.max_bytes + self.cache + 2**30


@dataclass
class _Worker:
    """What a worker process holds: photographs it decoded, by path, until they are drawn on."""

    setup: Setup
    photos: OrderedDict[str, Photo] = field(default_factory=OrderedDict)
    bytes: int = 0
    confined: dict[str, str] = field(default_factory=dict)  # as `sandbox.confine` tells

    def keep(self, photo: Photo) -> None:
        size = 3 * photo.image.width * photo.image.height
        # Photographs nobody came back for (their image had no map) make room for others.
        while len(self.photos) > 512:
            self.take(next(iter(self.photos)))
        if photo.path is not None and self.bytes + size <= self.setup.cache:
            self.take(photo.path)
            self.photos[photo.path] = photo
            self.bytes += size

    def decoded(self, source: str | Origin) -> Photo:
        """Decode an image once more."""
        source = self.fetched(source)
        with self.timed():
            return decoding.decode(source, self.setup.limits)

    def fetched(self, source: str | Origin) -> Origin:
        """With the bytes of a URL, where no other process has read them; not for ever."""
        origin = Origin.of(source)
        if self is _worker or not origin.remote or origin.away or origin.fetched is not None:
            return origin
        return origin.fetch(self.setup.limits.max_bytes, self.setup.timeout)

    @contextlib.contextmanager
    def timed(self) -> Iterator[None]:
        """End this process, if it is a worker's, when the time for an image is over.

        The thread that does it needs neither Python nor its lock, which a decoder may hold. A
        process that was stopped meanwhile ends as well, and what it did is done again.
        """
        if self is not _worker:
            yield
            return
        with open(os.devnull, "w") as nowhere:
            faulthandler.dump_traceback_later(self.setup.timeout, exit=True, file=nowhere)
            # The kernel's own clock, for what takes the other one away.
            sandbox.limit_cpu(self.setup.computing)
            try:
                yield
            finally:
                sandbox.limit_cpu(None)
                faulthandler.cancel_dump_traceback_later()

    def take(self, path: str) -> Photo | None:
        photo = self.photos.pop(path, None)
        if photo is not None:
            self.bytes -= 3 * photo.image.width * photo.image.height
        return photo


@dataclass(frozen=True)
class Decoded:
    """An image's pixels as the model wants them, and the seconds that took; or a Failure."""

    pixels: Any
    input: ImageRef | Failure
    seconds: float


@dataclass(frozen=True)
class Drawn:
    """The seconds that an image's overlays took, and why there are none, if there are none."""

    failure: Failure | None
    seconds: float


def decode(worker: _Worker, source: str | Origin) -> Decoded:
    """Decode an image and cut it for the model."""
    began, path = time.perf_counter(), str(source)
    try:
        origin = worker.fetched(source)
        with worker.timed():
            photo = decoding.decode(origin, worker.setup.limits)
            pixels, transform = _cut(worker.setup.preprocess, photo)
    except (ImageError, MemoryError) as error:
        failure = Failure(path, str(error) or "too large for memory", type(error).__name__)
        return Decoded(None, failure, time.perf_counter() - began)
    if worker.setup.style is not None:
        worker.keep(photo)
    width, height = photo.image.size
    reference = ImageRef(width, height, transform, photo.sha256, path)
    return Decoded(pixels, reference, time.perf_counter() - began)


def draw(
    worker: _Worker, source: str | Origin, wanted: list[tuple[ImageExplanation, Path]]
) -> Drawn:
    """Draw explanations of one image over it, each into its file."""
    from visxai.drawing import overlays, sheets

    began, path = time.perf_counter(), str(source)
    style = worker.setup.style
    assert style is not None
    try:
        photo = worker.take(path) or worker.decoded(source)
        if photo.sha256 != wanted[0][0].input.source_sha256:
            raise ImageError(f"{shown(path)} changed while it was explained: explain again")
    except ImageError as error:
        failure = Failure(path, f"explained, but not drawn: {error}", type(error).__name__)
        return Drawn(failure, time.perf_counter() - began)
    try:
        for explanation, target in wanted:
            placed, colormap = explanation.placed, style.colormap
            if style.panel:
                drawn = sheets.panel(placed, photo.image, explanation.caption, colormap=colormap)
            else:
                drawn = overlays.overlay(placed, photo.image, colormap=colormap)
            _save(drawn, target)
    except Exception as error:
        if not _out_of_memory(error):
            raise
        reason = f"explained, but not drawn: {shown(path)} is too large for memory"
        return Drawn(Failure(path, reason, "MemoryError"), time.perf_counter() - began)
    return Drawn(None, time.perf_counter() - began)


def _save(drawn: Any, target: Path) -> None:
    """Write an overlay; StoreError says why it can't be written."""
    from visxai.drawing import overlays

    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        overlays.save(drawn, target)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise StoreError(
            f"expected to write {target}, got: {reason}; make room there or choose another "
            "--out (what is finished is kept, the same command goes on from there)"
        ) from None


def _out_of_memory(error: Exception) -> bool:
    """Whether memory ran out, as Python or as OpenCV says it."""
    import cv2

    return isinstance(error, MemoryError) or (
        isinstance(error, cv2.error) and getattr(error, "code", 0) == cv2.Error.STS_NO_MEM
    )


_worker: _Worker | None = None


def _start(setup: bytes) -> None:
    """Make this process a worker: confined, quiet on Ctrl-C, and gone when its parent is."""
    global _worker
    import cv2

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(1)
    _hush()
    keep_memory()
    _worker = _Worker(pickle.loads(setup))
    shared = _worker.setup
    _worker.confined = sandbox.confine(shared.memory, shared.writes)
    threading.Thread(target=_follow_parent, daemon=True).start()


def _hush() -> None:
    """Decoders in C say on standard error what they think of a file, in words that may be the
    file's own; what Python prints there still arrives."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        kept = os.dup(2)
        sys.stderr = open(kept, "w", buffering=1, errors="backslashreplace")  # noqa: SIM115
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 2)
        os.close(nowhere)


def _follow_parent() -> None:
    # A killed parent can't say goodbye; without this its workers would wait for ever.
    parent = multiprocessing.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)


def _do(task: Callable[..., Any], *arguments: Any) -> Any:
    assert _worker is not None
    return task(_worker, *arguments)


def _cut(preprocess: Preprocess | Opaque, photo: Photo) -> tuple[Any, Transform]:
    """Cut a photograph for the model; a preprocessing of the user's own may raise anything."""
    try:
        return preprocess.crop(photo)
    except (ImageError, MemoryError):
        raise
    except Exception as error:
        said = str(error).strip().partition("\n")[0][:300].rstrip(".")
        raise ImageError(
            f"expected an image that the preprocessing takes, got {type(error).__name__}: {said}; "
            "leave it out, or mend the preprocessing"
        ) from error
