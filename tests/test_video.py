"""Videos: the right frames at the right times, maps averaged for the eye alone, hostile files."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from stores import explanation, photograph

import visxai
from visxai import cli, video
from visxai.errors import ArgumentError, Failure, ImageError, StoreError
from visxai.images.decoding import Limits
from visxai.video import frames
from visxai.video.run import _Painter, _Screen


def clip(path: Path, count: int = 9, size: tuple[int, int] = (98, 64), rate: float = 10) -> Path:
    """A clip whose frame i is a picture of its own, moved by i pixels."""
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
    whole = cv2.resize(small, (size[0] + count, size[1]), interpolation=cv2.INTER_CUBIC)
    code = {".mp4": "mp4v", ".avi": "MJPG", ".webm": "VP80"}[path.suffix]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*code), rate, size)
    assert writer.isOpened()
    for number in range(count):
        writer.write(np.ascontiguousarray(whole[:, number : number + size[0]]))
    writer.release()
    return path


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return clip(tmp_path_factory.mktemp("video") / "clip.mp4")


def decoded(path: Path) -> list[np.ndarray]:
    capture, found = cv2.VideoCapture(str(path)), []
    while (read := capture.read())[0]:
        found.append(cv2.cvtColor(read[1], cv2.COLOR_BGR2RGB))
    return found


def test_every_nth_frame_is_explained_as_its_picture_alone(
    short: Path, engine: visxai.Engine, tmp_path: Path
) -> None:
    told: list[tuple[int, int]] = []
    made = video.explain(
        short, tmp_path, engine, "grad_cam,saliency", every=4, progress=lambda *n: told.append(n)
    )
    assert (made.frames, made.maps, made.problem) == (3, 6, None)
    assert told == [(0, 3), (3, 3)]
    found = list(video.read(tmp_path))
    assert [one.frame for one in found] == [0, 0, 4, 4, 8, 8]
    assert [one.time for one in found] == pytest.approx([0, 0, 0.4, 0.4, 0.8, 0.8])
    pictures = decoded(short)
    wanted = engine.explain([pictures[i] for i in (0, 4, 8)], "grad_cam,saliency")
    for one, alone in zip(found, wanted, strict=True):
        assert not isinstance(alone, Failure)
        assert one.explanation.label == alone.label
        assert one.explanation.input.source_sha256 == alone.input.source_sha256
        # Rows keep maps in half precision.
        np.testing.assert_allclose(
            one.explanation.values, alone.values, atol=1e-3 * np.abs(alone.values).max()
        )
    table = pq.read_table(tmp_path / "frames.parquet")
    assert set(table["path"].to_pylist()) == {str(short)}
    overlay = decoded(tmp_path / "overlay.mp4")
    assert [one.shape for one in overlay] == [(64, 2 * 98, 3)] * 3
    assert cv2.VideoCapture(str(tmp_path / "overlay.mp4")).get(cv2.CAP_PROP_FPS) == 2.5
    assert sorted(one.name for one in tmp_path.iterdir()) == ["frames.parquet", "overlay.mp4"]
    with pytest.raises(StoreError, match="earlier run"):
        video.explain(short, tmp_path, engine)


def test_more_frames_than_a_batch(engine: visxai.Engine, tmp_path: Path) -> None:
    made = video.explain(
        clip(tmp_path / "c.avi", 18, (64, 48), 25), tmp_path / "out", engine, "grad_cam"
    )
    assert [one.frame for one in video.read(tmp_path / "out")] == list(range(18))
    assert made.about == frames.About(64, 48, 25.0, 18)
    assert [one.shape for one in decoded(tmp_path / "out" / "overlay.mp4")] == [(48, 64, 3)] * 18
    with _Screen(tmp_path / "odd.mp4", frames.About(65, 49, 25.0, 1), 25.0, 1) as screen:
        screen.show([Image.new("RGB", (65, 49))])
    assert [one.shape for one in decoded(tmp_path / "odd.mp4")] == [(48, 64, 3)]


def test_a_run_that_was_ended_goes_on(
    engine: visxai.Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    film = clip(tmp_path / "c.avi", 20, (64, 48), 25)
    whole, out = tmp_path / "whole", tmp_path / "out"
    video.explain(film, whole, engine)
    explained: list[int] = []
    plain = engine.explain_prepared

    def counted(batch: Any, *given: Any) -> Any:
        explained.append(len(batch))
        if sum(explained) > 16:
            raise KeyboardInterrupt  # ended at its worst moment
        return plain(batch, *given)

    monkeypatch.setattr(engine, "explain_prepared", counted)
    with pytest.raises(KeyboardInterrupt):
        video.explain(film, out, engine)
    assert not (out / "frames.parquet").exists()
    with pytest.raises(StoreError, match="settings"):
        video.explain(film, out, engine, "saliency")
    parts = sorted((out / "unfinished").glob("*.parquet"))
    explained[:] = []
    assert video.explain(film, out, engine, stop=lambda: bool(explained)).stopped
    assert explained == [4]
    explained[:] = []
    assert video.explain(film, out, engine).frames == 20
    assert explained == []
    assert parts
    rows = [pq.read_table(one / "frames.parquet") for one in (whole, out)]
    without = ["created", "seconds"]
    assert rows[0].drop_columns(without).equals(rows[1].drop_columns(without))
    for mine, theirs in zip(*(decoded(one / "overlay.mp4") for one in (out, whole)), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert sorted(one.name for one in out.iterdir()) == ["frames.parquet", "overlay.mp4"]


def test_drawn_maps_are_averaged_over_time_and_start_anew_with_a_class(tmp_path: Path) -> None:
    path = photograph(tmp_path / "a.png", 1)
    painter = _Painter(0.5, None)
    values = [np.full((7, 7), value, np.float32) for value in (1, 3, 5)]
    made = [
        explanation(path, values=one, class_index=index)
        for one, index in zip(values, (7, 7, 8), strict=True)
    ]
    drawn = [painter._averaged(0, 0.1 * n, one)[0, 0] for n, one in enumerate(made)]
    share = 1 - math.exp(-0.1 / 0.5)
    assert drawn == pytest.approx([1, 1 + share * 2, 5])
    plain = _Painter(0.0, None)
    assert [plain._averaged(0, 0.1 * n, one)[0, 0] for n, one in enumerate(made)] == [1, 3, 5]


def test_other_files_are_no_videos(short: Path, engine: visxai.Engine, tmp_path: Path) -> None:
    secret = tmp_path / "secret.mp4"
    secret.write_bytes(short.read_bytes())
    playlist = f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{secret}\n#EXT-X-ENDLIST\n"
    concat = f"ffconcat version 1.0\nfile '{secret}'\n"
    wrong = tmp_path / "wrong \x1b[31m.mp4"
    for content in ("", "no video", playlist, concat, "\0\0\0\x18ftypisom"):
        wrong.write_text(content)
        with pytest.raises(ImageError) as caught:
            frames._open(str(wrong), Limits())
        assert "\x1b" not in str(caught.value)
    for missing in (tmp_path / "none.mp4", tmp_path):
        with pytest.raises(ImageError):
            frames._open(str(missing), Limits())
    with pytest.raises(ImageError):
        video.explain(wrong, tmp_path / "out", engine)
    with pytest.raises(ImageError, match="at most 100 pixels"):
        video.explain(short, tmp_path / "out", engine, limits=Limits(max_pixels=100))
    assert not (tmp_path / "out" / "frames.parquet").exists()


def test_a_damaged_video_keeps_its_first_frames_or_is_refused(
    short: Path, engine: visxai.Engine, tmp_path: Path
) -> None:
    data = bytearray(clip(tmp_path / "c.avi", 18).read_bytes())
    cut = tmp_path / "cut.avi"
    cut.write_bytes(data[: len(data) * 2 // 3])
    made = video.explain(cut, tmp_path / "out", engine)
    assert 0 < made.frames < 18
    assert made.problem
    rng = np.random.default_rng(0)
    for number in range(2):
        whole = bytearray(short.read_bytes())
        for place in rng.integers(12, len(whole), 60).tolist():
            whole[place] = int(rng.integers(256))
        torn = tmp_path / "torn.mp4"
        torn.write_bytes(whole)
        try:
            video.explain(torn, tmp_path / f"torn{number}", engine, every=3)
        except ImageError:
            assert not (tmp_path / f"torn{number}" / "frames.parquet").exists()


def test_arguments_are_checked(short: Path, engine: visxai.Engine, tmp_path: Path) -> None:
    for wrong in ({"every": 0}, {"smooth": -1.0}, {"smooth": math.nan}, {"target": "top3"}):
        with pytest.raises(ArgumentError):
            video.explain(short, tmp_path, engine, **wrong)


def test_the_command(short: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def run(*arguments: str) -> int:
        with pytest.raises(SystemExit) as left:
            cli.main(["explain", *arguments, "--out", str(tmp_path / "out")])
        return int(left.value.code or 0)

    assert run(str(short), "--every", "3", "--smooth", "0.2", "--precision", "fp32") == 0
    assert "3 frames explained" in capsys.readouterr().out
    assert [one.frame for one in video.read(tmp_path / "out")] == [0, 3, 6]
    assert run(str(short)) == 2  # an earlier run lies there
    assert "--fresh" in capsys.readouterr().err
    assert run(str(short), "--only", "top1<0.5") == 2
    assert "--only" in capsys.readouterr().err
    assert run(str(tmp_path / "none.mp4")) == 2
    assert "no such file" in capsys.readouterr().err
    assert run(str(photograph(tmp_path / "a.png", 1)), "--every", "2") == 2
    assert "--every" in capsys.readouterr().err
