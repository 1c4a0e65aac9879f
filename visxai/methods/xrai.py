"""XRAI: the regions of the image, most densely attributed first.

    A = mean over b in {black, white} of  integrated gradients of x from b
    next region s* = argmax over segments s of  mean of A over the part of s not yet covered
    M_p = that mean, for the pixels p which s* newly covers

Segments come from six over-segmentations of the image (Felzenszwalb and Huttenlocher, scales 50
to 1200, smoothed by 0.8 pixels), each widened by `dilation` pixels so that attribution on an edge
counts for both its sides. A single black baseline would give black pixels no attribution. The map
is constant on regions and ranks them.

Black and white are those of the model's preprocessing; where it isn't known, each image's
smallest and largest value per channel. `steps` is for each of the two baselines.

    visxai.Engine().explain("cat.jpg", method="xrai")

Needs scikit-image: pip install 'visxai[segments]'.

Cost: that of integrated_gradients(steps) twice, less one forward: 1 + 2 steps forwards, 2 steps
backwards; segmenting runs on the CPU, a tenth of a second or more for each image.
Source: Kapishnikov et al., XRAI: better attributions through regions, ICCV 2019.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from visxai.errors import require
from visxai.images.preprocess import Preprocess
from visxai.methods.base import Cost, Maps, Method
from visxai.methods.integrated_gradients import IntegratedGradients
from visxai.models.interface import Model, Need
from visxai.target import Target

SCALES = (50, 100, 150, 250, 500, 1200)
SMOOTHING = 0.8
SMALLEST = 0.003  # share of the image's area below which segments are merged


@dataclass(frozen=True, repr=False)
class Xrai(Method):
    """Attribution by regions; see the module's docstring.

    Attributes:
        steps: Steps of integrated gradients for each of the two baselines.
        dilation: Pixels by which segments are widened.
    """

    steps: int = 50
    dilation: int = 5

    needs = Need.INPUT_GRADIENT

    def __post_init__(self) -> None:
        super().__post_init__()
        _path(self.steps)
        self._require(self.dilation >= 0, "a dilation of at least 0 pixels", self.dilation)

    def __call__(self, model: Model, x: Tensor, target: Target) -> Maps:
        black, white = _extremes(model, x)
        found = [
            _path(self.steps, baseline)(model, x, target).values for baseline in (black, white)
        ]
        attribution = ((found[0] + found[1]) / 2).double().cpu().numpy()
        pictures = ((x - black) / (white - black).clamp_min(1e-12)).clamp(0, 1)
        rows = model.aim(x, target).rows.tolist()
        maps = np.empty(attribution.shape, np.float32)
        segments: tuple[int, Any] = (-1, None)
        for number, row in enumerate(rows):
            if segments[0] != row:  # the maps of an image are consecutive
                picture = pictures[row].permute(1, 2, 0).double().cpu().numpy()
                segments = (row, over_segment(picture, self.dilation))
            maps[number] = grow(attribution[number], segments[1])
        return Maps(torch.from_numpy(maps).to(x.device))

    def cost(self, model: Model, x: Tensor) -> Cost:
        one = _path(self.steps).cost(model, x)
        return Cost(forwards=2 * one.forwards - 1, backwards=2 * one.backwards)


def _path(steps: int, baseline: Tensor | float = 0.0) -> IntegratedGradients:
    """Make the path from a baseline, whose points go where the score moves."""
    return IntegratedGradients(steps, "adaptive", baseline)


def _extremes(model: Model, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return black and white in model space, each (b or 1, c, 1, 1)."""
    known = model.preprocess
    if isinstance(known, Preprocess) and x.shape[1] == 3:
        # The mean and deviation are already in the order of the model's channels.
        mean, std = (x.new_tensor(values).reshape(1, 3, 1, 1) for values in (known.mean, known.std))
        return -mean / std, (1 - mean) / std
    return x.amin((2, 3), keepdim=True), x.amax((2, 3), keepdim=True)


def over_segment(picture: NDArray[np.float64], dilation: int) -> Any:
    """Cut a picture into segments at several scales.

    Args:
        picture: Pixels (h, w, c) in 0..1.
        dilation: Pixels by which each segment is widened, so that segments overlap.

    Returns:
        A sparse matrix (pixels, segments) of 0 and 1 in CSR format; each scale's segments cover the
        picture.
    """
    segmentation = require("skimage.segmentation", "segments", "xrai")
    morphology = require("skimage.morphology", "segments", "xrai")
    sparse = require("scipy.sparse", "segments", "xrai")
    smallest = max(1, round(SMALLEST * picture.shape[0] * picture.shape[1]))
    disk = morphology.disk(dilation)
    pixels, columns, count = [], [], 0
    seen: set[bytes] = set()
    for scale in SCALES:
        labels = segmentation.felzenszwalb(
            picture, scale=scale, sigma=SMOOTHING, min_size=smallest, channel_axis=-1
        )
        for label in range(labels.max() + 1):
            mask = labels == label
            if (
                mask.tobytes() in seen
            ):  # coarser scales repeat segments that can't be merged further
                continue
            seen.add(mask.tobytes())
            inside = np.flatnonzero(_widened(mask, disk, dilation))
            pixels.append(inside)
            columns.append(np.full(len(inside), count))
            count += 1
    at, segment = np.concatenate(pixels), np.concatenate(columns)
    size = picture.shape[0] * picture.shape[1]
    return sparse.csr_matrix((np.ones(len(at)), (at, segment)), shape=(size, count))


def _widened(mask: NDArray[np.bool_], disk: NDArray[Any], dilation: int) -> NDArray[np.bool_]:
    """Widen the mask by a disk; only the part of the picture that it can touch is computed."""
    import cv2

    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    part = (
        slice(max(0, rows[0] - dilation), rows[-1] + dilation + 1),
        slice(max(0, columns[0] - dilation), columns[-1] + dilation + 1),
    )
    wide = np.zeros_like(mask)
    wide[part] = cv2.dilate(mask[part].astype(np.uint8), disk) > 0
    return wide


def grow(attribution: NDArray[np.float64], segments: Any) -> NDArray[np.float32]:
    """Cover the image with segments in the order of their mean attribution.

    Args:
        attribution: Attribution (h, w) of the pixels.
        segments: A sparse matrix (pixels, segments) of 0 and 1.

    Returns:
        The map (h, w): for each pixel the mean attribution of the part that its segment newly
        covered.
    """
    flat = attribution.ravel()
    sums, areas = segments.T @ flat, np.asarray(segments.sum(0)).ravel()
    covered = np.zeros(flat.size, bool)
    result = np.zeros(flat.size, np.float32)
    by_segment = segments.tocsc()
    while not covered.all():
        density = np.where(areas > 0.5, sums / np.maximum(areas, 1), -np.inf)
        best = int(density.argmax())
        inside = by_segment.indices[by_segment.indptr[best] : by_segment.indptr[best + 1]]
        new = inside[~covered[inside]]
        # The mean is computed anew, since the running sums accumulate rounding errors.
        result[new] = flat[new].mean()
        covered[new] = True
        part = segments[new]
        sums -= part.T @ flat[new]
        areas -= np.asarray(part.sum(0)).ravel()
    return result.reshape(attribution.shape)
