"""How far half precision's maps and scores are from float32's, on 64 photographs.

    OMP_NUM_THREADS=1 python benchmarks/agreement.py [--methods grad_cam,layer_cam] [--forms off]

The default model, with photographs cut out of those that scikit-image brings, for the class that
float32 puts first. Of each method: the worst and the mean cosine of signed class activation maps,
or Spearman's correlation of perturbation maps; of the scores: the same top-1, and the 99th
percentile of the differences of reported probabilities over all images and classes. float32 runs
in OpenVINO, which agrees with PyTorch to 1e-6. Writes benchmarks/results/agreement.json; methods
and forms that aren't named keep their rows.
"""

from __future__ import annotations

import argparse
from typing import Any

import bars
import measure
import torch

import visxai
from visxai.spec import split_specs

CAMS = ("grad_cam", "grad_cam_plus_plus", "layer_cam", "xgrad_cam", "hires_cam")
RANKED = ("occlusion(window=32, stride=32)", "rise(masks=50)")
ASKED = {"cosine": 0.999, "spearman": 0.98, "top1": 0.99, "p99": 0.01}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--methods", default=",".join((*CAMS, *RANKED)))
    parser.add_argument("--forms", default="off,openvino")
    parser.add_argument("--images", type=int, default=64)
    args = parser.parse_args()
    exact = visxai.Engine(precision="fp32", accelerate="openvino")
    images = measure.photographs(args.images)
    x = exact.tensor([exact.prepare(image).pixels for image in images])
    scores = exact.model.scores(x)
    reported = exact.model.probabilities(scores)
    top = scores.argmax(1)
    engines = {
        how: visxai.Engine(precision="bf16", accelerate=how) for how in args.forms.split(",")
    }
    rows: dict[str, dict[str, Any]] = {}
    for how, engine in engines.items():
        own = engine.model.scores(x)
        apart = (engine.model.probabilities(own) - reported).abs().flatten()
        rows[f"scores, {how}"] = {
            "ran": engine.model.accelerated(visxai.methods.load("rise").needs),
            "top1": round(float((own.argmax(1) == top).float().mean()), 4),
            "p99": round(float(apart.quantile(0.99)), 6),
            "largest": round(float(apart.max()), 4),
        }
    for spec in split_specs(args.methods, "--methods"):
        expected = exact.attribute(x, spec, top.tolist())
        for how, engine in engines.items():
            maps = engine.attribute(x, spec, top.tolist())
            if spec in CAMS:
                name = "cosine"
                each = (bars.unit(maps.flatten(1)) * bars.unit(expected.flatten(1))).sum(1)
            else:
                name = "spearman"
                pairs = zip(maps, expected, strict=True)
                each = torch.tensor([bars.spearman(one, other) for one, other in pairs])
            row = {name: round(float(each.min()), 5), "mean": round(float(each.mean()), 5)}
            rows[f"{spec}, {how}"] = row
    for label, row in rows.items():
        held = {
            k: (row[k] <= a if k == "p99" else row[k] >= a) for k, a in ASKED.items() if k in row
        }
        row["met"] = all(held.values())
        print(f"{label}: {row}", flush=True)
    threads = torch.get_num_threads()
    bars.keep("agreement", rows, f"OMP_NUM_THREADS={threads} python benchmarks/agreement.py")


if __name__ == "__main__":
    main()
