"""How cost grows: with image size, batch, steps, windows, classes per image and folder size.

    python benchmarks/growth.py [--only steps,windows] [--quick]

The default model on the CPU, plain. Every point is timed in turn with the plain forward of one
image at 224 pixels, which is the unit: a point at 10 costs as much as ten of those. Medians and
quartiles go to benchmarks/results/growth.json, a plot each to benchmarks/results/growth-NAME.png.
About 6 minutes on two quiet cores; `--quick` takes half a minute and writes nothing.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import measure
import torch

import visxai
from visxai import pipeline
from visxai.bench.report import plot_lines

SIDE = 224
Work = Callable[[], Any]


@dataclass(frozen=True)
class Curve:
    """What is varied, over which values, and how a value becomes work."""

    axis: str
    method: str
    values: Sequence[int]
    quick: Sequence[int]
    work: Callable[[visxai.Engine, int], Work]


def inputs(batch: int = 1, side: int = SIDE) -> torch.Tensor:
    return torch.randn(batch, 3, side, side, generator=torch.Generator().manual_seed(0))


def attribute(engine: visxai.Engine, method: str, x: torch.Tensor, target: Any = 3) -> Work:
    return partial(engine.attribute, x, method, target)


def steps(engine: visxai.Engine, count: int) -> Work:
    spec = f"integrated_gradients(steps={count}, schedule='gauss_legendre')"
    return attribute(engine, spec, inputs())


def windows(engine: visxai.Engine, count: int) -> Work:
    """`count` windows a side: a stride that divides the image, windows as wide."""
    return attribute(engine, f"occlusion(window={SIDE // count}, stride={SIDE // count})", inputs())


def folder(engine: visxai.Engine, count: int) -> Work:
    """A folder run from files to overlays and rows, in this process."""
    kept = tempfile.TemporaryDirectory(prefix="visxai-growth-")
    source = Path(kept.name) / "in"
    source.mkdir()
    for number, image in enumerate(measure.photographs(count)):
        image.save(source / f"{number}.jpg")
    runs = iter(range(10**6))

    def work() -> None:
        out = Path(kept.name) / f"out{next(runs)}"
        pipeline.explain([source], out, engine, "grad_cam", workers=0)

    return work


CURVES = {
    "image_size": Curve(
        "pixels a side",
        "grad_cam",
        (96, 128, 192, 256, 384, 512),
        (96, 128),
        lambda engine, side: attribute(engine, "grad_cam", inputs(side=side)),
    ),
    "batch": Curve(
        "images in a batch",
        "grad_cam",
        (1, 2, 4, 8, 16, 32),
        (1, 2),
        lambda engine, batch: attribute(engine, "grad_cam", inputs(batch)),
    ),
    "steps": Curve("steps", "integrated_gradients", (5, 10, 20, 40, 80), (2, 4), steps),
    "windows": Curve("windows a side", "occlusion", (2, 4, 7, 14, 28), (2, 4), windows),
    "classes": Curve(
        "classes of an image",
        "grad_cam",
        (1, 2, 5, 10, 20),
        (1, 2),
        lambda engine, count: attribute(engine, "grad_cam", inputs(), f"top{count}"),
    ),
    "folder": Curve("photographs in a folder", "grad_cam", (4, 8, 16, 32, 64), (2, 4), folder),
}


def measured(curve: Curve, quick: bool, seconds: float) -> dict[str, Any]:
    """The cost of every value over that of the plain forward."""
    engine = visxai.Engine(device="cpu", precision="fp32", accelerate="off")
    values = curve.quick if quick else curve.values
    works: dict[str, Work] = {"forward": partial(engine.model.scores, inputs())}
    works |= {str(value): curve.work(engine, value) for value in values}
    timed = measure.contest(works, 1 if quick else 9, limit=seconds)
    points = []
    for value in values:
        pairs = zip(timed[str(value)], timed["forward"], strict=True)
        points.append({"value": value, **measure.spread([cost / unit for cost, unit in pairs])})
    return {"axis": curve.axis, "method": curve.method, "points": points}


def draw(name: str, curve: dict[str, Any], folder: Path) -> None:
    line = [(point["value"], point["median"]) for point in curve["points"]]
    title = f"{curve['method']}, efficientnet_lite0, CPU"
    path = folder / f"growth-{name}.png"
    plot_lines({curve["method"]: line}, path, title, curve["axis"], "plain forwards' time")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--only", default=",".join(CURVES), help=f"of {', '.join(CURVES)}")
    parser.add_argument("--seconds", type=float, default=45, help="of timing for each curve")
    parser.add_argument("--quick", action="store_true", help="few points; writes nothing")
    args = parser.parse_args()
    chosen = args.only.split(",")
    if unknown := set(chosen) - set(CURVES):
        parser.error(f"expected --only of {', '.join(CURVES)}, got {', '.join(unknown)}")
    path = measure.RESULTS / "growth.json"
    curves = json.loads(path.read_text("utf-8"))["curves"] if path.is_file() else {}
    for name in chosen:
        began = time.perf_counter()
        curves[name] = measured(CURVES[name], args.quick, args.seconds)
        told = ", ".join(f"{p['value']}: {p['median']:.2f}" for p in curves[name]["points"])
        spent = time.perf_counter() - began
        print(f"{name} ({spent:.0f} s): {told}", file=sys.stderr, flush=True)
        if args.quick:
            with tempfile.TemporaryDirectory() as scratch:
                draw(name, curves[name], Path(scratch))
            continue
        measure.save(
            "growth",
            {"unit": "the plain forward of one image at 224 pixels", "curves": curves},
            "python benchmarks/growth.py",
        )
        draw(name, curves[name], measure.RESULTS)


if __name__ == "__main__":
    main()
