"""A store's history in a process of its own, whose n-th call that changes the disk goes wrong.

    python faulty.py FOLDER MODE [STRIDE]

Modes: "kill" ends the process by SIGKILL before the call, "torn" cuts the file that is synced in
half and does the same; "full" lets all calls from it on fail that need room, "readonly" all that
change anything, "error" just this one. After each, what is left is read, and the same history goes
on without faults, its clock running backwards. Prints complaints, and how many histories were
broken off, as JSON.
"""

from __future__ import annotations

import builtins
import datetime
import errno
import io
import json
import os
import shutil
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from visxai import files, results
from visxai.errors import Failure, StoreError
from visxai.images.sources import Found
from visxai.record.image import ImageExplanation
from visxai.references import ImageRef, ModelRef, Transform
from visxai.results import reading, store
from visxai.results.rows import row_of
from visxai.results.store import Store

SETTINGS = {
    "model": "m",
    "methods": ["grad_cam()"],
    "target": "top1",
    "chunk": 3,
    "overlays": {"format": "jpg", "colormap": None, "panel": False},
}
MINE = (
    *("notes.txt", "explanations/notes.txt", "overlays/mine.jpg", "overlays/deep/.mine.part"),
    *("report/notes.html", "export/mine/x.csv"),
)
REFUSED = 3  # the status of a process that ended in a sentence
ROOM = {"open", "mkdir", "fsync"}


class Faults:
    """Counts the calls that change the disk below a folder, and lets the n-th go wrong."""

    def __init__(self, out: Path, mode: str, at: int) -> None:
        self.out, self.mode, self.at, self.calls = str(out), mode, at, 0

    def install(self) -> None:
        for name in ("mkdir", "replace", "rename", "unlink", "remove", "rmdir", "fsync"):
            setattr(os, name, self.wrapped(name, getattr(os, name)))
        opened = self.wrapped("open", builtins.open)
        builtins.open = io.open = opened  # type: ignore[assignment]
        os.open = self.wrapped("open", os.open)  # type: ignore[assignment]

    def wrapped(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def faulty(path: Any, *rest: Any, **options: Any) -> Any:
            if self.changes(name, path, rest, options):
                self.calls += 1
                self.fail(name, path)
            return call(path, *rest, **options)

        return faulty

    def changes(self, name: str, path: Any, rest: Any, options: Any) -> bool:
        if name == "fsync" or options.get("dir_fd") is not None:
            return True
        if isinstance(path, int) or not os.fspath(path).startswith(self.out):
            return False
        if name != "open":
            return True
        mode = (rest and rest[0]) or options.get("mode", "r")
        return mode not in ("r", "rb") if isinstance(mode, str) else bool(mode & os.O_CREAT)

    def fail(self, name: str, path: Any) -> None:
        if self.calls < self.at or (self.calls > self.at and self.mode == "error"):
            return
        if self.mode == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.mode == "torn" and self.calls == self.at:
            if name == "fsync":
                size = os.fstat(path).st_size
                if size and not os.path.isdir(f"/proc/self/fd/{path}"):
                    os.ftruncate(path, size // 2)
            os.kill(os.getpid(), signal.SIGKILL)
        wrong = {"full": errno.ENOSPC, "readonly": errno.EROFS, "error": errno.EIO}[self.mode]
        if self.mode != "full" or name in ROOM:
            raise OSError(wrong, os.strerror(wrong), str(path))


def explanation(path: str) -> ImageExplanation:
    import numpy as np

    number = int(Path(path).stem)
    values = np.linspace(-number, 1, 12, dtype=np.float32).reshape(3, 4)
    transform = Transform((40, 30), (4, 0, 30, 30))
    where = ImageRef(40, 30, transform, f"{number:064x}", path)
    model = ModelRef("m", "a" * 64, "no resize")
    return ImageExplanation(where, model, values, "grad_cam()", "top1", 7, "tabby", 0.25, 1.5)


def history(folder: Path, out: Path) -> None:
    """A run in steps over images of which one fails, a retry of that, and exports."""
    images = sorted((folder / "in").iterdir())
    listed = [Found(str(path), str(path.parent)) for path in images]

    def do(one: Store, chunk: int, stop: int, broken: str) -> None:
        rows, failed = [], []
        for given in one.inputs(chunk)[one.begun(chunk) : stop]:
            if Path(given.path).stem == broken:
                failed.append(Failure(given.path, "why"))
                continue
            overlay = f"{given.name}.jpg"
            with files.one_sentence("overlay", "no"):
                files.write(one.overlays / overlay, given.path, durable=False)
            rows.append(row_of(explanation(given.path), overlay))
        one.commit(chunk, rows, failed, images=stop)

    with Store(out, SETTINGS) as one:
        one.add(listed)
        for chunk in one.pending():
            for stop in range(one.begun(chunk) + 1, one.size(chunk) + 1):
                do(one, chunk, stop, "1")
        one.finish("interrupted")
    with Store(out, SETTINGS, retry=True) as one:
        one.add(listed)
        for chunk in one.pending():
            do(one, chunk, one.size(chunk), "")
        one.finish("complete")
    for _ in range(2):
        results.export(out, "csv")


def begin(folder: Path, out: Path) -> None:
    """What an earlier run left that finished nothing, and what somebody put beside it."""
    images = sorted((folder / "in").iterdir())
    with Store(out, SETTINGS | {"target": "top3"}) as one:
        one.add([Found(str(path), str(path.parent)) for path in images])
    (out / "overlays" / "1.jpg.jpg").write_text("an old overlay")
    files.temporary(out / "explanations" / "x").write_text("half")
    for name in MINE:
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text(name)


def found(out: Path) -> list[dict[str, Any]]:
    return [one.to_dict() for one in results.read(out)]


def run_backwards() -> None:
    """Lets the clock of the store run backwards."""
    times = iter(datetime.datetime(2030, 1, 1, tzinfo=datetime.UTC) - i * ONE for i in range(999))
    clock = SimpleNamespace(now=lambda _: next(times))
    store.datetime = SimpleNamespace(datetime=clock, UTC=datetime.UTC)  # type: ignore[assignment]


ONE = datetime.timedelta(days=1)


def check(folder: Path, out: Path) -> None:
    """What a history that was broken off left is right, and goes on to the whole."""
    want = json.loads((folder / "want.json").read_text())
    there = found(out) if reading.about(out) is not None else []
    assert all(row in want for row in there), "a wrong row"
    assert [(out / name).read_text() for name in MINE] == list(MINE), "not its own"
    run_backwards()
    history(folder, out)
    assert found(out) == want, "other rows"
    assert not results.failures(out)
    assert json.loads((out / "run.json").read_text())["state"] == "complete"
    assert [(out / name).read_text() for name in MINE] == list(MINE), "not its own, later"
    left = [p for p in out.rglob("*") if files.is_temporary(p.name) or p.suffix == ".old"]
    # An export that was killed leaves its folder to the next run.
    assert not [path for path in left if path.parent.name != "export"], left
    overlays = {path.name for path in (out / "overlays").iterdir() if path.is_file()}
    assert overlays == {"mine.jpg", *(f"{i}.jpg.jpg" for i in range(5))}, overlays


def child(work: Callable[[], None]) -> int:
    """Does work in a fork of this process, which has used no thread yet."""
    process = os.fork()
    if process == 0:
        try:
            work()
            os._exit(0)
        except StoreError as error:
            os._exit(REFUSED if str(error).startswith("expected ") else 4)
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def main(folder: Path, mode: str, stride: int = 1) -> None:
    (folder / "in").mkdir()
    for index in range(5):
        (folder / "in" / f"{index}.jpg").write_text(str(index))

    def whole() -> None:
        history(folder, folder / "whole")
        (folder / "want.json").write_text(json.dumps(found(folder / "whole")))
        faults = Faults(folder / "counted", "none", 10**9)
        begin(folder, folder / "counted")
        faults.install()
        history(folder, folder / "counted")
        (folder / "calls").write_text(str(faults.calls))

    complaints = [] if child(whole) == 0 else ["the whole"]
    assert child(lambda: begin(folder, folder / "base")) == 0
    calls = int((folder / "calls").read_text())
    out = folder / "out"

    def broken(at: int) -> None:
        Faults(out, mode, at).install()
        history(folder, out)

    broke = 0
    for at in range(1, calls + 1, stride):
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(folder / "base", out)
        status = child(lambda at=at: broken(at))  # type: ignore[misc]
        broke += status != 0
        if status not in (0, REFUSED, -signal.SIGKILL):
            complaints.append(f"call {at}: ended with {status}")
        status = child(lambda: check(folder, out))
        if status:
            complaints.append(f"after call {at}: {status}")
    sys.stdout.write(json.dumps({"complaints": complaints, "broken": broke}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], *map(int, sys.argv[3:]))
