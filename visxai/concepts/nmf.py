"""Non-negative matrix factorization: a matrix as a sum of few parts, none of which takes away.

    V ≈ U W,    U, W >= 0,    by coordinate descent on  norm( V - U W )^2

Each column of U in turn, then each row of W, takes the value that is best while all others stand
(hierarchical alternating least squares). It starts from the singular vectors' positive parts, so
the same matrix always gives the same factors, whatever the machine draws.

Source: Cichocki & Phan, Fast local algorithms for large scale nonnegative matrix and tensor
factorizations, IEICE 2009; Boutsidis & Gallopoulos, SVD based initialization, Pattern Recognition
2008.
"""

from __future__ import annotations

import torch
from torch import Tensor

STEPS, ENOUGH = 400, 1e-5  # most rounds, and the relative gain of a round below which they end


def factors(values: Tensor, count: int, steps: int = STEPS) -> tuple[Tensor, Tensor]:
    """Factorize a matrix without negative values.

    Args:
        values: (n, k), at least 0.
        count: The number of parts.
        steps: The most rounds.

    Returns:
        U (n, count) and W (count, k), both at least 0; each row of W has the norm 1, or is zero
        where the matrix has fewer parts.
    """
    u, w = _start(values, count)
    before = torch.inf
    for _ in range(steps):
        u = _descended(u, values @ w.T, w @ w.T)
        w = _descended(w.T, values.T @ u, u.T @ u).T
        error = float((values - u @ w).square().sum())
        if before - error <= ENOUGH * error:
            break
        before = error
    norms = w.norm(dim=1)
    return u * norms, w / norms.clamp_min(1e-12)[:, None]


def coefficients(values: Tensor, parts: Tensor, steps: int = STEPS) -> Tensor:
    """Find the U (n, count) >= 0 nearest to values (n, k) for given parts (count, k)."""
    cross, gram = values @ parts.T, parts @ parts.T
    u = (cross / gram.diagonal().clamp_min(1e-12)).clamp_min(0) / max(1, len(parts))
    for _ in range(steps):
        last, u = u, _descended(u, cross, gram)
        if (u - last).abs().max() <= ENOUGH * u.abs().max():
            break
    return u


def _descended(u: Tensor, cross: Tensor, gram: Tensor) -> Tensor:
    """Descend once along each column of u (n, count); cross is V Wᵀ, gram W Wᵀ."""
    u = u.clone()
    for column in range(u.shape[1]):
        scale = gram[column, column]
        if scale > 1e-12:
            step = (cross[:, column] - u @ gram[:, column]) / scale
            u[:, column] = (u[:, column] + step).clamp_min(0)
    return u


def _start(values: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Begin at the larger of the positive and the negative part of each pair of singular vectors.

    Zeros are replaced by what a uniform factorization would have there: a zero row and column could
    never grow together.
    """
    n, k = values.shape
    # In float64, and of the smaller Gram matrix: thousands of positions have few channels.
    exact = values.double()
    gram = exact.T @ exact if k <= n else exact @ exact.T
    powers, vectors = torch.linalg.eigh(gram)
    order = powers.argsort(descending=True)[:count]
    sizes = powers[order].clamp_min(0).sqrt()
    near = vectors[:, order]
    other = (exact @ near if k <= n else exact.T @ near) / sizes.clamp_min(1e-12)
    left, right = (other, near) if k <= n else (near, other)
    u, w = values.new_zeros(n, count), values.new_zeros(count, k)
    for part in range(len(order)):
        pairs = (
            [(side * left[:, part]).clamp_min(0) for side in (1, -1)],
            [(side * right[:, part]).clamp_min(0) for side in (1, -1)],
        )
        weights = [a.norm() * b.norm() for a, b in zip(*pairs, strict=True)]
        best = 0 if weights[0] >= weights[1] else 1
        a, b = pairs[0][best], pairs[1][best]
        scale = (sizes[part] * weights[best]).sqrt()
        u[:, part] = (scale * a / a.norm().clamp_min(1e-12)).to(values)
        w[part] = (scale * b / b.norm().clamp_min(1e-12)).to(values)
    even = (values.mean() / count).clamp_min(1e-12).sqrt()
    return torch.where(u == 0, even, u), torch.where(w == 0, even, w)
