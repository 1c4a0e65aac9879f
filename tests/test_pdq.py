"""PDQ hashes: fixed values, what leaves them nearly the same, and what doesn't."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from visxai.images.pdq import CLEAR, NEAR, Hash, _sampled, pdq


def picture(seed: int = 0, size: tuple[int, int] = (640, 480)) -> Image.Image:
    """A picture with detail of every size, as photographs have."""
    rng = np.random.default_rng(seed)
    made = np.zeros((size[1], size[0], 3))
    for cells in (4, 8, 16, 32):
        noise = rng.integers(0, 256, (cells * 3 // 4, cells, 3), dtype=np.uint8)
        made += np.asarray(Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC)) / cells
    made -= made.min()
    return Image.fromarray((255 * made / made.max()).astype(np.uint8))


def encoded(image: Image.Image, kind: str, **options: int) -> Image.Image:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return Image.open(file)


# Written down from this implementation, which gave the published hashes of Meta's pictures.
HASHES = [
    "8ab625ad905b15a9c33c76566ea192de45d968709697c18ed92cfdba875a3c60",
    "747ac1a2c1b21f598db423a7164f7c55c5ad4a1f4e14a5a0c6d2daf6eacd20d3",
    "564ced29a30bbe5fa01f49a1fc4c93d66a91fcdad641619fb3275d6106183d24",
]


@pytest.mark.parametrize("seed", range(3))
def test_hashes_stay_what_they_were(seed: int) -> None:
    found = pdq(picture(seed))
    assert found.distance(Hash(int(HASHES[seed], 16), 100)) <= 2  # decoders and BLAS may round
    assert found.quality >= CLEAR
    assert len(str(found)) == 64


@pytest.mark.parametrize(
    ("change", "most"),
    [
        (lambda one: encoded(one, "JPEG", quality=60), NEAR),
        (lambda one: encoded(one, "WEBP", quality=60), NEAR),
        (lambda one: one.resize((1280, 960), Image.Resampling.BICUBIC), 2),
        (lambda one: encoded(one.resize((520, 390)), "JPEG", quality=50), NEAR),
        (lambda one: one.point(lambda value: value * 0.9 + 8), NEAR),
        (lambda one: one.convert("L"), 2),
        (lambda one: one.convert("RGBA"), 0),
        # Below 512 pixels samples move by parts of a pixel, as they do in the published hashes.
        (lambda one: one.resize((320, 240), Image.Resampling.LANCZOS), 31),
        (lambda one: one.resize((160, 120), Image.Resampling.LANCZOS), 31),
    ],
    ids=["jpeg", "webp", "twice", "small jpeg", "darker", "grey", "alpha", "half", "quarter"],
)
def test_what_looks_the_same_stays_near(change: Any, most: int) -> None:
    distances = [pdq(picture(n)).distance(pdq(change(picture(n)))) for n in range(2)]
    assert max(distances) <= most, distances


def test_what_looks_different_is_far() -> None:
    one = picture(0)
    others = [
        picture(1),
        one.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        one.transpose(Image.Transpose.ROTATE_90),
        one.crop((80, 60, 640, 480)),
    ]
    assert min(pdq(one).distance(pdq(other)) for other in others) > 60


def test_pictures_without_detail_say_so() -> None:
    assert pdq(Image.new("RGB", (64, 64), (9, 9, 9))).quality == 0
    assert pdq(Image.new("L", (1, 1))).quality == 0
    assert pdq(Image.new("L", (1, 4000))).quality == 0
    assert pdq(Image.linear_gradient("L")).quality < CLEAR


def test_samples_by_hand() -> None:
    # 128 columns need no blur, and every second one is taken from the middle of its cell.
    ramp = np.arange(128, dtype=np.float32)[None]
    assert _sampled(ramp)[0].tolist() == list(range(1, 128, 2))
    # 256 columns: twice a box of two, each with the value on the right.
    ramp = np.arange(256, dtype=np.float32)[None]
    assert _sampled(ramp)[0, :3].tolist() == [3.0, 7.0, 11.0]


def test_bits_are_counted_where_they_differ() -> None:
    assert Hash(0b1011, 100).distance(Hash(0b0010, 100)) == 2
    assert str(Hash(255, 100)) == "0" * 62 + "ff"
