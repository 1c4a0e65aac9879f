"""Do the maps of an image-and-text model lie on what the text names?

    python benchmarks/quality/matching.py [--pairs 100]

A small CLIP (transformers' CLIPModel, 0.1 million parameters) learns in minutes which coloured
shapes are on a canvas from texts such as "a red disc". Then two shapes stand on a canvas, of
different colours and forms, and each is asked for by its text. Pointing: how often the map's
largest value lies on the shape asked for, within half a patch. Share: of the map's positive
evidence in that shape's box. Words: how often the word of the largest value is the colour or the
form, and not "a". The control is noise. Means over both shapes of each canvas, with bootstrap 95 %
intervals; results go to benchmarks/results/matching.json.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from visxai import Preprocess
from visxai.matching import Matcher

ROOT = Path(__file__).resolve().parents[2]
SIDE, PATCH, SIZE = 48, 8, 18  # pixels of a canvas, a patch and a shape
COLOURS = {"red": (230, 40, 40), "green": (40, 200, 60), "blue": (50, 80, 240), "white": (240,) * 3}
FORMS = ("square", "disc", "cross", "ring")
PROMPTS = [f"a {colour} {form}" for colour in COLOURS for form in FORMS]
METHODS = {
    "grad_eclip": "grad_eclip",
    "chefer": "chefer",
    "legrad": "leave_one_out",
    "occlusion(window=16, stride=8)": "leave_one_out",
}
WHOLE = Preprocess((SIDE, SIDE), SIDE, mean=(0.5,) * 3, std=(0.5,) * 3)


def form(name: str) -> np.ndarray:
    """A shape's pixels (size, size), bool."""
    y, x = np.mgrid[:SIZE, :SIZE] - (SIZE - 1) / 2
    far, wide = np.hypot(x, y), SIZE / 2
    return {
        "square": np.maximum(abs(x), abs(y)) < wide * 0.85,
        "disc": far < wide,
        "cross": np.minimum(abs(x), abs(y)) < wide * 0.3,
        "ring": (far < wide) & (far > wide * 0.55),
    }[name]


DRAWN = {name: form(name) for name in FORMS}


class Canvases:
    """Canvases of grey noise with coloured shapes, drawn from a seed."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)

    def draw(self, shown: list[int]) -> tuple[np.ndarray, list[tuple[int, int]]]:
        """Draw shapes, by their places in `PROMPTS`, in different quarters of a canvas.

        Returns:
            (side, side, 3) uint8, and the (left, top) of each shape.
        """
        canvas = self.random.integers(60, 110, (SIDE, SIDE, 1), np.uint8).repeat(3, 2)
        places = []
        for which, quarter in zip(shown, self.random.permutation(4), strict=False):
            _, colour, name = PROMPTS[which].split()
            left, top = self.random.integers(0, SIDE // 2 - SIZE + 1, 2) + np.array(
                [quarter % 2, quarter // 2]
            ) * (SIDE // 2)
            canvas[top : top + SIZE, left : left + SIZE][DRAWN[name]] = COLOURS[colour]
            places.append((int(left), int(top)))
        return canvas, places

    def batch(self, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return pixels (n, 3, side, side) in -1..1 and which texts belong to each (n, texts)."""
        present = torch.zeros(count, len(PROMPTS))
        drawn = []
        for row in range(count):
            shown = self.random.permutation(len(PROMPTS))[: self.random.integers(1, 4)].tolist()
            present[row, shown] = 1
            drawn.append(self.draw(shown)[0])
        pixels = torch.from_numpy(np.stack(drawn)).permute(0, 3, 1, 2).float()
        return pixels / 127.5 - 1, present

    def pair(self) -> tuple[np.ndarray, list[int], list[tuple[int, int]]]:
        """Draw two shapes that share neither colour nor form: canvas, texts and places."""
        colours, forms = (self.random.permutation(4)[:2].tolist() for _ in range(2))
        shown = [c * len(FORMS) + f for c, f in zip(colours, forms, strict=True)]
        canvas, places = self.draw(shown)
        return canvas, shown, places


def tokenizer() -> Any:
    """A tokenizer of whole words, with CLIP's marks at both ends."""
    import tokenizers
    import transformers

    words = ["<start>", "<end>", "<pad>", "<unk>", "a", *COLOURS, *FORMS]
    plain = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({word: place for place, word in enumerate(words)}, "<unk>")
    )
    plain.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    plain.post_processor = tokenizers.processors.TemplateProcessing(
        single="<start> $A <end>", special_tokens=[("<start>", 0), ("<end>", 1)]
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=plain, pad_token="<pad>", unk_token="<unk>", eos_token="<end>"
    )


def network() -> Any:
    """A small CLIP without training."""
    import transformers

    tower = {"hidden_size": 48, "intermediate_size": 96, "num_attention_heads": 4}
    vision = {**tower, "num_hidden_layers": 2, "image_size": SIDE, "patch_size": PATCH}
    text = {**tower, "num_hidden_layers": 2, "vocab_size": 16, "max_position_embeddings": 8}
    marks = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
    config = transformers.CLIPConfig(
        text_config={**text, **marks}, vision_config=vision, projection_dim=32
    )
    return transformers.CLIPModel(config)


def train(steps: int, batch: int = 32, seed: int = 0) -> Any:
    """Train the small CLIP to tell which texts belong to a canvas."""
    torch.manual_seed(seed)
    model, canvases, cut = network(), Canvases(seed), tokenizer()
    text = cut(PROMPTS, return_tensors="pt")
    given = {key: text[key] for key in ("input_ids", "attention_mask")}
    bias = torch.nn.Parameter(torch.tensor(-2.0))
    optimiser = torch.optim.AdamW([*model.parameters(), bias], lr=1e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2e-3, total_steps=steps)
    began = time.perf_counter()
    for step in range(steps):
        x, present = canvases.batch(batch)
        seen = F.normalize(model.get_image_features(pixel_values=x).pooler_output, dim=1)
        said = F.normalize(model.get_text_features(**given).pooler_output, dim=1)
        scores = seen @ said.T * 10 + bias
        loss = F.binary_cross_entropy_with_logits(scores, present)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        if step % 100 == 0 or step == steps - 1:
            spent = time.perf_counter() - began
            print(f"step {step:5d}  loss {loss.item():.3f}  {spent:.0f} s", flush=True)
    return model.eval()


def judged(matcher: Matcher, method: str | None, words: str, count: int) -> dict[str, Any]:
    """Judge a method on `count` canvases; None is noise."""
    canvases, random = Canvases(10_000), np.random.default_rng(1)
    pointed, shares, spoken = [], [], []
    for _ in range(count):
        canvas, shown, places = canvases.pair()
        asked = [PROMPTS[which] for which in shown]
        if method is None:
            heats = [
                random.random((SIDE // PATCH, SIDE // PATCH)).repeat(PATCH, 0).repeat(PATCH, 1)
                for _ in asked
            ]
            best = [int(random.integers(3)) for _ in asked]
        else:
            found = matcher.explain(canvas, asked, method, words)
            heats = [match.image.heatmap() for match in found]
            best = [int(match.words.values.argmax()) for match in found]
        for heat, (left, top), word in zip(heats, places, best, strict=True):
            y, x = np.unravel_index(heat.argmax(), heat.shape)
            near = PATCH // 2
            pointed.append(
                left - near <= x < left + SIZE + near and top - near <= y < top + SIZE + near
            )
            positive = np.maximum(heat, 0)
            inside = positive[top : top + SIZE, left : left + SIZE].sum()
            shares.append(inside / positive.sum() if positive.sum() > 0 else 0.0)
            spoken.append(word > 0)
    named = {"pointing": pointed, "share": shares, "words": spoken}
    return {key: interval(np.asarray(values, float)) for key, values in named.items()}


def interval(values: np.ndarray, draws: int = 2000) -> list[float]:
    """Return mean, and low and high of its bootstrap 95 % interval over canvases."""
    each = values.reshape(-1, 2).mean(1)
    index = np.random.default_rng(0).integers(len(each), size=(draws, len(each)))
    low, high = np.quantile(each[index].mean(1), (0.025, 0.975))
    return [round(float(value), 4) for value in (each.mean(), low, high)]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pairs", type=int, default=100)
    parser.add_argument("--steps", type=int, default=1500)
    given = parser.parse_args()
    model = train(given.steps)
    matcher = Matcher(model, tokenizer=tokenizer(), preprocess=WHOLE, device="cpu")
    rows = {}
    for method, words in {**METHODS, "noise": ""}.items():
        asked = None if method == "noise" else method
        rows[method] = judged(matcher, asked, words, given.pairs)
        print(f"{method:<32}", rows[method], flush=True)
    out = ROOT / "benchmarks" / "results" / "matching.json"
    out.write_text(json.dumps({"pairs": given.pairs, "methods": rows}, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
