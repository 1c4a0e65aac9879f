"""The frames that a run over a video has explained so far, for a run that goes on.

    OUT/unfinished/settings.json    what a row depends on
    OUT/unfinished/00000.parquet    rows of consecutive frames, written whole every few seconds

The folder is removed when the run ends with the video's end.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from visxai import files
from visxai.errors import StoreError
from visxai.results.rows import Row
from visxai.video.reading import SCHEMA

_INTERVAL = 2.0  # seconds of work that a killed run may lose


class KeptFrames:
    """The rows of explained frames below OUT, by the frame's index.

    Args:
        out: The folder of the run; it must exist.
        settings: All that a row depends on besides its frame, as values for JSON.
        fresh: Whether to forget what an earlier run kept.

    Raises:
        StoreError: An earlier run with other settings wasn't finished.
        OSError: The folder can't be written.
    """

    def __init__(self, out: Path, settings: Mapping[str, Any], *, fresh: bool) -> None:
        self._folder = out / "unfinished"
        self._rows: list[Row] = []
        self._written = time.monotonic()
        self._loaded: tuple[Path | None, dict[int, list[Row]]] = None, {}
        if fresh:
            self.forget()
        about = self._folder / "settings.json"
        told = json.loads(json.dumps(settings))
        if about.exists():
            if _json(about) != told:
                raise StoreError(
                    expected=f"the settings that {out} was begun with",
                    got="others",
                    remedy="choose another --out, or start over with --fresh",
                    field="out",
                )
        else:
            self.forget()
            self._folder.mkdir()
            files.write(about, json.dumps(told, indent=2) + "\n")
        self._at = {
            frame: path
            for path in sorted(self._folder.glob("*.parquet"))
            for frame in _frames(path)
        }

    @staticmethod
    def there(out: Path) -> bool:
        """Tell whether OUT holds a run that wasn't finished."""
        return (out / "unfinished" / "settings.json").exists()

    def of(self, frame: int, sha256: str) -> list[Row] | None:
        """Return the rows of a frame whose pixels have this SHA-256; None where there are none."""
        path = self._at.get(frame)
        if path is None:
            return None
        if self._loaded[0] != path:
            rows: dict[int, list[Row]] = {}
            for row in pq.read_table(path).to_pylist():
                rows.setdefault(row["frame"], []).append(row)
            self._loaded = path, rows
        found = self._loaded[1][frame]
        return found if all(row["source_sha256"] == sha256 for row in found) else None

    def add(self, rows: Sequence[Row]) -> None:
        """Keep the rows of frames that were explained now, and write them every few seconds."""
        self._rows += rows
        if time.monotonic() - self._written >= _INTERVAL:
            self.write()

    def write(self) -> None:
        """Write the rows that aren't written yet."""
        if self._rows:
            path = self._folder / f"{len(list(self._folder.glob('*.parquet'))):05d}.parquet"
            with files.replacing(path) as partial:
                pq.write_table(pa.Table.from_pylist(self._rows, SCHEMA), partial)
        self._rows, self._written = [], time.monotonic()

    def forget(self) -> None:
        """Remove all that is kept."""
        self._rows = []
        shutil.rmtree(self._folder, ignore_errors=True)


def _json(path: Path) -> Any:
    """Read a JSON file; return None for a damaged one."""
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return None


def _frames(path: Path) -> list[int]:
    """List the frames in a part; a damaged part has none, and its frames are explained again."""
    try:
        found: list[int] = pq.read_table(path, columns=["frame"])["frame"].unique().to_pylist()
    except (OSError, pa.ArrowException, KeyError):
        return []
    return found
