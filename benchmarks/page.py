"""How long the page of a packed model takes to explain a picture, in headless Chromium.

    python benchmarks/page.py SITE PICTURE

SITE is a folder that `visxai package MODEL --to web --out SITE` wrote. It is served on loopback,
and the picture is given to the page ten times; times are the page's own, from the file to the drawn
map.
"""

from __future__ import annotations

import functools
import http.server
import shutil
import sys
import threading
from typing import Any

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
    times = []
    with sync_playwright() as started:
        browser = started.chromium.launch(
            executable_path=shutil.which("chromium"), args=FLAGS.split()
        )
        page = browser.new_page()
        page.goto(f"http://127.0.0.1:{server.server_port}/")
        page.wait_for_selector("#file:not([disabled])", state="attached", timeout=120_000)
        page.context.set_offline(True)
        for _ in range(10):
            page.evaluate("delete document.body.dataset.milliseconds")
            page.set_input_files("#file", picture)
            page.wait_for_selector("body[data-milliseconds]", timeout=60_000)
            times.append(float(page.get_attribute("body", "data-milliseconds") or 0))
        browser.close()
    server.shutdown()
    print(f"first {times[0]:.0f} ms, then {min(times[1:]):.0f} to {max(times[1:]):.0f} ms")


if __name__ == "__main__":
    main()
