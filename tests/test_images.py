"""Finding and decoding: every kind of file in, the right pixels or one clear ImageError out."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import random
import socket
import struct
import subprocess
import sys
import time
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile

import visxai
from visxai.errors import ArgumentError, Failure, ImageError
from visxai.foreign import shown
from visxai.images import decoding
from visxai.images.decoding import Limits, decode
from visxai.images.folders import images_below as find
from visxai.results.names import output_name

COLOURS = np.array(
    [[[255, 0, 0], [0, 255, 0], [0, 0, 255]], [[255, 255, 0], [0, 255, 255], [9, 9, 9]]], np.uint8
)
UPRIGHT = COLOURS.repeat(16, 0).repeat(16, 1)  # 32x48, all six corners and edges differ


def encode(image: Image.Image, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def pixels(source: object) -> np.ndarray:
    photo = decode(source)
    assert photo.image.mode == "RGB"
    return np.asarray(photo.image)


def stored(orientation: int) -> Image.Image:
    """The upright picture as a file of that orientation stores it."""
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # the inverses, as Pillow's transposes
    image = Image.fromarray(UPRIGHT)
    return image.transpose(Image.Transpose(undo[orientation])) if orientation > 1 else image


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "TIFF lzw", "WEBP", "JPEG", "late PNG"])
def test_every_exif_orientation_is_undone_once(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    options: dict[str, object] = {"exif": exif}
    if kind == "WEBP":
        options["lossless"] = True
    if kind == "JPEG":
        options |= {"quality": 100, "subsampling": 0}
    if kind == "TIFF lzw":
        options["compression"] = "tiff_lzw"
    data = encode(stored(orientation), kind.split()[-1 if "late" in kind else 0], **options)
    if kind == "late PNG":  # the EXIF chunk behind the pixels
        start = data.index(b"eXIf") - 4
        end = start + 12 + struct.unpack(">I", data[start : start + 4])[0]
        data = data[:start] + data[end:-12] + data[start:end] + data[-12:]
    photo = decode(data)
    assert photo.orientation == orientation
    difference = np.abs(np.asarray(photo.image).astype(int) - UPRIGHT)
    assert difference.max() <= (3 if kind == "JPEG" else 0)


def test_a_pil_image_that_is_open_or_upright_is_turned_once(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    for suffix in ("png", "tif"):
        path = tmp_path / f"x.{suffix}"
        stored(6).save(path, exif=exif)
        with Image.open(path) as image:
            photo = decode(image)
            again = decode(image)  # now loaded
        assert np.array_equal(np.asarray(photo.image), UPRIGHT)
        assert np.array_equal(np.asarray(again.image), UPRIGHT)
        assert photo.orientation == 6
        assert photo.sha256 == again.sha256 == decode(UPRIGHT).sha256


def ramp(mode: str) -> tuple[Image.Image, np.ndarray]:
    """A grey ramp in `mode`, and the greys that its RGB should have."""
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    if mode == "F":
        return Image.fromarray(grey.astype(np.float32) / 255), grey
    if mode == "I":
        return Image.fromarray(grey.astype(np.int32) * 257), grey
    if mode.startswith("I;16"):
        kind = ">u2" if mode.endswith("B") else "<u2"
        deep = (grey.astype(np.uint16) * 257).astype(kind)
        return Image.frombytes(mode, (16, 16), deep.tobytes()), grey
    if mode == "1":
        return Image.fromarray(grey).point(lambda v: 255 * (v > 99), "1"), (grey > 99) * np.uint8(
            255
        )
    if mode == "CMYK":
        zero = np.zeros_like(grey)
        return Image.merge(
            "CMYK", [Image.fromarray(v) for v in (zero, zero, zero, 255 - grey)]
        ), grey
    if mode == "YCbCr":
        return Image.fromarray(grey).convert("RGB").convert("YCbCr"), grey
    return Image.fromarray(grey).convert(mode), grey


@pytest.mark.parametrize(
    ("mode", "kinds"),
    [
        ("RGB", ["PNG", "BMP", "TIFF", "GIF", "WEBP", "JPEG"]),
        ("L", ["PNG", "BMP", "TIFF", "GIF", "JPEG"]),
        ("1", ["PNG", "BMP", "TIFF"]),
        ("P", ["PNG", "BMP", "TIFF", "GIF"]),
        ("LA", ["PNG", "TIFF"]),
        ("RGBA", ["PNG", "TIFF", "WEBP"]),
        ("CMYK", ["TIFF", "JPEG"]),
        ("YCbCr", ["TIFF", "JPEG"]),
        ("I;16", ["PNG", "TIFF"]),
        ("I;16B", ["TIFF"]),
        ("I", ["TIFF"]),
        ("F", ["TIFF"]),
    ],
)
def test_modes(mode: str, kinds: list[str]) -> None:
    image, grey = ramp(mode)
    for kind in kinds:
        exact: dict[str, object] = {"WEBP": {"lossless": True}, "JPEG": {"quality": 100}}.get(
            kind, {}
        )
        out = pixels(encode(image, kind, **exact)).astype(int)
        assert np.abs(out - grey[..., None]).max() <= (4 if kind == "JPEG" else 1), kind
    assert np.abs(pixels(image).astype(int) - grey[..., None]).max() <= 1


def test_an_inverted_adobe_jpeg_is_right() -> None:
    red = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    data = encode(red, "JPEG", quality=100)
    assert b"Adobe" in data
    assert np.abs(pixels(data).astype(int) - [255, 0, 0]).max() <= 3


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA", "La", "RGBa"])
def test_transparency_is_laid_over_white(mode: str) -> None:
    image = Image.new("L", (4, 4), 40)
    alpha = Image.new("L", (4, 4), 0)
    alpha.paste(255, (0, 0, 2, 4))
    if mode == "PA":
        image = image.convert("P").convert("PA")
    image.putalpha(alpha)
    image = image.convert("RGBA") if mode.startswith("RGB") else image
    out = pixels(image if image.mode == mode else image.convert(mode))
    assert (out[:, :2] == 40).all()
    assert (out[:, 2:] == 255).all()


@pytest.mark.parametrize("kind", ["PNG", "GIF"])
def test_a_transparent_colour_is_laid_over_white(kind: str) -> None:
    image = Image.new("P", (4, 4), 0)
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.paste(1, (0, 0, 2, 4))
    out = pixels(encode(image, kind, transparency=0))
    assert (out[:, :2] == [200, 100, 50]).all()
    assert (out[:, 2:] == 255).all()
    rgb = Image.new("RGB", (4, 4), (1, 2, 3))
    assert (pixels(encode(rgb, "PNG", transparency=(1, 2, 3))) == 255).all()


def test_wide_greys_take_the_smallest_span_that_holds_them() -> None:
    def grey(values: list[float], kind: str) -> list[int]:
        return [int(v) for v in pixels(Image.fromarray(np.array([values], kind)))[0, :, 0]]

    assert grey([0, 128, 255], "int32") == [0, 128, 255]
    assert grey([0, 65535], "int32") == [0, 255]
    assert grey([-100, 0, 155], "int32") == [0, 100, 255]
    assert grey([0, 0.5, 1], "float32") == [0, 128, 255]
    assert grey([0, float("nan"), 255], "float32") == [0, 0, 255]
    assert grey([-3e38, 3e38], "float32") == [0, 255]
    assert grey([-5, -5], "float32") == [0, 0]


def test_arrays() -> None:
    grey = UPRIGHT[..., 0]
    assert np.array_equal(pixels(UPRIGHT), UPRIGHT)
    assert np.array_equal(pixels(UPRIGHT[:, ::-1]), UPRIGHT[:, ::-1])
    assert np.array_equal(pixels(grey)[..., 2], grey)
    clear = np.dstack([UPRIGHT, np.zeros_like(grey)])
    assert (pixels(clear) == 255).all()
    for wrong in (UPRIGHT.astype(np.float32), UPRIGHT[None], UPRIGHT[..., :2]):
        with pytest.raises(ArgumentError, match="uint8"):
            decode(wrong)
    with pytest.raises(ImageError):
        decode(UPRIGHT[:0])
    with pytest.raises(ArgumentError, match="NoneType"):
        decode(None)  # type: ignore[arg-type]


def test_the_photo_owns_its_pixels() -> None:
    image = Image.fromarray(UPRIGHT)
    photo = decode(image)
    image.paste((1, 1, 1), (0, 0, 48, 32))
    assert np.array_equal(np.asarray(photo.image), UPRIGHT)


def test_content_counts_and_the_name_does_not(tmp_path: Path) -> None:
    path = tmp_path / "really.jpg"
    path.write_bytes(encode(Image.fromarray(UPRIGHT), "PNG"))
    photo = decode(path)
    assert np.array_equal(np.asarray(photo.image), UPRIGHT)
    assert photo.path == str(path)
    assert photo.sha256 == decode(path.read_bytes()).sha256
    with pytest.raises(ImageError, match="something else"):
        decode(encode(Image.fromarray(UPRIGHT), "PPM"))


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF", "MPO"])
def test_the_first_of_several_frames_is_taken(kind: str) -> None:
    first, second = Image.new("RGB", (24, 16), "red"), Image.new("RGB", (24, 16), "blue")
    data = encode(first, kind, save_all=True, append_images=[second])
    assert np.abs(pixels(data).astype(int) - [255, 0, 0]).max() <= 3


def bomb(width: int, height: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    idat = chunk(b"IDAT", zlib.compress(bytes(1000)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + idat + chunk(b"IEND", b"")


def broken() -> dict[str, bytes]:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    jpeg, png, webp = (encode(noise, kind) for kind in ("JPEG", "PNG", "WEBP"))
    return {
        "cut.jpg": jpeg[: len(jpeg) // 2],
        "cut.png": png[: len(png) // 2],
        "cut.webp": webp[: len(webp) // 2],
        "empty.jpg": b"",
        "text.jpg": b"not an image\n" * 9,
        "magic.png": png[:8],
        "bomb.png": bomb(60_000, 60_000),
        "near.png": bomb(9_700, 9_700),  # over the size at which Pillow warns, under the limit
        "zero.png": bomb(0, 5),
        "wide.png": bomb(10_000, 1),
        "high.png": bomb(1, 10_000),
    }


@pytest.mark.parametrize("name", broken())
def test_what_cannot_be_read_is_one_sentence_that_names_the_file(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(broken()[name])
    started = time.perf_counter()
    with pytest.raises(ImageError) as caught:
        decode(path)
    assert time.perf_counter() - started < 2
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("expected")


def test_limits_are_arguments() -> None:
    sliver = Image.new("RGB", (10_000, 1))
    assert decode(sliver, Limits(max_aspect=10_000)).image.size == (10_000, 1)
    assert decode(encode(sliver, "PNG"), Limits(max_aspect=1e9)).image.size == (10_000, 1)
    with pytest.raises(ImageError, match=r"raise max_aspect in Python \(limits="):
        decode(sliver)
    with pytest.raises(ImageError, match="--limit-pixels, in Python max_pixels"):
        decode(UPRIGHT, Limits(max_pixels=100))
    with pytest.raises(ImageError, match="max_bytes"):
        decode(encode(Image.fromarray(UPRIGHT), "PNG"), Limits(max_bytes=20))


def test_large_files_are_not_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "large.jpg"
    with open(path, "wb") as stream:
        stream.truncate(2**40)  # sparse
    with pytest.raises(ImageError, match="max_bytes"):
        decode(path, Limits(max_bytes=1000))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="makes a pipe with a name")
def test_only_regular_files_are_read(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo.jpg"
    os.mkfifo(fifo)
    with socket.socket(socket.AF_UNIX) as server:
        os_path = os.path.relpath(tmp_path / "s.jpg")  # a socket's path has 107 bytes at most
        server.bind(os_path if len(os_path) < 100 else str(tmp_path / "s.jpg")[-100:])
        for path in (
            fifo,
            tmp_path / "s.jpg",
            tmp_path,
            "/dev/zero",
            tmp_path / "none",
            "a\0b",
            "",
        ):
            with pytest.raises(ImageError) as caught:
                decode(path)
            assert "\0" not in str(caught.value)


def test_damaged_exif_leaves_the_pixels() -> None:
    data = encode(Image.fromarray(UPRIGHT), "PNG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\x01")
    assert decode(data).orientation == 1
    exif = Image.Exif()
    exif[0x0112] = 77
    assert decode(encode(Image.fromarray(UPRIGHT), "PNG", exif=exif)).orientation == 1


def seeds() -> dict[str, bytes]:
    small = Image.fromarray(UPRIGHT[8:24, 8:40])
    exif = Image.Exif()
    exif[0x0112] = 6
    exif.get_ifd(0x8769)[0x9003] = "2020:01:01 00:00:00"
    made = {kind: encode(small, kind, exif=exif) for kind in ("JPEG", "PNG", "WEBP", "TIFF")}
    made |= {kind: encode(small, kind) for kind in ("BMP", "GIF")}
    made["lzw"] = encode(small, "TIFF", compression="tiff_lzw")
    for kind in ("GIF", "PNG", "WEBP", "MPO"):
        made[f"two {kind}"] = encode(small, kind, save_all=True, append_images=[small.rotate(180)])
    return made


@pytest.mark.parametrize("kind", seeds())
def test_mutated_bytes_decode_or_raise_image_errors(kind: str) -> None:
    draw = random.Random(7)
    data = seeds()[kind]
    for _ in range(300):
        hostile = bytearray(data)
        for _ in range(draw.choice((1, 2, 5))):
            # Half of the hits in the head, where structure is.
            at = draw.randrange(len(hostile) if draw.random() < 0.5 else min(200, len(hostile)))
            hostile[at] = draw.choice((0, 255, 127, draw.randrange(256)))
        if draw.random() < 0.2:
            del hostile[draw.randrange(len(hostile)) :]
        with contextlib.suppress(ImageError):
            assert decode(bytes(hostile), Limits(max_pixels=10**6)).image.mode == "RGB"


def test_threads_leave_warnings_and_pillow_as_they_were() -> None:
    filters, limit = list(warnings.filters), Image.MAX_IMAGE_PIXELS
    files = [*seeds().values()] * 4
    shared = Image.open(io.BytesIO(seeds()["JPEG"]))
    with ThreadPoolExecutor(4) as pool:
        many = [photo.sha256 for photo in pool.map(decode, files)]
        shas = {photo.sha256 for photo in pool.map(decode, [shared] * 16)}
    assert many == [decode(data).sha256 for data in files]
    assert len(shas) == 1
    assert warnings.filters == filters
    assert limit == Image.MAX_IMAGE_PIXELS
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    for name in ("b.JPG", "a/x.jpg", "a/x.png", "a.jpg", "a-b/y.webp", "a/deep/z.tiff"):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"-")
    for name in ("notes.txt", ".hidden.jpg", ".git/c.jpg"):
        path = root / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"-")
    return root


def names(root: Path) -> list[str]:
    return [
        item.relative_to(root).as_posix() if isinstance(item, Path) else f"! {item.path}"
        for item in find(root)
    ]


def test_find_is_recursive_sorted_and_skips_what_is_hidden(folder: Path) -> None:
    expected = ["a-b/y.webp", "a.jpg", "a/deep/z.tiff", "a/x.jpg", "a/x.png", "b.JPG"]
    assert names(folder) == expected == sorted(expected)
    assert list(find(folder / "notes.txt")) == [folder / "notes.txt"]
    assert next(find(os.fspath(folder / "a"))) == folder / "a" / "deep" / "z.tiff"


def test_find_refuses_what_is_missing_or_empty(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="existing"):
        list(find(tmp_path / "none"))
    with pytest.raises(ArgumentError, match=r"\.webp"):
        list(find(tmp_path))


def test_links_stay_inside(folder: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret.jpg").write_bytes(b"-")
    (folder / "in.jpg").symlink_to(folder / "a" / "x.jpg")
    (folder / "out.jpg").symlink_to(outside / "secret.jpg")
    (folder / "out").symlink_to(outside)
    (folder / "loop").symlink_to(folder)
    (folder / "a" / "self.jpg").symlink_to("self.jpg")
    (folder / "gone.jpg").symlink_to("nothing.jpg")
    found = list(find(folder))
    failures = [item for item in found if isinstance(item, Failure)]
    assert {Path(f.path or "").name for f in failures} == {"out.jpg", "out", "self.jpg", "gone.jpg"}
    assert {f.kind for f in failures} == {"ImageError"}
    assert folder / "in.jpg" in found
    assert len(found) == 6 + 1 + 4
    linked = tmp_path / "linked"
    linked.symlink_to(folder)  # naming a link as the root is the user's own choice
    assert linked / "in.jpg" in list(find(linked))


def test_a_folder_that_cannot_be_listed_is_a_failure(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.scandir

    def scandir(path: Path) -> object:
        if Path(path).name == "deep":
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert f"! {folder / 'a' / 'deep'}" in names(folder)
    assert len(names(folder)) == 6


def test_names_that_are_not_unicode(tmp_path: Path) -> None:
    raw = os.fsencode(tmp_path) + b"/caf\xe9\x07.png"
    try:
        with open(raw, "wb") as stream:
            stream.write(encode(Image.fromarray(UPRIGHT), "PNG"))
    except OSError:
        pytest.skip("this file system takes Unicode names only")
    (path,) = find(tmp_path)
    assert isinstance(path, Path)
    assert decode(path).image.size == (48, 32)
    with pytest.raises(ImageError) as caught:
        decode(path, Limits(max_bytes=9))
    for text in (str(caught.value), shown(path), output_name(path, tmp_path)):
        assert text.encode().decode().isprintable()


def test_output_names_stay_below_and_differ() -> None:
    root = Path("/data/in")
    plain = ["x.jpg", "x.png", "a/x.jpg", "b/x.jpg", "ein Bild, schön.jpg", "a/b.c/d.jpg"]
    assert [output_name(root / name, root) for name in plain] == plain
    odd = [
        "a\\b.jpg", "a%5Cb.jpg", "a:b.jpg", "CON.jpg", "aux", "nul.tar.gz/x.jpg", "a./x.jpg", "a ",
        "x.jpg.png/y.jpg", "x.jpg.png", "~.jpg", "a\nb.jpg", "a\0b.jpg", "\udce9.jpg", "é.jpg",
        "é" * 101 + ".jpg", "é" * 101 + ".png", "/".join(["n" * 100] * 20) + "/x.jpg",
        "/".join(["n" * 100] * 20) + "/y.jpg", "../../etc/passwd.jpg", "../etc/passwd.jpg",
    ]  # fmt: skip
    made = [output_name(root / name, root) for name in [*plain, *odd]]
    made += [output_name("/etc/passwd.jpg", root), output_name("passwd.jpg", root)]
    assert len(set(made)) == len(made)
    for name in made:
        parts = name.split("/")
        assert len(name.encode()) <= 1100
        assert name.isprintable()
        for part in parts:
            assert 0 < len(part.encode()) <= 200
            assert part not in (".", "..")
            assert part[-1] not in ". "
            assert part.split(".")[0].upper() not in ("CON", "AUX", "NUL")
            assert not set(part) & set('\\:*?"<>|')
        assert not any(part.lower().endswith((".png", ".jpg")) for part in parts[:-1])
    assert output_name(root / "x.jpg", root / "x.jpg") == "x.jpg"


def test_wide_greys_take_little_more_than_their_own_memory() -> None:
    """In a process of its own, which is allowed four copies of the image, at 4 bytes a pixel."""
    code = """
import io, resource
import numpy as np
from PIL import Image
from visxai.images import decode
data = io.BytesIO()
Image.new("F", (6000, 6000), 0.5).save(data, "TIFF", compression="tiff_adobe_deflate")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # kilobytes; the image was there once
assert decode(data.getvalue()).image.getpixel((5, 5)) == (128, 128, 128)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    told = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    ).stdout
    assert int(told) * 1024 < 3 * 4 * 6000 * 6000


def test_a_bytearray_is_one_image(engine: visxai.Engine) -> None:
    data = encode(Image.fromarray(UPRIGHT), "PNG")
    for given in (bytearray(data), memoryview(data)):
        (found,) = engine.explain(given, method="saliency")
        assert found.input.source_sha256 == hashlib.sha256(data).hexdigest()


def test_an_image_too_large_for_memory_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Image.Image) -> None:
        raise MemoryError

    data = encode(Image.fromarray(UPRIGHT), "PNG")
    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", full)
    with pytest.raises(ImageError, match="fits into memory"):
        decode(data)


def test_limits_of_a_strangers_run_have_an_end() -> None:
    assert decoding.limits_of({"max_pixels": 10**15}).max_pixels == 2**30
    assert decoding.limits_of({"max_pixels": 10**6}).max_pixels == 10**6
    for told in ("many", None, -1, 0, [1]):
        assert decoding.limits_of({"max_pixels": told}) == Limits()
