"""Five photographs explained three ways: originals, overlays, records and a contact sheet in OUT.

scripts/demo.py OUT
"""

from __future__ import annotations

import sys
from pathlib import Path

METHODS = ("grad_cam", "integrated_gradients", "occlusion(window=64, stride=32)")
PHOTOGRAPHS = ("coffee", "camera", "chelsea", "rocket", "astronaut")


def main(out: Path) -> None:
    from PIL import Image

    from visxai import Engine, pipeline, record, results
    from visxai.cli import terminal
    from visxai.drawing import colours, overlays, sheets
    from visxai.errors import require

    data = require("skimage.data", "demo", "the demo")
    originals = out / "originals"
    originals.mkdir(parents=True, exist_ok=True)
    for name in PHOTOGRAPHS:
        Image.fromarray(getattr(data, name)()).convert("RGB").save(originals / f"{name}.png")

    print(f"Explaining {len(PHOTOGRAPHS)} photographs with {', '.join(METHODS)} ...")
    engine = Engine()
    with terminal.Watch() as watch:
        outcome = pipeline.explain(
            [originals], out / "results", engine, METHODS, progress=watch, fresh=True
        )

    found: dict[str, list[record.Explanation]] = {}
    for explanation in results.read(out / "results"):
        found.setdefault(str(explanation.input.path), []).append(explanation)
    cells = []
    for path, explanations in found.items():
        with Image.open(path) as opened:
            photograph = opened.convert("RGB")
        cells.append([photograph, *(e.overlay(photograph) for e in explanations)])
    columns = ["Photograph", *(method.partition("(")[0] for method in METHODS)]
    rows = [f"{Path(path).stem}: {es[0].label} {es[0].score:.2f}" for path, es in found.items()]
    scales = [colours.scale_of(one.placed) for each in found.values() for one in each]
    overlays.save(sheets.sheet(cells, columns, rows, scales=scales), out / "sheet.jpg")

    terminal.summary(outcome, f"scripts/demo {out}")
    print(f"Open {out / 'sheet.jpg'} to see all of them side by side.")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "demo_out"))
