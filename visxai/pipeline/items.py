"""A run over items that need neither decoding nor drawing: texts, and rows of tables.

explain a chunk, item by item if it fails -> commit it -> the next one
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from visxai.errors import Failure
from visxai.pipeline.batch import failure_of, one_by_one
from visxai.pipeline.progress import Progress, Tally
from visxai.record.scores import Scores
from visxai.results.inputs import Input
from visxai.results.rows import Row
from visxai.results.store import Store


@dataclass(frozen=True)
class Answer:
    """What a run keeps of one item.

    Attributes:
        rows: A row for each of its explanations.
        scores: Its scores.
        right: Whether the model agrees with its label; None where it has none, or can't be asked.
    """

    rows: Sequence[Row]
    scores: Scores
    right: bool | None = None


class ItemRun(ABC):
    """A run over the pending chunks of a store, in this process.

    Args:
        store: The store of the folder OUT.

    Attributes:
        noun: What an item is, in a sentence about one that fails.
        tally: The counters and timers of the run.
    """

    noun: ClassVar[str]

    def __init__(self, store: Store) -> None:
        self.store, self.tally = store, Tally(store)

    @abstractmethod
    def holds(self, one: Input) -> bool:
        """Tell whether a source of this run holds an item, which an earlier run may have listed."""

    @abstractmethod
    def batch(self, inputs: Sequence[Input]) -> list[Answer]:
        """Explain items that are there; one answer an item, in order."""

    def control(self) -> None:  # noqa: B027 - there may be no artificial item to explain
        """Explain an artificial item: where this fails as well, the items aren't the cause."""

    def counts(self, answers: Sequence[Answer]) -> dict[str, int]:
        """Count what OUT adds up over its chunks: items with a label, and the right ones."""
        right = [one.right for one in answers if one.right is not None]
        return {"labelled": len(right), "right": sum(right)} if right else {}

    def all(self, progress: Callable[[Progress], None], stop: Callable[[], bool]) -> bool:
        """Compute all pending chunks; return False if stopped before the end."""
        progress(self.tally.progress())
        for number in self.store.pending():
            if stop():
                return False
            self._chunk(number)
            progress(self.tally.progress())
        return True

    def _chunk(self, number: int) -> None:
        """Explain a chunk's items and commit it."""
        inputs = self.store.inputs(number)[self.store.begun(number) :]
        began = time.perf_counter()
        results = self._explained(inputs)
        self.tally.spent("compute", time.perf_counter() - began)
        failed = [one for one in results if isinstance(one, Failure)]
        answers = [one for one in results if isinstance(one, Answer)]
        rows = [row for one in answers for row in one.rows]
        self.tally.maps += len(rows)
        self.tally.failures += len(failed)
        self.tally.done += len(inputs)
        began = time.perf_counter()
        scores = [one.scores for one in answers]
        self.store.commit(number, rows, failed, self.counts(answers), scores=scores)
        self.tally.spent("write", time.perf_counter() - began)

    def _explained(self, inputs: Sequence[Input]) -> list[Answer | Failure]:
        """Explain items together, or one by one where that fails."""
        here = [one for one in inputs if self.holds(one)]
        made = dict(zip(here, one_by_one(here, self.batch, self.control), strict=True))
        found: list[Answer | Failure] = []
        for one in inputs:
            result = made.get(one)
            if result is None:
                found.append(self._gone(one))
            elif isinstance(result, Exception):
                found.append(failure_of(one.path, result, f"a {self.noun}"))
            else:
                found.append(result)
        return found

    def _gone(self, one: Input) -> Failure:
        """Make the failure of an item that an earlier run listed and no source holds."""
        name = Path(one.path.rpartition("#")[0]).name
        said = (
            f"expected the {self.noun} in {name}, which an earlier run listed, got none: name its "
            "table again"
        )
        return Failure(one.path, said, "ArgumentError")
