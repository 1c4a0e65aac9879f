"""Images given as open files, arrays, tensors and folders."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import visxai
from visxai.errors import ArgumentError, Failure, ImageError
from visxai.images import decoding
from visxai.record.image import ImageExplanation

RGB = np.random.default_rng(3).integers(0, 255, (40, 60, 3), dtype=np.uint8)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    Image.fromarray(RGB).save(tmp_path / "one.png")
    return tmp_path / "one.png"


def explained(engine: visxai.Engine, source: Any) -> list[ImageExplanation]:
    found = engine.explain(source)
    assert all(isinstance(one, ImageExplanation) for one in found)
    return found  # type: ignore[return-value]


def test_open_files_are_read_as_their_bytes_are(engine: visxai.Engine, file: Path) -> None:
    (plain,) = explained(engine, file)
    # What a web framework hands on.
    with open(file, "rb") as opened, tempfile.SpooledTemporaryFile(max_size=10) as upload:
        upload.write(file.read_bytes())
        upload.seek(0)
        for source in (opened, io.BytesIO(file.read_bytes()), upload):
            (found,) = explained(engine, source)
            assert (found.values == plain.values).all()
            assert found.input.source_sha256 == plain.input.source_sha256
            assert found.overlay().size == (60, 40)  # though the file was read already
        assert len(explained(engine, [io.BytesIO(file.read_bytes()), file])) == 2


def test_files_that_give_no_bytes_are_told_in_a_sentence(file: Path) -> None:
    class Upload:
        async def read(self, size: int = -1) -> bytes:
            return b""

    class Numbers:
        def read(self, size: int = -1) -> list[int]:
            return [1]

    with open(file, encoding="latin-1") as text, pytest.raises(ArgumentError, match="mode 'rb'"):
        decoding.decode(text)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match=r"pass its \.file"):
        decoding.decode(Upload())  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="gives bytes, got list"):
        decoding.decode(Numbers())  # type: ignore[arg-type]
    with pytest.raises(ImageError, match=r"seek\(0\)"):
        decoding.decode(io.BytesIO())
    with pytest.raises(ImageError, match="max_bytes"):
        decoding.decode(io.BytesIO(file.read_bytes()), decoding.Limits(max_bytes=10))


@pytest.mark.parametrize(
    "source",
    [
        RGB / np.float64(255),
        (RGB / 255).astype(np.float32),
        RGB.transpose(2, 0, 1),
        torch.from_numpy(RGB),
        torch.from_numpy(RGB).permute(2, 0, 1),
        torch.from_numpy(RGB).permute(2, 0, 1)[None],
        RGB[None],
    ],
    ids=["float64", "float32", "channels first", "tensor", "first tensor", "batch", "array batch"],
)
def test_arrays_and_tensors_in_either_order_of_axes(engine: visxai.Engine, source: Any) -> None:
    (plain,) = explained(engine, RGB)
    (found,) = explained(engine, source)
    assert found.input.source_sha256 == plain.input.source_sha256
    assert (found.values == plain.values).all()


def test_grey_arrays_with_an_axis_of_one_channel() -> None:
    plain = decoding.decode(RGB[:, :, 0]).sha256
    assert decoding.decode(RGB[:, :, :1]).sha256 == plain
    assert decoding.decode(RGB[:, :, 0][None]).sha256 == plain


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (RGB.astype(np.float32), "expected floats in 0..1, got values from 0 to 25"),
        ((RGB / 127.5) - 1, "attribute"),
        (np.full((5, 6, 3), np.nan), "expected floats in 0..1"),
        (RGB.astype(np.int64), "uint8 array"),
        (np.zeros((3, 5, 3)), "may have them first or last"),
        (torch.zeros(3, 5, 3, dtype=torch.uint8), "may have them first or last"),
        (torch.zeros(3, 40, 60), "use attribute"),
        (torch.zeros(2, 3, 40, 60), "use attribute"),
        (np.zeros((2, 40, 60, 2), np.uint8), "uint8 array"),
    ],
)
def test_what_could_be_read_in_two_ways_is_refused(
    engine: visxai.Engine, source: Any, said: str
) -> None:
    with pytest.raises(ArgumentError, match=said) as told:
        engine.explain(source)
    assert len(str(told.value).splitlines()) == 1


def test_folders_stand_for_their_images(engine: visxai.Engine, tmp_path: Path) -> None:
    for name in ("b.png", "in/a.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(RGB).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no image")
    names = [Path(str(one.input.path)).name for one in explained(engine, tmp_path)]
    assert names == ["b.png", "a.png"]
    assert len(list(engine.stream([str(tmp_path), tmp_path / "b.png"]))) == 3
    assert len(engine.score(tmp_path)) == len(engine.predict(tmp_path)) == 2

    (tmp_path / "in" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    found = engine.explain(tmp_path, on_error="record")
    assert [type(one) for one in found] == [ImageExplanation, ImageExplanation, Failure]
    with pytest.raises(ImageError, match="link leads nowhere"):
        engine.explain(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ArgumentError, match="none below"):
        engine.explain(tmp_path / "empty")
