"""Reads what a run over a video wrote."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from visxai.errors import StoreError
from visxai.record.image import ImageExplanation
from visxai.results.rows import image_of, schema_of

TABLE = "frames.parquet"
OVERLAY = "overlay.mp4"
SCHEMA = pa.schema([("frame", pa.int32()), ("time", pa.float64()), *schema_of("image")])


class ExplainedFrame(NamedTuple):
    """An explanation of a frame.

    Attributes:
        frame: The frame's position in the video, from 0.
        time: Its time in seconds.
        explanation: The explanation; its path is the video's, its sha256 that of the frame's
            pixels.
    """

    frame: int
    time: float
    explanation: ImageExplanation


def read(out: str | os.PathLike[str]) -> Iterator[ExplainedFrame]:
    """Yield the explanations of a video's frames in their order.

    Args:
        out: The folder that `visxai explain clip.mp4 --out` wrote.

    Raises:
        StoreError: There are none, or the file is damaged.
    """
    path = Path(out) / TABLE
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(64):
                for row in batch.to_pylist():
                    yield ExplainedFrame(row["frame"], row["time"], image_of(row))
    except (OSError, pa.ArrowException, KeyError) as error:
        raise StoreError(
            f"expected the rows of a video in {path}, got none that can be read: explain it again"
        ) from error
