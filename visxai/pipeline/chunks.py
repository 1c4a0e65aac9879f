"""A chunk of a local run and its batches, from the decoding of their images to their commit."""

from __future__ import annotations

from dataclasses import dataclass, field

from visxai.engine.explained import Explained
from visxai.errors import Failure
from visxai.pipeline.workers import Task
from visxai.results.inputs import Input


@dataclass
class Chunk:
    """A chunk on its way to the store.

    Attributes:
        number: The chunk's number in the store.
        inputs: Its images.
        explained: By position, the results that wait for their commit, and the drawing of each.
        failed: By position, the failures that wait for their commit.
        copies: By position, the SHA-256 of an image with the same bytes as an earlier one, and
            the chunk of that earlier image, which may be this chunk.
    """

    number: int
    inputs: list[Input]
    explained: dict[int, tuple[Explained, Task | None]] = field(default_factory=dict)
    failed: dict[int, Failure] = field(default_factory=dict)
    copies: dict[int, tuple[str, int]] = field(default_factory=dict)

    def take(self, stop: int) -> Chunk:
        """Move the results of the images before position `stop` into a chunk of their own."""
        taken = Chunk(self.number, self.inputs)
        for name in ("explained", "failed", "copies"):
            mine, of_taken = getattr(self, name), getattr(taken, name)
            for position in [position for position in mine if position < stop]:
                of_taken[position] = mine.pop(position)
        return taken


@dataclass
class Batch:
    """A part of a chunk, and the decoding of its images.

    Attributes:
        chunk: The chunk.
        start: The position in the chunk of the batch's first image.
        last: Whether it is the chunk's last batch.
        decoding: For each image the task that decodes it, or its failure.
    """

    chunk: Chunk
    start: int
    last: bool
    decoding: list[Task | Failure]

    @property
    def stop(self) -> int:
        """Return the position behind the batch's last image."""
        return self.start + len(self.decoding)
