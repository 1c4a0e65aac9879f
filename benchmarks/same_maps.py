"""Do two versions of visxai give the same maps, bit for bit, on one machine?

    python benchmarks/same_maps.py keep before.npz       # with the one version
    python benchmarks/same_maps.py keep after.npz        # with the other
    python benchmarks/same_maps.py compare before.npz after.npz

Every method explains three photographs with EfficientNet-Lite0, and three pairs of digits with the
digits transformer, in float32 and without prepared forms; costly ones run with small budgets.
`compare` prints each method whose maps, scores or classes differ, by how much at most, and ends
with 1 when any does. Needs the extras demo and segments.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image
from skimage import data

import visxai

SPECS = {
    "augmented": "augmented(method='grad_cam')",
    "blur_ig": "blur_ig(steps=4)",
    "expected_gradients": "expected_gradients(samples=4)",
    "guided_ig": "guided_ig(steps=4)",
    "hsic": "hsic(samples=40)",
    "idgi": "idgi(steps=4)",
    "kernel_shap": "kernel_shap(samples=100)",
    "lime": "lime(samples=40)",
    "occlusion": "occlusion(window=64, stride=32)",
    "partition_shap": "partition_shap(max_evaluations=40)",
    "rise": "rise(masks=40)",
    "score_cam": "score_cam(top=8)",
    "smooth_grad": "smooth_grad(copies=3)",
    "sobol": "sobol(samples=2)",
    "token_drop": "token_drop(masks=16)",
    "xrai": "xrai(steps=4)",
}
CAPTUM = ("captum:Saliency", "captum:InputXGradient", "captum:GradientShap(n_samples=3)")


def pictures(model: str) -> list[Image.Image]:
    """Three inputs that suit a model."""
    if model != "digits_vit":
        return [Image.fromarray(make()) for make in (data.coffee, data.chelsea, data.astronaut)]
    file = Path(__file__).parents[1] / "tests" / "data" / "digits.npz"
    digits = np.load(file)["pixels"]
    found = []
    for place in range(3):
        pair = digits[2 * place : 2 * place + 2].reshape(2, 8, 8) * (255 // 16)
        canvas = np.concatenate([np.kron(one, np.ones((3, 3))) for one in pair], axis=1)
        found.append(Image.fromarray(canvas.astype(np.uint8)).convert("RGB"))
    return found


def keep(path: str) -> None:
    """Write the maps, scores and classes of every method to a file."""
    kept: dict[str, np.ndarray] = {}
    for model in ("efficientnet_lite0", "digits_vit"):
        engine = visxai.Engine(model, device="cpu", precision="fp32", accelerate="off")
        images = pictures(model)
        for name in [*(n for n in visxai.methods.names() if n != "captum"), *CAPTUM]:
            spec = SPECS.get(name, name)
            try:
                found = engine.explain(images, spec, "top2")
            except visxai.errors.VisxaiError as error:
                print(f"{model} {spec}: left out, {str(error).partition(': ')[0]}", flush=True)
                continue
            for place, one in enumerate(found):
                key = f"{model}/{spec}/{place}"
                kept[key] = one.values
                kept[f"{key}/score"] = np.array([one.score, one.logit, one.class_index])
    np.savez_compressed(path, **kept)
    print(f"{path}: {len(kept) // 2} maps")


def compare(before: str, after: str) -> int:
    """Print what differs between two files; returns how many methods do."""
    old, new = np.load(before), np.load(after)
    differing: dict[str, float] = {}
    for key in sorted({*old.files, *new.files}):
        method = "/".join(key.split("/")[:2])
        if key not in old.files or key not in new.files:
            differing[method] = np.inf
        elif not np.array_equal(old[key], new[key]):
            peak = float(np.abs(old[key]).max()) or 1.0
            same = old[key].shape == new[key].shape
            apart = float(np.abs(old[key] - new[key]).max()) / peak if same else np.inf
            differing[method] = max(differing.get(method, 0.0), apart)
    for method, apart in differing.items():
        print(f"{method}: differs by {apart:.1e} of its largest value")
    methods = {"/".join(key.split("/")[:2]) for key in new.files}
    print(f"{len(methods) - len(differing)} of {len(methods)} methods and models agree bit for bit")
    return len(differing)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["keep", path]:
            keep(path)
        case ["compare", before, after]:
            sys.exit(1 if compare(before, after) else 0)
        case _:
            sys.exit(__doc__)
