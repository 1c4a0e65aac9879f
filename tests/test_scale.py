"""Folder runs on Ray: the same OUT as a local run, whatever is killed on the way."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import test_batch
import test_pipeline
import zoo
from stores import SETTINGS, explanation, photograph
from test_pipeline import rows

import visxai
from visxai import cli, pipeline, results, scale
from visxai.cli import explain
from visxai.errors import ArgumentError, TargetError, VisxaiError
from visxai.images.sources import Found
from visxai.pipeline.progress import Progress
from visxai.results import reading
from visxai.results.rows import row_of
from visxai.results.store import Store
from visxai.scale import run
from visxai.scale.cluster import connected
from visxai.scale.run import _Run

pytestmark = [
    pytest.mark.xdist_group("ray"),
    # Ray Data warns of its own options.
    pytest.mark.filterwarnings(r"ignore::DeprecationWarning:ray\."),
]


def conv(**options: Any) -> visxai.Engine:
    """A small network in batches of four, as every process makes it.

    In float32: how "auto" computes in half precision is measured, and may come out otherwise in
    another process.
    """
    given = {
        "preprocess": zoo.PREPROCESS,
        "precision": "fp32",
        "accelerate": "off",
        "device": "cpu",
        "batch_size": 4,
    }
    return visxai.Engine(zoo.module("conv"), **{**given, **options})


def deadly() -> visxai.Engine:
    return conv(preprocess=test_pipeline.deadly)


def faulty() -> visxai.Engine:
    return conv(preprocess=test_batch.own)


def missing() -> visxai.Engine:
    return visxai.Engine("no_such_model")


def broken() -> visxai.Engine:
    raise TypeError("a bug")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Ray on this machine, its processes finding the modules of these tests."""
    if importlib.util.find_spec("ray") is None:
        pytest.skip("ray isn't installed (the extra ray)")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)
        with connected(cpus=3) as ray:
            yield ray


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photographs, two of them the same and beside each other, and one that is none."""
    top = tmp_path_factory.mktemp("in")
    for index in range(44):
        photograph(top / f"{index % 3}" / f"{index:02d}.png", index)
    (top / "0" / "03b.png").write_bytes((top / "0" / "03.png").read_bytes())
    (top / "1" / "torn.png").write_bytes((top / "1" / "01.png").read_bytes()[:200])
    return top


@pytest.fixture(scope="module")
def local(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a local run makes of them."""
    out = tmp_path_factory.mktemp("local")
    pipeline.explain([folder], out, conv(), target="top2", chunk_size=8, workers=0)
    return out


def settings(out: Path) -> Any:
    return json.loads((out / "run.json").read_text())["settings"]


def pictures(out: Path) -> dict[str, bytes]:
    found = (out / "overlays").rglob("*.jpg")
    return {str(path.relative_to(out)): path.read_bytes() for path in found}


def whole(out: Path) -> dict[Path, int]:
    """When the parts of finished chunks of 8 images were written; the others are written again."""
    parts = reading.parts(out).values()
    return {one: one.stat().st_mtime_ns for one in parts if reading.Part.read(one).images == 8}


def assert_same(out: Path, local: Path) -> None:
    assert settings(out) == settings(local)
    assert rows(out) == rows(local)
    assert results.failures(out) == results.failures(local)
    assert reading.scores(out) == reading.scores(local)
    assert pictures(out) == pictures(local)
    assert not list(out.rglob(".*.part"))


def test_a_run_that_stopped_goes_on_where_it_was_on_ray_or_not(
    cluster: Any, folder: Path, local: Path, tmp_path: Path
) -> None:
    seen: list[Progress] = []
    asked: dict[str, Any] = {"target": "top2", "chunk_size": 8, "progress": seen.append}

    def done(images: int) -> Callable[[], bool]:
        return lambda: seen[-1].done >= images

    first = pipeline.explain([folder], tmp_path, conv(), workers=0, stop=done(8), **asked)
    kept = whole(tmp_path)
    assert first.counts["finished"] == 8
    second = scale.explain([folder], tmp_path, conv, actors=1, stop=done(24), **asked)
    assert second.progress.before == 8
    assert 8 < second.counts["finished"] < 46
    assert not first.complete
    assert not second.complete
    kept |= whole(tmp_path)
    assert pipeline.explain([folder], tmp_path, conv(), workers=0, **asked).complete
    assert all(path.stat().st_mtime_ns == when for path, when in kept.items())
    assert_same(tmp_path, local)


def test_ray_fills_the_same_folder_though_an_actor_is_killed(
    cluster: Any, folder: Path, local: Path, tmp_path: Path
) -> None:
    noted = tmp_path / "processes"
    noted.mkdir()

    def slow() -> visxai.Engine:
        (noted / str(os.getpid())).touch()
        engine, explain = conv(), visxai.Engine.explain_prepared

        def later(*args: Any) -> Any:
            time.sleep(0.3)  # so that the killed one is at work
            return explain(engine, *args)

        engine.explain_prepared = later  # type: ignore[method-assign]
        return engine

    killed: list[int] = []
    told: list[Progress] = []

    def kill(progress: Progress) -> None:
        told.append(progress)
        if progress.done and not killed:
            processes = sorted(noted.iterdir(), key=lambda path: path.stat().st_mtime_ns)
            killed.append(int(processes[1].name))  # the first told what the settings are
            os.kill(killed[0], signal.SIGKILL)

    outcome = scale.explain(
        [folder], tmp_path / "out", slow, target="top2", chunk_size=8, actors=2, progress=kill
    )
    assert killed
    assert outcome.complete
    assert outcome.counts == {"images": 46, "finished": 46, "maps": 90, "failures": 1}
    assert [told[0].done, told[-1].done, told[-1].maps] == [0, 46, 90]
    assert {"decode", "compute", "draw", "write", "wall"} <= set(outcome.seconds)
    assert_same(tmp_path / "out", local)
    assert results.failures(local)[0].path == str(folder / "1" / "torn.png")


def test_batches_are_kept_in_the_order_of_their_chunk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "_INTERVAL", 0.0)
    paths = [photograph(tmp_path / "in" / f"{index}.png", index) for index in range(6)]
    kept = []
    for order in ((1, 2), (2, 0), (1,)):
        with Store(tmp_path / "out", SETTINGS | {"chunk": 6, "batch": 2}) as store:
            store.add([Found(str(path), str(path.parent)) for path in paths])
            driver = _Run(store)
            batches = {batch.start // 2: batch for batch in driver.batches()}
            done = [batches[number] for number in order if number in batches]
            for batch in done:
                batch.rows = [row_of(explanation(Path(one.path)), None) for one in batch.inputs]
            driver.all(iter(done * 2), lambda _: None, lambda: False)
            kept.append(store.counts["finished"])
    assert kept == [0, 2, 4]
    assert [one.input.path for one in results.read(tmp_path / "out")] == [*map(str, paths[:4])]


def test_labels_are_compared_and_an_image_that_kills_its_decoder_is_a_failure(
    cluster: Any, tmp_path: Path
) -> None:
    lines = ["path,label"]
    for index in range(6):
        size = (test_pipeline.DEADLY if index == 3 else 90, 50)
        photograph(tmp_path / "in" / f"{index}.png", index, size)
        lines.append(f"in/{index}.png,{index % 2}")
    table = tmp_path / "labels.csv"
    table.write_text("\n".join(lines))
    given: dict[str, Any] = {"only": "wrong", "style": None}
    plain = pipeline.explain([table], tmp_path / "local", deadly(), workers=1, **given)
    outcome = scale.explain([table], tmp_path / "out", deadly, actors=1, **given)
    assert outcome.counts == plain.counts
    assert outcome.counts["labelled"] == 5
    assert_same(tmp_path / "out", tmp_path / "local")
    (failure,) = results.failures(tmp_path / "out")
    assert failure.kind == "WorkerDied"


def test_an_image_that_cannot_be_explained_is_the_same_failure_on_ray(
    cluster: Any, tmp_path: Path
) -> None:
    widths = [90, test_batch.NAN, test_batch.RAISES, 90, test_batch.TALL, test_batch.NAN]
    folder = test_batch.filled(tmp_path / "in", widths)
    (folder / "1b.png").write_bytes((folder / "1.png").read_bytes())
    given: dict[str, Any] = {"method": "eigen_cam", "only": "top1<2"}
    pipeline.explain([folder], tmp_path / "gated", faulty(), workers=0, **given)
    outcome = scale.explain([folder], tmp_path / "gated_ray", faulty, actors=1, **given)
    assert outcome.counts["scored"] == 6
    assert outcome.counts["explained"] == 3
    assert_same(tmp_path / "gated_ray", tmp_path / "gated")
    plain = pipeline.explain([folder], tmp_path / "local", faulty(), "eigen_cam", workers=0)
    outcome = scale.explain([folder], tmp_path / "out", faulty, "eigen_cam", actors=1)
    assert outcome.counts == plain.counts
    assert outcome.counts["failures"] == 4
    assert_same(tmp_path / "out", tmp_path / "local")


def test_what_is_wrong_far_away_is_told_here(cluster: Any, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(VisxaiError, match="unknown model 'no_such_model'"):
        scale.explain([folder], tmp_path, missing)
    with pytest.raises(VisxaiError, match="got: TypeError: a bug; run"):
        scale.explain([folder], tmp_path, broken)
    with pytest.raises(TargetError, match="got 999: the model has 10 classes"):
        scale.explain([folder], tmp_path, conv, target="class=999")
    with pytest.raises(ArgumentError, match="9 actors"):
        scale.explain([folder], tmp_path, conv, actors=9)
    with pytest.raises(ArgumentError, match=r"call ray\.shutdown"), connected("a:1"):
        pass


@pytest.mark.parametrize("engine", [zoo.Conv(), 3, {"model": zoo.Conv()}])
def test_only_what_other_machines_can_make_is_an_engine(engine: Any, folder: Path) -> None:
    with pytest.raises(ArgumentError, match=r"engine=lambda: visxai\.Engine"):
        scale.explain([folder], "out", engine)


def test_a_cluster_must_ask_for_a_token(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("visxai.scale.cluster._begun", lambda **_: pytest.fail("connected"))
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_AUTH_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    for address, told in (("photos", "auto or HOST:PORT"), ("auto", "expected the token")):
        with pytest.raises(ArgumentError, match=told), connected(address):
            pass
    monkeypatch.setenv("RAY_AUTH_TOKEN", "secret")
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    with pytest.raises(ArgumentError, match="RAY_AUTH_MODE=disabled"), connected("a:1"):
        pass


@pytest.mark.parametrize(
    ("words", "address"),
    [(["--ray"], "local"), (["--ray", "a:1"], "a:1"), (["--ray", "-o", "x"], "local")],
)
def test_the_address_may_be_left_out(
    words: list[str], address: str, monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    def on_ray(making: Any, workers: Any, ray: str, stack: Any) -> Any:
        raise ArgumentError(f"expected at {ray}")

    monkeypatch.setattr(explain, "_on_ray", on_ray)
    with pytest.raises(ArgumentError, match=f"expected at {address}$"):
        cli.app(["explain", str(folder), *words], standalone_mode=False)


def test_workers_are_placed_by_ray(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        cli.main(["explain", str(folder), "--workers", "2", "--ray"])
    assert left.value.code == 2
    assert "expected --ray without --workers" in capsys.readouterr().err


def test_help_needs_no_ray() -> None:
    code = "import sys, visxai.cli, visxai.scale; print('ray' in sys.modules)"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "False"


def test_parts_are_whole(local: Path) -> None:
    assert sum(pq.read_metadata(path).num_rows for path in reading.parts(local).values()) == 90
