"""The command `visxai detect`, which explains every object that a detector finds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from visxai.cli.base import (
    BatchSize,
    Debug,
    Device,
    Interpolation,
    Labels,
    Mean,
    Resize,
    Size,
    Std,
    check_specs,
    preprocess_of,
)

if TYPE_CHECKING:
    from visxai.detection import DetectedObject


def detect(
    paths: Annotated[list[str], typer.Argument(metavar="PATH", help="Images.", show_default=False)],
    model: Annotated[
        str,
        typer.Option(
            "--model",
            "-m",
            metavar="NAME",
            help="torchvision:NAME, hf:NAME (a DETR-like detector) or onnx:FILE (a YOLO that "
            "ultralytics exported).",
        ),
    ],
    method: Annotated[
        str,
        typer.Option(
            "--method",
            metavar="SPEC",
            help="rise is D-RISE, at 5000 masks as published. Any method that needs scores serves, "
            "and grad_cam with torchvision's and Hugging Face's detectors.",
        ),
    ] = "rise(masks=1000, grid=16)",
    least: Annotated[
        float,
        typer.Option("--least", metavar="SCORE", min=0, max=1, help="The smallest score."),
    ] = 0.5,
    most: Annotated[
        int, typer.Option("--most", metavar="N", min=1, help="The most objects of an image.")
    ] = 10,
    out: Annotated[
        str, typer.Option("--out", "-o", metavar="FOLDER", help="Where pictures and records go.")
    ] = "visxai_objects",
    device: Device = "auto",
    batch_size: BatchSize = None,
    labels: Labels = None,
    size: Size = None,
    resize: Resize = None,
    mean: Mean = None,
    std: Std = None,
    interpolation: Interpolation = None,
    debug: Debug = False,
) -> int:
    """Explain every object that a detector finds: a map for each, drawn with its box.

    FOLDER gets a picture of each object, and objects.json with boxes, scores and the whole records.

    [bold]Examples[/bold]

    visxai detect street.jpg --model torchvision:fasterrcnn_resnet50_fpn

    visxai detect *.jpg --model onnx:yolo11n.onnx --least 0.25 --out objects
    """
    from visxai import files
    from visxai.cli import terminal
    from visxai.errors import ImageError

    check_specs([method], None)
    sized = preprocess_of(size, resize, mean, std, interpolation)
    with terminal.working("Loading the detector"):
        from visxai.detection import Detector
        from visxai.drawing import overlays

        detector = Detector(
            model, preprocess=sized, labels=labels, device=device, batch_size=batch_size
        )
    folder = Path(out).absolute()
    with files.one_sentence(f"to write {out}", "name another folder"):
        folder.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    shown: list[tuple[str, DetectedObject]] = []
    failed: list[str] = []
    with terminal.counting("Explaining objects") as progress:
        for place, path in enumerate(paths):
            try:
                found = detector.explain(path, method, least=least, most=most)
            except ImageError as error:
                failed.append(str(error))
                found = []
            for number, one in enumerate(found):
                name = f"{place + 1:03}-{number + 1:02}.jpg"
                overlays.save(one.overlay(), folder / name)
                rows.append({**row_of(one), "path": path, "picture": name})
                shown.append((name, one))
            progress(place + 1, len(paths))
    with files.one_sentence(f"to write {out}", "name another folder"):
        files.write(folder / "objects.json", json.dumps(rows, indent=2) + "\n")
    show(shown, failed, len(paths))
    terminal.output().print(f"Pictures and records: {terminal.placed(folder)}", soft_wrap=True)
    return 1 if failed else 0


def row_of(found: DetectedObject) -> dict[str, Any]:
    """Return what objects.json holds of an object."""
    return {
        "label": found.label,
        "score": found.score,
        "box": list(found.box),
        "evidence_in_box": found.inside,
        "explanation": found.explanation.to_dict(),
    }


def show(found: list[tuple[str, DetectedObject]], failed: list[str], images: int) -> None:
    """Print a table of the objects, and the images that failed."""
    from rich.table import Table

    from visxai.cli import terminal
    from visxai.foreign import for_terminal

    console = terminal.output()
    if found:
        table = Table(box=None, header_style="bold", pad_edge=False)
        table.add_column("Object", overflow="fold")
        for name in ("Score", "Box", "In the box"):
            table.add_column(name, justify="right")
        table.add_column("Picture", style="dim", overflow="fold")
        for name, one in found:
            box = " ".join(str(round(side)) for side in one.box)
            inside = "flat map" if one.explanation.degenerate else f"{one.inside:.0%}"
            table.add_row(for_terminal(one.label), f"{one.score:.2f}", box, inside, name)
        console.print(table)
    else:
        seen = terminal.counted(images - len(failed), "image")
        console.print(f"No object in {seen}: lower --least.", soft_wrap=True)
    for reason in failed[:5]:
        console.print(f"  [red]failed[/red] {for_terminal(reason)}", soft_wrap=True)
