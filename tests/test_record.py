"""Records: coordinates, regions, masks, and the way to disk and back."""

from __future__ import annotations

import base64
import io
import json
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from jsonschema import Draft202012Validator
from PIL import Image

from visxai.errors import ArgumentError, ImageError
from visxai.images import decoding
from visxai.images.heatmap import smallest_area
from visxai.images.preprocess import Preprocess
from visxai.record.base import Explanation
from visxai.record.columns import SCHEMA_VERSION, pack, schema, unpack
from visxai.record.image import ImageExplanation
from visxai.references import ImageRef, ModelRef, Transform

SHA = "0" * 64


def explanation(values, width=100, height=60, transform=None, **more) -> ImageExplanation:
    transform = transform or Transform((width, height), (0, 0, width, height))
    return ImageExplanation(
        input=ImageRef(width, height, transform, SHA, more.pop("path", None)),
        model=ModelRef("m", SHA, "none"),
        values=np.asarray(values, dtype=np.float32),
        method="grad_cam(relu=True)",
        target="top1",
        class_index=1,
        label="cat",
        score=0.5,
        logit=1.0,
        created="2026-01-01T00:00:00+00:00",
        **more,
    )


def test_without_a_crop_the_heatmap_is_torchs_bilinear_upsampling() -> None:
    values = np.random.default_rng(0).normal(size=(7, 5)).astype(np.float32)
    expected = torch.nn.functional.interpolate(
        torch.tensor(values)[None, None], (60, 100), mode="bilinear", align_corners=False
    )
    assert explanation(values).heatmap() == pytest.approx(expected[0, 0].numpy(), abs=1e-5)


def test_outside_the_crop_is_unseen() -> None:
    # 100x60 resized to half, its middle 30x20 seen: original columns 20..80, rows 10..50.
    seen = explanation(np.ones((2, 2)), transform=Transform((50, 30), (10, 5, 30, 20)))
    heatmap = seen.heatmap()
    assert heatmap.shape == (60, 100)
    inside = np.zeros((60, 100), bool)
    inside[10:50, 20:80] = True
    assert np.array_equal(np.isfinite(heatmap), inside)
    assert seen.seen() == (20, 10, 80, 50)
    assert seen.seen((10, 6)) == (2, 1, 8, 5)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_spot_is_found_where_the_photograph_has_it(orientation: int) -> None:
    """Through EXIF rotation, resize and crop: the map's hot cell lies on the picture's spot."""
    upright = Image.new("RGB", (320, 240))
    upright.paste((255, 255, 255), (200, 120, 220, 140))
    back = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}
    stored = upright.transpose(Image.Transpose(back[orientation])) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    stored.save(file, "PNG", exif=exif)
    photo = decoding.decode(file.getvalue())
    assert photo.image.size == (320, 240)
    pixels, transform = Preprocess(size=(112, 112), resize=128).crop(photo)
    reference = ImageRef(320, 240, transform, photo.sha256)
    found = ImageExplanation(
        reference, ModelRef("m", SHA, ""), pixels[..., 0], "m()", "top1", 0, "x", 1.0, 1.0
    )
    heatmap = np.nan_to_num(found.heatmap())
    rows, columns = np.nonzero(heatmap > 127)
    assert (columns.min(), rows.min()) == pytest.approx((200, 120), abs=2)
    assert (columns.max(), rows.max()) == pytest.approx((219, 139), abs=2)
    # On the stored pixels the map lies where the file has the spot.
    bright = np.asarray(stored.convert("L"), dtype=np.float32)
    as_stored = np.nan_to_num(found.heatmap(stored=True))
    assert as_stored.shape == bright.shape
    assert np.corrcoef(as_stored.ravel(), bright.ravel())[0, 1] > 0.9


def test_regions_have_boxes_shares_and_polygons() -> None:
    values = np.zeros((6, 10))
    values[1, 2], values[4, 7] = 3, 1
    first, second = explanation(values).regions(top=2, share=0.95)
    assert first.share > second.share
    assert first.share + second.share == pytest.approx(0.95, abs=0.02)
    left, top, right, bottom = first.box
    assert left < 25 < right
    assert top < 15 < bottom
    assert all(left <= x < right and top <= y < bottom for x, y in first.polygon)
    assert len(explanation(values).regions(top=1)) == 1
    assert explanation(np.zeros((3, 3))).regions() == ()
    with pytest.raises(ArgumentError, match="at least 1 region, got top=-1"):
        explanation(values).regions(top=-1)
    assert json.dumps(first.to_dict())
    assert repr(first) == f"Region(box={first.box}, share={first.share})"


def test_regions_of_a_large_picture_stay_inside_it() -> None:
    values = np.random.default_rng(1).random((7, 7))
    for region in explanation(values, 4001, 3001).regions(top=5):
        left, top, right, bottom = region.box
        assert 0 <= left < right <= 4001
        assert 0 <= top < bottom <= 3001


@pytest.mark.parametrize("size", [(100, 60), (1500, 900)])
def test_the_mask_is_the_smallest_area_with_its_share(size: tuple[int, int]) -> None:
    values = np.random.default_rng(2).random((7, 7)) ** 3
    found = explanation(values, *size)
    mask, heatmap = found.mask(0.5), found.heatmap()
    assert mask.shape == heatmap.shape
    assert heatmap[mask].sum() / heatmap.sum() == pytest.approx(0.5, abs=0.01)
    assert heatmap[mask].min() >= heatmap[~mask].max() - 0.03
    assert explanation(-values).mask().sum() == 0


def test_smallest_area_by_hand() -> None:
    heatmap = np.array([[4, 3], [2, np.nan], [1, -9]], dtype=np.float32)
    expected = {0.3: 1, 0.4: 1, 0.5: 2, 0.7: 2, 0.9: 3, 1.0: 4}
    for share, count in expected.items():
        assert smallest_area(heatmap, share).sum() == count


def test_shares_are_checked() -> None:
    for share in (0, 1.5, -1):
        with pytest.raises(ArgumentError, match="share between 0 and 1"):
            explanation(np.ones((2, 2))).mask(share)


@pytest.mark.parametrize("peak", [1e-30, 1.0, 3e4, 1e20, 0.0])
def test_packing_keeps_eleven_bits_at_any_scale(peak: float) -> None:
    values = (np.random.default_rng(3).normal(size=(7, 9)) * peak).astype(np.float32)
    blob, scale = pack(values)
    assert unpack(blob, values.shape, scale) == pytest.approx(values, rel=1e-3, abs=peak * 1e-4)


def test_unpack_refuses_damage_and_bombs() -> None:
    blob, scale = pack(np.zeros((1000, 1000), np.float32))
    with pytest.raises(ArgumentError, match="damaged"):
        unpack(blob, (10, 10), scale)


def test_the_dictionary_fits_its_schema_and_comes_back() -> None:
    old = explanation(
        np.arange(6).reshape(2, 3), quality={"completeness": 0.1}, versions={"torch": "2"}
    )
    plain = json.loads(json.dumps(old.to_dict()))
    Draft202012Validator.check_schema(schema())
    Draft202012Validator(schema(), format_checker=Draft202012Validator.FORMAT_CHECKER).validate(
        plain
    )
    new = ImageExplanation.from_dict(plain)
    assert new.values == pytest.approx(old.values, rel=1e-3)
    assert new.input == old.input
    assert new.model == old.model
    assert {**new.to_dict(), "map": 0, "map_scale": 0} == {**plain, "map": 0, "map_scale": 0}
    with pytest.raises(ArgumentError, match="schema version 1 or 2"):
        ImageExplanation.from_dict({**plain, "schema_version": 4})


def test_a_record_is_small_and_frozen() -> None:
    found = explanation(np.random.default_rng(4).random((7, 7)), 4000, 3000)
    assert len(json.dumps(found.to_dict())) < 2500
    with pytest.raises(ValueError, match="read-only"):
        found.values[0, 0] = 1
    with pytest.raises(ArgumentError, match="one map an explanation"):
        explanation(np.zeros((2, 3, 4)))


def test_the_original_is_opened_again_or_asked_for(tmp_path) -> None:
    with pytest.raises(ImageError, match="pass the original"):
        explanation(np.ones((2, 2))).original()
    path = tmp_path / "a.png"
    Image.new("RGB", (100, 60)).save(path)
    with pytest.raises(ImageError, match="has changed"):
        explanation(np.ones((2, 2)), path=str(path)).original()
    assert explanation(np.ones((2, 2))).overlay(path).size == (100, 60)
    with pytest.raises(ImageError, match="100x60 pixels, got 5x5"):
        explanation(np.ones((2, 2))).original(Image.new("RGB", (5, 5)))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"map_shape": [20000, 18000]}, "at most 16777216 values, got 20000x18000"),
        ({"map_shape": [-3, -2]}, "map_shape.0 missing or wrong"),
        ({"width": 10**9, "height": 10**9}, "an original of 1 to 1073741824 pixels"),
        ({"width": -5, "height": 10}, "width missing or wrong"),
    ],
)
def test_a_record_asks_for_no_more_memory_than_a_map_needs(
    changes: dict[str, Any], words: str
) -> None:
    plain = explanation(np.ones((2, 3))).to_dict()
    bomb = base64.b64encode(zlib.compress(bytes(2 * 20000 * 18000), 9)).decode()
    with pytest.raises(ArgumentError, match=words):
        Explanation.from_dict({**plain, "map": bomb, **changes})


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"label": 3}, "label"),
        ({"score": "high"}, "score"),
        ({"width": 0}, "width"),
        ({"height": 2**40}, "height"),
        ({"map_shape": [-3, -4]}, "map_shape"),
        ({"map_shape": [6]}, "map_shape"),
        ({"map_scale": None}, "map_scale"),
        ({"map_scale": 1e300}, "map_scale"),
        ({"transform": {}}, "transform"),
        ({"quality": "[1]"}, "quality"),
        ({"versions": {"torch": 2}}, "versions.torch"),
        ({"class_index": 1.5}, "class_index"),
        ({"kind": "sound"}, "kind"),
    ],
)
def test_a_record_of_a_stranger_is_held_against_the_schema(fields: dict, wrong: str) -> None:
    with pytest.raises(ArgumentError, match=f"one with {wrong}.* missing or wrong"):
        Explanation.from_dict({**explanation(np.ones((2, 3))).to_dict(), **fields})


@pytest.mark.parametrize("blob", ["!", "\u05dd", "YWJj", b"abc", 3, None])
def test_a_damaged_map_is_told(blob: object) -> None:
    with pytest.raises(ArgumentError, match="damaged"):
        Explanation.from_dict({**explanation(np.ones((2, 3))).to_dict(), "map": blob})


def test_a_view_without_pixels_is_refused() -> None:
    plain = explanation(np.ones((2, 3))).to_dict()
    transform = {**plain["transform"], "crop": [0, 0, 0, 0]}
    with pytest.raises(ArgumentError, match="at least one pixel"):
        Explanation.from_dict({**plain, "transform": transform})


@pytest.mark.parametrize("data", [None, [1, 2], {}, {"schema_version": 1}])
def test_what_is_no_record_is_refused(data: object) -> None:
    with pytest.raises(ArgumentError, match="record"):
        Explanation.from_dict(data)


def test_a_record_that_is_read_never_names_another_original() -> None:
    plain = explanation(np.ones((2, 3)), path="owl.jpg").to_dict()
    found = Explanation.from_dict({**plain, "source": "http://example.com/other.jpg"})
    assert found.original_source() == "owl.jpg"


def test_tables_of_pandas_say_nan_for_null() -> None:
    plain = explanation(np.ones((2, 3))).to_dict()
    found = Explanation.from_dict({**plain, "layer": float("nan"), "path": float("nan")})
    assert found.layer is None
    assert found.input.path is None


def test_the_published_schema_is_that_of_the_code() -> None:
    published = Path(__file__).parents[1] / "schemas" / f"explanation-{SCHEMA_VERSION}.json"
    assert json.loads(published.read_text("utf-8")) == schema()


def test_records_of_version_1_fit_the_schema_that_was_published_then() -> None:
    root = Path(__file__).parents[1]
    old = json.loads((root / "schemas" / "explanation-1.json").read_text("utf-8"))
    records = root / "tests" / "data" / "version1" / "records.json"
    for record in json.loads(records.read_text("utf-8")):
        Draft202012Validator(old).validate(record)


def test_a_kind_reads_only_its_own_records() -> None:
    plain = explanation(np.ones((2, 2))).to_dict()
    assert Explanation.from_dict(plain).kind == "image"
    with pytest.raises(ArgumentError, match="kind missing or wrong"):
        Explanation.from_dict({**plain, "kind": "sound"})


def test_a_picture_of_a_record_can_be_shown(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.new("RGB", (100, 60), (90, 120, 60)).save(path)
    found = replace(explanation(np.eye(3)), source=path)
    picture = found.render()
    assert picture.media_type == "image/jpeg"
    with Image.open(io.BytesIO(picture.data)) as drawn:
        assert drawn.size == (100, 60)


def test_segments_say_what_the_evidence_lies_on() -> None:
    values = np.zeros((4, 4), np.float32)
    values[:2, :2], values[3, 3], values[0, 3] = 3, 4, -9  # evidence against isn't shared out
    found = explanation(values, 400, 400)
    planted = np.zeros((40, 40), np.int64)
    planted[:20, :20] = 7
    dog, rest = found.segments(planted, {7: "dog", 0: "background"})
    assert (dog.label, rest.label) == ("dog", "background")
    assert dog.share > 0.6
    assert dog.share + rest.share == pytest.approx(1)
    assert (dog.area, rest.area) == pytest.approx((0.25, 0.75), abs=0.01)
    said = found.describe(planted, {7: "dog", 0: "background"})
    assert f"{100 * dog.share:.0f} % of the evidence for it lies on: dog, which covers 25 %" in said
    assert said.count(".  ") == 0
    assert said.endswith(".")
    assert found.segments(planted)[0].label == "segment 7"
    assert found.segments(planted, ["background"])[1].label == "background"
    assert explanation(np.full((4, 4), -1.0)).segments(planted) == ()
    with pytest.raises(ArgumentError, match="segments as integers"):
        found.segments(planted.astype(float))


def test_a_function_of_the_original_gives_the_segments() -> None:
    picture = np.zeros((30, 40, 3), np.uint8)
    picture[:, 20:] = 255
    values = np.array([[0.0, 1.0]], np.float32)
    found = replace(explanation(values, 40, 30), source=picture)

    def bright(image: Image.Image) -> Any:
        return np.asarray(image.convert("L").resize((20, 15))) > 127

    first, _ = found.segments(bright, ["dark", "bright"])
    assert first.label == "bright"
    assert first.share > 0.7
