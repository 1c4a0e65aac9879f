"""Copies between host and device: their order, and buffers that wait for their last copy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import zoo
from PIL import Image
from torch import Tensor

import visxai
from visxai import pipeline, results
from visxai.engine import transfer
from visxai.engine.acceleration import Plan
from visxai.engine.transfer import BUFFERS, CudaStreams, Streams, Transfer, Wait
from visxai.pipeline import run

CPU = torch.device("cpu")


class Late(Streams):
    """A device whose copies down are done as late as is allowed: when they are waited for."""

    ahead = 1

    def __init__(self, device: torch.device = CPU) -> None:
        super().__init__(device)
        self.log: list[str] = []
        self.open: dict[int, str] = {}  # copies that weren't waited for, by the memory they use
        self.sizes: list[int] = []

    def buffer(self, size: int) -> Tensor:
        self.sizes.append(size)
        return super().buffer(size)

    def up(self, host: Tensor) -> tuple[Tensor, Wait]:
        made, _ = super().up(host)
        return made, self.opened("up", host.data_ptr(), lambda: None)

    def down(self, pairs: Sequence[tuple[Tensor, Tensor]]) -> Wait:
        for _, into in pairs:
            into.fill_(1)  # what is read too early is wrong

        def copy() -> None:
            super(Late, self).down(pairs)

        return self.opened("down", pairs[0][1].data_ptr(), copy)

    def opened(self, what: str, memory: int, done: Wait) -> Wait:
        assert memory not in self.open, f"{what} uses memory of a copy that nobody waited for"
        self.open[memory] = what
        self.log.append(what)

        def wait() -> None:
            if self.open.pop(memory, ""):
                self.log.append(f"{what} done")
                done()

        return wait


def test_buffers_are_few_and_wait_for_their_last_copy() -> None:
    late = Late()
    way = Transfer(late)
    arrays = [[np.full((4, 5, 3), 10 * n + i, np.uint8) for i in range(3)] for n in range(5)]
    for given in arrays:
        assert torch.equal(way.upload(given), torch.from_numpy(np.stack(given)))
    assert late.log == ["up", "up", "up done", "up", "up done", "up", "up done", "up"]
    assert late.sizes == [180] * BUFFERS
    late.log.clear()
    maps = [
        [torch.full((2, 3), float(n)), torch.tensor([n, 7]), torch.tensor(n > 1), torch.empty(0, 2)]
        for n in range(5)
    ]
    coming = [way.download(one) for one in maps]
    assert late.log[:4] == ["down", "down", "down done", "down"]
    for given, down in zip(maps, coming, strict=True):
        found = down.result()
        assert all(map(torch.equal, found, given))
        assert [one.dtype for one in found] == [one.dtype for one in given]
    assert not [what for what in late.open.values() if what == "down"]
    way.upload([np.zeros((9, 9, 3), np.float32)])  # larger: the buffer is made anew, after a wait
    assert late.sizes[-1] == 9 * 9 * 3 * 4


def test_a_copy_that_fails_leaves_its_buffer_usable(monkeypatch: pytest.MonkeyPatch) -> None:
    way, plain = Transfer(Late()), Late.up

    def full(*_: object) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Late, "up", full)
    for _ in range(3):
        with pytest.raises(torch.OutOfMemoryError):
            way.upload([np.zeros(4, np.uint8)])
    monkeypatch.setattr(Late, "up", plain)
    assert way.upload([np.ones(4, np.uint8)]).tolist() == [[1, 1, 1, 1]]


def test_buffers_outlive_inference_mode() -> None:
    way = Transfer(Streams(CPU))
    for mode in (True, False, True):
        with torch.inference_mode(mode):
            assert way.download([torch.ones(2)]).result()[0].tolist() == [1, 1]


def pictures(count: int) -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    return [generator.integers(0, 255, (70, 70, 3), dtype=np.uint8) for _ in range(count)]


def engine() -> visxai.Engine:
    module = zoo.module("conv")
    return visxai.Engine(
        module, preprocess=zoo.PREPROCESS, accelerate="off", precision="fp32", batch_size=2
    )


@pytest.fixture
def late(monkeypatch: pytest.MonkeyPatch) -> list[Late]:
    """Let engines compute on a device that copies late; what was made of it."""
    made: list[Late] = []

    def way(device: torch.device) -> Transfer:
        made.append(Late(device))
        return Transfer(made[-1])

    monkeypatch.setattr("visxai.engine.engine.transfer_of", way)
    return made


def test_the_next_batch_is_begun_before_records_are_made(
    late: list[Late], monkeypatch: pytest.MonkeyPatch
) -> None:
    methods, gate = ["grad_cam", "saliency"], "top1>0.1"
    overlapping = engine()
    done: list[int] = []
    found = overlapping.explain(
        pictures(5), methods, "top2", only=gate, progress=lambda n, _: done.append(n)
    )
    (streams,) = late
    assert streams.log == [
        *("up", "down", "up", "down"),  # two batches are begun before the first one's records
        *("down done", "up done", "up", "down"),
        *("down done", "down done"),
    ]
    assert done == [0, 2, 4, 5]
    monkeypatch.undo()
    plain = engine().explain(pictures(5), methods, "top2", only=gate)
    assert len(found) == len(plain) == 20
    for one, other in zip(found, plain, strict=True):
        assert np.array_equal(one.values, other.values)
        names = ("score", "logit", "class_index", "degenerate", "top_scores", "precision", "layer")
        assert [getattr(one, n) for n in names] == [getattr(other, n) for n in names]
        assert one.seconds >= 0


def test_a_folder_run_that_overlaps_keeps_the_same_rows(
    late: list[Late], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for number, pixels in enumerate(pictures(7)):
        Image.fromarray(pixels).save(folder / f"{number}.png")
    (folder / "broken.png").write_bytes(b"no picture")

    def run(out: str, stop: int = 99) -> pipeline.Outcome:
        calls = iter(range(99))
        return pipeline.explain(
            [folder],
            tmp_path / out,
            engine(),
            style=None,
            workers=0,
            chunk_size=4,
            stop=lambda: next(calls) >= stop,
        )

    assert not run("late", stop=3).complete  # what has begun is kept, and the rest comes later
    assert len(list(results.read(tmp_path / "late"))) == 6
    outcome = run("late")
    assert (len(outcome.failed), "down done" in late[0].log) == (1, True)
    monkeypatch.undo()
    run("plain")
    both = [list(results.read(tmp_path / out)) for out in ("late", "plain")]
    assert len(both[0]) == 7
    for one, other in zip(*both, strict=True):
        assert np.array_equal(one.values, other.values)
        assert (one.input, one.score) == (other.input, other.score)


def test_an_image_that_fails_on_a_gpu_fails_alone(
    late: list[Late], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, grey = engine(), np.full((70, 70, 3), 200, np.uint8)
    for number, pixels in enumerate([*pictures(3), grey]):
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    plain = made.model.forward  # type: ignore[attr-defined]

    def picky(x: Tensor, *rest: Any) -> Tensor:
        if bool(((x.flatten(1).std(1) < 1e-6) & (x[:, 0, 0, 0] > 0.5)).any()):
            raise RuntimeError("no grey images")
        return plain(x, *rest)

    monkeypatch.setattr(made.model, "forward", picky)
    outcome = pipeline.explain([tmp_path], tmp_path / "out", made, style=None, workers=0)
    assert (len(outcome.failed), len(list(results.read(tmp_path / "out")))) == (1, 3)


def test_a_stream_reads_a_batch_when_its_first_result_is_asked_for(late: list[Late]) -> None:
    read: list[int] = []

    def live() -> Iterator[Any]:
        for number, pixels in enumerate([*pictures(3), b"no picture"]):
            read.append(number)
            yield pixels

    coming = engine().stream(live())
    next(coming)
    assert read == [0, 1]
    next(coming)  # what came before a broken image was told before it
    with pytest.raises(visxai.errors.ImageError):
        next(coming)
    assert late[0].ahead == 1


def test_seconds_are_never_less_than_none(
    late: list[Late], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = count(step=3600)  # preparing took the host longer than the maps took the device
    monkeypatch.setattr(Plan, "prepared", property(lambda _: next(clock)))
    (found,) = engine().explain(pictures(1))
    assert found.seconds == 0


def saved(folder: Path, images: Sequence[np.ndarray]) -> Path:
    folder.mkdir()
    for number, pixels in enumerate(images):
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return folder


def no_memory(*_: object) -> Any:
    raise torch.OutOfMemoryError("CUDA out of memory")


def interrupt(*_: object) -> Any:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("failing", "error"),
    [
        ("stop", KeyboardInterrupt),
        ("decoded_by", KeyboardInterrupt),
        ("begin_prepared", torch.OutOfMemoryError),
    ],
)
def test_a_batch_that_has_begun_is_kept_whatever_ends_the_run(
    late: list[Late],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    failing: str,
    error: type[BaseException],
) -> None:
    made, folder, calls = engine(), saved(tmp_path / "in", pictures(5)), count()
    how = no_memory if error is torch.OutOfMemoryError else interrupt
    plain = {
        "stop": lambda: False,
        "decoded_by": run._Run.decoded_by,
        "begin_prepared": made.begin_prepared,
    }[failing]
    first = 2 if failing == "decoded_by" else 1  # its calls for the first batch

    def later(*given: Any) -> Any:
        return (plain if next(calls) < first else how)(*given)

    stop: Any = later if failing == "stop" else lambda: False
    if failing == "decoded_by":
        monkeypatch.setattr(run._Run, "decoded_by", later)
    elif failing == "begin_prepared":
        monkeypatch.setattr(made, "begin_prepared", later)
    out = tmp_path / "out"
    with pytest.raises(error):
        pipeline.explain([folder], out, made, style=None, workers=0, chunk_size=4, stop=stop)
    assert len(list(results.read(out))) == 2


def test_equal_bytes_in_neighbouring_batches_are_explained_once(
    late: list[Late], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, images, rows = engine(), pictures(4), []
    folder = saved(tmp_path / "in", [images[n] for n in (0, 1, 0, 2, 0, 3)])
    plain = made.begin_prepared

    def counted(batch: Sequence[Any], *rest: Any) -> Any:
        rows.append(len(batch))
        return plain(batch, *rest)

    monkeypatch.setattr(made, "begin_prepared", counted)
    pipeline.explain([folder], tmp_path / "out", made, style=None, workers=0)
    found = list(results.read(tmp_path / "out"))
    assert (sum(rows), len(found)) == (4, 6)
    assert np.array_equal(found[0].values, found[2].values)
    assert np.array_equal(found[0].values, found[4].values)


def test_a_copy_of_an_image_without_results_is_explained_itself(
    late: list[Late], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, outs = pictures(4), [tmp_path / "late", tmp_path / "plain"]
    folder = saved(tmp_path / "in", [images[n] for n in (0, 1, 0, 0, 2, 3)])
    gate = f"top1<{engine().explain(images[0])[0].score - 1e-6}"  # which the first image fails
    said = []
    for out in outs:
        done = pipeline.explain([folder], out, engine(), only=gate, style=None, workers=0)
        said.append((len(done.failed), [one.input.path for one in results.read(out)]))
        monkeypatch.undo()
    assert said[0] == said[1]
    names = [Path(path).name for path in said[0][1]]
    assert names
    assert not {"0.png", "2.png", "3.png"} & {*names}
    tables = [results.scores(out).to_pylist() for out in outs]
    assert tables[0] == tables[1]
    assert len(tables[0]) == 6


def test_a_batch_that_fails_at_its_end_is_explained_one_by_one(
    late: list[Late], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, plain = engine(), visxai.Engine.begin_prepared
    folder = saved(tmp_path / "in", pictures(4))

    def failing(batch: Sequence[Any], *rest: Any) -> Any:
        begun, broken = plain(made, batch, *rest), any("2.png" in b.input.path for b in batch)

        def finish() -> Any:
            found = begun()
            if broken:
                raise RuntimeError("an assertion on the device")
            return found

        return finish

    monkeypatch.setattr(made, "begin_prepared", failing)
    outcome = pipeline.explain([folder], tmp_path / "out", made, style=None, workers=0)
    assert [Path(one.path or "").name for one in outcome.failed] == ["2.png"]
    assert len(list(results.read(tmp_path / "out"))) == 3


class FakeCuda:
    """Streams and events that write down what is asked of them."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.names = iter(("up", "down"))
        self.computing = self.stream("computing")

    def stream(self, name: str) -> SimpleNamespace:
        def event() -> SimpleNamespace:
            self.log.append(f"{name}: event")
            return SimpleNamespace(
                of=name, synchronize=lambda: self.log.append(f"host waits for {name}")
            )

        return SimpleNamespace(
            name=name,
            record_event=event,
            wait_event=lambda e: self.log.append(f"{name} waits for {e.of}'s event"),
            wait_stream=lambda s: self.log.append(f"{name} waits for {s.name}"),
        )

    @contextmanager
    def on(self, stream: SimpleNamespace) -> Iterator[None]:
        self.log.append(f"on {stream.name}")
        yield


def test_cuda_copies_run_beside_the_computation(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeCuda()
    monkeypatch.setattr(torch.cuda, "Stream", lambda _: fake.stream(next(fake.names)))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _: fake.computing)
    monkeypatch.setattr(torch.cuda, "stream", fake.on)
    streams = CudaStreams(CPU)
    made, wait = streams.up(torch.ones(3))
    wait()
    into = torch.zeros(3)
    streams.down([(made, into)])()
    assert into.tolist() == [1, 1, 1]
    assert fake.log == [
        *("on up", "up: event", "computing waits for up's event", "host waits for up"),
        *("down waits for computing", "on down", "down: event", "host waits for down"),
    ]


def test_copies_go_without_page_locked_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, asked = torch.empty, []

    def empty(*size: Any, pin_memory: bool = False, **how: Any) -> Tensor:
        asked.append(pin_memory)
        if pin_memory:
            raise RuntimeError("CUDA error: out of memory")
        return plain(*size, **how)

    monkeypatch.setattr(transfer.torch, "empty", empty)
    assert len(CudaStreams.buffer(object.__new__(CudaStreams), 8)) == 8
    assert asked == [True, False]
