"""The picture of docs/guides/concepts.md: what a layer sees in two photographs.

    python scripts/concepts.py OUT.jpg

Needs the extras demo and segments.
"""

from __future__ import annotations

import sys

from PIL import Image
from skimage import data

import visxai
from visxai import concepts


def main() -> None:
    photographs = [Image.fromarray(image()) for image in (data.chelsea, data.coffee)]
    engine = visxai.Engine(precision="fp32")
    found = concepts.deep_feature_factorization(engine, photographs, count=5)
    found.picture().convert("RGB").save(sys.argv[1], quality=88)


if __name__ == "__main__":
    main()
