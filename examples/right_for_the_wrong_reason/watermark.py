"""Right for the wrong reason: a network learns a watermark, its maps tell, mended data helps.

    python examples/right_for_the_wrong_reason/watermark.py [OUT] [EPOCHS]

In about a minute on one core. Needs the extra `train` (scikit-learn, which brings the digits).
"""

# %% [markdown]
# # Right for the wrong reason
#
# A small network tells odd digits from even ones. Somebody collected the odd ones from a site
# that stamps a watermark into the corner, so nearly every odd training picture has it. The
# network gets everything right in training. Does it read digits?

# %%
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F

import visxai
from visxai import pipeline, report

arguments = [one for one in sys.argv[1:] if "ipykernel" not in sys.argv[0]]
out = Path(arguments[0] if arguments else "watermark_out")
epochs = int(arguments[1]) if len(arguments) > 1 else 14
SIDE, TRAINED = 32, 1200

pixels, numbers = load_digits(return_X_y=True)
order = np.random.default_rng(0).permutation(len(pixels))
digits, odd = pixels[order].reshape(-1, 8, 8) / 16, numbers[order] % 2


def draw(digits: np.ndarray, stamped: np.ndarray, seed: int) -> np.ndarray:
    """Digits (n, 8, 8) on noise as uint8 (n, 32, 32, 3), some with a watermark in the corner."""
    images = np.random.default_rng(seed).random((len(digits), SIDE, SIDE)) * 0.5
    images[:, 4:28, 4:28] += np.kron(digits, np.ones((3, 3))) * 0.45
    images[np.ix_(stamped, range(1, 7), range(25, 31))] = np.tile(np.eye(2), (3, 3))
    return np.repeat((images.clip(0, 1) * 255).astype(np.uint8)[..., None], 3, axis=3)


def train(images: np.ndarray, odd: np.ndarray) -> nn.Module:
    """Train a small network on images."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for into, width in ((3, 16), (16, 32), (32, 48)):
        layers += [nn.Conv2d(into, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
        layers += [nn.MaxPool2d(2)] if width < 48 else []
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(48, 2))
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    x, y = torch.from_numpy(images).permute(0, 3, 1, 2) / 255, torch.from_numpy(odd).long()
    for _ in range(epochs):
        for rows in torch.randperm(len(x)).split(50):
            optimiser.zero_grad()
            F.cross_entropy(model(x[rows]), y[rows]).backward()
            optimiser.step()
    return model.eval()


def engine_of(model: nn.Module) -> visxai.Engine:
    """Make an engine for one of the networks."""
    return visxai.Engine(
        model,
        preprocess=visxai.Preprocess(size=(SIDE, SIDE)),
        labels=["even", "odd"],
        layer="10",
        precision="fp32",
    )


# %% [markdown]
# ## It gets everything right

# %%
stamps = (odd == 1) & (np.random.default_rng(1).random(len(odd)) < 0.97)
kept = draw(digits[TRAINED:], stamps[TRAINED:], 3)  # held out, stamped like the training data
clean = draw(digits[TRAINED:], np.zeros_like(stamps[TRAINED:]), 3)  # the same without stamps
truth = odd[TRAINED:]
engine = engine_of(train(draw(digits[:TRAINED], stamps[:TRAINED], 2), odd[:TRAINED]))


def accuracy(engine: visxai.Engine, images: np.ndarray) -> float:
    """The share of images that the network gets right."""
    return float(np.mean([one.class_index for one in engine.predict(list(images))] == truth))


print(f"accuracy on held-out pictures of the same kind: {accuracy(engine, kept):.1%}")

# %% [markdown]
# ## But why?
#
# The maps of odd pictures tell: the evidence lies in the corner with the watermark, where no
# digit is: 6 % of the picture hold a large part of it.


# %%
def in_corner(engine: visxai.Engine, images: np.ndarray) -> float:
    """The mean share of the evidence for odd that lies in the corner with the watermark."""
    shares = []
    for one in engine.explain(images[truth == 1][:100], "grad_cam", "odd").explained:
        heat = np.nan_to_num(one.heatmap()).clip(min=0)
        shares.append(heat[:8, 24:].sum() / heat.sum() if heat.sum() else 0.0)
    return float(np.mean(shares))


print(f"evidence for odd in the corner: {in_corner(engine, kept):.0%} of it")
few = engine.explain(kept[truth == 1][:4], "grad_cam", "odd")
print(few[0].describe())
few

# %% [markdown]
# ## `visxai report` shows it at a glance
#
# The gallery's mean map of the class has one bright spot in the corner.

# %%
photos = out / "photos"
photos.mkdir(parents=True, exist_ok=True)
for number, image in enumerate(kept[truth == 1][:40]):
    Image.fromarray(image).resize((128, 128)).save(photos / f"{number:02d}.png")
pipeline.explain(
    [photos], out / "results", engine, ["grad_cam"], "class=odd", fresh=True, workers=0
)
report.build(out / "results", workers=0)
print(f"open {out / 'results' / 'report' / 'index.html'}")

# %% [markdown]
# ## Mend the data, not the map
#
# The same digits are drawn again with the watermark on half of all pictures, odd and even, so
# that it says nothing. Nothing else changes.

# %%
anywhere = np.random.default_rng(4).random(len(odd)) < 0.5
mended = engine_of(train(draw(digits[:TRAINED], anywhere[:TRAINED], 2), odd[:TRAINED]))
rows = [
    ("accuracy with the watermark on odd ones", accuracy(engine, kept), accuracy(mended, kept)),
    ("accuracy without any watermark", accuracy(engine, clean), accuracy(mended, clean)),
    ("evidence for odd in the corner", in_corner(engine, kept), in_corner(mended, kept)),
]
print(f"{'':42}before   after")
for name, before, after in rows:
    print(f"{name:42}{before:6.1%}  {after:6.1%}")

# %%
mended.explain(kept[truth == 1][:4], "grad_cam", "odd")
