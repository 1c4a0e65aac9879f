"""Histories of a store: images added, computed in steps, crashes, retries and new beginnings.

A model of what OUT must hold goes along; whatever the order, every row is that of one run that was
never interrupted, none is lost once it is committed, and files of somebody else's stay.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from faulty import SETTINGS, explanation
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from visxai import files, results
from visxai.errors import Failure
from visxai.images.folders import is_results
from visxai.images.sources import Found
from visxai.results.rows import row_of
from visxai.results.store import Store

pytest.importorskip("hypothesis")

MINE = ("notes.txt", "overlays/mine.jpg", "explanations/.mine.part")


class Histories(RuleBasedStateMachine):
    """A folder of images that grows, some of which can't be read for a while, and its OUT."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="visxai-histories-"))
        self.out = self.folder / "out"
        self.images: list[Path] = []
        self.unlistable: set[str] = set()
        # What each chunk's file holds: why an image failed, or None.
        self.held: dict[int, dict[str, str | None]] = {}
        self.mine: list[Path] = []
        self.store: Store | None = None

    def teardown(self) -> None:
        self.leave()
        shutil.rmtree(self.folder)

    @initialize(count=st.integers(6, 14))
    def begin(self, count: int) -> None:
        self.add(count)
        self.open(False, False)

    def add(self, count: int) -> None:
        """Images appear in the folder, before and after others in its order."""
        for _ in range(count):
            number = (len(self.images) * 370) % 997
            self.images.append(self.folder / f"{number}.jpg")

    @rule(count=st.integers(1, 5), place=st.sampled_from("ab"), name=st.sampled_from(MINE))
    def change(self, count: int, place: str, name: str) -> None:
        """Images are added; a place can't be listed, which is listed as a failure, or isn't named
        any more; somebody puts a file of their own into OUT."""
        self.add(count)
        self.unlistable ^= {f"/{place}"}
        (self.out / name).write_text("mine")
        self.mine.append(self.out / name)

    @rule(dice=st.integers(0, 9), retry=st.booleans(), killed=st.booleans())
    def restart(self, dice: int, retry: bool, killed: bool) -> None:
        """A run ends, or is killed and leaves what it was writing, and another begins."""
        assert self.store is not None
        if killed:
            files.temporary(self.out / "overlays" / "x").write_text("half")
            files.temporary(self.out / "inputs.parquet").write_text("half")
        else:
            self.store.finish("interrupted" if self.store.pending() else "complete")
        self.leave()
        self.open(dice == 0, retry)

    def leave(self) -> None:
        if self.store is not None:
            self.store.close()
            self.store = None

    def open(self, fresh: bool, retry: bool) -> None:
        self.store = store = Store(self.out, SETTINGS, fresh=fresh, retry=retry)
        if fresh:
            self.held = {}
        found = [Found(str(path), str(self.folder)) for path in self.images]
        found += [Found(p, "/", Failure(p, "unlistable")) for p in self.unlistable]
        store.add(sorted(found, key=lambda one: one.path))
        left = {chunk for chunk in self.held if chunk not in {*store.pending(), *store.finished}}
        for chunk in left:  # nothing of it is listed any more
            assert retry
            assert {*self.held.pop(chunk).values()} == {"unlistable"}
        failed = {chunk for chunk, held in self.held.items() if any(held.values())}
        assert store.again == (failed | left if retry else set())
        kept = {chunk: held for chunk, held in self.held.items() if chunk not in store.again}
        sizes = {chunk: store.size(chunk) for chunk in kept}
        assert store.counts["finished"] == sum(min(sizes[c], len(kept[c])) for c in kept)
        assert store.counts["failures"] == sum(
            w is not None for h in kept.values() for w in h.values()
        )

    @rule(data=st.data(), count=st.integers(1, 3))
    def compute(self, data: st.DataObject, count: int) -> None:
        """Parts of chunks, or all that is left of them, are done."""
        for _ in range(count):
            if self.store is not None and self.store.pending():
                self.do(data, self.store)

    def do(self, data: st.DataObject, store: Store) -> None:
        chunk = data.draw(st.sampled_from(store.pending()))
        begun, size = store.begun(chunk), store.size(chunk)
        stop = data.draw(st.integers(begun + 1, size)) if store.divisible(chunk) else size
        rows, failed = [], []
        held = dict(self.held.get(chunk, {})) if begun else {}
        for one in store.inputs(chunk)[begun:stop]:
            failure = one.failure
            if failure is None and data.draw(st.sampled_from([True, False])):
                failure = Failure(one.path, "broken")
            held[one.path] = failure and failure.reason
            if failure is not None:
                failed.append(failure)
                continue
            files.write(store.overlays / f"{one.name}.jpg", one.path, durable=False)
            rows.append(row_of(explanation(one.path), f"{one.name}.jpg"))
        store.commit(chunk, rows, failed, images=stop)
        listed = {one.path for one in store.inputs(chunk)}
        assert listed & set(self.held.get(chunk, {})) <= set(held), "done, and lost"
        self.held[chunk] = held

    @invariant()
    def nothing_is_lost_or_wrong(self) -> None:
        if not is_results(self.out):
            return
        done = [(path, why) for held in self.held.values() for path, why in held.items()]
        rows: list[dict[str, Any]] = [one.to_dict() for one in results.read(self.out)]
        assert sorted(row["path"] for row in rows) == sorted(p for p, why in done if why is None)
        assert all(row == explanation(row["path"]).to_dict() for row in rows)
        failed = [(one.path, one.reason) for one in results.failures(self.out)]
        assert sorted(failed) == sorted((p, why) for p, why in done if why is not None)
        assert all(path.read_text() == "mine" for path in self.mine)


Histories.TestCase.settings = settings(
    max_examples=200 if os.environ.get("VISXAI_THOROUGH") == "1" else 15,
    stateful_step_count=30,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
TestHistories = Histories.TestCase
