"""What a packed map costs: the model with its map in one ONNX file beside the model alone.

    python benchmarks/packed.py [--method grad_cam] [MODEL ...]

Both files run in ONNX Runtime on one thread, in turn, on the same images; the ratio is that of the
shortest times. torchvision's models have random weights here, which changes neither figure's
meaning: agreement is measured on photographs against the engine. Results go to
benchmarks/results/packed.json.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

import visxai
from visxai.models import loading
from visxai.models.pytorch import exporting
from visxai.models.pytorch.sdpa import off_the_fast_path
from visxai.models.pytorch.tracing import Traceable
from visxai.package import check
from visxai.package.graph import packed
from visxai.quiet import warnings_of

MODELS = (
    "efficientnet_lite0",
    "torchvision:resnet18",
    "torchvision:resnet50",
    "torchvision:mobilenet_v3_large",
    "torchvision:convnext_tiny",
    "torchvision:vit_b_16",
)
OUT = Path(__file__).parent / "results" / "packed.json"
BATCH, ROUNDS = 8, 5  # short runs: on a machine that is shared, some of them are undisturbed


def loaded(name: str) -> visxai.Engine:
    torch.manual_seed(0)
    model: Any = loading.load(name, weights=":" not in name)
    module = model.copied()
    for parameter in module.parameters():
        if parameter.ndim > 1 and not parameter.any():  # a head of zeros has nothing to explain
            nn.init.normal_(parameter, std=0.02)
    return visxai.Engine(
        module, preprocess=model.preprocess, device="cpu", precision="fp32", accelerate="off"
    )


def plain(engine: visxai.Engine, x: torch.Tensor) -> bytes:
    model: Any = engine.model
    module = model.copied()
    with tempfile.TemporaryDirectory() as folder, warnings_of(), torch.no_grad():
        path = Path(folder, "plain.onnx")
        form = Traceable(lambda rows: model.forward(rows, module), module)
        handles = off_the_fast_path(module)
        exporting.export(form, x[:2], path)  # with sizes of padding known, as fast as it gets
        for handle in handles:
            handle.remove()
        return path.read_bytes()


def seconds(session: Any, x: Any) -> float:
    start = time.perf_counter()
    session.run(None, {session.get_inputs()[0].name: x})
    return time.perf_counter() - start


def measure(name: str, method: str) -> dict[str, Any]:
    engine = loaded(name)
    content, found = packed(engine, method, "top1", None)
    cut = check.photographs(engine, None)
    x = engine.tensor([cut[i % len(cut)] for i in range(BATCH)])
    sessions = [check.opened(plain(engine, x)), check.opened(content)]
    times: list[list[float]] = [[], []]
    for turn in range(ROUNDS + 1):
        for which in (0, 1) if turn % 2 else (1, 0):
            spent = seconds(sessions[which], x.numpy())
            if turn:  # the first run allocates
                times[which].append(spent)
    alone, explained = (min(one) for one in times)
    return {
        "model": name,
        "method": method,
        "scores_differ": found.scores,
        "maps_differ": found.maps,
        "plain_images_per_second": BATCH / alone,
        "packed_images_per_second": BATCH / explained,
        "ratio": alone / explained,
        "batch": BATCH,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("models", nargs="*", metavar="MODEL", default=MODELS)
    parser.add_argument("--method", default="grad_cam", metavar="SPEC")
    given = parser.parse_args()
    torch.set_num_threads(1)
    for name in given.models:
        row = measure(name, given.method)
        known = json.loads(OUT.read_text("utf-8")) if OUT.is_file() else []
        rows = {(one["model"], one["method"]): one for one in [*known, row]}
        print({k: v if isinstance(v, str) else float(f"{v:.3g}") for k, v in row.items()})
        OUT.write_text(json.dumps(list(rows.values()), indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
