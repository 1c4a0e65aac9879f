"""Whether products in bfloat16 could stand for one in float32: three that add up to it.

    python benchmarks/products.py

x = hi + lo, both in bfloat16, so x w is nearly hi w_hi + lo w_hi + hi w_lo. PyTorch gives float32
results on a CPU for float32 operands alone, which oneDNN then converts by itself. Sizes are those
of MiniLM's layers for 1,024 pieces, on one core; measure on a quiet machine.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch


def least(run: Callable[[], object], rounds: int = 15) -> float:
    """Return the least seconds of some runs."""
    found = []
    for _ in range(rounds):
        began = time.perf_counter()
        run()
        found.append(time.perf_counter() - began)
    return min(found)


def main() -> None:
    """Time each size and print seconds in relation to float32, and the error."""
    torch.set_num_threads(1)
    narrow = torch.backends.mkldnn.matmul
    for rows, depth, columns in ((1024, 384, 384), (1024, 384, 1536), (1024, 1536, 384)):
        x, w = torch.randn(rows, depth), torch.randn(depth, columns) / depth**0.5
        w_hi = w.bfloat16().float()
        w_lo = w - w_hi
        half_x, half_w = x.bfloat16(), w.bfloat16()

        def three(x=x, w_hi=w_hi, w_lo=w_lo) -> torch.Tensor:  # type: ignore[no-untyped-def]
            hi = x.bfloat16().float()
            return torch.mm(hi, w_hi).addmm_(x - hi, w_hi).addmm_(hi, w_lo)

        plain = least(lambda x=x, w=w: torch.mm(x, w))  # type: ignore[misc]
        half = least(lambda x=half_x, w=half_w: torch.mm(x, w))  # type: ignore[misc]
        narrow.fp32_precision = "bf16"
        thrice, found = least(three), three()
        narrow.fp32_precision = "ieee"
        exact = x.double() @ w.double()
        error = float((found - exact).abs().max() / exact.abs().max())
        print(
            f"{rows} x {depth} x {columns}: float32 {2e-9 * rows * depth * columns / plain:.0f} "
            f"GFLOP/s; three products {thrice / plain:.2f} of its time, error {error:.0e}; "
            f"bfloat16 alone {half / plain:.2f}"
        )


if __name__ == "__main__":
    main()
