"""Occlusion 32/16 in half precision beside captum at its best setting, and beside the best forward.

    OMP_NUM_THREADS=1 python benchmarks/windows.py [--models mobilenet_v2] [--seconds 60]

One image of 224 x 224 pixels: 169 windows and the clean image. In one process, in turn, all keeping
the memory they free: visxai in float32, in bfloat16 by its prepared copy and by OpenVINO; captum
with 8 and 16 windows at once, in float32 and under bfloat16 autocast. The best forward is that of
16 rows in the fastest runtime at hand, times 170 / 16. Maps are compared with float32's first
(Spearman). Bars are asked of the form by OpenVINO. Writes benchmarks/results/windows.json; models
that aren't named keep their rows.
"""

from __future__ import annotations

import argparse
import copy
from functools import partial
from typing import Any

import bars
import contestants
import measure
import torch
from forwards import forwards

import visxai
from visxai.process import keep_memory

SPEC, ROWS, TOGETHER = "occlusion(window=32, stride=16)", 170, 16
ASKED = {"mobilenet_v2": 3.0, "efficientnet_lite0": 2.5}  # times captum at its best setting
SHARE = 1.05  # of the time of the best forward of as many rows, at most
FORMS = (("fp32", "off"), ("bf16", "off"), ("bf16", "openvino"))


def inputs(name: str) -> torch.Tensor:
    """A photograph for the default model, which is trained; noise for random weights."""
    if name == "efficientnet_lite0":
        engine = visxai.Engine(precision="fp32")
        return engine.tensor([engine.prepare(image).pixels for image in measure.photographs(1)])
    return torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--models", default=",".join(ASKED))
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=60.0, help="of timing for each model")
    args = parser.parse_args()
    keep_memory()
    command = f"OMP_NUM_THREADS={torch.get_num_threads()} python benchmarks/windows.py"
    for name in args.models.split(","):
        print(name, flush=True)
        module, x = bars.load(name), inputs(name)
        chosen = int(module(x).argmax())
        plain = forwards(module, x.expand(TOGETHER, -1, -1, -1).contiguous(), compiled=False)
        made: dict[str, bars.Work] = {f"forward {label}": work for label, work in plain.items()}
        told: dict[str, Any] = {}
        exact = None
        for precision, how in FORMS:
            engine = visxai.Engine(module, precision=precision, accelerate=how, batch_size=TOGETHER)
            found = engine.attribute(x, SPEC, chosen)
            if how == "openvino":  # until its graph is that of this number of rows
                engine.attribute(x, SPEC, chosen)
            exact = found if exact is None else exact
            label = f"occlusion {precision} {how}"
            ran = engine.model.accelerated(visxai.methods.load(SPEC).needs)
            told[label] = {"spearman": round(bars.spearman(found, exact), 5), "ran": ran}
            made[label] = partial(engine.attribute, x, SPEC, chosen)
        for together in (8, TOGETHER):
            peer = contestants.captum_occlusion(
                copy.deepcopy(module), x, [chosen], 32, 16, together
            )
            label = f"captum, {together} windows at once"
            told[label] = {"difference": contestants.difference(peer(), exact)}
            made |= {label: peer, f"{label}, autocast": bars.under(peer)}
        seconds = bars.contest(made, args.rounds, args.seconds)
        best = bars.fastest(seconds, [f"forward {label}" for label in plain])
        peers = [label for label in seconds if label.startswith("captum")]
        rows = {
            label: told.get(label, {})
            | {"of_best_forward": bars.times(seconds, label, best, ROWS / TOGETHER)}
            for label in made
            if not label.startswith("forward")
        }
        for label, row in rows.items():
            print(f"  {label}: {row}", flush=True)
        ours = "occlusion bf16 openvino"
        result = {
            "rounds": len(seconds[ours]),
            "forms": rows,
            "bars": [
                bars.bar("occlusion", seconds, ours, bars.fastest(seconds, peers), ASKED[name]),
                bars.bar(
                    "occlusion", seconds, ours, best, SHARE, most=True, factor=ROWS / TOGETHER
                ),
            ],
        }
        bars.keep("windows", {name: result}, command)


if __name__ == "__main__":
    main()
