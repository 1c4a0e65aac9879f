"""The command `visxai package`, which writes a model together with its maps."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from visxai.cli.base import (
    Checkpoint,
    Debug,
    Interpolation,
    Labels,
    Layer,
    Mean,
    Resize,
    Size,
    Std,
    preprocess_of,
)
from visxai.errors import ArgumentError, UnknownName

KINDS = ("onnx", "triton", "web")


def package(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="A name from `visxai models`, torchvision:NAME, timm:NAME, hf:NAME, onnx:FILE or "
            "keras:FILE.",
        ),
    ],
    out: Annotated[
        str, typer.Option("--out", "-o", metavar="PLACE", help="The file or folder to write.")
    ],
    method: Annotated[
        str,
        typer.Option(
            "--method", metavar="SPEC", help="A class activation map, such as grad_cam, or legrad."
        ),
    ] = "grad_cam",
    target: Annotated[
        str,
        typer.Option(
            "--target",
            metavar="TARGET",
            help="top1, class=NAME, or input: the class of each image is then a second input.",
        ),
    ] = "top1",
    to: Annotated[
        str,
        typer.Option(
            "--to",
            metavar="KIND",
            help="onnx: one file. triton: a model repository for Triton and KServe. web: a page "
            "that explains its visitor's own picture.",
        ),
    ] = "onnx",
    images: Annotated[
        list[str] | None,
        typer.Option(
            "--images",
            metavar="FILE",
            help="A photograph to check the packed model on; repeat it for more. "
            "[dim]\\[default: those of scikit-image][/dim]",
            show_default=False,
        ),
    ] = None,
    runtime: Annotated[
        str | None,
        typer.Option(
            "--runtime",
            metavar="PLACE",
            help="With --to web: onnxruntime-web, its folder or .tgz. "
            "[dim]\\[default: fetched by npm][/dim]",
            show_default=False,
        ),
    ] = None,
    checkpoint: Checkpoint = None,
    layer: Layer = None,
    labels: Labels = None,
    size: Size = None,
    resize: Resize = None,
    mean: Mean = None,
    std: Std = None,
    interpolation: Interpolation = None,
    debug: Debug = False,
) -> int:
    """Pack a model with its maps: one ONNX file that gives scores and maps, needing no Python.

    It is written only where it agrees with the engine on photographs.

    [bold]Examples[/bold]

    visxai package efficientnet_lite0 --out explainable.onnx

    visxai package torchvision:resnet50 --to triton --target input --out repository

    visxai package efficientnet_lite0 --to web --out site
    """
    from visxai.cli import terminal
    from visxai.cli.texts import is_text

    if is_text(model, None):
        raise ArgumentError(
            expected="a model of images, the only ones that can be packaged",
            got=f"{model}, a model of texts",
            remedy="explain texts by visxai explain",
            field="model",
        )
    if to not in KINDS:
        raise UnknownName("kind of package", to, KINDS)
    sized = preprocess_of(size, resize, mean, std, interpolation)
    with terminal.working("Loading PyTorch"):
        import visxai
        from visxai import package as packing

    with terminal.working("Packing and checking the model"):
        engine = visxai.Engine(
            model,
            checkpoint=checkpoint,
            labels=labels,
            layer=layer,
            preprocess=sized,
            device="cpu",
            precision="fp32",
            accelerate="off",
        )
        given: dict[str, Any] = {"method": method, "images": images or None}
        if to == "web":
            found = packing.web(engine, out, runtime=runtime, **given)
        else:
            make = packing.repository if to == "triton" else packing.write
            found = make(engine, out, target=target, **given)
    typer.echo(
        f"{out}: agrees with the engine on {found.photographs} photographs, "
        f"scores to {found.scores:.1g} and maps to {found.maps:.1g}"
    )
    return 0
