"""The game that model-agnostic methods play: a row's features against those of a background."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from visxai.tabular.features import Matrix
from visxai.tabular.models.interface import TableModel, Vector

_ROWS = 2**16  # rows through the model at once: 20 features take 10 MB

Masks = NDArray[np.bool_]  # (coalitions, features); True where the row's own value is shown


def worth(model: TableModel, row: Vector, masks: Masks, background: Matrix) -> Vector:
    """Compute the worth of coalitions: the mean scalar with the other features from the background.

    Args:
        model: The model.
        row: float64 (features,).
        masks: The coalitions.
        background: float64 (rows, features).

    Returns:
        float64 (coalitions,).
    """
    step = max(1, _ROWS // len(background))
    made = np.empty(len(masks))
    for start in range(0, len(masks), step):
        part = masks[start : start + step]
        mixed = np.where(part[:, None, :], row, background[None])
        logits = model.logits(np.ascontiguousarray(mixed.reshape(-1, len(row))))
        made[start : start + step] = logits.reshape(len(part), -1).mean(1)
    return made
