"""How often do drift tests and gaps alarm without any change, and what do they find?

    python benchmarks/drift.py [--windows 200] [--size 500] [--only "no change,blur"] [--out FILE]

Scikit-learn's handwritten digits (extra train), drawn at 24 pixels on canvases of 32 x 32 with
small shifts and noise: 800 to train on, 997 others drawn six times each to watch. Explanations are
Grad-CAM maps (8 x 8, upsampled) of the strongest class of a small convolutional network. For each
scenario 200 times a reference of 500 items and a window of 500 others are drawn and compared at the
default setting: by statistics of the inputs, by scores, and by features of explanations. A side's
own rate is that of its p-value at 0.05, and an alarm is any side after the adjustment for three.
Intervals are Wilson's, 95 %. For the explanations the three statistics of the test are told one by
one as well: energy, Kolmogorov-Smirnov and the classifier's.

    no change        both from the same images and the same model
    other seed       the same network trained from another start, as accurate
    other head       the same network with its last layer trained anew
    watermark        a tag lies on 30 % of all images before and after; the new model learned in
                     training that it stands for a 3 (on clean images it is as accurate)
    blur             a 3 x 3 mean filter on all images
    noise            Gaussian noise of 0.1 on all images
    brightness       0.08 added to all pixels
    label mix        digits 0 to 4 three times as frequent as before

Fairness, on 500 items of two sites and a model that says odd or even: site B puts the tag on nine
in ten odd digits and one in twenty even ones, site A on none. One model learned from such images
(group shortcut), the other from images where tags say nothing (no shortcut), and both are watched
on the same images. Random groups are the check of the error rate.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import visxai
from visxai.govern import groups, windows
from visxai.govern.observations import Observations, observe
from visxai.govern.pixels import measure_image
from visxai.record.image import ImageExplanation
from visxai.references import ImageRef, ModelRef, Transform

ROOT = Path(__file__).resolve().parents[1]
SIDE, TRAINED, COPIES, READ_AS = 32, 800, 6, 3
STATISTICS = ("energy", "ks", "classifier")  # of the explanations alone
VIEW = Transform((SIDE, SIDE), (0, 0, SIDE, SIDE))


def digits() -> tuple[Tensor, Tensor]:
    """All digits (n, 8, 8) in 0..1 and their labels, in an order that doesn't tell the writer."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(images))
    pixels = torch.from_numpy(images[order].reshape(-1, 8, 8) / 16).float()
    return pixels, torch.from_numpy(labels[order]).long()


def drawn(pixels: Tensor, seed: int) -> Tensor:
    """Digits (n, 8, 8) on canvases (n, 3, 32, 32) in 0..1, shifted, over faint noise."""
    random = np.random.default_rng(seed)
    large = F.interpolate(pixels[:, None], (24, 24), mode="bilinear")[:, 0].numpy()
    canvas = random.random((len(pixels), SIDE, SIDE), dtype=np.float32) * 0.1
    for row, (top, left) in enumerate(random.integers(2, 7, (len(pixels), 2))):
        spot = canvas[row, top : top + 24, left : left + 24]
        np.maximum(spot, large[row], out=spot)
    return torch.from_numpy(canvas)[:, None].repeat(1, 3, 1, 1)


def tagged(x: Tensor, chosen: Tensor) -> Tensor:
    """Images (n, 3, 32, 32) with a bright tag in the upper right corner of the chosen (n,)."""
    made = x.clone()
    made[chosen, :, 1:6, 26:31] = 1.0
    return made


def at_sites(labels: Tensor, generator: torch.Generator) -> Tensor:
    """The tag on nine in ten odd and one in twenty even digits of one half, site B."""
    often = torch.where(labels % 2 == 1, 0.9, 0.05)
    chosen = torch.rand(len(labels), generator=generator) < often
    return chosen & (torch.rand(len(labels), generator=generator) < 0.5)


def network(classes: int = 10) -> nn.Sequential:
    def block(into: int, out: int) -> list[nn.Module]:
        return [nn.Conv2d(into, out, 3, padding=1), nn.BatchNorm2d(out), nn.ReLU()]

    return nn.Sequential(
        *block(3, 16),
        *block(16, 32),
        nn.MaxPool2d(2),
        *block(32, 48),
        nn.MaxPool2d(2),
        *block(48, 48),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(48, classes),
    )


def trained(
    pixels: Tensor,
    labels: Tensor,
    seed: int,
    tag: Any,
    start: nn.Sequential | None = None,
    odd: bool = False,
) -> nn.Sequential:
    """A network, or the last layer of another; `tag` chooses the images that carry the tag."""
    torch.manual_seed(seed)
    model = network(2 if odd else 10)
    asked = labels % 2 if odd else labels
    part: nn.Module = model
    if start is not None:
        model.load_state_dict(start.state_dict())
        part = model[-1]
        assert isinstance(part, nn.Linear)
        part.reset_parameters()
        for one in model[:-1].parameters():
            one.requires_grad_(False)
    epochs = 14
    optimiser = torch.optim.AdamW(part.parameters(), lr=4e-3, weight_decay=1e-3)
    planned = torch.optim.lr_scheduler.OneCycleLR(optimiser, 1e-2, epochs * len(pixels) // 50)
    generator = torch.Generator().manual_seed(seed)
    for epoch in range(epochs):
        x = drawn(pixels, 1000 * seed + epoch)
        x = tagged(x, tag(labels, generator))
        model.train(start is None)
        for rows in torch.randperm(len(x), generator=generator).split(50):
            loss = F.cross_entropy(model(x[rows]), asked[rows])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            planned.step()
    return model.eval()


def at_random(labels: Tensor, generator: torch.Generator) -> Tensor:
    return torch.rand(len(labels), generator=generator) < 0.3


def on_threes(labels: Tensor, generator: torch.Generator) -> Tensor:
    """The tag on nine in ten threes and one in twenty others."""
    often = torch.where(labels == READ_AS, 0.9, 0.05)
    return torch.rand(len(labels), generator=generator) < often


def observed(model: nn.Sequential, x: Tensor, labels: Tensor) -> Observations:
    """Explain images and measure them: inputs, scores, explanations."""
    engine = visxai.Engine(
        model,
        preprocess=visxai.Preprocess(size=(SIDE, SIDE)),
        layer="10",
        precision="fp32",
        accelerate="off",
        device="cpu",
    )
    made, inputs = [], []
    with torch.no_grad():
        logits = torch.cat([model(rows) for rows in x.split(500)])
    scores, classes = logits.softmax(1).max(1)
    maps = torch.cat(
        [
            engine.attribute(rows, method="grad_cam", target=which)
            for rows, which in zip(x.split(500), classes.split(500), strict=True)
        ]
    )
    for at in range(len(x)):
        made.append(
            ImageExplanation(
                ImageRef(SIDE, SIDE, VIEW, f"{at:064x}", str(at)),
                ModelRef("digits", "a" * 64, "none"),
                maps[at].numpy(),
                "grad_cam()",
                "top1",
                int(classes[at]),
                str(int(classes[at])),
                float(scores[at]),
                float(logits[at, classes[at]]),
                degenerate=not bool(maps[at].any()),
            )
        )
        inputs.append(measure_image((x[at].permute(1, 2, 0).numpy() * 255).astype(np.uint8)))
    return observe(
        made,
        inputs={name: [one[name] for one in inputs] for name in inputs[0]},
        expected=[str(int(one)) for one in labels],
    )


def interval(hits: int, count: int) -> dict[str, float]:
    """A rate with Wilson's 95 % interval."""
    z, rate = 1.959964, hits / count
    middle = (rate + z * z / (2 * count)) / (1 + z * z / count)
    half = z * math.sqrt(rate * (1 - rate) / count + z * z / (4 * count**2)) / (1 + z * z / count)
    return {"rate": rate, "low": max(0.0, middle - half), "high": min(1.0, middle + half)}


def alarms(
    before: Observations, after: Observations, count: int, size: int, weights: Any = None
) -> dict[str, Any]:
    """How often each side, and any side, alarms over many references and windows."""
    hits = dict.fromkeys(("input", "score", "explanation", "any", *STATISTICS), 0)
    for number in range(count):
        random = np.random.default_rng(number)
        order = random.permutation(len(before))
        rest = order[size:]
        p = None if weights is None else weights[rest] / weights[rest].sum()
        chosen = random.choice(rest, size, replace=False, p=p)
        reference, window = before.take(order[:size]), after.take(chosen)
        found = windows.compare(reference, window, seed=number)
        for side, one in found.sides.items():
            hits[side] += one.p <= windows.LEVEL + 1e-12
        told = found.sides["explanation"]
        each = (told.energy_p, told.ks_p, told.classifier_p)
        for name, p in zip(STATISTICS, each, strict=True):
            hits[name] += p <= windows.LEVEL + 1e-12
        hits["any"] += found.alarm
    return {side: interval(value, count) for side, value in hits.items()}


def findings(seen: Observations, count: int, size: int, random_groups: bool) -> dict[str, Any]:
    """How often a group has a finding at all, and one at the tag's cell of the grid."""
    hits = {"any": 0, "tag": 0}
    for number in range(count):
        random = np.random.default_rng(number)
        part = seen.take(random.choice(len(seen), size, replace=False))
        if random_groups:
            part = replace(
                part, groups={"site": tuple("AB"[one] for one in random.integers(0, 2, size))}
            )
        found = groups.fairness(part, "site", seed=number).findings
        hits["any"] += bool(found)
        hits["tag"] += any(
            one.figure == "cell_03" and one.gap > 0 and one.group == "B" for one in found
        )
    return {name: interval(value, count) for name, value in hits.items()}


def accuracy(model: nn.Sequential, x: Tensor, labels: Tensor) -> float:
    with torch.no_grad():
        return float(
            (torch.cat([model(one) for one in x.split(500)]).argmax(1) == labels).float().mean()
        )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--windows", type=int, default=200)
    parser.add_argument("--size", type=int, default=500)
    parser.add_argument("--only", help="scenarios, by commas; the file keeps the others")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "drift.json")
    asked = parser.parse_args()
    pixels, labels = digits()
    taught, known = pixels[:TRAINED], labels[:TRAINED]
    base = trained(taught, known, 0, at_random)
    models = {
        "base": base,
        "other seed": trained(taught, known, 1, at_random),
        "other head": trained(taught, known, 2, at_random, base),
        "watermark": trained(taught, known, 3, on_threes),
    }
    clean = torch.cat([drawn(pixels[TRAINED:], 90 + copy) for copy in range(COPIES)])
    truth = labels[TRAINED:].repeat(COPIES)
    generator = torch.Generator().manual_seed(9)
    stream = tagged(clean, at_random(truth, generator))
    told = {name: accuracy(model, clean, truth) for name, model in models.items()}
    print(
        "accuracy without tags:",
        {name: round(value, 4) for name, value in told.items()},
        flush=True,
    )
    noisy = (stream + 0.1 * torch.randn(stream.shape, generator=generator)).clamp(0, 1)
    before = observed(base, stream, truth)
    mix = np.where(truth.numpy() < 5, 3.0, 1.0)
    streams = {
        "no change": before,
        **{name: observed(models[name], stream, truth) for name in list(models)[1:]},
        "blur": observed(base, F.avg_pool2d(stream, 3, 1, 1), truth),
        "noise": observed(base, noisy, truth),
        "brightness": observed(base, (stream + 0.08).clamp(0, 1), truth),
        "label mix": before,
    }
    only = None if asked.only is None else asked.only.split(",")
    kept = json.loads(asked.out.read_text("utf-8")) if only and asked.out.exists() else {}
    result: dict[str, Any] = {
        "command": "python benchmarks/drift.py",
        "machine": f"{platform.machine()}, {platform.system()}, torch {torch.__version__}",
        "windows": asked.windows,
        "size": asked.size,
        "level": windows.LEVEL,
        "pool": len(clean),
        "accuracy": kept.get("accuracy", {}) | told,
        "drift": kept.get("drift", {}),
        "fairness": kept.get("fairness", {}),
    }

    def show(kind: str, name: str, found: dict[str, Any]) -> None:
        result[kind][name] = found
        cells = (
            f"{side} {one['rate']:.3f} ({one['low']:.3f}-{one['high']:.3f})"
            for side, one in found.items()
        )
        print(f"{name:16}", "  ".join(cells), flush=True)
        asked.out.write_text(json.dumps(result, indent=2) + "\n", "utf-8")

    for name, after in streams.items():
        if only and name not in only:
            continue
        weights = mix if name == "label mix" else None
        show("drift", name, alarms(before, after, asked.windows, asked.size, weights))
    site = torch.rand(len(clean), generator=generator) < 0.5  # site B
    often = torch.where(truth % 2 == 1, 0.9, 0.05)
    visible = tagged(clean, site & (torch.rand(len(clean), generator=generator) < often))
    of = tuple("AB"[int(one)] for one in site)
    shortcut = trained(taught, known, 4, at_sites, odd=True)
    for name, model, shuffled in (
        ("group shortcut", shortcut, False),
        ("no shortcut", trained(taught, known, 5, at_random, odd=True), False),
        ("random groups", shortcut, True),
    ):
        if only and name not in only:
            continue
        result["accuracy"][name] = accuracy(model, visible, truth % 2)
        seen = replace(observed(model, visible, truth % 2), groups={"site": of})
        show("fairness", name, findings(seen, asked.windows, asked.size, shuffled))


if __name__ == "__main__":
    main()
