"""Does a long run leak? Resident memory over 2,000 images through `explain`, after the first 200.

Read twice every 200 images: as it is, which wanders by some 70 MiB either way with what the C
allocator happens to keep of freed blocks, and after asking the allocator to give that back
(malloc_trim), which is what the process holds. Growth is of the second.

python benchmarks/memory.py [--images 2000] [--method grad_cam]
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import io
from pathlib import Path

import numpy as np
from measure import save
from PIL import Image

import visxai


def resident(trimmed: bool) -> float:
    """This process's resident memory in MiB, with or without what the allocator keeps for later."""
    if trimmed:
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 2**20


def pictures(count: int) -> list[bytes]:
    """Distinct small JPEGs of varied size, encoded."""
    found = []
    for seed in range(count):
        generator = np.random.default_rng(seed)
        noise = Image.fromarray(generator.integers(0, 255, (8, 8, 3), dtype=np.uint8))
        file = io.BytesIO()
        size = tuple(int(side) for side in generator.integers(200, 700, 2))
        noise.resize(size, Image.Resampling.BICUBIC).save(file, "JPEG")
        found.append(file.getvalue())
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--method", default="grad_cam")
    options = parser.parse_args()
    engine = visxai.Engine()
    # The encoded pictures live outside what is measured: a fixed set, explained in rounds.
    files = pictures(200)
    curve: list[float] = []
    held: list[float] = []
    for number in range(options.images // 200):
        for _ in engine.stream(files, options.method):
            pass
        gc.collect()
        curve.append(round(resident(trimmed=False), 1))
        held.append(round(resident(trimmed=True), 1))
        print(
            f"{200 * (number + 1):6d} images: {curve[-1]:8.1f} MiB resident, {held[-1]:8.1f} held",
            flush=True,
        )
    growth = round(max(held[1:]) - held[0], 1)
    print(f"growth after the first 200: {growth} MiB (must stay below 50)")
    save(
        "memory",
        {"method": options.method, "resident_mib": curve, "held_mib": held, "growth_mib": growth},
        f"python benchmarks/memory.py --images {options.images} --method '{options.method}'",
    )


if __name__ == "__main__":
    main()
