"""The photographs that visitors brought: decoded in a confined process, kept in memory alone."""

from __future__ import annotations

import hashlib
import secrets
import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

from visxai.errors import Failure, ImageError
from visxai.images import decoding
from visxai.images.address import Origin
from visxai.images.prepared import Prepared
from visxai.images.preprocess import Opaque, Preprocess
from visxai.pipeline.tasks import Setup, WorkerState, cut
from visxai.pipeline.workers import Workers
from visxai.references import ImageRef
from visxai.serve import examine
from visxai.serve.errors import Missing

VIEW = 1024  # pixels of the longer side of what pages show


@dataclass(eq=False)
class Upload:
    """A photograph.

    Attributes:
        id: A name that nobody can guess.
        data: The bytes as they were sent.
        sha256: Of the bytes.
        view: The upright photograph as a JPEG of ours, at most `VIEW` pixels a side.
        cuts: The photograph cut for each model that saw it, by the model's name.
    """

    id: str
    data: bytes
    sha256: str
    view: bytes
    cuts: dict[str, Prepared] = field(default_factory=dict)


def prepare(
    worker: WorkerState, source: Origin, preprocess: Preprocess | Opaque
) -> Prepared | Failure:
    """Decode a photograph and cut it for a model; runs in a worker process.

    Args:
        worker: The worker's state.
        source: The bytes.
        preprocess: The model's preprocessing.

    Returns:
        The prepared image, or why it can't be read.
    """
    try:
        with worker.timed():
            photo = decoding.decode(source, worker.setup.limits)
            pixels, transform = cut(preprocess, photo)
    except (ImageError, MemoryError) as error:
        said = str(error) or "expected an image that fits into memory, got a larger one"
        return Failure(None, said.replace(str(source), "the photograph"), type(error).__name__)
    width, height = photo.image.size
    return Prepared(pixels, ImageRef(width, height, transform, photo.sha256, None))


class Uploads:
    """The latest photographs; older ones make room.

    Args:
        most: The most photographs.
        total: The most bytes of all of them.
        limits: The limits on one.
        seconds: How long decoding one may take.
    """

    def __init__(self, most: int, total: int, limits: decoding.Limits, seconds: float) -> None:
        self._most, self._total = most, total
        self._kept: OrderedDict[str, Upload] = OrderedDict()
        self._lock = threading.Lock()
        setup = Setup(Preprocess((1, 1)), limits, style=None, cache=0, timeout=seconds)
        self._decoders = Workers(setup, 1)

    def close(self) -> None:
        """Stop the process that decodes."""
        self._decoders.close()

    def add(self, data: bytes) -> Upload:
        """Take a photograph.

        Raises:
            ImageError: The bytes can't be read as an image.
        """
        digest = hashlib.sha256(data).hexdigest()
        view = self._run(examine.draw, digest, data, None, VIEW)
        upload = Upload(secrets.token_urlsafe(16), data, digest, view)
        with self._lock:
            self._kept[upload.id] = upload
            while len(self._kept) > self._most or self._held() > self._total:
                self._kept.popitem(last=False)
        return upload

    def get(self, id: str) -> Upload:
        """Return a photograph; raise Missing where it isn't kept."""
        with self._lock:
            found = self._kept.get(id)
            if found is None:
                raise Missing("a photograph")
            self._kept.move_to_end(id)
            return found

    def prepared(self, upload: Upload, model: str, preprocess: Preprocess | Opaque) -> Prepared:
        """Return a photograph cut for a model.

        Raises:
            ImageError: It can't be cut.
        """
        found = upload.cuts.get(model)
        if found is None:
            found = self._run(prepare, upload.sha256, upload.data, preprocess)
            upload.cuts[model] = found
        return found

    def _run(self, task: Any, digest: str, data: bytes, *rest: Any) -> Any:
        made = self._decoders.result(
            self._decoders.submit(task, Origin(digest, digest, fetched=data), *rest)
        )
        if isinstance(made, Failure):
            raise ImageError(
                made.reason.replace(digest, "the photograph").replace("the item", "the photograph")
            )
        return made

    def _held(self) -> int:
        return sum(len(one.data) + len(one.view) for one in self._kept.values())
