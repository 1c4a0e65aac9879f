"""The progress of a run into an OUT, and its outcome."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from visxai.errors import Failure
from visxai.results.store import Store


@dataclass(frozen=True)
class Progress:
    """The progress of a run.

    Attributes:
        images: The number of images of the whole OUT.
        done: How many of them are done.
        before: How many of the done ones earlier runs did.
        maps: The number of maps that this run has made.
        failures: The number of failures of this run.
        seconds: The seconds since this run began.
        part: The finished fraction of images in progress, in images.
    """

    images: int
    done: int
    before: int
    maps: int
    failures: int
    seconds: float
    part: float = 0.0

    @property
    def rate(self) -> float:
        """Compute this run's images a second."""
        done = self.done + self.part - self.before
        return done / self.seconds if self.seconds > 0 else 0.0

    @property
    def remaining(self) -> float | None:
        """Estimate the seconds to go at this run's rate, None while the rate is 0."""
        return (self.images - self.done - self.part) / self.rate if self.rate > 0 else None


@dataclass(frozen=True)
class Outcome:
    """The outcome of a run.

    Attributes:
        out: The folder OUT.
        progress: The run's last progress.
        complete: Whether every image of OUT is done.
        counts: What OUT holds in all: "images", "finished", "maps", "failures", and more for runs
            with labels or a gate.
        seconds: The seconds spent on each stage, over all runs into OUT.
        changed: How many finished images have changed since.
        failed: The failures of the images that the run's sources name, and of those it computed.
    """

    out: Path
    progress: Progress
    complete: bool
    counts: dict[str, int]
    seconds: dict[str, float]
    changed: int
    failed: tuple[Failure, ...] = ()


class Tally:
    """The counters and timers of a run over a store."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.began = time.perf_counter()
        self.before = self.done = store.counts["finished"]
        self.maps = self.failures = 0
        self.part = 0.0

    def progress(self) -> Progress:
        """Return the progress as of now."""
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
        """Add seconds to those of a stage; each stage is timed by one thread alone."""
        self.store.seconds[stage] = self.store.seconds.get(stage, 0.0) + seconds

    def ended(self, complete: bool, changed: int) -> Outcome:
        """Write that the run is over, and return its outcome.

        Args:
            complete: Whether every image is done.
            changed: How many finished images have changed since.
        """
        told = self.progress()
        self.spent("wall", told.seconds)
        self.store.finish("complete" if complete else "interrupted")
        counts, seconds = dict(self.store.counts), dict(self.store.seconds)
        failed = tuple(self.store.failed)
        return Outcome(self.store.out, told, complete, counts, seconds, changed, failed)
