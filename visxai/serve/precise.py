"""The precise tier: a slow method, and figures that say how far its map can be relied on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np

from visxai.ledger import explanations

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from visxai.images.prepared import Prepared
    from visxai.ledger import Database
    from visxai.moderation import Moderator
    from visxai.record.base import Explanation
    from visxai.record.image import ImageExplanation
    from visxai.serve.config import Precise
    from visxai.serve.jobs import Job

E = TypeVar("E", bound="Explanation")
_GRID = (56, 56)  # the grid of the original on which maps are compared


@dataclass(frozen=True, eq=False)
class Checked(Generic[E]):
    """An explanation and figures on its quality.

    Attributes:
        explanation: The explanation.
        confidence: The figures, by name.
    """

    explanation: E
    confidence: dict[str, Any]


def check_image(
    moderator: Moderator,
    settings: Precise,
    prepared: Prepared,
    whole: NDArray[np.uint8] | None,
    target: str,
    method: str,
    fast: ImageExplanation | None,
) -> Checked[ImageExplanation]:
    """Explain an image precisely, and check the explanation.

    Args:
        moderator: The moderator of images.
        settings: The tier's settings.
        prepared: The prepared image.
        whole: (h, w, 3) uint8, the upright image.
        target: What to explain.
        method: The method.
        fast: The fast tier's explanation, None where there is none.

    Returns:
        The explanation with: `faithful` (whether hiding what the map names costs more score than
        hiding permutations of it), `agreement` (rank correlation with the fast tier's map, -1 to
        1), `stability` (the smallest rank correlation between maps of several seeds), and
        `counterfactual` (the score before and after the strongest half of the evidence is hidden,
        and the share of the image that is).
    """
    from visxai.metrics import load_check

    judge = None if settings.check is None else load_check(settings.check)
    (made,) = moderator.explain([prepared], target, method, judge)
    confidence: dict[str, Any] = dict(made.quality)
    if fast is not None:
        confidence["agreement"] = agreement(made, fast)
    if settings.seeded is not None:
        specs = [settings.seeded.replace("{seed}", str(seed)) for seed in range(settings.seeds)]
        maps = [moderator.explain([prepared], target, spec)[0] for spec in specs]
        pairs = [(a, b) for i, a in enumerate(maps) for b in maps[:i]]
        confidence["stability"] = min(agreement(a, b) for a, b in pairs)
    if whole is not None and not made.degenerate:
        hidden = moderator.engine.redact(made, whole, share=0.5)
        confidence["counterfactual"] = {
            "area": float(hidden.area),
            "before": float(hidden.before),
            "after": float(hidden.after),
        }
    return Checked(made, confidence)


def agreement(a: ImageExplanation, b: ImageExplanation) -> float:
    """Return Spearman's rank correlation of two maps of one image, -1 to 1.

    They are compared on a grid of the original, where both saw it.
    """
    import torch

    from visxai.metrics.base import rank_correlation

    x, y = (one.heatmap(_GRID).ravel() for one in (a, b))
    seen = np.isfinite(x) & np.isfinite(y)
    rows = [torch.from_numpy(np.ascontiguousarray(one[seen]))[None] for one in (x, y)]
    return float(rank_correlation(rows[0], rows[1])[0])


def fast_explanation(database: Database, job: Job, kind: type[E]) -> E | None:
    """Read the fast tier's explanation of the same decision, None where there is none.

    Args:
        database: The service's database.
        job: The job; `supersedes` in its spec names the explanation.
        kind: The explanation's class.
    """
    id = job.spec.get("supersedes")
    if id is None:
        return None
    with database.reading() as connection:
        found = explanations.get(connection, str(id), job.tenant)
    if found is None or found.record is None:
        return None
    return kind.from_dict(found.record)
