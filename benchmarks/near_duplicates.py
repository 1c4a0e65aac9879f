"""What does reusing the explanations of images that look the same save, and what does it cost?

    python benchmarks/near_duplicates.py [--rounds 3] [--out FILE]
    python benchmarks/near_duplicates.py --vectors FOLDER     the hash against published ones

Scikit-image's photographs (extra demo) at 640 pixels and five copies of each, as they spread:
encoded anew at two qualities, made smaller twice, and darker. Everything is flagged. The service
(embedded, SQLite, EfficientNet-Lite0, one worker) takes all of them in and explains them, with
`cache.similar` and without, in turns; the time is that of intake and explanations together, and of
the rounds the lowest one counts; once with Grad-CAM in the fast tier, and once with integrated
gradients. The reused maps are compared with those that were computed for the copies themselves, by
cosine (where neither is flat), and the hash is timed alone. Also: how many pairs of different
photographs are taken for one another. FOLDER holds pictures, and `expected.csv` with hash, quality
and file a line, as facebook/ThreatExchange publishes them for its reference implementation.
"""

from __future__ import annotations

import argparse
import csv
import io
import itertools
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageEnhance
from skimage import data

import visxai
from visxai.images.pdq import NEAR, Hash, pdq
from visxai.serve.config import Config
from visxai.serve.intake import Item, moderate
from visxai.serve.keys import Principal
from visxai.serve.service import Places, Service
from visxai.serve.worker import Worker

NAMES = ("chelsea", "coffee", "rocket", "astronaut", "camera", "coins", "horse", "retina")
METHODS = ("grad_cam", "integrated_gradients(steps=20)")
WHO = Principal("benchmark", "default", "admin", "benchmark")


def photographs() -> list[Image.Image]:
    """Photographs of 640 pixels at most."""
    made = []
    for name in NAMES:
        image = Image.fromarray(np.asarray(getattr(data, name)()).astype(np.uint8)).convert("RGB")
        image.thumbnail((640, 640))
        made.append(image)
    return made


def encoded(image: Image.Image, quality: int) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return file.getvalue()


def copies(image: Image.Image) -> list[bytes]:
    """An image as it spreads: the first is the original."""
    sizes = [(round(image.width * part), round(image.height * part)) for part in (0.75, 0.5)]
    smaller = [image.resize(size, Image.Resampling.LANCZOS) for size in sizes]
    darker = ImageEnhance.Brightness(image).enhance(0.9)
    return [
        encoded(image, 95),
        encoded(image, 75),
        encoded(image, 50),
        encoded(smaller[0], 85),
        encoded(smaller[1], 85),
        encoded(darker, 85),
    ]


def run(
    engine: visxai.Engine, sent: list[list[bytes]], method: str, similar: bool
) -> dict[str, Any]:
    """Send originals, then their copies; return the seconds, what was reused, and all maps."""
    settings = Config.of(
        {
            "policy": {"name": "all", "rules": [{"category": "any", "when": "class=7>-1"}]},
            "cache": {"similar": similar},
            "tiers": {"fast": {"method": method}},
        }
    )
    with tempfile.TemporaryDirectory() as folder:
        service = Service(settings, Places.below(folder), engine=engine)
        try:
            worker = Worker(service, "fast")
            ids: list[str] = []
            moderate(service, WHO, Item(encoded(Image.new("RGB", (99, 99)), 90)))  # warm
            while worker.step():
                pass
            began = time.perf_counter()
            for wave in zip(*sent, strict=True):
                answers = [moderate(service, WHO, Item(one)) for one in wave]
                ids += [one["explanation"]["id"] for one in answers]
                while worker.step():
                    pass
            seconds = time.perf_counter() - began
            stored = [service.ledger.get(id) for id in ids]
        finally:
            service.close()
    reused = [one.envelope.cache.get("kind") == "similar" for one in stored]
    maps = [one.explanation.values for one in stored]
    return {"seconds": seconds, "reused": reused, "maps": maps}


def compare(folder: Path) -> None:
    """Print how far hashes are from published ones."""
    with open(folder / "expected.csv", encoding="utf-8", newline="") as lines:
        for bits, quality, name in csv.reader(lines):
            if (folder / name).exists():
                found = pdq(Image.open(folder / name))
                distance = found.distance(Hash(int(bits, 16), int(quality)))
                print(f"{name}: {distance} bits, quality {found.quality} for {quality}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--vectors", type=Path)
    options = parser.parse_args()
    if options.vectors:
        compare(options.vectors)
        return
    originals = photographs()
    sent = [copies(one) for one in originals]
    engine = visxai.Engine(device="cpu", precision="fp32", accelerate="off")
    result: dict[str, Any] = {"photographs": len(originals), "copies": len(originals) * 5}
    for method in METHODS:
        runs: dict[bool, list[dict[str, Any]]] = {False: [], True: []}
        for _ in range(options.rounds):
            for similar in (False, True):
                runs[similar].append(run(engine, sent, method, similar))
        without, with_ = runs[False][0], runs[True][0]
        cosines = [
            float((a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum()))
            for a, b, reused in zip(with_["maps"], without["maps"], with_["reused"], strict=True)
            if reused and a.any() and b.any()
        ]
        result[method] = {
            "reused": sum(with_["reused"]),
            "seconds_without_and_with": [
                round(min(one["seconds"] for one in runs[kind]), 2) for kind in (False, True)
            ],
            "compared_maps": len(cosines),
            "cosine_quantiles_0_25_50": np.quantile(cosines, [0, 0.25, 0.5]).round(3).tolist(),
        }
    decoded = [Image.open(io.BytesIO(one[0])).convert("RGB") for one in sent]
    began = time.perf_counter()
    hashes = [pdq(one) for one in decoded]
    each = (time.perf_counter() - began) / len(decoded)
    pairs = list(itertools.combinations(hashes, 2))
    result["different_pairs"] = len(pairs)
    result["different_pairs_taken_for_one"] = sum(a.distance(b) <= NEAR for a, b in pairs)
    result["hash_ms"] = round(1000 * each, 1)
    print(json.dumps(result, indent=1))
    if options.out:
        options.out.write_text(json.dumps(result, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
