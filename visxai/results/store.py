"""Writes a run's results: chunks of the ordered input, whose files are complete at any moment.

`visxai.results.reading` describes the files in OUT.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pyarrow as pa

from visxai import files
from visxai.errors import Argument, Failure, StoreError
from visxai.images.sources import Found
from visxai.record.scores import Scores, pack
from visxai.results import leftovers, moves, reading, sealed
from visxai.results.inputs import Input, Inputs, Progress, overlay_stems
from visxai.results.reading import FOOTER, FORMAT, Part, about, checksum, part_of, parts
from visxai.results.rows import REPEATED, SCHEMA, Row, text
from visxai.results.settings import MAKE_ROOM, START_OVER, differing

_FAILURES = pa.schema([("path", pa.string()), ("reason", pa.string()), ("kind", pa.string())])


class Store:
    """The results folder of a running run: one process at a time writes it, in `with Store(...)`.

    Attributes:
        out: The absolute path of the folder.
        schema: The schema of the rows.
        settings: The run's settings as plain values.
        seconds: The seconds of each stage, which run.json keeps.
        counts: The number of images, finished images, maps and failures, and of answers.
        finished: The complete chunks.
        again: The chunks that are explained again.
        seen: The chunk of each finished image without a label, by the SHA-256 of its bytes.
    """

    def __init__(
        self,
        out: str | os.PathLike[str],
        settings: Mapping[str, Any],
        *,
        command: str = "",
        fresh: bool = False,
        retry: bool = False,
        schema: pa.Schema = SCHEMA,
    ) -> None:
        """Open the folder and lock it.

        Args:
            out: The results folder; it is created where it is missing.
            settings: The settings that must stay the same between the runs that fill one OUT, as
                plain values; "chunk" is the number of images of a chunk.
            command: The command line, which run.json keeps.
            fresh: Whether to delete what an earlier run left.
            retry: Whether chunks with failures are explained again; each keeps its rows until then.
            schema: The schema of the rows: `visxai.results.rows.SCHEMA`, perhaps with more columns.

        Raises:
            StoreError: Another process writes OUT, it holds other files or results with other
                settings, a file in it is damaged, or it can't be written.
        """
        self.out = Path(os.path.abspath(out))
        self.schema = schema
        self.settings = json.loads(json.dumps(settings))  # as they come back from run.json
        with self.writing():
            if about(self.out) is None:
                leftovers.check_empty(self.out)
            self.out.mkdir(parents=True, exist_ok=True)
            self._lock = files.lock(
                self.out / ".lock",
                StoreError(
                    expected=f"{self.out} free",
                    got="it while another process writes it",
                    remedy=("wait for that run, or choose another ", Argument("out")),
                    field="out",
                ),
            )
            try:
                self._open(command, fresh, retry)
            except BaseException:
                self.close()
                raise

    @property
    def overlays(self) -> Path:
        """The folder of the pictures."""
        return self.out / "overlays"

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Release the lock, so that another process can write OUT."""
        os.close(self._lock)

    def writing(self) -> contextlib.AbstractContextManager[None]:
        """Return a context that turns the OSErrors of writing into a StoreError."""
        return files.one_sentence(f"to write below {self.out}", MAKE_ROOM)

    def _open(self, command: str, fresh: bool, retry: bool) -> None:
        """Check an earlier run's settings, delete what must go, and read what is done."""
        run, there = about(self.out), parts(self.out)
        listed = self.out / "inputs.parquet"
        if run is None:  # checked again under the lock, as another process may have come first
            leftovers.check_empty(self.out)
        elif there and not fresh and not listed.exists():
            raise StoreError(
                expected=f"{listed} beside the parts it lists",
                got="none",
                remedy=START_OVER,
                field="out",
            )
        # Without a finished image the settings may change: there are no results to mix with.
        cleared = run is not None and (fresh or not there)
        if run is not None and not cleared and run["settings"] != self.settings:
            raise differing(self.out, run["settings"], self.settings)
        if run is not None and cleared:
            leftovers.remove(self.out, overlay_stems(self.out), run["settings"])
            run, there = None, {}
        leftovers.sweep(self.out)
        (self.out / "explanations").mkdir(exist_ok=True)
        if self.settings.get("overlays", {}) is not None:  # None: the run draws nothing
            self.overlays.mkdir(exist_ok=True)
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        self._about = {
            "visxai_results": FORMAT,
            "command": command,
            "started": (run or {}).get("started", now),
            "state": "running",
            "settings": self.settings,
        }
        self.seconds: dict[str, float] = dict((run or {}).get("seconds", {}))
        self.counts = {"images": 0, "finished": 0, "maps": 0, "failures": 0}
        self._inputs = Inputs(self.out)
        self._read(there, retry)
        if cleared:
            self.save()

    def _read(self, there: Mapping[int, Path], retry: bool) -> None:
        """Read which chunks are done, and the counts and failures of their images."""
        # The complete chunks; those whose first images are done, with their number; and those
        # that are explained again, which keep their rows until then.
        self.finished: set[int] = set()
        self._begun: dict[int, int] = {}
        self.again: set[int] = set()
        self._divided: set[int] = set()
        self.seen: dict[bytes, int] = {}
        # The failures of the images that this run is about, by chunk.
        self._failures: dict[int, list[Failure]] = {}
        for chunk, path in there.items():
            part = Part.read(path)
            if chunk not in self._inputs.sizes:
                raise StoreError(
                    expected=f"{self.out / 'inputs.parquet'} to list the images of {path.name}",
                    got="none",
                    remedy=START_OVER,
                    field="out",
                )
            self._failures[chunk] = list(part.failures)
            partial = part.images is not None and part.images < self._inputs.sizes[chunk]
            if retry and part.failures:
                self.again.add(chunk)
                if partial:
                    self._divided.add(chunk)
                continue
            if part.images is not None and partial:
                self._begun[chunk] = part.images
            else:
                self.finished.add(chunk)
            self._count(len(part), part.failures)
            self._answered(part.answers)
            for digest in _unlabelled(part).column(0).unique().to_pylist():
                self.seen.setdefault(bytes.fromhex(digest), chunk)
        self._count_images()

    def _count_images(self) -> None:
        """Count the images, and those that are finished."""
        self.counts["images"] = len(self._inputs)
        whole = sum(self._inputs.sizes[chunk] for chunk in self.finished)
        self.counts["finished"] = whole + sum(self._begun.values())

    def _count(self, maps: int, failed: Sequence[Failure]) -> None:
        """Add to the counts of maps and failures."""
        self.counts["maps"] += maps
        self.counts["failures"] += len(failed)

    def _answered(self, answers: Mapping[str, int]) -> None:
        """Add to the counts of answers."""
        for name, number in answers.items():
            self.counts[name] = self.counts.get(name, 0) + number

    # ---- pending work ----------------------------------------------------------------------------

    def add(self, found: Iterable[Found], *, ordered: bool = False) -> tuple[int, int]:
        """Append new images as new chunks; update those that are explained again or were moved.

        Args:
            found: The images of a listing; it is read again where it isn't in the order of an
                earlier one.
            ordered: Whether the listing names each input once, by addresses whose outputs have
                names that differ; it then takes no more memory than the list.

        Returns:
            The number of appended images, and the number of finished images that have changed
            since.

        Raises:
            StoreError: An image was listed before with another label, or OUT can't be written.
        """
        progress = Progress(self.finished, self.again, self._divided)
        size, known = self.settings["chunk"], {str(one.path) for one in self.failed}
        done = None
        if ordered and not self.again:
            done = self._inputs.add_in_order(found, size, progress, known)
        appended, changed, met = done or self._inputs.add(found, size, progress)
        mine = {text(path) for path in met} if self._failures else set()
        for chunk, failed in self._failures.items():
            here = moves.renamed(failed, self._inputs.moved.get(chunk, {}))
            self._failures[chunk] = [one for one in here if one.path in mine]
        self._count_images()
        with self.writing():
            for chunk in self.again - set(self._inputs.sizes):
                part_of(self.out, chunk).unlink(missing_ok=True)
            self.save()  # first: run.json marks OUT as a folder of visxai
            moves.rename_all(self.out, self._inputs.moved)
            if appended or self.again or self._inputs.moved:
                self._inputs.write()
        return appended, changed

    def pending(self) -> list[int]:
        """List the chunks that are not finished, in order."""
        return sorted(chunk for chunk in self._inputs.sizes if chunk not in self.finished)

    def size(self, chunk: int) -> int:
        """Return the number of images of a chunk."""
        return self._inputs.sizes[chunk]

    def begun(self, chunk: int) -> int:
        """Return how many images of a pending chunk are done, from its first on."""
        return self._begun.get(chunk, 0)

    def divisible(self, chunk: int) -> bool:
        """Tell whether a chunk may be committed in several steps.

        A chunk that is explained again may not: it keeps its old rows until all new rows exist.
        """
        return chunk not in self.again

    def inputs(self, chunk: int) -> list[Input]:
        """Return the images of a chunk, in order."""
        return self._inputs.of(chunk)

    # ---- finished work ---------------------------------------------------------------------------

    def commit(
        self,
        chunk: int,
        rows: Sequence[Row],
        failed: Sequence[Failure],
        answers: Mapping[str, int] = MappingProxyType({}),
        *,
        images: int | None = None,
        scores: Sequence[Scores] = (),
    ) -> None:
        """Add rows, failures and answers to a chunk atomically.

        Args:
            chunk: A pending chunk.
            rows: The rows of its images from `begun(chunk)` on, in order.
            failed: The failures of these images, in order.
            answers: The counts of these images with a label, a right answer and so on (see
                `visxai.results.reading.Part`).
            images: The number of the chunk's images that are done afterwards, None for all of them.
            scores: The model's scores for these images, in order.

        Raises:
            StoreError: OUT can't be written.
        """
        images = self._inputs.sizes[chunk] if images is None else images
        before = Part.read(part_of(self.out, chunk)) if chunk in self._begun else None
        all_rows, all_failed, all_answers = list(rows), list(failed), Counter(answers)
        if before is not None:
            all_rows = before.table().to_pylist() + all_rows
            all_failed = [*before.failures, *all_failed]
            all_answers.update(before.answers)
        all_scores = [*(before.scores if before is not None else ()), *scores]
        told = [
            one.to_dict() | {"path": text(one.path), "reason": text(one.reason)}
            for one in all_failed
        ]
        footer = {"chunk": chunk, "images": images, "failures": told}
        footer |= {"answers": dict(all_answers)} if all_answers else {}
        footer |= {"scores": pack(all_scores)} if all_scores else {}
        schema = self.schema.with_metadata({FOOTER: json.dumps(footer)})
        table = pa.Table.from_pylist(all_rows, schema=schema)
        with self.writing():
            drawn = {row["overlay"] for row in rows if row["overlay"] is not None}
            files.sync(self.overlays / name for name in sorted(drawn))
            sealed.write(
                part_of(self.out, chunk), table, compression="zstd", use_dictionary=REPEATED
            )
            self._begun.pop(chunk, None)
            if images < self._inputs.sizes[chunk]:
                self._begun[chunk] = images
            else:
                self.finished.add(chunk)
            self._count_images()
            self._count(len(rows), failed)
            kept = self._failures.get(chunk, []) if before is not None else []
            self._failures[chunk] = [*kept, *failed]
            self._answered(answers)
            self.save()

    def copied(self, chunk: int, digest: str) -> tuple[list[Row], Scores | None]:
        """Read the results of a chunk's first unlabelled image with these bytes.

        Args:
            chunk: The chunk.
            digest: The SHA-256 (hex) of the image's bytes.

        Returns:
            Its rows, empty where they aren't done, and its scores, None where they weren't kept.
        """
        if chunk not in self.finished and chunk not in self._begun:
            return [], None
        import pyarrow.compute as pc

        part = Part.read(part_of(self.out, chunk))
        table = part.table()
        found = table.filter(pc.equal(table.column("source_sha256"), digest)).to_pylist()
        rows: list[Row] = [row for row in found if row.get("expected") is None]
        rows = [row for row in rows if row["path"] == rows[0]["path"]]
        known = {one.path: one for one in part.scores}
        return rows, known.get(rows[0]["path"]) if rows else None

    @property
    def failed(self) -> list[Failure]:
        """The failures of the images that this run added or explained."""
        return [one for chunk in sorted(self._failures) for one in self._failures[chunk]]

    @property
    def accuracy(self) -> float | None:
        """The share of the finished, labelled images whose class has the greatest score.

        None without a labelled image.
        """
        labelled = self.counts.get("labelled", 0)
        return self.counts["right"] / labelled if labelled else None

    def save(self, state: str = "running") -> None:
        """Write run.json.

        Args:
            state: "running", "complete" or "interrupted".
        """
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        told = self._about | {
            "state": state,
            "updated": now,
            "counts": self.counts,
            **({"accuracy": self.accuracy} if self.accuracy is not None else {}),
            "seconds": {name: round(value, 3) for name, value in self.seconds.items()},
        }
        told = json.loads(json.dumps(told))  # the values as they are read back, for the checksum
        told["sha256"] = checksum(told)
        files.write(self.out / "run.json", json.dumps(told, indent=2, ensure_ascii=True) + "\n")

    def finish(self, state: str) -> None:
        """Write the tables of failures and scores, and run.json.

        Args:
            state: "complete" or "interrupted".

        Raises:
            StoreError: OUT can't be written, or a part is damaged.
        """
        rows = [one.to_dict() for one in reading.failures(self.out)]
        table = pa.Table.from_pylist(rows, schema=_FAILURES)
        with self.writing():
            sealed.write(self.out / "failures.parquet", table)
            if len(told := reading.scores(self.out)):
                sealed.write(self.out / "scores.parquet", told)
            self.save(state)


def _unlabelled(part: Part) -> pa.Table:
    """Read the digests of a part's unlabelled images; a labelled image can't be copied."""
    table = part.table(["source_sha256", "expected"])
    known = "expected" in table.column_names
    return table.filter(table.column("expected").is_null()) if known else table
