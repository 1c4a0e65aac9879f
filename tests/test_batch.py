"""One batch as every run explains it: copies once, bad images alone, faults that are no image's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import zoo
from PIL import Image
from test_pipeline import photograph, rows

import visxai
from visxai import pipeline, results
from visxai.cli import terminal
from visxai.errors import ArgumentError, ModelError, OutOfMemory
from visxai.pipeline.batch import failure_of, one_by_one
from visxai.pipeline.workers import worker_count
from visxai.record.scores import unpack
from visxai.results import reading

NAN, RAISES, TALL = 81, 82, 83  # pixels wide


def own(image: Image.Image) -> Any:
    """A preprocessing with faults of its own at certain images."""
    if image.width == RAISES:
        raise ValueError("no such image\nwas seen")
    size = (64, 96) if image.width == TALL else (64, 64)
    pixels = np.asarray(image.resize(size), dtype=np.float32).transpose(2, 0, 1) / 255
    return np.full_like(pixels, np.nan) if image.width == NAN else np.ascontiguousarray(pixels)


@pytest.fixture(scope="module")
def conv() -> visxai.Engine:
    return visxai.Engine(
        zoo.module("conv"), preprocess=own, device="cpu", precision="fp32", accelerate="off",
        batch_size=4,
    )  # fmt: skip


def filled(folder: Path, widths: Sequence[int]) -> Path:
    for index, width in enumerate(widths):
        photograph(folder / f"{index}.png", index, (width, 70))
    return folder


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_cannot_be_explained_is_a_failure_and_no_other(
    tmp_path: Path, conv: visxai.Engine, workers: int
) -> None:
    folder = filled(tmp_path / "in", [90, NAN, 90, RAISES, 90, TALL, 90, 90, NAN])
    outcome = pipeline.explain([folder], tmp_path / "out", conv, "eigen_cam", workers=workers)
    assert outcome.complete
    assert outcome.counts == {"images": 9, "finished": 9, "maps": 6, "failures": 3}
    failed = {Path(str(one.path)).stem: one for one in results.failures(tmp_path / "out")}
    assert set(failed) == {"1", "3", "8"}
    assert "got ValueError: no such image; leave it out" in failed["3"].reason
    assert "leave it out" in failed["1"].reason
    assert failed["1"].reason == failed["8"].reason
    again = pipeline.explain([folder], tmp_path / "out", conv, "eigen_cam", workers=workers)
    assert again.counts == outcome.counts


def test_a_copy_of_what_fails_fails_under_its_own_name(tmp_path: Path, conv: visxai.Engine) -> None:
    folder = filled(tmp_path / "in", [90, NAN])
    (folder / "2.png").write_bytes((folder / "1.png").read_bytes())
    pipeline.explain([folder], tmp_path / "out", conv, "eigen_cam", workers=0)
    assert [Path(str(one.path)).stem for one in results.failures(tmp_path / "out")] == ["1", "2"]


def test_an_evaluation_loses_only_the_image_that_fails(tmp_path: Path, conv: visxai.Engine) -> None:
    pytest.importorskip("matplotlib")
    folder = filled(tmp_path / "in", [90, NAN, 91, 92, RAISES])
    found = visxai.evaluate.run(
        conv, [folder], "eigen_cam", ["sparseness"], tmp_path / "out", draws=10, examples=0,
        workers=0,
    )  # fmt: skip
    assert found.summary is not None
    assert found.outcome.counts["failures"] == 2
    assert {Path(row["path"]).stem for row in rows(tmp_path / "out")} == {"0", "2", "3"}


def test_items_are_run_alone_only_where_their_batch_fails() -> None:
    ran: list[list[int]] = []

    def run(items: Sequence[int]) -> list[int]:
        ran.append(list(items))
        if 3 in items:
            raise ValueError("three")
        return [item * 2 for item in items]

    def control() -> None:
        ran.append([])

    assert one_by_one([1, 2], run, control) == [2, 4]
    assert one_by_one([], run, control) == []
    assert ran == [[1, 2]]
    found = one_by_one([1, 3, 2], run, control)
    assert (found[0], found[2]) == (2, 4)
    assert isinstance(found[1], ValueError)
    assert ran[1:] == [[1, 3, 2], [1], [3], [2]]
    ran.clear()
    (alone,) = one_by_one([3], run, control)
    assert isinstance(alone, ValueError)
    assert ran == [[3], []]


def test_what_fails_on_any_image_ends_the_run() -> None:
    def run(items: Sequence[int]) -> list[int]:
        raise ModelError(f"broken at {len(items)}")

    with pytest.raises(ModelError, match="broken at 2"):
        one_by_one([1, 2], run, lambda: run([0]))


@pytest.mark.parametrize("error", [MemoryError(), OutOfMemory("none left")])
def test_memory_that_ran_out_is_no_fault_of_an_image(error: Exception) -> None:
    def run(items: Sequence[int]) -> list[int]:
        raise error

    with pytest.raises(MemoryError):
        one_by_one([1, 2], run, lambda: None)


def test_reasons_are_one_sentence() -> None:
    told = failure_of("a.png", RuntimeError("x" * 999 + "\nand a traceback"))
    assert told.kind == "RuntimeError"
    assert len(told.reason) < 450
    assert "\n" not in told.reason
    assert failure_of(None, ModelError("said so: do this.\nmore")).reason == "said so: do this"


def test_every_image_keeps_its_scores(
    tmp_path: Path, conv: visxai.Engine, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = filled(tmp_path / "in", [90, 91, 92, RAISES, 93, 94])
    (folder / "copy.png").write_bytes((folder / "0.png").read_bytes())
    good = [path for path in sorted(folder.iterdir()) if path.stem != "3"]
    plain = conv.predict(good)
    limit = float(np.median([one.score for one in plain]))
    out = tmp_path / "out"
    outcome = pipeline.explain(
        [folder], out, conv, "eigen_cam", only=f"top1>{limit}", workers=0, chunk_size=4
    )
    explained = {row["path"] for row in rows(out)}
    assert 0 < len(explained) < len(good)
    table = reading.scores(out).to_pylist()
    assert [row["path"] for row in table] == [str(path) for path in good]
    for row, prediction in zip(table, plain, strict=True):
        assert row["explained"] == (row["path"] in explained)
        top = prediction.top(5)
        assert row["labels"] == [label for label, _ in top]
        assert row["scores"] == pytest.approx([score for _, score in top], abs=1e-5)
        assert row["classes"][0] == prediction.class_index
        assert row["gate"] == row["scores"][0]
    assert outcome.counts["scored"] == 6
    assert outcome.counts["explained"] == len(explained)
    assert pq.read_table(out / "scores.parquet").to_pylist() == table
    terminal.summary(outcome, "visxai explain")
    told = capsys.readouterr().out
    assert f"6 images scored, {len(explained)} of them explained" in told
    assert "visxai.results.scores(" in told


def test_scores_are_kept_without_a_gate_too_and_by_stopped_runs(
    tmp_path: Path, conv: visxai.Engine
) -> None:
    folder = filled(tmp_path / "in", [90, 91, 92, 93, 94, 95])
    (folder / "copy.png").write_bytes((folder / "0.png").read_bytes())
    asked: dict[str, Any] = {"workers": 0, "chunk_size": 4, "style": None}
    pipeline.explain([folder], tmp_path / "whole", conv, **asked)
    seen: list[Any] = []
    stop = lambda: len(seen) > 1  # noqa: E731
    pipeline.explain([folder], tmp_path / "part", conv, progress=seen.append, stop=stop, **asked)
    assert len(reading.scores(tmp_path / "part")) == 4
    pipeline.explain([folder], tmp_path / "part", conv, **asked)
    assert reading.scores(tmp_path / "part") == reading.scores(tmp_path / "whole")
    table = reading.scores(tmp_path / "whole")
    assert table.column("explained").to_pylist() == [True] * 7
    assert table.column("gate").null_count == 7


def test_results_of_older_versions_have_no_scores_and_go_on(
    tmp_path: Path, conv: visxai.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = filled(tmp_path / "in", [90, 91])
    asked: dict[str, Any] = {"workers": 0, "style": None}
    with monkeypatch.context() as patch:
        patch.setattr("visxai.results.store.pack", lambda _: None)
        patch.setattr("visxai.results.reading.unpack", lambda _: ())
        pipeline.explain([folder], tmp_path / "out", conv, **asked)
    monkeypatch.setattr(
        "visxai.results.reading.unpack", lambda told: () if told is None else REAL(told)
    )
    assert len(reading.scores(tmp_path / "out")) == 0
    assert not (tmp_path / "out" / "scores.parquet").exists()
    (folder / "copy.png").write_bytes((folder / "0.png").read_bytes())
    photograph(folder / "new.png", 9)
    pipeline.explain([folder], tmp_path / "out", conv, **asked)
    told = reading.scores(tmp_path / "out").column("path").to_pylist()
    assert told == [str(folder / "new.png")]
    assert len(rows(tmp_path / "out")) == 4


REAL = unpack


@pytest.mark.parametrize(
    ("workers", "images", "timeout", "count"),
    [(None, 1, None, 0), (None, 2, 5, 1), (None, 0, 5, 0), (2, 1, None, 1), (2, 9, None, 2),
     (0, 9, None, 0), (1, 2, 5, 1)],
)  # fmt: skip
def test_how_many_workers(
    workers: int | None, images: int, timeout: float | None, count: int
) -> None:
    assert worker_count(workers, images, timeout) == count


def test_a_time_limit_without_a_worker_is_refused(tmp_path: Path, conv: visxai.Engine) -> None:
    folder = filled(tmp_path / "in", [90])
    with pytest.raises(ArgumentError, match="worker processes for a timeout"):
        pipeline.explain([folder], tmp_path / "out", conv, workers=0, timeout=5)
    with pytest.raises(ArgumentError, match="more than 0 seconds"):
        visxai.evaluate.run(conv, [folder], "saliency", out=tmp_path / "out", timeout=0)


@pytest.mark.parametrize("only", [None, "top1>0"])
def test_scores_cost_no_forward(
    conv: visxai.Engine, monkeypatch: pytest.MonkeyPatch, only: str | None
) -> None:
    calls: list[int] = []
    scores = conv.model.scores
    monkeypatch.setattr(conv.model, "scores", lambda x: (calls.append(len(x)), scores(x))[1])
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (70, 70, 3), np.uint8))
    found = conv.explain([image] * 2, ["grad_cam", "eigen_cam"], only=only)
    assert len(found) == 4
    # Grad-CAM's own forward has the scores; a gate asks before it.
    assert calls == ([] if only is None else [2])
