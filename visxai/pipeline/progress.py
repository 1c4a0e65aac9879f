"""How far a run over an OUT is, and what it left."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from visxai.errors import Failure
from visxai.results.store import Store


@dataclass(frozen=True)
class Progress:
    """How far a run is: images of the whole OUT, those done (`before` of them by earlier runs),
    the maps and failures of this run, and what is done of images under way, in images."""

    images: int
    done: int
    before: int
    maps: int
    failures: int
    seconds: float
    part: float = 0.0

    @property
    def rate(self) -> float:
        """Images a second of this run."""
        done = self.done + self.part - self.before
        return done / self.seconds if self.seconds > 0 else 0.0

    @property
    def remaining(self) -> float | None:
        """Seconds to go at this rate, None before there is one."""
        return (self.images - self.done - self.part) / self.rate if self.rate > 0 else None


@dataclass(frozen=True)
class Outcome:
    """What a run left: OUT, the last progress, whether all is done, what OUT holds in all
    (images, finished, maps, failures), seconds by stage, how many finished images have changed
    since, and the failures of the images that the run was about: those that its sources name, and
    those it did."""

    out: Path
    progress: Progress
    complete: bool
    counts: dict[str, int]
    seconds: dict[str, float]
    changed: int
    failed: tuple[Failure, ...] = ()


class Tally:
    """Counts and times what a run over a store does."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.began = time.perf_counter()
        self.before = self.done = store.counts["finished"]
        self.maps = self.failures = 0
        self.part = 0.0

    def progress(self) -> Progress:
        return Progress(
            self.store.counts["images"],
            self.done,
            self.before,
            self.maps,
            self.failures,
            time.perf_counter() - self.began,
            self.part,
        )

    def spent(self, stage: str, seconds: float) -> None:
        """Add to what a stage took; each is timed by one thread."""
        self.store.seconds[stage] = self.store.seconds.get(stage, 0.0) + seconds

    def ended(self, complete: bool, changed: int) -> Outcome:
        """Write down that the run is over; `changed` finished images are others by now."""
        told = self.progress()
        self.spent("wall", told.seconds)
        self.store.finish("complete" if complete else "interrupted")
        counts, seconds = dict(self.store.counts), dict(self.store.seconds)
        failed = tuple(self.store.failed)
        return Outcome(self.store.out, told, complete, counts, seconds, changed, failed)
