"""The command `visxai bench`, which measures the cost of explanations."""

from __future__ import annotations

from typing import Annotated

import typer

from visxai.cli.base import (
    Checkpoint,
    Debug,
    Device,
    Interpolation,
    Layer,
    Mean,
    ModelName,
    Precision,
    Resize,
    Size,
    Std,
    command_line,
    preprocess_of,
)
from visxai.errors import ArgumentError
from visxai.spec import split_specs


def bench(
    model: ModelName = "efficientnet_lite0",
    methods: Annotated[
        list[str] | None,
        typer.Option(
            "--methods",
            "--method",
            metavar="SPECS",
            help="Commas between them, or repeat it. [dim]\\[default: grad_cam, "
            "integrated_gradients, occlusion and legrad, where the model serves them][/dim]",
            show_default=False,
        ),
    ] = None,
    batch_sizes: Annotated[
        str, typer.Option("--batch-sizes", metavar="N,N", help="Images explained in one call.")
    ] = "1,8",
    accelerate: Annotated[
        str | None,
        typer.Option(
            "--accelerate",
            metavar="NAMES",
            help="Of off, onnx, openvino and compile, commas between them. [dim]\\[default: off, "
            "and on a CPU what auto would prepare][/dim]",
            show_default=False,
        ),
    ] = None,
    precision: Precision = "auto",
    device: Device = "auto",
    checkpoint: Checkpoint = None,
    layer: Layer = None,
    size: Size = None,
    resize: Resize = None,
    mean: Mean = None,
    std: Std = None,
    interpolation: Interpolation = None,
    seconds: Annotated[
        float,
        typer.Option(
            "--seconds", metavar="N", help="Of timing for each method and batch size, about."
        ),
    ] = 20.0,
    memory: Annotated[
        bool,
        typer.Option(
            "--memory/--no-memory",
            help="Measure peaks of memory too; on a CPU each takes a process of its own.",
        ),
    ] = True,
    rounds: Annotated[
        int,
        typer.Option("--rounds", metavar="N", help="At least so many rounds, however long."),
    ] = 3,
    longest: Annotated[
        float,
        typer.Option(
            "--longest",
            metavar="N",
            help="Seconds that a call may take; what would take longer is left out, by name.",
        ),
    ] = 180.0,
    random_weights: Annotated[
        bool,
        typer.Option(
            "--random-weights",
            help="Draw the weights of torchvision, timm and Hugging Face models instead of "
            "loading them: the time doesn't depend on them.",
        ),
    ] = False,
    out: Annotated[
        str | None,
        typer.Option(
            "--out",
            "-o",
            metavar="FILE",
            help="Where the report goes, as JSON; a summary (.md) and, with the extra bench, a "
            "plot (.png) go beside it.",
            show_default=False,
        ),
    ] = None,
    compare: Annotated[
        str | None,
        typer.Option(
            "--compare",
            metavar="FILE",
            help="An earlier report: say what got slower, beyond noise; the exit code is 1 then.",
            show_default=False,
        ),
    ] = None,
    debug: Debug = False,
) -> int:
    """Measure what explaining costs with a model of yours on this machine.

    Latency, throughput and memory of each method beside the model's plain forward, in one run.
    --model and --precision take several names, with commas between them.

    [bold]Examples[/bold]

    visxai bench --model timm:resnet18 --methods grad_cam --out bench.json

    visxai bench --model timm:resnet18 --methods grad_cam --compare bench.json

    visxai bench --model efficientnet_lite0,timm:resnet18 --precision fp32,bf16
    """
    from visxai.cli import terminal

    specs = tuple(spec for text in methods or () for spec in split_specs(text, "--methods"))
    try:
        batches = tuple(int(text) for text in batch_sizes.split(","))
    except ValueError:
        raise ArgumentError(
            f"expected numbers between the commas of --batch-sizes, got {batch_sizes!r}"
        ) from None
    sized = preprocess_of(size, resize, mean, std, interpolation)
    kinds = () if accelerate is None else tuple(part.strip() for part in accelerate.split(","))
    with terminal.working("Loading PyTorch"):
        from visxai.bench import cases as measuring
        from visxai.bench.report import read, tell

    earlier = None if compare is None else read(compare)
    setup = measuring.Setup(
        model,
        specs,
        batches,
        kinds,
        precision,
        device,
        checkpoint,
        layer,
        seconds,
        memory,
        sized,
        rounds=rounds,
        longest=longest,
        weights=not random_weights,
    )
    report = measuring.run(setup, progress=lambda step: typer.echo(step, err=True))
    return tell(report, earlier, out, command_line())
