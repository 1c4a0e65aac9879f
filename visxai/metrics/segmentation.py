"""Segmentation: how well does the map, cut at its mean, outline the object?

    value = mean over object and background of  |S and T| / |S or T|

S are the pixels above the map's mean (and the others, for the background), T the object's. A
region that is empty in both S and T is left out of the mean. Figures beside the value, the
two-class mIoU: `pixel_accuracy`, the share of pixels on the right side, and `average_precision` of
the pixels ranked by the map, equal values taken together; its mean over images is the mAP.

    metrics.load("segmentation")

It measures plausibility, not faithfulness: a model may well look at the background.

Cost: none.
Source: Chefer et al., Transformer interpretability beyond attention visualization, CVPR 2021.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from visxai.metrics.base import Ask, Case, Metric, Scores


@dataclass(frozen=True, repr=False)
class Segmentation(Metric):
    """Two-class mIoU of the map cut at its mean; see the module's docstring."""

    asks = Ask.MAPS | Ask.OBJECTS
    better = "higher"

    def score(self, case: Case) -> Scores:
        maps, truth = case.pixels.flatten(1), case.inside.flatten(1)
        # In float32 the mean of a flat map can lie below all its values.
        found = maps > maps.double().mean(1, keepdim=True)
        overlaps = []
        for s, t in ((found, truth), (~found, ~truth)):
            union = (s | t).sum(1)
            overlaps.append(torch.where(union > 0, (s & t).sum(1) / union, torch.nan))
        return Scores(
            torch.stack(overlaps).nanmean(0),
            {
                "pixel_accuracy": (found == truth).float().mean(1),
                "average_precision": average_precision(maps, truth),
            },
        )


def average_precision(values: Tensor, truth: Tensor) -> Tensor:
    """Compute the average precision of pixels ranked by value, equal values taken together.

        sum_k (recall_k - recall_k-1) precision_k over the distinct values, from the largest

    Args:
        values: Values (r, n).
        truth: The pixels to find (r, n), bool.

    Returns:
        (r,), in 0..1; NaN where truth is empty.
    """
    ordered, order = values.sort(dim=1, descending=True)
    hits = truth.gather(1, order).cumsum(1)
    precision = hits / torch.arange(1, values.shape[1] + 1, device=values.device)
    last = torch.ones_like(truth)
    last[:, :-1] = ordered[:, 1:] != ordered[:, :-1]
    # Equal values are taken together: the hits since the end of the last run count at the end.
    before = torch.where(last, hits, 0).cummax(1).values.roll(1, 1)
    before[:, 0] = 0
    gained = torch.where(last, hits - before, 0)
    total = hits[:, -1]
    return torch.where(total > 0, (gained * precision).sum(1) / total, torch.nan)
