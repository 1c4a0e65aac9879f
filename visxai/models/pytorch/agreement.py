"""The decision whether a prepared form may replace the plain form of a computation."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Form = Callable[[Tensor], Tensor]
AGREEMENT = 1e-4  # relative to the largest value, on the first rows


def refusal(
    made: Form,
    plain: Form,
    x: Tensor,
    limit: float = AGREEMENT,
    difference: Callable[[Tensor, Tensor], float] | None = None,
) -> str:
    """Compare a prepared form with the plain form, and return why it can't replace it.

    Args:
        made: the prepared form.
        plain: the form that it replaces.
        x: three rows (3, ...); both forms run on them together and on the first alone.
        limit: the largest difference that is accepted.
        difference: difference(made(rows), plain(rows)); `_difference` by default.

    Returns:
        "" where it can, else "differs by 1.0e-03" or the like; NaN anywhere is a difference.
    """
    for rows in (x, x[:1]):
        apart = (difference or _difference)(made(rows), plain(rows))
        if not apart <= limit:  # not `apart > limit`, which is False for NaN
            return f"differs by {apart:.1e}"
    return ""


def _difference(found: Tensor, expected: Tensor) -> float:
    """Compute max|found - expected| / max|expected|; infinite where the shapes differ."""
    if found.shape != expected.shape:
        return float("inf")
    worst = (found.to(expected) - expected).abs().max()
    return float(worst / expected.abs().max().clamp_min(1e-30))


def turned(found: Tensor, expected: Tensor) -> float:
    """Compute how far values turned: |found - expected| / |expected|, norms over all rows."""
    if found.shape != expected.shape:
        return float("inf")
    expected = expected.float()
    return float((found.float() - expected).norm() / expected.norm().clamp_min(1e-30))


def three_rows(x: Tensor) -> Tensor:
    """Return three different rows (3, ...) from x (b, ...), flipped and negated where b < 3."""
    x = x.detach()
    return torch.cat([x[:3], x[:1].flip(-1), -x[:1]])[:3]
