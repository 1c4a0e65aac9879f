"""Half precision on this machine: methods in each form as shares of the plain float32 forward.

    OMP_NUM_THREADS=1 python benchmarks/half.py [--models resnet50,mobilenet_v2] [--seconds 60]

Random weights and random images. In one process, in turn, all keeping the memory they free: the
plain eager float32 forward, that forward in every runtime at hand (`forwards.py`), each method in
float32 by PyTorch (of a transformer compared only), in bfloat16 by its prepared copy, and in
bfloat16 by OpenVINO, prepared for a run of 10,000 images; captum, torchcam and grad-cam in float32
and under bfloat16 autocast. Maps are compared with float32's first. The minimum over the rounds is
taken, as the machine may be shared; the medians stand beside it.

Bars are asked of the form by OpenVINO. `--compile` adds what inductor compiles, which takes some
minutes. Writes benchmarks/results/half.json; models that aren't named keep their rows.
"""

from __future__ import annotations

import argparse
import copy
from functools import partial
from typing import Any

import bars
import contestants
import torch
from forwards import forwards

import visxai
from visxai.process import keep_memory

CASES = {
    "resnet50": (8, "layer4", ("grad_cam",)),
    "mobilenet_v2": (16, "features", ("grad_cam",)),
    "vit_b_16": (8, None, ("grad_cam", "legrad", "chefer")),
}
# What is asked of each method: times the plain forward, times the fastest peer, times grad-cam.
ASKED: dict[tuple[str, str], tuple[float, float | None, float | None]] = {
    ("resnet50", "grad_cam"): (2.7, 1.8, 8),
    ("mobilenet_v2", "grad_cam"): (3.7, 3.2, 8),
    ("vit_b_16", "grad_cam"): (2.8, None, None),
    ("vit_b_16", "legrad"): (1.3, None, None),
    ("vit_b_16", "chefer"): (1.2, None, None),
}
CALLS = 20  # after which a long run runs as it goes on
LONG = 10_000  # images announced: what a long run prepares is timed, not its preparation
SHARE = 1.1  # of the time of the best forward in any runtime, at most, for Grad-CAM
FORMS = (("fp32", "off"), ("bf16", "off"), ("bf16", "openvino"))


def works(name: str, compiled: bool) -> tuple[dict[str, bars.Work], dict[str, Any], list[str]]:
    """The contestants of a model, how far their maps are from float32's, and the forwards."""
    module = bars.load(name)
    batch, layer, specs = CASES[name]
    x = torch.randn(batch, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    made: dict[str, bars.Work] = {"forward": contestants.forward(module, x)}
    plain = forwards(module, x, compiled)
    made |= {f"forward {label}": work for label, work in plain.items()}
    told: dict[str, Any] = {}
    for spec in specs:
        exact = None
        for precision, how in (*FORMS, *([("bf16", "compile")] if compiled else [])):
            engine = visxai.Engine(
                module, layer=layer, precision=precision, accelerate=how, batch_size=16
            )
            reason = engine.plan(spec, LONG)
            maps = engine.attribute(x, spec, 0).flatten(1)
            exact = maps if exact is None else exact
            cosine = float((bars.unit(maps) * bars.unit(exact)).sum(1).min())
            label = f"{spec} {precision} {how}"
            needs = visxai.methods.load(spec).needs
            ran = f"{engine.model.accelerated(needs)} ({reason})"
            told[label] = {"cosine": round(cosine, 5), "ran": ran}
            if how == "openvino":  # until its graph is that of this number of rows
                for _ in range(CALLS):
                    engine.attribute(x, spec, 0)
            if precision != "fp32" or layer is not None:  # a transformer's takes too long
                made[label] = partial(engine.attribute, x, spec, 0)
    if layer is not None:
        for label, make in (
            ("captum", contestants.captum_grad_cam),
            ("torchcam", contestants.torchcam_grad_cam),
            ("grad-cam", contestants.pytorch_grad_cam),
        ):
            peer = make(copy.deepcopy(module), layer, x, [0] * batch)
            made[label] = peer
            if label != "grad-cam":  # its NumPy takes no bfloat16
                made[f"{label} autocast"] = bars.under(peer)
    return made, told, [f"forward {label}" for label in plain]


def judged(name: str, seconds: bars.Seconds, plain: list[str]) -> list[dict[str, Any]]:
    """What was asked of a model's methods, and what they reached."""
    found = []
    for (model, spec), (forward, peers, slow) in ASKED.items():
        label = f"{spec} bf16 openvino"
        if model != name:
            continue
        found.append(bars.bar(spec, seconds, label, "forward", forward))
        if peers is not None and slow is not None:
            others = [one for one in seconds if one.startswith(("captum", "torchcam"))]
            found.append(bars.bar(spec, seconds, label, bars.fastest(seconds, others), peers))
            found.append(bars.bar(spec, seconds, label, "grad-cam", slow))
        if spec == "grad_cam":
            best = bars.fastest(seconds, plain)
            found.append(bars.bar(spec, seconds, label, best, SHARE, most=True))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--models", default=",".join(CASES))
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=60.0, help="of timing for each model")
    parser.add_argument("--compile", action="store_true")
    args = parser.parse_args()
    keep_memory()
    command = f"OMP_NUM_THREADS={torch.get_num_threads()} python benchmarks/half.py"
    for name in args.models.split(","):
        print(f"{name}, batch {CASES[name][0]}", flush=True)
        made, told, plain = works(name, args.compile)
        seconds = bars.contest(made, args.rounds, args.seconds)
        rows = {
            label: told.get(label, {}) | {"of_forward": bars.times(seconds, label, "forward")}
            for label in made
        }
        for label, row in rows.items():
            print(f"  {label}: {row}", flush=True)
        result = {
            "batch": CASES[name][0],
            "rounds": len(seconds["forward"]),
            "forms": rows,
            "bars": judged(name, seconds, plain),
        }
        bars.keep("half", {name: result}, command)


if __name__ == "__main__":
    main()
