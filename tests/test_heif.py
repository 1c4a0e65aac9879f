"""AVIF and HEIC: read where they can be, and never left out in silence."""

from __future__ import annotations

import io
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, features

import visxai
from visxai import pipeline, results
from visxai.errors import Failure, ImageError
from visxai.images import decoding, folders

RGB = np.random.default_rng(4).integers(0, 255, (6, 8, 3), dtype=np.uint8)
PHOTO = Image.fromarray(RGB).resize((64, 48), Image.Resampling.BICUBIC)
# The header of a HEIC file, of which only a library can read more.
HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + b"\0\0\0\x08meta"

avif = pytest.mark.skipif(not features.check("avif"), reason="this Pillow is built without AVIF")


def encoded(format: str, **more: Any) -> bytes:
    into = io.BytesIO()
    PHOTO.save(into, format, **more)
    return into.getvalue()


@avif
def test_an_avif_is_read_upright_and_within_limits() -> None:
    read = decoding.decode(encoded("AVIF", quality=95)).image
    assert np.abs(np.asarray(read, int) - np.asarray(PHOTO, int)).mean() < 4
    exif = Image.Exif()
    exif[0x112] = 6
    turned = decoding.decode(encoded("AVIF", quality=95, exif=exif))
    assert (turned.image.size, turned.orientation) == ((48, 64), 6)
    upright = np.asarray(PHOTO.transpose(Image.Transpose.ROTATE_270), int)
    assert np.abs(np.asarray(turned.image, int) - upright).mean() < 4
    with pytest.raises(ImageError, match="got 64x48"):
        decoding.decode(encoded("AVIF"), decoding.Limits(max_pixels=100))
    for cut in (40, 200):
        with pytest.raises(ImageError):
            decoding.decode(encoded("AVIF")[:cut])


def test_a_heic_without_its_library_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(ImageError, match=r"pip install 'visxai\[heif\]'"):
        decoding.decode(HEIC)


def test_a_heics_size_is_checked_before_it_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    class File:
        size = (30_000, 30_000)

        def to_pillow(self) -> Image.Image:
            raise AssertionError("it was decoded")

    library = types.SimpleNamespace(open_heif=lambda *_, **__: File())
    monkeypatch.setitem(sys.modules, "pillow_heif", library)  # type: ignore[arg-type]
    with pytest.raises(ImageError, match="got 30000x30000"):
        decoding.decode(HEIC)


def test_a_heic_is_read_by_its_library() -> None:
    library = pytest.importorskip("pillow_heif")
    into = io.BytesIO()
    library.from_pillow(PHOTO).save(into, quality=95)
    read = decoding.decode(into.getvalue())
    assert np.abs(np.asarray(read.image, int) - np.asarray(PHOTO, int)).mean() < 8  # coarse colours
    assert "HEIF" not in Image.OPEN  # of the whole process nothing is changed
    with pytest.raises(ImageError):
        decoding.decode(into.getvalue()[:300])
    exif = Image.Exif()
    exif[0x112] = 6
    into = io.BytesIO()
    library.from_pillow(PHOTO).save(into, quality=95, exif=exif.tobytes())
    upright = np.asarray(PHOTO.transpose(Image.Transpose.ROTATE_270), int)
    assert np.abs(np.asarray(decoding.decode(into.getvalue()).image, int) - upright).mean() < 8


def test_no_image_of_a_folder_is_left_out_in_silence(
    engine: visxai.Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    home = tmp_path / "photos"
    home.mkdir()
    good = ["a.png", "b.JFIF"]
    (home / "a.png").write_bytes(encoded("PNG"))
    (home / "b.JFIF").write_bytes(encoded("JPEG"))
    if features.check("avif"):
        good.append("c.avif")
        (home / "c.avif").write_bytes(encoded("AVIF"))
    (home / "d.heic").write_bytes(HEIC)
    (home / "e.jxl").write_bytes(b"\xff\x0a" + b"x" * 40)
    (home / "f.jp2").write_bytes(b"\0\0\0\x0cjP  \r\n\x87\n" + b"x" * 40)
    # A raw file is a TIFF whose first picture is a thumbnail.
    (home / "g.NEF").write_bytes(encoded("TIFF"))
    (home / "notes.txt").write_text("not an image")
    outcome = pipeline.explain([home], tmp_path / "out", engine=engine, workers=0)
    assert outcome.counts["images"] == len(good) + 4
    assert sorted(Path(one.input.path or "").name for one in results.read(outcome.out)) == good
    told = {Path(one.path or "").name: one.reason for one in results.failures(outcome.out)}
    assert sorted(told) == ["d.heic", "e.jxl", "f.jp2", "g.NEF"]
    assert "visxai[heif]" in told["d.heic"]
    assert "got something else" in told["e.jxl"]
    assert "raw file" in told["g.NEF"]


def test_what_is_read_is_among_what_is_found() -> None:
    assert set(folders.READ) <= set(folders.EXTENSIONS)
    assert all(ending == ending.lower() for ending in folders.EXTENSIONS)


def test_the_engine_records_an_image_that_it_cant_read(engine: visxai.Engine) -> None:
    (found,) = engine.explain([b"nothing"], on_error="record")
    assert isinstance(found, Failure)


@avif
def test_confined_workers_read_avif_too(engine: visxai.Engine, tmp_path: Path) -> None:
    (tmp_path / "one.avif").write_bytes(encoded("AVIF"))
    one = [tmp_path / "one.avif"]
    outcome = pipeline.explain(one, tmp_path / "out", engine=engine, workers=1)
    assert outcome.counts["maps"] == 1, results.failures(outcome.out)
