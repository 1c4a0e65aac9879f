"""How long the page of a packed model takes to explain a picture, in headless Chromium.

    python benchmarks/page.py SITE PICTURE

SITE is a folder that `visxai package MODEL --to web --out SITE` wrote. It is served on loopback,
and the picture is given to the page ten times, then five times enlarged to 25 million pixels. Times
are the page's own in milliseconds, from the file to the drawn map; they go to
benchmarks/results/page.json.
"""

from __future__ import annotations

import functools
import http.server
import json
import shutil
import statistics
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import measure
from PIL import Image

LARGE, TIMES, TIMES_LARGE = (5000, 5000), 10, 5
FLAGS = "--no-sandbox --disable-background-networking --disable-component-update --disable-sync"


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        """Say nothing."""


def main() -> None:
    from playwright.sync_api import sync_playwright

    folder, picture = sys.argv[1:]
    handler = functools.partial(Quiet, directory=folder)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with tempfile.TemporaryDirectory() as kept, sync_playwright() as started:
        large = Path(kept, "large.jpg")
        with Image.open(picture) as opened:
            size = opened.size
            opened.convert("RGB").resize(LARGE).save(large, quality=90)
        browser = started.chromium.launch(
            executable_path=shutil.which("chromium"), args=FLAGS.split()
        )
        page = browser.new_page()
        page.goto(f"http://127.0.0.1:{server.server_port}/")
        page.wait_for_selector("#file:not([disabled])", state="attached", timeout=120_000)
        page.context.set_offline(True)
        first, *later = times(page, picture, TIMES)
        enlarged = times(page, large, TIMES_LARGE)
        version = browser.version
        browser.close()
    server.shutdown()
    found = {
        "model": json.loads(Path(folder, "model.json").read_text("utf-8")).get("model"),
        "size": size,
        "size enlarged": LARGE,
        "chromium": version,
        "first": first,
        "later": spread(later),
        "enlarged": spread(enlarged),
    }
    measure.save("page", found, "page.py SITE PICTURE")
    print(json.dumps(found, indent=1))


def times(page: Any, picture: str | Path, count: int) -> list[float]:
    """Give a picture to the page so many times; return its milliseconds."""
    found = []
    for _ in range(count):
        page.evaluate("delete document.body.dataset.milliseconds")
        page.set_input_files("#file", str(picture))
        page.wait_for_selector("body[data-milliseconds]", timeout=60_000)
        told = page.get_attribute("body", "data-milliseconds")
        found.append(round(float(told), 1))
    return found


def spread(found: list[float]) -> dict[str, float]:
    """Summarise times: the least, the median and the most."""
    return {"min": min(found), "median": statistics.median(found), "max": max(found)}


if __name__ == "__main__":
    main()
