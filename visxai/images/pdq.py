"""PDQ: a 256-bit hash that is nearly the same for pictures that look the same.

    Y = 0.299 R + 0.587 G + 0.114 B                luminance
    S = 64 × 64 samples of Y, blurred twice along each axis by a box of side / 128
    C = D S Dᵀ,  D_ij = √(2/64) cos(π/128 · (i + 1)(2j + 1)),  i < 16, j < 64
    bit 16 i + j = [C_ij > median C]

C holds the 16 × 16 lowest frequencies without the constant one. Re-encoding, resizing and light
filters change a few bits of 256; crops, turns and mirroring change about half of them. Pictures of
one colour have no detail to hash: their quality is low, and their hash says nothing.

Two pictures can be made to have one hash (Dolhansky and Canton Ferrer, 2020, arXiv 2011.09473), so
that a hash finds candidates and proves nothing.

Source: Facebook, The TMK+PDQF Video-Hashing Algorithm and the PDQ Image-Hashing Algorithm, 2019.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

NEAR = 10  # bits that pictures which look the same differ in, at most
CLEAR = 50  # the quality from which a hash says something, 0 to 100

_SIDE = 64  # samples along each axis
_KEPT = 16  # frequencies along each axis
_MOST = 512  # pixels of the longer side; larger pictures are made smaller first
_LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)
_STEEP = 90  # the sum of differences, per 100, that a picture of full quality has

_frequency, _sample = np.arange(_KEPT)[:, None] + 1, 2 * np.arange(_SIDE) + 1
_BASIS = (np.sqrt(2 / _SIDE) * np.cos(np.pi / (2 * _SIDE) * _frequency * _sample)).astype(
    np.float32
)


@dataclass(frozen=True)
class Hash:
    """The PDQ hash of a picture.

    Attributes:
        bits: The 256 bits as a number; bit 16 i + j belongs to the frequency (i, j).
        quality: How much detail there was to hash, 0 to 100; below `CLEAR` the bits say nothing.
    """

    bits: int
    quality: int

    def __str__(self) -> str:
        """Write the bits as 64 hexadecimal digits, as other programs do."""
        return f"{self.bits:064x}"

    def distance(self, other: Hash) -> int:
        """Count the bits in which two hashes differ, 0 to 256."""
        return (self.bits ^ other.bits).bit_count()


def pdq(image: Image.Image) -> Hash:
    """Hash a picture.

    Args:
        image: The picture, upright, of any size and mode.

    >>> stripes = Image.linear_gradient("L")
    >>> pdq(stripes).distance(pdq(stripes.resize((128, 128))))
    0
    """
    image = image.convert("RGB")
    if (most := max(image.size)) > _MOST:
        width, height = (max(1, round(side * _MOST / most)) for side in image.size)
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    luminance = np.asarray(image, np.float32) @ _LUMINANCE
    samples = _sampled(_sampled(luminance).T).T
    frequencies = _BASIS @ samples @ _BASIS.T
    set_ = (frequencies > np.median(frequencies)).ravel()
    bits = int.from_bytes(np.packbits(set_, bitorder="little").tobytes(), "little")
    return Hash(bits, _quality(samples))


def _sampled(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Blur rows twice by a box, and take 64 samples of each; (h, w) becomes (h, 64)."""
    width = values.shape[1]
    box = -(-width // (2 * _SIDE))
    start = np.clip(np.arange(width) - (box - 1) // 2, 0, None)
    end = np.clip(np.arange(width) + box // 2 + 1, None, width)
    for _ in range(2):
        sums = np.pad(values.cumsum(1, np.float64), ((0, 0), (1, 0)))
        values = ((sums[:, end] - sums[:, start]) / (end - start)).astype(np.float32)
    return values[:, ((np.arange(_SIDE) + 0.5) * width / _SIDE).astype(int)]


def _quality(samples: NDArray[np.float32]) -> int:
    """Sum how far neighbouring samples differ, in whole hundredths of the range."""
    steps = sum(np.trunc(np.abs(np.diff(samples, axis=axis)) / 2.55).sum() for axis in (0, 1))
    return min(100, int(steps / _STEEP))
