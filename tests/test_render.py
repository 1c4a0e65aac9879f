"""Overlays, panels, sheets and their text, on pictures and maps made by hand."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from PIL import Image

from visxai.drawing import colours, lettering, overlays, sheets
from visxai.drawing.colours import COLORMAPS, Scale, lut, scale_of
from visxai.errors import ArgumentError, UnknownName
from visxai.record import version1
from visxai.record.image import ImageExplanation
from visxai.references import ImageRef, ModelRef, Transform

LABELS = [
    "Egyptian cat",
    "café Übung",
    "猫と犬",
    "قط",
    "עברית 5",
    "🐱 cat",
    "a\nb\x00c",
    "กขค",
    "x" * 300,
]


def photograph(width: int, height: int) -> Image.Image:
    ys, xs = np.mgrid[:height, :width]
    channels = [xs * 255 // width, ys * 255 // height, (xs // 8 + ys // 8) % 2 * 120 + 60]
    return Image.fromarray(np.stack(channels, axis=-1).astype(np.uint8))


def explanation(
    values: Any, size: tuple[int, int], transform: Transform | None = None, **fields: Any
) -> ImageExplanation:
    """A record of `values` on a picture of `size`, which the model saw whole unless told."""
    plain: dict[str, Any] = {
        "method": "grad_cam()",
        "target": "top1",
        "class_index": 285,
        "label": "Egyptian cat",
        "score": 0.931,
        "logit": 9.1,
    }
    given = plain | fields
    given.setdefault("two_sided", version1.is_two_sided(given["method"]))
    return ImageExplanation(
        ImageRef(*size, transform or Transform(size, (0, 0, *size)), "0" * 64, "photos/cat.jpg"),
        ModelRef("net", "0" * 64, "none"),
        np.asarray(values, np.float32),
        **given,
    )


def draw(found: ImageExplanation, image: Image.Image, **style: Any) -> Image.Image:
    return overlays.overlay(found.placed, image, **style)


def panel(found: ImageExplanation, image: Image.Image, **style: Any) -> Image.Image:
    return sheets.panel(found.placed, image, found.caption, **style)


def hot(rows: int, columns: int, at: tuple[int, int], value: float = 1.0) -> Any:
    values = np.zeros((rows, columns), np.float32)
    values[at] = value
    return values


def centre_crop(width: int, height: int) -> Transform:
    """The shorter side to 64, then the central 56x56."""
    factor = 64 / min(width, height)
    resized = round(width * factor), round(height * factor)
    return Transform(resized, ((resized[0] - 56) // 2, (resized[1] - 56) // 2, 56, 56))


def changed(before: Image.Image, after: Image.Image) -> Any:
    return (np.asarray(before) != np.asarray(after)).any(axis=-1)


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1), (33, 47), (640, 480), (1500, 1100)])
@pytest.mark.parametrize("shape", [(1, 2), (7, 7), (14, 14), (224, 224)])
def test_any_map_on_any_picture(size: tuple[int, int], shape: tuple[int, int]) -> None:
    values = np.random.default_rng(0).standard_normal(shape)
    image = photograph(*size)
    drawn = draw(explanation(values, size), image, contours=True, boxes=3)
    assert (drawn.size, drawn.mode) == (size, "RGB")


def test_constant_alpha_is_the_rounded_mean() -> None:
    size = (40, 30)
    image = photograph(*size)
    columns = np.tile([0.0, 1.0], (2, 1))  # cells so wide that the outer quarters are flat
    drawn = np.asarray(draw(explanation(columns, size), image, alpha=0.3))
    table = lut(colours.DEFAULT).astype(float)
    photo = np.asarray(image).astype(float)
    for part, colour in ((np.s_[:, :10], table[0]), (np.s_[:, 30:], table[255])):
        exact = 0.7 * photo[part] + 0.3 * colour
        assert np.abs(drawn[part] - exact).max() <= 0.5 + 1e-4


def test_no_evidence_leaves_pixels_alone() -> None:
    size = (70, 70)
    image = photograph(*size)
    touched = changed(image, draw(explanation(hot(7, 7, (1, 5)), size), image))
    assert touched[15, 55]
    assert not touched[25:].any()
    assert not touched[:, :45].any()


def test_strongest_evidence_has_the_stated_strength() -> None:
    image = Image.new("RGB", (40, 30), (10, 200, 90))
    drawn = np.asarray(draw(explanation([[0.0, 5.0]], image.size), image, strength=0.6))
    expected = 0.4 * np.array([10, 200, 90]) + 0.6 * lut(colours.DEFAULT)[255]
    assert np.abs(drawn[:, 35] - expected).max() <= 1


@pytest.mark.parametrize("size", [(400, 300), (301, 517)])
def test_hot_cell_lands_where_the_model_looked(size: tuple[int, int]) -> None:
    transform = centre_crop(*size)
    found = explanation(hot(7, 7, (2, 5)), size, transform)
    image = Image.new("RGB", size, (128, 128, 128))
    drawn = np.asarray(draw(found, image, unseen="keep")).astype(int)
    ys, xs = np.nonzero(np.abs(drawn - 128).sum(axis=-1))
    scale = size[0] / transform.resized[0]
    expected = [
        (origin + (cell + 0.5) * 8) * scale
        for origin, cell in zip(transform.crop[:2], (5, 2), strict=True)
    ]
    assert np.allclose([xs.mean(), ys.mean()], expected, atol=2)


@pytest.mark.parametrize("size", [(400, 300), (301, 517), (90, 90)])
def test_unseen_is_exactly_where_the_heatmap_is_nan(size: tuple[int, int]) -> None:
    found = explanation(hot(7, 7, (3, 3)), size, centre_crop(*size))
    unseen = np.isnan(found.heatmap())
    assert unseen.any()
    image = Image.new("RGB", size, (200, 40, 90))
    coloured = draw(found, image, alpha=1.0, unseen="keep")
    assert np.array_equal(changed(image, coloured), ~unseen)
    dimmed = np.asarray(draw(found, image))
    assert (np.ptp(dimmed[unseen].astype(int), axis=-1) == 0).all()  # grey, and its frame too
    assert np.array_equal(dimmed[~unseen], np.asarray(draw(found, image, unseen="keep"))[~unseen])


def test_a_view_beyond_the_picture_marks_nothing_unseen() -> None:
    padded = Transform((40, 30), (-10, -20, 60, 70))
    image = photograph(40, 30)
    found = explanation(hot(7, 7, (3, 3)), image.size, padded)
    same = (
        draw(found, image),
        draw(found, image, unseen="keep"),
    )
    assert not changed(*same).any()


def test_a_picture_wholly_outside_the_view_is_only_dimmed() -> None:
    image = photograph(40, 30)
    found = explanation(np.eye(7), image.size, Transform((40, 30), (100, 100, 20, 20)))
    drawn = np.asarray(draw(found, image, contours=True, boxes=2))
    assert (np.ptp(drawn.astype(int), axis=-1) == 0).all()


def test_signed_maps_are_red_for_and_blue_against() -> None:
    size = (90, 30)
    image = Image.new("RGB", size, (128, 128, 128))
    drawn = np.asarray(draw(explanation([[-1.0, 0.0, 1.0]], size), image)).astype(int)
    against, neutral, supporting = drawn[15, 5], drawn[15, 45], drawn[15, 85]
    assert against[2] - against[0] > 60
    assert supporting[0] - supporting[2] > 60
    assert np.abs(neutral - 128).max() <= 4


def test_all_maps_of_a_method_share_their_colours() -> None:
    image = Image.new("RGB", (90, 30), (128, 128, 128))
    both = [[-1.0, 0.0, 1.0]], [[0.0, 0.5, 1.0]]
    for method, signed in (("hires_cam()", True), ("grad_cam(relu=True)", False)):
        scales = {scale_of(explanation(map_, image.size, method=method).placed) for map_ in both}
        # A negative map is never drawn as if it weren't, whatever its method is said to be.
        assert len(scales) == (1 if signed else 2)
        one = explanation(both[1], image.size, method=method)
        told = draw(one, image, colormap="diverging" if signed else colours.DEFAULT)
        assert not changed(draw(one, image), told).any()


def test_signed_scale_is_symmetric() -> None:
    image = Image.new("RGB", (90, 30), (128, 128, 128))
    weak = np.asarray(draw(explanation([[-0.1, 0.0, 1.0]], image.size), image))
    assert np.abs(weak[15, 5].astype(int) - 128).max() < 25


def test_diverging_is_neutral_at_zero_for_unsigned_maps_too() -> None:
    image = Image.new("RGB", (90, 30))
    found = explanation([[0.0, 0.0, 1.0]], image.size)
    drawn = np.asarray(draw(found, image, colormap="diverging", alpha=1.0))
    assert np.abs(drawn[15, 5].astype(int) - lut("diverging")[128]).max() <= 2


def test_one_outlier_does_not_blank_a_map_of_pixels() -> None:
    size = (224, 224)
    values = np.zeros(size)
    values[40:120, 40:120] = 1.0
    values[200, 200] = 1e6
    image = Image.new("RGB", size)
    drawn = np.asarray(draw(explanation(values, size), image))
    assert drawn[80, 80].max() > 80


def test_a_single_hot_pixel_still_shows() -> None:
    size = (224, 224)
    image = Image.new("RGB", size)
    drawn = np.asarray(draw(explanation(hot(*size, (100, 60)), size), image))
    assert drawn[100, 60].max() > 80


@pytest.mark.parametrize("value", [0.0, 0.7, -3.0, np.nan])
def test_a_flat_map_draws_nothing(value: float) -> None:
    image = photograph(64, 48)
    found = explanation(np.full((7, 7), value), image.size)
    drawn = draw(found, image, contours=True, boxes=3, alpha=0.5)
    assert not changed(image, drawn).any()


def test_a_degenerate_record_draws_nothing() -> None:
    image = photograph(64, 48)
    found = explanation(np.eye(7), image.size, degenerate=True)
    assert not changed(image, draw(found, image)).any()


def test_the_photograph_is_not_written_to() -> None:
    image = photograph(64, 48)
    before = image.tobytes()
    draw(explanation(np.eye(7), image.size), image, boxes=1, contours=True)
    assert image.tobytes() == before


def test_grey_and_transparent_photographs() -> None:
    for mode in ("L", "RGBA", "P", "1"):
        image = photograph(64, 48).convert(mode)
        assert draw(explanation(np.eye(7), (64, 48)), image).mode == "RGB"


def test_a_scaled_copy_is_drawn_at_its_own_size() -> None:
    found = explanation(hot(7, 7, (2, 5)), (400, 300), centre_crop(400, 300))
    small = photograph(100, 75)
    drawn = np.asarray(draw(found, small, unseen="keep"))
    ys, xs = np.nonzero(changed(small, Image.fromarray(drawn)))
    full = np.nan_to_num(found.heatmap((100, 75)))
    assert np.allclose([ys.mean(), xs.mean()], np.argwhere(full > 0).mean(axis=0), atol=2)


def test_contours_enclose_the_hot_spot() -> None:
    image = Image.new("RGB", (300, 300), (128, 128, 128))
    found = explanation(hot(7, 7, (3, 3)), image.size)
    lines = changed(draw(found, image), draw(found, image, contours=True))
    assert not lines[150, 150]
    assert lines[150, :150].any()
    assert lines[150, 150:].any()
    assert lines[:150, 150].any()
    assert not lines[:80].any()


@pytest.mark.parametrize("at", [(0, 0), (0, 6), (6, 0), (6, 6), (3, 3)])
def test_boxes_and_their_labels_stay_inside(at: tuple[int, int]) -> None:
    image = Image.new("RGB", (400, 260), (128, 128, 128))
    found = explanation(hot(7, 7, at), image.size)
    drawn = changed(draw(found, image), draw(found, image, boxes=1))
    left, top, right, bottom = found.regions(top=1)[0].box
    assert drawn[top:bottom, left:right].any()
    # White margins of 3 pixels either side of the text, a whole line high: nothing is cut off.
    white = (np.asarray(draw(found, image, boxes=1)) == 255).all(axis=-1)
    assert (white.sum(axis=1) >= 6).sum() >= lettering.line_height(11)


def test_no_more_boxes_than_regions() -> None:
    image = photograph(200, 200)
    found = explanation(hot(7, 7, (3, 3)), image.size)
    one, many = (draw(found, image, boxes=n) for n in (1, 50))
    assert not changed(one, many).any()


@pytest.mark.parametrize("name", COLORMAPS)
def test_colormaps(name: str) -> None:
    table = lut(name)
    assert (table.shape, table.dtype) == ((256, 3), np.uint8)
    steps = np.abs(np.diff(table.astype(int), axis=0)).max()
    assert steps <= 12  # no bands
    image = photograph(64, 48)
    assert changed(image, draw(explanation(np.eye(7), image.size), image, colormap=name)).any()


def test_turbo_ends_in_red_as_rgb() -> None:
    red, green, blue = lut("turbo")[250].astype(int)
    assert red > 100 > max(green, blue)


# What the three kinds of colour blindness make of linear RGB (Machado et al., 2009, severity 1).
VISIONS = {
    "full": np.eye(3),
    "protanopia": np.array(
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ]
    ),
    "deuteranopia": np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ]
    ),
    "tritanopia": np.array(
        [
            [1.255528, -0.076749, -0.178779],
            [-0.078411, 0.930809, 0.147602],
            [0.004733, 0.691367, 0.303900],
        ]
    ),
}


def lightness(name: str, vision: str) -> Any:
    """CIE L* (0 to 100) of a colour map's 256 colours, as a kind of colour vision sees them."""
    srgb = lut(name) / 255
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    seen = (linear @ VISIONS[vision].T).clip(0, 1) @ np.array([0.2126, 0.7152, 0.0722])
    return np.where(seen > 0.008856, 116 * np.cbrt(seen) - 16, 903.3 * seen)


@pytest.mark.parametrize("vision", VISIONS)
def test_more_evidence_is_lighter_whatever_the_colour_vision(vision: str) -> None:
    found = lightness(colours.DEFAULT, vision)
    assert (found[8:] - found[:-8] > 0.3).all()  # eight steps of 256 are what an eye tells apart
    assert found[-1] - found[0] > 60
    assert not (np.diff(lightness("turbo", vision)) > 0).all()


def test_wrong_arguments_say_what_to_do() -> None:
    image = photograph(64, 48)
    found = explanation(np.eye(7), image.size)
    with pytest.raises(UnknownName, match="turbo"):
        draw(found, image, colormap="turbos")
    with pytest.raises(ArgumentError, match="alpha"):
        draw(found, image, alpha=1.5)
    with pytest.raises(ArgumentError, match="alpha"):
        draw(found, image, alpha="half")  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="strength"):
        draw(found, image, strength=-1)
    with pytest.raises(UnknownName, match="keep"):
        draw(found, image, unseen="hide")  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match=r"64x48.*48x64"):
        draw(found, photograph(48, 64))


@pytest.mark.parametrize("size", [(1, 500), (32, 32), (900, 60), (1600, 1200)])
def test_panel_holds_three_pictures_and_a_caption(size: tuple[int, int]) -> None:
    image = photograph(*size)
    found = explanation(np.eye(7), size)
    whole, pair = panel(found, image), panel(found, image, bare=False)
    assert pair.width < whole.width
    assert max(whole.size) <= 3 * 640 + 4 * 20
    assert whole.height > min(size[1], 60)


def test_panel_passes_the_style_on() -> None:
    image = photograph(200, 150)
    found = explanation(np.eye(7), image.size)
    plain, styled = (
        panel(found, image),
        panel(found, image, colormap="viridis", boxes=2),
    )
    assert changed(plain, styled).any()


@pytest.mark.parametrize("label", LABELS)
def test_any_label_is_drawn(label: str) -> None:
    line = lettering.ink(label, 24, width=400)
    assert line.dtype == np.uint8
    assert line.shape[0] == lettering.line_height(24)
    assert 10 < line.shape[1] <= 400
    assert (line > 128).sum() > 30
    image = photograph(200, 150)
    named, empty = (
        panel(explanation(np.eye(7), image.size, label=text), image) for text in (label, "")
    )
    assert changed(named, empty).any()


def test_labels_differ_when_their_text_does() -> None:
    inks = [lettering.ink(label, 24, width=400).tobytes() for label in LABELS]
    assert len(set(inks)) == len(inks)
    assert lettering.ink("猫", 24).tobytes() != lettering.ink("犬", 24).tobytes()
    assert lettering.ink("猫", 24).tobytes() != lettering.ink("?", 24).tobytes()


def test_what_no_font_has_is_spelled_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lettering, "_installed", lambda: iter(()))
    lettering._setting.cache_clear()
    try:
        for text, spelled in (
            ("🐱 cat", "[cat face] cat"),
            ("ก", "[U+0E01]"),
            ("a\udcff", "a[U+DCFF]"),
        ):
            assert np.array_equal(lettering.ink(text, 20), lettering.ink(spelled, 20))
        # Without a font that shapes it, right-to-left text still runs from the right.
        assert lettering.ink("שלום", 20).any()
        assert not np.array_equal(lettering.ink("שלום", 20), lettering.ink("םולש", 20))
    finally:
        lettering._setting.cache_clear()


def test_control_characters_cannot_hide_or_break_a_label() -> None:
    assert np.array_equal(lettering.ink("a\nb\x00c", 20), lettering.ink("a b\\x00c", 20))
    assert np.array_equal(lettering.ink("a\u202eb\u200b", 20), lettering.ink("ab", 20))
    assert lettering.ink("", 20).shape == (lettering.line_height(20), 0)


def test_long_labels_end_in_an_ellipsis() -> None:
    line, dots = lettering.ink("x" * 300, 20, width=120), lettering.ink("…", 20)
    assert 100 < line.shape[1] <= 120
    tail = line[:, -dots.shape[1] :]
    assert np.array_equal(tail.any(axis=1), dots.any(axis=1))
    assert lettering.ink("x" * 300, 20, width=0).shape[1] == 0


def test_parentheses_stand_close() -> None:
    assert lettering.ink("f(x)", 30).shape[1] < 1.5 * lettering.ink("f[x]", 30).shape[1]


def test_threads_draw_the_same_text() -> None:
    alone = [lettering.ink(label, 18).tobytes() for label in LABELS]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda label: lettering.ink(label, 18).tobytes(), LABELS * 5))
    assert together == alone * 5


def test_sheet() -> None:
    cells = [[photograph(64, 48), photograph(30, 90)], [photograph(300, 200), photograph(5, 5)]]
    drawn = sheets.sheet(cells, ["grad_cam", "猫"], ["one.jpg", "two.jpg"], cell=100)
    bare = sheets.sheet(cells, ["", ""], ["", ""], cell=100)
    assert drawn.width > bare.width >= 2 * 100
    assert drawn.height > bare.height > 100
    assert sheets.sheet([], [], []).size >= (1, 1)
    with pytest.raises(ArgumentError, match="expected 1 rows of 2"):
        sheets.sheet(cells, ["a", "b"], ["one"])
    with pytest.raises(ArgumentError, match="of 1 pictures"):
        sheets.sheet(cells, ["a"], ["one", "two"])


def test_sheet_has_room_for_names_and_a_key_to_the_colours() -> None:
    cells = [[photograph(64, 48)], [photograph(64, 48)]]
    names = ["integrated_gradients_of_it", "lime\nsamples=300"]
    drawn = sheets.sheet(cells, [""], names, cell=100)
    ink = lettering.ink(names[0], 15)
    assert ink.shape[1] > 100  # wider than a picture, and whole
    assert drawn.width == sheets._MARGIN * 3 + ink.shape[1] + 100
    flat = sheets.sheet(cells, [""], [names[0], "lime"], cell=100)
    assert changed(drawn, flat).any()
    turbo, diverging = Scale("turbo", False), Scale("diverging", True)
    keyed = [
        sheets.sheet(cells, [""], names, cell=100, scales=scales)
        for scales in ([turbo, turbo], [turbo, diverging])
    ]
    assert keyed[0].height == keyed[1].height > drawn.height
    for sheet, colormaps in zip(keyed, (["turbo"], ["turbo", "diverging"]), strict=True):
        foot = np.asarray(sheet)[drawn.height - sheets._MARGIN :].reshape(-1, 3)
        colours = {tuple(colour) for colour in foot}
        for name in ("turbo", "diverging"):
            ends = {tuple(lut(name)[at]) for at in (0, 255)}
            assert (ends <= colours) is (name in colormaps)


@pytest.mark.parametrize(
    ("name", "kind"), [("a.jpg", "JPEG"), ("b.JPEG", "JPEG"), ("c.webp", "WEBP"), ("d.png", "PNG")]
)
def test_save_reads_back(tmp_path: Any, name: str, kind: str) -> None:
    image = draw(
        explanation(hot(7, 7, (3, 3)), (320, 240)),
        Image.new("RGB", (320, 240), (90, 120, 60)),
    )
    overlays.save(image, tmp_path / name)
    with Image.open(tmp_path / name) as back:
        assert (back.format, back.size) == (kind, image.size)
        difference = np.abs(np.asarray(back).astype(int) - np.asarray(image))
    assert difference.mean() < 2
    assert os.listdir(tmp_path) == [name]


def test_save_quality(tmp_path: Any) -> None:
    for quality in (40, 95):
        overlays.save(photograph(320, 240), tmp_path / f"{quality}.jpg", quality=quality)
    assert (tmp_path / "40.jpg").stat().st_size < (tmp_path / "95.jpg").stat().st_size


def test_save_is_whole_or_not_at_all(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "map.jpg"
    path.write_bytes(b"before")

    def torn(self: Image.Image, file: io.BufferedWriter, *_: Any, **__: Any) -> None:
        file.write(b"half a pict")
        raise OSError("disk full")

    monkeypatch.setattr(Image.Image, "save", torn)
    with pytest.raises(OSError, match="disk full"):
        overlays.save(photograph(8, 8), path)
    assert path.read_bytes() == b"before"
    assert os.listdir(tmp_path) == ["map.jpg"]


def test_save_takes_the_longest_name_and_refuses_other_endings(tmp_path: Any) -> None:
    overlays.save(photograph(8, 8), tmp_path / ("x" * 251 + ".jpg"))
    with pytest.raises(UnknownName, match=r"\.jpg"):
        overlays.save(photograph(8, 8), tmp_path / "map.gif")


def test_drawing_needs_no_torch() -> None:
    code = "import sys, visxai.drawing.overlays; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
