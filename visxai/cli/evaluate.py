"""The command `visxai evaluate`, which judges methods by metrics."""

from __future__ import annotations

from typing import Annotated

import typer

from visxai.cli.base import (
    Accelerate,
    BatchSize,
    Checkpoint,
    Debug,
    Device,
    Fresh,
    Interpolation,
    Labels,
    Layer,
    Mean,
    ModelName,
    Precision,
    Resize,
    Size,
    Std,
    command_line,
    load_judged,
    preprocess_of,
    stopping,
)


def evaluate(
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="PATH",
            help="Images, and folders of them; or tables of texts.",
            show_default=False,
        ),
    ],
    model: ModelName = "efficientnet_lite0",
    methods: Annotated[
        list[str],
        typer.Option(
            "--methods", "--method", metavar="SPECS", help="Commas between them, or repeat it."
        ),
    ] = ["grad_cam,integrated_gradients"],  # noqa: B006 - typer copies it
    metrics: Annotated[
        str,
        typer.Option(
            "--metrics",
            metavar="SPECS",
            help="Commas between them: insertion, deletion, road, sparseness, "
            "'infidelity(noise=\"square\")', grid_pointing and so on. Of texts: all, or "
            "comprehensiveness_mask, tau and so on.",
        ),
    ] = "insertion,deletion",
    target: Annotated[
        str,
        typer.Option(
            "--target",
            "-t",
            metavar="TARGET",
            help="As for `visxai explain`; or truth: the classes that --truth names.",
        ),
    ] = "top1",
    text_column: Annotated[
        str | None,
        typer.Option(
            "--text-column",
            metavar="NAME",
            help="The column of texts, for a model of texts. [dim]\\[default: by its name][/dim]",
            show_default=False,
        ),
    ] = None,
    truth: Annotated[
        str | None,
        typer.Option(
            "--truth",
            metavar="FILE",
            help="Labels and boxes of the photographs' objects, for pointing, energy_pointing and "
            "segmentation: CSV (file,left,top,right,bottom,label; pixels of the upright "
            "photograph) or COCO's JSON. [dim]\\[default: none][/dim]",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        str, typer.Option("--out", "-o", metavar="FOLDER", help="Where the results go.")
    ] = "visxai_evaluation",
    fresh: Fresh = False,
    device: Device = "auto",
    precision: Precision = "auto",
    accelerate: Accelerate = "auto",
    batch_size: BatchSize = None,
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers",
            metavar="N",
            min=0,
            help="Processes that decode images; 0 decodes in the process that judges. "
            "[dim]\\[default: 1, or 0 for one or two images][/dim]",
            show_default=False,
        ),
    ] = None,
    timeout: Annotated[
        float | None,
        typer.Option(
            "--timeout",
            metavar="SECONDS",
            help="Images that take a worker process longer to decode are listed as failures. "
            "[dim]\\[default: 60][/dim]",
            show_default=False,
        ),
    ] = None,
    chunk_size: Annotated[
        int | None,
        typer.Option(
            "--chunk-size",
            metavar="N",
            min=1,
            help="Images judged and finished together: what a killed run may have to do again. "
            "[dim]\\[default: 8, 32 texts][/dim]",
            show_default=False,
        ),
    ] = None,
    layer: Layer = None,
    labels: Labels = None,
    checkpoint: Checkpoint = None,
    size: Size = None,
    resize: Resize = None,
    mean: Mean = None,
    std: Std = None,
    interpolation: Interpolation = None,
    draws: Annotated[
        int, typer.Option("--draws", metavar="N", min=1, help="Of the bootstrap's intervals.")
    ] = 10_000,
    seed: Annotated[int, typer.Option("--seed", metavar="N", help="Of the bootstrap.")] = 0,
    examples: Annotated[
        int,
        typer.Option(
            "--examples", metavar="N", min=0, help="Images drawn where methods disagree most."
        ),
    ] = 6,
    debug: Debug = False,
) -> int:
    """Judge methods by metrics over many images: tables with intervals, ranks, curves, examples.

    A random map and a centred Gaussian are always judged beside the methods. Run it again with the
    same --out to go on after an interruption. Methods for texts are judged beside random values.

    [bold]Examples[/bold]

    visxai evaluate photos --methods grad_cam,layer_cam,rise --metrics 'insertion(steps=56)'

    visxai evaluate photos --metrics pointing,segmentation --truth boxes.csv --target truth

    visxai evaluate comments.csv --model toxicity --methods integrated_gradients,lime
    """
    from visxai.cli import terminal
    from visxai.cli.texts import evaluate_texts, is_text

    if is_text(model, text_column):
        return evaluate_texts(
            paths,
            out,
            model=model,
            methods=methods,
            metrics=metrics,
            labels=labels,
            device=device,
            batch_size=batch_size,
            unused={
                "--truth": truth is not None,
                "--precision": precision != "auto",
                "--accelerate": accelerate != "auto",
                "--workers": workers is not None,
                "--timeout": timeout is not None,
                "--layer": layer is not None,
                "--checkpoint": checkpoint is not None,
                "--size": size is not None,
                "--resize": resize is not None,
                "--mean": mean is not None,
                "--std": std is not None,
                "--interpolation": interpolation is not None,
                "--examples": examples != 6,
            },
            target=target,
            text_column=text_column,
            chunk_size=chunk_size,
            fresh=fresh,
            draws=draws,
            seed=seed,
        )
    engine, wanted, judged = load_judged(
        paths,
        out,
        methods,
        metrics,
        None if target == "truth" else target,
        model=model,
        labels=labels,
        layer=layer,
        checkpoint=checkpoint,
        preprocess=preprocess_of(size, resize, mean, std, interpolation),
        device=device,
        precision=precision,
        accelerate=accelerate,
        batch_size=batch_size,
    )
    from visxai.evaluate.evaluation import run

    command = command_line("--fresh")
    with stopping() as asked, terminal.Watch() as watch:
        evaluation = run(
            engine,
            paths,
            wanted,
            judged,
            out,
            target=target,
            truth=truth,
            workers=workers,
            timeout=timeout,
            chunk_size=chunk_size or 8,
            draws=draws,
            seed=seed,
            examples=examples,
            fresh=fresh,
            command=command,
            progress=watch,
            stop=lambda: bool(asked),
        )
    terminal.evaluation(evaluation, command)
    if evaluation.summary is None:
        return 130
    return 1 if evaluation.outcome.failed else 0
