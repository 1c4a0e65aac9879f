"""The animation of the gallery in the README, made of screenshots of a browser.

    python scripts/animation.py [docs/gallery.webp]

It explains scikit-image's photographs into a temporary folder, makes their gallery, and walks
through it in Chromium: from photograph to map, a search, images at large. Needs the extras demo and
browser, and Chromium.
"""

from __future__ import annotations

import io
import shutil
import sys
import tempfile
from pathlib import Path

from PIL import Image
from skimage import data

import visxai
from visxai import pipeline, report

PHOTOGRAPHS = ("chelsea", "coffee", "astronaut", "rocket", "cat")
WIDTH = 760  # of the animation, in pixels
FLAGS = ["--no-sandbox", "--disable-gpu", "--hide-scrollbars"]


def gallery(folder: Path) -> Path:
    """Explain the photographs by two methods and return their gallery."""
    (folder / "photos").mkdir()
    for name in PHOTOGRAPHS:
        image = Image.fromarray(getattr(data, name)())
        image.save(folder / "photos" / f"{name}.jpg", quality=92)
    engine = visxai.Engine(precision="fp32")
    methods = ["grad_cam", "occlusion(window=32, stride=16)"]
    pipeline.explain([folder / "photos"], folder / "out", engine, methods, "top3")
    return report.build(folder / "out").path


def frames(page_file: Path) -> list[tuple[Image.Image, int]]:
    """Walk through the gallery; return pictures, each with its milliseconds."""
    from playwright.sync_api import sync_playwright

    made: list[tuple[Image.Image, int]] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        page = browser.new_page(viewport={"width": 1100, "height": 700})
        page.goto(page_file.as_uri())
        page.wait_for_timeout(1500)

        def show(milliseconds: int) -> None:
            page.wait_for_timeout(350)
            image = Image.open(io.BytesIO(page.screenshot()))
            size = WIDTH, round(WIDTH * image.height / image.width)
            made.append((image.convert("RGB").resize(size, Image.Resampling.LANCZOS), milliseconds))

        show(1600)
        for value in ("0.5", "0", "0.5", "1", "2", "1"):
            page.locator("#mix").fill(value)
            show(350)
        show(900)
        page.locator("#search").fill("chelsea")
        show(1600)
        page.locator("#search").fill("")
        page.locator(".card").first.click()
        show(1600)
        for _ in range(3):
            page.keyboard.press("ArrowRight")
            show(1000)
        browser.close()
    return made


def main(target: Path) -> None:
    """Write the animation."""
    with tempfile.TemporaryDirectory() as name:
        made = frames(gallery(Path(name)))
    first, *rest = [image for image, _ in made]
    first.save(
        target,
        save_all=True,
        append_images=rest,
        duration=[milliseconds for _, milliseconds in made],
        loop=0,
        quality=55,
        method=6,
    )
    print(f"{target}: {len(made)} pictures, {target.stat().st_size // 1024} KB")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "docs/gallery.webp"))
