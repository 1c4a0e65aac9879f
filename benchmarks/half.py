"""Half precision on this machine: methods in each form as shares of the plain float32 forward.

    OMP_NUM_THREADS=1 python benchmarks/half.py [--models resnet50,mobilenet_v2] [--rounds 7]

Random weights and random images. In one process, in turn: the plain eager float32 forward, and each
method in float32 by PyTorch, in bfloat16 by its prepared copy, and in bfloat16 compiled; captum and
torchcam in float32 and under bfloat16 autocast. Maps are compared with float32's first. The minimum
over the rounds is taken, as the machine may be shared; the ratios of the medians stand beside it.
Writes benchmarks/results/half.json.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable
from typing import Any

import contestants
import measure
import torch
from torch import nn

import visxai
from visxai.process import keep_memory

CASES = {
    "resnet50": (8, "layer4", ("grad_cam",)),
    "mobilenet_v2": (16, "features", ("grad_cam", "occlusion(window=32, stride=16)")),
    "vit_b_16": (8, None, ("grad_cam", "legrad", "chefer")),
}


def works(name: str, compiled: bool) -> tuple[dict[str, Callable[[], Any]], dict[str, Any], int]:
    """The contestants of a model, how far their maps are from float32's, and the batch."""
    from torchvision.models import get_model

    torch.manual_seed(0)
    module = get_model(name, weights=None).eval()
    for part in module.modules():
        if isinstance(part, nn.Linear) and not part.weight.any():
            nn.init.normal_(part.weight, std=0.02)
    batch, layer, specs = CASES[name]
    x = torch.randn(batch, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    found: dict[str, Callable[[], Any]] = {"forward": contestants.forward(module, x)}
    told: dict[str, Any] = {}
    engines = {
        (precision, how): visxai.Engine(
            module, layer=layer, precision=precision, accelerate=how, batch_size=16
        )
        for precision, how in (
            ("fp32", "off"),
            ("bf16", "off"),
            *([("bf16", "compile")] if compiled else []),
        )
    }
    for spec in specs:
        few = x[:1] if spec.startswith("occlusion") else x
        exact = engines["fp32", "off"].attribute(few, spec, 0).flatten(1)
        for (precision, how), engine in engines.items():
            label = f"{spec.partition('(')[0]} {precision} {how}"
            maps = engine.attribute(few, spec, 0).flatten(1)
            cosine = float((unit(maps) * unit(exact)).sum(1).min())
            needs = visxai.methods.load(spec).needs
            told[label] = {"cosine": round(cosine, 5), "ran": engine.model.accelerated(needs)}
            found[label] = lambda e=engine, s=spec, f=few: e.attribute(f, s, 0)
        if spec.startswith("occlusion"):
            peer = contestants.captum_occlusion(copy.deepcopy(module), few, [0], 32, 16, 8)
            found |= {"captum occlusion": peer, "captum occlusion autocast": under(peer)}
    if layer is not None:
        for label, make in (
            ("captum", contestants.captum_grad_cam),
            ("torchcam", contestants.torchcam_grad_cam),
        ):
            peer = make(copy.deepcopy(module), layer, x, [0] * batch)
            found |= {label: peer, f"{label} autocast": under(peer)}
    return found, told, batch


def unit(maps: torch.Tensor) -> torch.Tensor:
    """Maps (n, p) of length 1, however small their values are."""
    scaled = maps.double() / maps.abs().amax(1, keepdim=True).clamp_min(1e-300)
    return scaled / scaled.norm(dim=1, keepdim=True).clamp_min(1e-300)


def under(work: Callable[[], Any]) -> Callable[[], Any]:
    """A call under autocast to bfloat16."""

    def run() -> Any:
        with torch.autocast("cpu", torch.bfloat16):
            return work()

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--models", default=",".join(CASES))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--no-compile", action="store_true")
    args = parser.parse_args()
    keep_memory()
    result: dict[str, Any] = {}
    for name in args.models.split(","):
        found, told, batch = works(name, not args.no_compile)
        seconds: dict[str, list[float]] = {label: [] for label in found}
        for number in range(args.rounds):
            for label in found if number % 2 == 0 else reversed(list(found)):
                began = time.perf_counter()
                found[label]()
                seconds[label].append(time.perf_counter() - began)
        unit = seconds["forward"]
        result[name] = {
            label: {
                **told.get(label, {}),
                "times_the_forward": round(min(unit) / min(own), 3),
                "of_medians": round(statistics.median(unit) / statistics.median(own), 3),
            }
            for label, own in seconds.items()
        }
        print(f"{name}, batch {batch}")
        for label, row in result[name].items():
            print(f"  {label}: {row}", flush=True)
    command = f"OMP_NUM_THREADS={torch.get_num_threads()} python benchmarks/half.py"
    measure.save("half", {"rows": result}, command)


if __name__ == "__main__":
    main()
