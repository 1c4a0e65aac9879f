"""A model learns a shortcut for one site only; its explanations give it away.

    python -m pip install 'visxai[serve,train]'
    python examples/governance/shortcut.py [FOLDER]

A small network says whether a handwritten digit on a noisy picture is odd or even. One of two
sites, south, has cameras that put a tag into the corner of most odd digits, and the model learns to
read the tag there. In service the tags mean nothing, and nobody has labels. What can be seen
without them: explanations are logged, groups are compared, and a gap lies in the corner. Covering
the corner and scoring again shows that decisions hang on it.

Writes FOLDER/log.db and FOLDER/governance.html, in about a minute on one core.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F

import visxai
from visxai import govern

SIDE, TRAINED = 32, 1000


def draw(digits: np.ndarray, tagged: np.ndarray, seed: int) -> np.ndarray:
    """Digits (n, 8, 8) as images uint8 (n, 32, 32, 3), with a tag in the corner of some."""
    random = np.random.default_rng(seed)
    images = random.random((len(digits), SIDE, SIDE)) * 0.7
    images[:, 4:28, 4:28] += np.kron(digits / 16, np.ones((3, 3))) * 0.25
    images[tagged, 1:6, 26:31] = 1.0
    return np.repeat((images.clip(0, 1) * 255).astype(np.uint8)[..., None], 3, axis=3)


def train(images: np.ndarray, odd: np.ndarray) -> nn.Module:
    """Train a small network on images."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for into, out in ((3, 16), (16, 32), (32, 48)):
        layers += [nn.Conv2d(into, out, 3, padding=1), nn.BatchNorm2d(out), nn.ReLU()]
        layers += [nn.MaxPool2d(2)] if out < 48 else []
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(48, 2))
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    x, y = torch.from_numpy(images).permute(0, 3, 1, 2) / 255, torch.from_numpy(odd).long()
    for _ in range(12):
        for rows in torch.randperm(len(x)).split(50):
            optimiser.zero_grad()
            F.cross_entropy(model(x[rows]), y[rows]).backward()
            optimiser.step()
    return model.eval()


def main() -> None:
    """Train, log, compare, and write the page."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "governance")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "log.db").unlink(missing_ok=True)
    random = np.random.default_rng(0)
    digits, numbers = load_digits(return_X_y=True)
    order = random.permutation(len(digits))
    digits, odd = digits[order].reshape(-1, 8, 8), numbers[order] % 2
    south = random.random(len(digits)) < 0.5

    # In training the tag nearly gives the answer away at one site; in service it means nothing.
    means = south & (random.random(len(digits)) < np.where(odd == 1, 0.9, 0.05))
    chance = south & (random.random(len(digits)) < 0.4)
    model = train(draw(digits[:TRAINED], means[:TRAINED], 1), odd[:TRAINED])
    images = draw(digits[TRAINED:], chance[TRAINED:], 2)

    engine = visxai.Engine(
        model,
        preprocess=visxai.Preprocess(size=(SIDE, SIDE)),
        labels=["even", "odd"],
        layer="8",
        device="cpu",
    )
    sites = ["south" if one else "north" for one in south[TRAINED:]]
    with govern.logged(engine, folder / "log.db", method="grad_cam", target="class=odd") as log:
        log.explain(list(images), metadata=[{"site": one} for one in sites])
        govern.watch(log.log, size=300)
        govern.report(log.log, folder / "governance.html")
        seen = log.log.observe(log.log.models()[0].id)
    found = [one for one in govern.fairness(seen, "site").findings if one.group == "south"]
    print(f"{len(seen)} explanations; what chance doesn't explain at the site south:")
    for gap in found[:5]:
        print(f"  {gap.figure:14} {gap.gap:+.3f} ({gap.low:+.3f} to {gap.high:+.3f}), n = {gap.n}")

    covered = images.copy()
    covered[:, 1:6, 26:31] = images[:, 1:6, 1:6]  # the other corner, which never has a tag
    before, after = (
        np.array([one.label for one in engine.predict(list(some))]) for some in (images, covered)
    )
    at = np.array(sites) == "south"
    for name, some in (("south", at), ("north", ~at)):
        share = np.mean(before[some] != after[some])
        print(f"decisions that change when the corner is covered, {name}: {share:.1%}")
    print(f"the page: {folder / 'governance.html'}")


if __name__ == "__main__":
    main()
