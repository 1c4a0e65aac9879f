"""What 1, 10 and 100 million images take on a cluster: hours, bytes and money, into docs/scale.md.

    python benchmarks/sizing.py --measure [--photographs FOLDER]   # the figures of one image
    python benchmarks/sizing.py [--gpu-rate 2000 --gpu-price 2.5]  # the table, from those figures

Measuring runs Grad-CAM over a folder in one process and one thread, and keeps the fastest of five
runs, stage by stage, in benchmarks/results/sizing.json; about a minute. The table is arithmetic on
that file and on the assumptions given as options: what a GPU explains a second isn't measured here.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import measure
import numpy as np

PAGE = Path(__file__).parents[1] / "docs" / "scale.md"
MARKS = ("<!-- sizing: written by benchmarks/sizing.py -->", "<!-- /sizing -->")
MILLIONS = (1, 10, 100)
MONTH_GB = 1e9  # bytes of the gigabyte that storage is billed by


def measured(photographs: Path | None, count: int) -> dict[str, Any]:
    """Core-seconds and bytes of one image, on one thread of this machine."""
    import torch

    import visxai
    from visxai import pipeline

    torch.set_num_threads(1)
    engine = visxai.Engine(device="cpu", precision="fp32", accelerate="off")
    runs = []
    with tempfile.TemporaryDirectory(prefix="visxai-sizing-") as scratch:
        source = Path(scratch, "in")
        source.mkdir()
        pictures = measure.photographs(count, photographs)
        for number, image in enumerate(pictures):
            image.save(source / f"{number:05d}.jpg", quality=92)
        pipeline.explain([source], Path(scratch, "warm"), engine, chunk_size=16, workers=0)
        for number in range(5):
            out = Path(scratch, str(number))
            runs.append(pipeline.explain([source], out, engine, workers=0))
        rows = sum(path.stat().st_size for path in (out / "explanations").iterdir())
        drawn = sum(path.stat().st_size for path in (out / "overlays").rglob("*.jpg"))
        read = sum(path.stat().st_size for path in source.iterdir())
    images = len(pictures)
    seconds = {
        stage: min(run.seconds[stage] for run in runs) / images
        for stage in ("decode", "compute", "draw", "write")
    }
    pixels = np.zeros((*engine.model.preprocess.size, 3), np.uint8)
    return {
        "images": images,
        "megapixels": sum(image.width * image.height for image in pictures) / images / 1e6,
        "seconds": {stage: round(value, 6) for stage, value in seconds.items()},
        "bytes": {
            "image": round(read / images),
            "row": round(rows / images),
            "overlay": round(drawn / images),
            "sent": len(pickle.dumps(pixels)),
            "driver": driver_bytes(),
        },
    }


def driver_bytes(count: int = 200_000) -> int:
    """What the driver holds of each image of the ordered input."""
    from visxai.images.sources import Found
    from visxai.results.store import Store

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    with tempfile.TemporaryDirectory(prefix="visxai-sizing-") as scratch:
        before = resident()
        found = [
            Found(f"/photographs/{n // 1000:05d}/{n:09d}.jpg", "/photographs") for n in range(count)
        ]
        with Store(Path(scratch, "out"), {"chunk": 1024, "batch": 64}) as store:
            store.add(found)
            return round((resident() - before) / count)


def hours(seconds: float, millions: int) -> float:
    return seconds * millions * 1e6 / 3600


def sized(one: dict[str, Any], args: argparse.Namespace) -> list[dict[str, str]]:
    """The rows of the table, for each number of images."""
    seconds, size = one["seconds"], one["bytes"]
    # Another process draws than decoded, so the photograph is decoded again for that.
    cpu = 2 * seconds["decode"] + seconds["draw"]
    bare = seconds["decode"]
    stored = size["row"] + size["overlay"]
    slow = cpu + seconds["compute"]
    gpu = 1 / args.gpu_rate
    month = args.storage_price / MONTH_GB

    def cost(n: int, core: float, kept: float, gpus: float = gpu) -> str:
        machines = hours(gpus, n) * args.gpu_price + hours(core, n) * args.core_price
        return f"${machines + kept * n * 1e6 * month:,.2f}"

    lines: dict[str, Callable[[int], str]] = {
        "GPU-hours (assumed rate)": lambda n: f"{hours(gpu, n):,.2f}",
        "core-hours, decode and draw": lambda n: f"{hours(cpu, n):,.1f}",
        "core-hours without overlays": lambda n: f"{hours(bare, n):,.1f}",
        "core-hours of the driver": lambda n: f"{hours(seconds['write'], n):,.1f}",
        "photographs read": lambda n: told(2 * size["image"] * n * 1e6),
        "sent to the actors": lambda n: told(size["sent"] * n * 1e6),
        "rows stored": lambda n: told(size["row"] * n * 1e6),
        "overlays stored": lambda n: told(size["overlay"] * n * 1e6),
        "memory of the driver": lambda n: told(size["driver"] * n * 1e6),
        "**cost, first month**": lambda n: cost(n, cpu, stored),
        "**cost of a million**": lambda n: cost(1, cpu, stored),
        "cost without overlays": lambda n: cost(n, bare, size["row"]),
        "core-hours without any GPU": lambda n: f"{hours(slow, n):,.1f}",
        "cost without any GPU": lambda n: cost(n, slow, stored, 0.0),
    }
    return [
        {"": name} | {f"{n} million": form(n) for n in MILLIONS} for name, form in lines.items()
    ]


def told(size: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB" if size < 1000 else f"{size / 1000:.3g} PB"


def page(one: dict[str, Any], args: argparse.Namespace) -> str:
    """The table and what it rests on."""
    seconds, size = one["seconds"], one["bytes"]
    cpu = 2 * seconds["decode"] + seconds["draw"]
    figures = ", ".join(f"{name} {1000 * value:.1f} ms" for name, value in seconds.items())
    return f"""{measure.table(sized(one, args))}

Measured, for one image on one thread of a CPU ({one["images"]} photographs of
{one["megapixels"]:.2f} megapixels and {told(size["image"])} on average, EfficientNet-Lite0 at 224
pixels, Grad-CAM, fp32, JPEG overlays): {figures}; {size["row"]:,} bytes a row,
{told(size["overlay"])} an overlay, {told(size["sent"])} sent to an actor, {size["driver"]:,} bytes
of the driver's memory.

Assumed, and yours to change:

- **{args.gpu_rate:,} images a second and GPU** (`--gpu-rate`): *not measured*. The GPU-hours and
  their cost are proportional to it.
- ${args.gpu_price:.2f} a GPU-hour (`--gpu-price`), ${args.core_price:.2f} a core-hour
  (`--core-price`), ${args.storage_price:.3f} a gigabyte and month (`--storage-price`).
- At that rate one GPU keeps {args.gpu_rate * cpu:.0f} cores busy with decoding and drawing
  ({args.gpu_rate * seconds["decode"]:.0f} without overlays): with fewer, the cores are what limits.
- The driver commits at most {1 / seconds["write"]:,.0f} images a second (a local disk, chunks of
  64): beyond that rate take larger chunks or several OUTs.
- Decode and draw grow with the photographs' pixels: measure with yours, `--photographs FOLDER`.
- One map an image. Starting processes, retries, idle machines, requests to an object store and
  traffic out of a data centre are not counted.
"""


def write(text: str, path: Path = PAGE) -> None:
    """Put text between the marks of the page."""
    whole = path.read_text("utf-8")
    before, _, rest = whole.partition(MARKS[0])
    _, _, after = rest.partition(MARKS[1])
    path.write_text(f"{before}{MARKS[0]}\n{text}{MARKS[1]}{after}", "utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--measure", action="store_true", help="the figures of one image anew")
    parser.add_argument("--photographs", type=Path, help="a folder; default: scikit-image's")
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--gpu-rate", type=int, default=2000, help="images a second and GPU")
    parser.add_argument("--gpu-price", type=float, default=2.5, help="$ an hour")
    parser.add_argument("--core-price", type=float, default=0.05, help="$ an hour")
    parser.add_argument("--storage-price", type=float, default=0.023, help="$ a GB and month")
    args = parser.parse_args()
    kept = measure.RESULTS / "sizing.json"
    if args.measure:
        figures = measured(args.photographs, args.images)
        command = f"python benchmarks/sizing.py --measure --images {args.images}"
        command += " --photographs FOLDER" if args.photographs else ""
        measure.save("sizing", figures, command)
    write(page(json.loads(kept.read_text("utf-8")), args))
    print(PAGE.read_text("utf-8").partition(MARKS[0])[2].partition(MARKS[1])[0])


if __name__ == "__main__":
    main()
