"""Every method on the same photographs, side by side: what the contact sheets in docs/ are made of.

    python scripts/contact_sheet.py MODEL OUT.jpg        e.g. efficientnet_lite0 docs/methods.jpg

Needs the extras demo, segments and onnx. Methods that the model can't serve are left out, and why
is printed; expensive ones run with smaller budgets, which stand below their names.
"""

from __future__ import annotations

import sys

import numpy as np
from PIL import Image
from skimage import data

import visxai
from visxai.drawing import colours, sheets
from visxai.drawing.overlays import save
from visxai.record.base import Explanation

PHOTOGRAPHS = {
    "coffee": data.coffee,
    "chelsea": data.chelsea,
    "astronaut": data.astronaut,
}
# What a row runs, where that isn't the method as it comes; all but the name stands below the name.
SPECS = {
    "augmented": "augmented(method='grad_cam')",
    "blur_ig": "blur_ig(steps=20)",
    "captum": "captum:GradientShap(n_samples=8)",
    "deep_lift_shap": "deep_lift_shap(samples=4)",
    "gradient_shap": "gradient_shap(samples=25)",
    "is_cam": "is_cam(samples=4, top=16)",
    "mc_rise": "mc_rise(masks=300)",
    "square_grad": "square_grad(copies=12)",
    "ss_cam": "ss_cam(samples=4, top=16)",
    "var_grad": "var_grad(copies=12)",
    "extremal_perturbation": "extremal_perturbation(areas=(0.05, 0.1, 0.2), steps=60)",
    "expected_gradients": "expected_gradients(samples=25)",
    "guided_ig": "guided_ig(steps=20)",
    "hsic": "hsic(samples=300)",
    "idgi": "idgi(steps=20)",
    "kernel_shap": "kernel_shap(samples=300)",
    "lime": "lime(samples=300)",
    "occlusion": "occlusion(window=32, stride=16)",
    "partition_shap": "partition_shap(max_evaluations=300)",
    "rise": "rise(masks=500)",
    "score_cam": "score_cam(top=64)",
    "smooth_grad": "smooth_grad(copies=12)",
    "sobol": "sobol(samples=4)",
    "xrai": "xrai(steps=12)",
}
CELL = 150


def main(model: str, out: str) -> None:
    # A moderation model has one class that matters, however unlikely it is.
    target = "class=nsfw" if model == "nsfw" else "top1"
    engine = visxai.Engine(model, accelerate="auto" if model == "nsfw" else "onnx")
    pictures = {name: Image.fromarray(make()) for name, make in PHOTOGRAPHS.items()}
    rows: list[tuple[str, list[Image.Image]]] = [("photograph", list(pictures.values()))]
    scales: list[colours.Scale] = []
    for name in visxai.methods.names():
        spec = SPECS.get(name, name)
        method = visxai.methods.load(spec)
        try:
            engine.check(method)
            found = engine.explain(list(pictures.values()), method, target)
        except visxai.errors.VisxaiError as error:
            print(f"{name}: left out, {str(error).partition(': ')[0]}")
            continue
        overlays = []
        for explanation, picture in zip(found, pictures.values(), strict=True):
            assert isinstance(explanation, Explanation)
            overlays.append(explanation.overlay(picture))
            scales.append(colours.scale_of(explanation.placed))
        rows.append((spec.replace("(", "\n", 1).removesuffix(")"), overlays))
        seconds = sum(one.seconds for one in found if isinstance(one, Explanation))
        print(f"{name}: {seconds:.1f} s", flush=True)
    half = (len(rows) + 1) // 2
    parts = (rows[:half], []), (rows[half:], scales)
    blocks = [
        sheets.sheet([cells for _, cells in part], list(pictures), [n for n, _ in part], CELL, keys)
        for part, keys in parts
    ]
    height = max(block.height for block in blocks)
    page = np.empty((height, sum(block.width for block in blocks), 3), np.uint8)
    page[:] = np.asarray(blocks[0])[0, 0]  # the sheets' own background
    left = 0
    for block in blocks:
        page[: block.height, left : left + block.width] = np.asarray(block)
        left += block.width
    save(Image.fromarray(page), out, quality=85)
    print(f"{out}: {page.shape[1]}x{page.shape[0]}")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
