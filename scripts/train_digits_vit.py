"""Train the small vision transformer that the tests and docs/transformers.md judge maps on.

    python -m pip install 'visxai[train]'
    python scripts/train_digits_vit.py

Scikit-learn's handwritten digits (8x8, 1797 of them) are drawn at 18 to 24 pixels on canvases of
24x48: one or two digits side by side, and scrambled pieces of digits that say nothing, over faint
noise. The model says of each of the ten digits whether it is there (sigmoid), so on a canvas of
two the evidence for each lies where that digit is. Every patch token is also asked which digit
its half holds (token labelling: Jiang et al., All tokens matter, NeurIPS 2021): so small a model
otherwise reads a digit off very few tokens. Everything is drawn from one seed on the CPU.

Writes models/digits_vit.safetensors, whose sha256 goes into models/digits_vit.toml, and
tests/data/digits.npz, the digits that were held out.
"""

from __future__ import annotations

import argparse
import hashlib
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor
from torch.nn import functional as F

ROOT = Path(__file__).resolve().parent.parent
HEIGHT, WIDTH, CLASSES, HELD_OUT = 24, 48, 10, 360
SMALLEST, LARGEST = 18, 24
# How often a canvas shows a digit (1) alone, two, one beside a scrambled one (2), two scrambled.
SHOWN = {(1, 0): 0.2, (1, 1): 0.6, (1, 2): 0.9, (2, 2): 1.0}
SHAPE = {
    "img_size": (HEIGHT, WIDTH),
    "patch_size": 6,
    "embed_dim": 64,
    "depth": 4,
    "num_heads": 4,
    "num_classes": CLASSES,
}


def digits(seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Training and held-out digits (n, 8, 8) in 0..1 with their labels (n,)."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(images))
    pixels = torch.from_numpy(images[order].reshape(-1, 8, 8) / 16).float()
    known = torch.from_numpy(labels[order]).long()
    return pixels[HELD_OUT:], known[HELD_OUT:], pixels[:HELD_OUT], known[:HELD_OUT]


class Canvases:
    """Batches of canvases (n, 3, 24, 48) in -1..1, and the digits on their left and right halves
    (n, 2, 10) as 0 or 1."""

    def __init__(self, pixels: Tensor, labels: Tensor, seed: int) -> None:
        self.labels = labels
        self.random = np.random.default_rng(seed)
        self.drawn = {
            size: F.interpolate(pixels[:, None], (size, size), mode="bilinear")[:, 0].numpy()
            for size in range(SMALLEST, LARGEST + 1)
        }

    def batch(self, count: int) -> tuple[Tensor, Tensor]:
        canvas = self.random.random((count, HEIGHT, WIDTH), dtype=np.float32) * 0.15
        present = np.zeros((count, 2, CLASSES), dtype=np.float32)
        for row in range(count):
            kind = self.random.random()
            shown = next(s for s, most in SHOWN.items() if kind < most)
            self._fill(canvas[row], present[row], shown)
        x = torch.from_numpy(canvas) * 2 - 1
        return x[:, None].expand(-1, 3, -1, -1).contiguous(), torch.from_numpy(present)

    def _fill(self, canvas: np.ndarray, present: np.ndarray, shown: tuple[int, int]) -> None:
        """Draw up to two things side by side: 1 is a digit, 2 a scrambled one."""
        for place, what in enumerate(shown if self.random.random() < 0.5 else shown[::-1]):
            if not what:
                continue
            index = int(self.random.integers(len(self.labels)))
            size = int(self.random.integers(SMALLEST, LARGEST + 1))
            digit = self.drawn[size][index] * self.random.uniform(0.6, 1.0)
            if what == 2:
                digit = self._scrambled(digit)
            else:
                present[place, self.labels[index]] = 1
            top = int(self.random.integers(HEIGHT - size + 1))
            left = place * WIDTH // 2 + int(self.random.integers(WIDTH // 2 - size + 1))
            spot = canvas[top : top + size, left : left + size]
            np.maximum(spot, digit, out=spot)

    def _scrambled(self, digit: np.ndarray) -> np.ndarray:
        """The digit cut into three by three pieces, shuffled."""
        step = len(digit) // 3
        order = self.random.permutation(9)
        out = np.zeros_like(digit)
        for target, source in enumerate(order):
            (a, b), (c, d) = divmod(target, 3), divmod(int(source), 3)
            out[a * step : (a + 1) * step, b * step : (b + 1) * step] = digit[
                c * step : (c + 1) * step, d * step : (d + 1) * step
            ]
        return out


def train(canvases: Canvases, steps: int, batch: int, seed: int) -> VisionTransformer:
    torch.manual_seed(seed)
    model = VisionTransformer(**SHAPE, attn_drop_rate=0.3)
    optimiser = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2e-3, total_steps=steps)
    model.train()
    began = time.perf_counter()
    for step in range(steps):
        x, present = canvases.batch(batch)
        tokens = model.forward_features(x)
        whole = F.binary_cross_entropy_with_logits(model.forward_head(tokens), present.amax(1))
        rows, columns = model.patch_embed.grid_size
        each = model.head(tokens[:, 1:]).reshape(batch, rows, 2, columns // 2, CLASSES)
        halves = present[:, None, :, None].expand_as(each)
        loss = whole + F.binary_cross_entropy_with_logits(each, halves)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        if step % 250 == 0 or step == steps - 1:
            spent = time.perf_counter() - began
            print(f"step {step:5d}  loss {loss.item():.3f}  {spent:.0f} s", flush=True)
    return model.eval()


def accuracy(model: VisionTransformer, pixels: Tensor, labels: Tensor, seed: int) -> float:
    """The share of held-out digits, each alone on a half of a canvas, that score highest."""
    random = np.random.default_rng(seed)
    size = 21
    canvas = random.random((len(labels), HEIGHT, WIDTH), dtype=np.float32) * 0.15
    drawn = F.interpolate(pixels[:, None], (size, size), mode="bilinear")[:, 0].numpy()
    for row in range(len(labels)):
        top = random.integers(HEIGHT - size + 1)
        left = row % 2 * WIDTH // 2 + random.integers(WIDTH // 2 - size + 1)
        spot = canvas[row, top : top + size, left : left + size]
        np.maximum(spot, drawn[row], out=spot)
    x = (torch.from_numpy(canvas) * 2 - 1)[:, None].expand(-1, 3, -1, -1)
    with torch.no_grad():
        return float((model(x).argmax(1) == labels).float().mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--batch", type=int, default=48)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=ROOT / "models" / "digits_vit.safetensors")
    given = parser.parse_args()
    torch.use_deterministic_algorithms(True)
    pixels, labels, held_pixels, held_labels = digits(given.seed)
    model = train(Canvases(pixels, labels, given.seed), given.steps, given.batch, given.seed)
    print(f"held-out accuracy {accuracy(model, held_pixels, held_labels, given.seed):.3f}")
    weights = {name: value.half().contiguous() for name, value in model.state_dict().items()}
    save_file(weights, given.out)
    print(f"{given.out.name}: sha256 {hashlib.sha256(given.out.read_bytes()).hexdigest()}")
    data = ROOT / "tests" / "data"
    data.mkdir(exist_ok=True)
    np.savez_compressed(
        data / "digits.npz",
        pixels=(held_pixels * 16).round().to(torch.uint8).numpy(),
        labels=held_labels.to(torch.uint8).numpy(),
    )


if __name__ == "__main__":
    main()
