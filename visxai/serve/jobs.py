"""What the queue holds: jobs, how many wait, and what is said when there is no room."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from visxai.errors import VisxaiError

OPEN = ("queued", "running")  # the states of a job that hasn't ended


class Busy(VisxaiError):
    """The queue of a lane is full."""

    code = "busy"

    def __init__(self, lane: str, depth: int, retry_after: int) -> None:
        super().__init__(
            expected=f"room in the queue {lane!r}",
            got=f"{depth} waiting jobs",
            remedy=f"try again in {retry_after} s",
        )
        self.retry_after = retry_after


@dataclass(frozen=True)
class Job:
    """A job of the queue.

    Attributes:
        id: Its id, which is also that of the explanation that it makes.
        tenant: Whose it is.
        lane: "fast" or "precise".
        model_key: Which model computes it; a worker claims jobs of its own model alone.
        batch_key: Jobs of the same key can be computed in one batch.
        content_key: Jobs of the same key have the same result.
        spec: What the worker needs to know, plain values.
        state: "queued", "running", "done", "failed" or "cancelled".
        attempts: How often it was claimed.
        token: The lease, None without one.
        leader: The job whose result it takes over, None if it is computed itself.
        reason: Why it failed.
        created: When it was submitted, in seconds since 1970.
        started: When it was first claimed.
        finished: When it ended.
    """

    id: str
    tenant: str
    lane: str
    model_key: str
    batch_key: str
    content_key: str
    spec: Mapping[str, Any]
    state: str = "queued"
    attempts: int = 0
    token: str | None = None
    leader: str | None = None
    reason: str | None = None
    created: float = 0.0
    started: float | None = None
    finished: float | None = None


@dataclass(frozen=True)
class Depth:
    """What waits in a lane.

    Attributes:
        waiting: The number of jobs.
        oldest: The seconds that the oldest has waited.
    """

    waiting: int = 0
    oldest: float = 0.0
