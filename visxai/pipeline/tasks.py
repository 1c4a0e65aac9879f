"""The tasks of a worker process: decode a photograph, and draw its overlays."""

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
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from PIL import Image

from visxai import files, sandbox
from visxai.errors import Failure, ImageError
from visxai.foreign import shown
from visxai.images import decoding
from visxai.images.address import Origin
from visxai.images.decoding import Limits, Photo
from visxai.images.prepared import Prepared
from visxai.images.preprocess import Opaque, Preprocess
from visxai.process import keep_memory
from visxai.record.image import ImageExplanation
from visxai.references import ImageRef, Transform
from visxai.results.settings import MAKE_ROOM

TIMEOUT = 60.0  # seconds that decoding an image may take by default
_CACHE = 256 * 2**20  # bytes of decoded photographs that all workers keep together

_GRACE = 2.0  # seconds beyond the timeout after which the kernel ends a process by its CPU time


@dataclass(frozen=True)
class Style:
    """The style of a run's overlays.

    Attributes:
        format: The ending of their names: "jpg", "webp" or "png".
        colormap: The colormap's name; None is viridis, or diverging for a method whose maps also
            hold negative attributions.
        panel: Whether each is a panel of photograph, overlay and map with a caption instead.
    """

    format: str = "jpg"
    colormap: str | None = None
    panel: bool = False


@dataclass(frozen=True)
class Setup:
    """The settings that all tasks of a run share.

    Attributes:
        preprocess: The model's preprocessing.
        limits: The limits on an image's pixels and bytes.
        style: The style of overlays, None for no overlays.
        cache: The bytes of decoded photographs that workers keep to draw on.
        timeout: The seconds that a worker process may take to decode an image, and the seconds
            that fetching an image may take.
        writes: The only folders that worker processes may write to.
    """

    preprocess: Preprocess | Opaque
    limits: Limits = field(default_factory=Limits)
    style: Style | None = field(default_factory=Style)
    cache: int = _CACHE
    timeout: float = TIMEOUT
    writes: tuple[str, ...] = ()

    @property
    def computing(self) -> float:
        """Return the seconds of CPU time after which decoding an image is ended.

        A preprocessing that isn't visxai's may use every core.
        """
        cores = 1 if isinstance(self.preprocess, Preprocess) else os.cpu_count() or 1
        return cores * (self.timeout + _GRACE)

    @property
    def memory(self) -> int:
        """Return the bytes that a worker may need beyond those it has when it starts.

        That is four copies of the largest image (four bytes a pixel), four of its file, the kept
        photographs, and 1 GiB.
        """
        return 16 * self.limits.max_pixels + 4 * self.limits.max_bytes + self.cache + 2**30


@dataclass
class WorkerState:
    """The state of a worker process.

    Attributes:
        setup: The run's settings.
        photos: Decoded photographs by path, kept until they are drawn on.
        bytes: The bytes of these photographs.
        confined: The parts of the sandbox, as `sandbox.confine` returns them.
    """

    setup: Setup
    photos: OrderedDict[str, Photo] = field(default_factory=OrderedDict)
    bytes: int = 0
    confined: dict[str, str] = field(default_factory=dict)

    def keep(self, photo: Photo) -> None:
        """Keep a photograph to draw on, if it fits into the cache."""
        size = 3 * photo.image.width * photo.image.height
        # Photographs that were never drawn on (their image had no map) make room for others.
        while len(self.photos) > 512:
            self.take(next(iter(self.photos)))
        if photo.path is not None and self.bytes + size <= self.setup.cache:
            self.take(photo.path)
            self.photos[photo.path] = photo
            self.bytes += size

    def decoded(self, source: str | Origin) -> Photo:
        """Decode an image whose photograph isn't kept."""
        source = self.fetched(source)
        with self.timed():
            return decoding.decode(source, self.setup.limits)

    def fetched(self, source: str | Origin) -> Origin:
        """Fetch a URL's bytes within the timeout; a worker process leaves that to its parent."""
        origin = Origin.of(source)
        if self is _worker or not origin.remote or origin.away or origin.fetched is not None:
            return origin
        return origin.fetch(self.setup.limits.max_bytes, self.setup.timeout)

    @contextlib.contextmanager
    def timed(self) -> Iterator[None]:
        """End this process, if it is a worker process, when the time for an image is over.

        The thread that ends it needs neither Python nor its lock, which a decoder may hold. A
        process that was suspended meanwhile ends as well, and its task is run again.
        """
        if self is not _worker:
            yield
            return
        with open(os.devnull, "w") as nowhere:
            faulthandler.dump_traceback_later(self.setup.timeout, exit=True, file=nowhere)
            # The kernel's own clock, should a decoder disable the first one.
            sandbox.limit_cpu(self.setup.computing)
            try:
                yield
            finally:
                sandbox.limit_cpu(None)
                faulthandler.cancel_dump_traceback_later()

    def take(self, path: str) -> Photo | None:
        """Remove a kept photograph and return it, None if it isn't kept."""
        photo = self.photos.pop(path, None)
        if photo is not None:
            self.bytes -= 3 * photo.image.width * photo.image.height
        return photo


@dataclass(frozen=True)
class Drawn:
    """The result of drawing an image's overlays.

    Attributes:
        failure: Why they couldn't be drawn, None if they are.
        seconds: The seconds that drawing took.
    """

    failure: Failure | None
    seconds: float


def decode(worker: WorkerState, source: str | Origin) -> Prepared | Failure:
    """Decode an image, then resize and crop it for the model; an unreadable one gives a Failure."""
    began, path = time.perf_counter(), str(source)
    try:
        origin = worker.fetched(source)
        with worker.timed():
            photo = decoding.decode(origin, worker.setup.limits)
            pixels, transform = cut(worker.setup.preprocess, photo)
    except (ImageError, MemoryError) as error:
        return Failure(path, str(error) or "too large for memory", type(error).__name__)
    if worker.setup.style is not None:
        worker.keep(photo)
    width, height = photo.image.size
    reference = ImageRef(width, height, transform, photo.sha256, path)
    return Prepared(pixels, reference, seconds=time.perf_counter() - began)


def draw(
    worker: WorkerState, source: str | Origin, wanted: list[tuple[ImageExplanation, Path]]
) -> Drawn:
    """Draw explanations of one image over it, each into its own file.

    Args:
        worker: The worker's state, which may hold the photograph.
        source: The image.
        wanted: The explanations, each with the file of its overlay.

    Returns:
        The result; a failure if the image can't be read, has changed, or is too large for memory.

    Raises:
        StoreError: If a file can't be written.
    """
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
    """Write an overlay; raise StoreError with the reason if that fails."""
    from visxai.drawing import overlays

    with files.one_sentence(f"to write {target}", MAKE_ROOM):
        target.parent.mkdir(parents=True, exist_ok=True)
        overlays.save(drawn, target)


def _out_of_memory(error: Exception) -> bool:
    """Tell whether an error of Python or OpenCV means that memory ran out."""
    import cv2

    return isinstance(error, MemoryError) or (
        isinstance(error, cv2.error) and getattr(error, "code", 0) == cv2.Error.STS_NO_MEM
    )


_worker: WorkerState | None = None


def _start(setup: bytes | Connection) -> None:
    """Make this process a confined worker that ignores Ctrl-C and ends with its parent.

    Args:
        setup: The pickled settings, or the connection that will bring them; a connection that is
            closed instead ends the process.
    """
    global _worker
    import cv2

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if not isinstance(setup, bytes):
        from visxai.drawing import overlays  # noqa: F401 - imported while there is time

        Image.preinit()
        try:
            setup = setup.recv_bytes()
        except EOFError:
            os._exit(0)
    cv2.setNumThreads(1)
    _hush()
    keep_memory()
    _worker = WorkerState(pickle.loads(setup))
    shared = _worker.setup
    _worker.confined = sandbox.confine(shared.memory, shared.writes)
    threading.Thread(target=_follow_parent, daemon=True).start()


def _hush() -> None:
    """Silence the standard error of native code, but not of Python.

    Decoders in C print complaints about a file there, which may quote the file's content.
    """
    with contextlib.suppress(OSError, ValueError, AttributeError):
        kept = os.dup(2)
        sys.stderr = open(kept, "w", buffering=1, errors="backslashreplace")  # noqa: SIM115
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 2)
        os.close(nowhere)


def _follow_parent() -> None:
    # A killed parent can't stop its workers; without this they would wait for ever.
    parent = multiprocessing.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)


def _do(task: Callable[..., Any], *arguments: Any) -> Any:
    assert _worker is not None
    return task(_worker, *arguments)


def cut(preprocess: Preprocess | Opaque, photo: Photo) -> tuple[Any, Transform]:
    """Resize and crop a photograph; raise ImageError for any error of a user's preprocessing."""
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
