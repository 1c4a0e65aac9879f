"""Where the time of a folder run goes: decode, transfer, forward, backward, upsampling, drawing,
encoding, and the rest.

    python benchmarks/stages.py [--images 64] [--methods grad_cam,occlusion] [--photographs FOLDER]

The run is done in one process, so that nothing overlaps and the shares add up; each stage's time
is its own, without that of stages it calls. "forward" is what the engine does but for backward
passes: maps and records too. Shares go to benchmarks/results/stages.json. About 3 minutes on two
quiet cores; `--quick` takes some seconds and writes nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import measure
import torch

import visxai
from visxai import pipeline
from visxai.bench.measure import timed
from visxai.drawing import overlays
from visxai.images import decoding
from visxai.images.preprocess import Preprocess
from visxai.results.store import Store

# Stage: where its functions are found. A stage within another is taken out of it.
STAGES: dict[str, list[tuple[Any, str]]] = {
    "decode": [(decoding, "decode"), (Preprocess, "crop")],
    "transfer": [(visxai.Engine, "tensor")],
    "forward": [(visxai.Engine, "explain_prepared")],
    "backward": [(torch.autograd, "grad")],
    "upsampling": [(overlays, "_field")],
    "drawing": [(overlays, "overlay")],
    "encoding": [(overlays, "save")],
    "writing": [(Store, "commit")],
}


class Stopwatch:
    """Seconds by stage, each without those of the stages inside it."""

    def __init__(self, device: torch.device) -> None:
        self.seconds = dict.fromkeys(STAGES, 0.0)
        self.device = device
        self._inside: list[float] = [0.0]

    def wrap(self, stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def run(*args: Any, **kwargs: Any) -> Any:
            found: list[Any] = []
            self._inside.append(0.0)
            spent = timed(lambda: found.append(function(*args, **kwargs)), self.device)
            self.seconds[stage] += spent - self._inside.pop()
            self._inside[-1] += spent
            return found[0]

        return run

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            for stage, places in STAGES.items():
                for owner, name in places:
                    wrapped = self.wrap(stage, getattr(owner, name))
                    stack.enter_context(mock.patch.object(owner, name, wrapped))
            yield


def shares(engine: visxai.Engine, files: list[Path], method: str) -> dict[str, Any]:
    """The share of each stage in the wall time of a run over files."""
    if method != "grad_cam":
        # A fraction of the images says as much of a method that takes a hundred times as long.
        files = files[: max(2, len(files) // 8)]
    with tempfile.TemporaryDirectory(prefix="visxai-stages-") as scratch:
        pipeline.explain(files[:2], Path(scratch, "warm"), engine, method, workers=0)
        watch = Stopwatch(engine.device)
        began = time.perf_counter()
        with watch.running():
            outcome = pipeline.explain(files, Path(scratch, "out"), engine, method, workers=0)
        wall = time.perf_counter() - began
    found = {stage: round(seconds / wall, 4) for stage, seconds in watch.seconds.items()}
    found["other"] = round(1 - sum(found.values()), 4)
    return {"shares": found, "images": outcome.counts["finished"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--images", type=int, default=64, help="an eighth for slow methods")
    parser.add_argument("--methods", default="grad_cam,integrated_gradients,occlusion")
    parser.add_argument("--accelerate", default="off,onnx")
    parser.add_argument("--photographs", type=Path, help="a folder; default: scikit-image's")
    parser.add_argument("--quick", action="store_true", help="4 images, Grad-CAM, writes nothing")
    args = parser.parse_args()
    methods = ["grad_cam"] if args.quick else args.methods.split(",")
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="visxai-stages-") as source:
        for number, image in enumerate(
            measure.photographs(4 if args.quick else args.images, args.photographs)
        ):
            image.save(Path(source, f"{number:04d}.jpg"), quality=92)
        for kind in ["off"] if args.quick else args.accelerate.split(","):
            engine = visxai.Engine(precision="fp32", accelerate=kind)
            for method in methods:
                results[f"{method}, {kind}"] = shares(
                    engine, sorted(Path(source).iterdir()), method
                )
                print(f"{method}, {kind} done", file=sys.stderr, flush=True)
    table = [
        {"": name} | {stage: f"{100 * share:.1f} %" for stage, share in one["shares"].items()}
        for name, one in results.items()
    ]
    print(measure.table(table))
    if not args.quick:
        measure.save(
            "stages", {"runs": results}, f"python benchmarks/stages.py --images {args.images}"
        )


if __name__ == "__main__":
    main()
