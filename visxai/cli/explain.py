"""The command `visxai explain`, which runs over images in local processes or on Ray."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

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
    alone,
    check_specs,
    command_line,
    preprocess_of,
)
from visxai.errors import ArgumentError, UnknownName
from visxai.process import leave_pandas_out
from visxai.spec import split_specs

if TYPE_CHECKING:
    from visxai.images.sources import Source
    from visxai.pipeline.progress import Outcome
    from visxai.pipeline.spawning import EarlyWorkers
    from visxai.pipeline.tasks import Style


class PerhapsRay(TyperCommand):
    """A command whose option `--ray` may lack an address, which then is "local"."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments, after the word "local" is inserted behind a bare `--ray`."""
        at = args.index("--ray") + 1 if "--ray" in args else 0
        if at and (at == len(args) or args[at].startswith("-")):
            args = [*args[:at], "local", *args[at:]]
        return super().parse_args(ctx, args)


def explain(
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE",
            help="Images, and folders that are searched for them (jpg, png, webp, avif, heic, bmp, "
            "tiff, gif); "
            "- for paths on standard input; a table of paths (.csv, .parquet); a .tar of images; "
            "a URL such as s3://bucket/photos; one video (mp4, mov, mkv, webm, avi).",
            show_default=False,
        ),
    ],
    model: ModelName = "efficientnet_lite0",
    method: Annotated[
        list[str] | None,
        typer.Option(
            "--method",
            "--methods",
            metavar="SPEC",
            help="A name from `visxai methods`, with options: 'occlusion(window=64, stride=32)'. "
            "Several: repeat it, or write commas between them. "
            "[dim]\\[default: grad_cam for images][/dim]",
            show_default=False,
        ),
    ] = None,
    only: Annotated[
        str | None,
        typer.Option(
            "--only",
            metavar="GATE",
            help="Explain just the images whose scores ask for it: 'class=nsfw>0.5', 'top1<0.6'; "
            "the others cost their forward. wrong or right: of images with labels those that the "
            "model says to be of another class, or of theirs. [dim]\\[default: all][/dim]",
            show_default=False,
        ),
    ] = None,
    check: Annotated[
        str | None,
        typer.Option(
            "--check",
            metavar="METRIC",
            help="Judge every map as it is made, and keep the figures in its row: faithfulness "
            "tells whether it beats its own cells in other orders (128 forwards a map), or a "
            "text's words in others (90). "
            "[dim]\\[default: none][/dim]",
            show_default=False,
        ),
    ] = None,
    target: Annotated[
        str,
        typer.Option(
            "--target",
            "-t",
            metavar="TARGET",
            help="What to explain: top1, top3, class=207, class=tabby, any=281,282 (a set; "
            "cats=any:281,282 names it), "
            "diff=207,282 (one rather than another), above=0.5 (every class over it).",
        ),
    ] = "top1",
    out: Annotated[
        str,
        typer.Option(
            "--out", "-o", metavar="FOLDER", help="Where the results go.", rich_help_panel="Results"
        ),
    ] = "visxai_out",
    fresh: Fresh = False,
    retry_failures: Annotated[
        bool,
        typer.Option(
            "--retry-failures",
            help="Do again what failed in an earlier run into --out.",
            rich_help_panel="Results",
        ),
    ] = False,
    path_column: Annotated[
        str | None,
        typer.Option(
            "--path-column",
            rich_help_panel="Sources",
            metavar="NAME",
            help="Of a table: the column of paths, relative to the table's folder. "
            "[dim]\\[default: path, file, filename, image or the like][/dim]",
            show_default=False,
        ),
    ] = None,
    text_column: Annotated[
        str | None,
        typer.Option(
            "--text-column",
            rich_help_panel="Sources",
            metavar="NAME",
            help="Explain texts: their column in a table (.csv, .parquet) or in lines of JSON "
            "(.jsonl); the model is toxicity or hf:FOLDER. [dim]\\[default for these models: text, "
            "comment, review or the like][/dim]",
            show_default=False,
        ),
    ] = None,
    label_column: Annotated[
        str | None,
        typer.Option(
            "--label-column",
            rich_help_panel="Sources",
            metavar="NAME",
            help="Of a table, or of the JSON beside a tar's images: the class of each, by name or "
            "index; none leaves labels out. [dim]\\[default: label, class, target or the like, if "
            "there is one][/dim]",
            show_default=False,
        ),
    ] = None,
    device: Device = "auto",
    precision: Precision = "auto",
    accelerate: Accelerate = "auto",
    batch_size: BatchSize = None,
    chunk_size: Annotated[
        int | None,
        typer.Option(
            "--chunk-size",
            rich_help_panel="Results",
            metavar="N",
            min=1,
            help="Images written into one file, a multiple of the batch size. "
            "[dim]\\[default: that multiple from 64 on][/dim]",
            show_default=False,
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers",
            rich_help_panel="Machine",
            metavar="N",
            min=0,
            help="Processes that decode images and draw overlays; 0 does all in one process. "
            "[dim]\\[default: one a core; 0 for one or two images without --timeout][/dim]",
            show_default=False,
        ),
    ] = None,
    ray: Annotated[
        str | None,
        typer.Option(
            "--ray",
            rich_help_panel="Machine",
            metavar="[ADDRESS]",
            help="Run on Ray: auto for the cluster that this machine is a node of, HOST:PORT for "
            "another's; alone, after the sources, on this machine (docs/scale.md).",
            show_default=False,
        ),
    ] = None,
    overlay_format: Annotated[
        str,
        typer.Option(
            "--overlay-format",
            rich_help_panel="Results",
            metavar="NAME",
            help="Of the overlays: jpg, webp, png, or none for none.",
        ),
    ] = "jpg",
    colormap: Annotated[
        str | None,
        typer.Option(
            "--colormap",
            rich_help_panel="Results",
            metavar="NAME",
            help="viridis, plasma, cividis, inferno, magma, turbo, jet or diverging. "
            "[dim]\\[default: viridis, diverging for maps with evidence against][/dim]",
            show_default=False,
        ),
    ] = None,
    panel: Annotated[
        bool,
        typer.Option(
            "--panel",
            rich_help_panel="Results",
            help="Draw photograph, overlay and map side by side over a caption.",
        ),
    ] = False,
    layer: Layer = None,
    labels: Labels = None,
    checkpoint: Checkpoint = None,
    size: Size = None,
    resize: Resize = None,
    mean: Mean = None,
    std: Std = None,
    interpolation: Interpolation = None,
    limit_pixels: Annotated[
        int,
        typer.Option(
            "--limit-pixels",
            rich_help_panel="Sources",
            metavar="N",
            min=1,
            help="Images with more pixels are listed as failures.",
        ),
    ] = 100_000_000,
    timeout: Annotated[
        float | None,
        typer.Option(
            "--timeout",
            rich_help_panel="Sources",
            metavar="SECONDS",
            help="Images that take a worker process longer to decode are listed as failures. "
            "[dim]\\[default: 60][/dim]",
            show_default=False,
        ),
    ] = None,
    every: Annotated[
        int | None,
        typer.Option(
            "--every",
            metavar="N",
            min=1,
            help="Of a video: explain every n-th frame. [dim]\\[default: 1][/dim]",
            show_default=False,
            rich_help_panel="Sources",
        ),
    ] = None,
    smooth: Annotated[
        float | None,
        typer.Option(
            "--smooth",
            metavar="SECONDS",
            min=0.0,
            help="Of a video: the time over which drawn maps are averaged; rows keep each frame's "
            "own. [dim]\\[default: 0][/dim]",
            show_default=False,
            rich_help_panel="Results",
        ),
    ] = None,
    debug: Debug = False,
) -> int:
    """Explain images: a map, an overlay and a row of data for each.

    Run it again with the same --out to go on after an interruption, or to add new images.

    [bold]Examples[/bold]

    visxai explain cat.jpg

    visxai explain photos --method grad_cam,occlusion --target top3 --out results

    visxai explain photos --model timm:resnet18 --checkpoint mine.safetensors --labels names.txt

    visxai explain photos --model onnx:model.onnx --size 224 --mean 0.5,0.5,0.5 --std 0.5,0.5,0.5

    visxai explain labels.csv --only wrong --out mistakes

    find photos -name '*.jpg' -newer last | visxai explain - --out results

    visxai explain comments.csv --model toxicity --target class=toxic --out results

    visxai explain clip.mp4 --every 5 --smooth 0.3 --out results

    visxai explain applicants.parquet --model credit.json --out results

    visxai explain posts.csv --model harmful.toml --out results
    """
    from visxai.cli.pairs import explain_pairs
    from visxai.cli.runs import carry_out
    from visxai.cli.tables import explain_tables, is_table
    from visxai.cli.texts import explain_texts, is_text
    from visxai.cli.videos import explain_video, is_video
    from visxai.fused.card import is_card
    from visxai.images import decoding, sources
    from visxai.pipeline.options import RunOptions

    if is_card(model):
        return explain_pairs(
            paths,
            out,
            model=model,
            device=device,
            unused={
                "--method": method is not None,
                "--target": target != "top1",
                "--only": only is not None,
                "--check": check is not None,
                "--label-column": label_column is not None,
                "--ray": ray is not None,
                "--workers": workers is not None,
                "--precision": precision != "auto",
                "--batch-size": batch_size is not None,
            },
            path_column=path_column,
            text_column=text_column,
            chunk_size=chunk_size,
            fresh=fresh,
            retry_failures=retry_failures,
        )
    if text_column is None and is_table(model):
        return explain_tables(
            paths,
            out,
            model=model,
            method=method or (),
            target=target,
            only=only,
            label_column=label_column,
            chunk_size=chunk_size,
            fresh=fresh,
            retry_failures=retry_failures,
        )
    if is_text(model, text_column):
        return explain_texts(
            paths,
            out,
            model=model,
            method=method or (),
            target=target,
            only=only,
            check=check,
            text_column=text_column,
            label_column=label_column,
            chunk_size=chunk_size,
            labels=labels,
            device=device,
            batch_size=batch_size,
            fresh=fresh,
            retry_failures=retry_failures,
        )
    filmed = is_video(paths)
    if not filmed and (every is not None or smooth is not None):
        raise ArgumentError("expected --every and --smooth with a video, got other sources")
    sized = preprocess_of(size, resize, mean, std, interpolation)
    specs = [spec for text in method or ["grad_cam"] for spec in split_specs(text, "--method")]
    making: dict[str, Any] = {
        "model": model,
        "labels": labels,
        "layer": layer,
        "checkpoint": checkpoint,
        "device": device,
        "precision": precision,
        "accelerate": accelerate,
        "batch_size": batch_size,
    }
    if sized is not None:
        making["preprocess"] = sized
    if filmed:
        return explain_video(
            paths,
            out,
            making=making,
            method=specs,
            target=target,
            every=every,
            smooth=smooth,
            limit_pixels=limit_pixels,
            timeout=timeout,
            colormap=colormap,
            fresh=fresh,
            unused={
                "--only": only is not None,
                "--check": check is not None,
                "--path-column": path_column is not None,
                "--label-column": label_column is not None,
                "--chunk-size": chunk_size is not None,
                "--workers": workers is not None,
                "--ray": ray is not None,
                "--overlay-format": overlay_format != "jpg",
                "--panel": panel,
                "--retry-failures": retry_failures,
            },
        )
    options = RunOptions(
        method=specs,
        target=target,
        only=only,
        check=check,
        style=_style(overlay_format, colormap, panel),
        limits=decoding.Limits(max_pixels=limit_pixels),
        chunk_size=chunk_size,
        timeout=timeout,
        path_column=path_column,
        label_column=label_column,
        fresh=fresh,
        retry_failures=retry_failures,
        command=command_line("--fresh", "--retry-failures"),
    )
    # Errors that don't depend on the model are raised before it is loaded.
    given = sources.from_input(paths, sys.stdin.buffer)
    sources.check(given, out, path_column=path_column, label_column=label_column)
    with ExitStack() as stack:
        early = None if ray is not None else _early(given, workers, stack)
        check_specs(specs, target, only=only, check=check)
        run = (
            _local(making, workers, early) if ray is None else _on_ray(making, workers, ray, stack)
        )
        return carry_out(partial(run, given, out, options=options), options.command)


def _early(sources: Sequence[Source], workers: int | None, stack: ExitStack) -> EarlyWorkers | None:
    """Start worker processes for many images, until `stack` is left; None for a few images."""
    from visxai.images.sources import Listing
    from visxai.pipeline.spawning import MOST_EARLY, EarlyWorkers
    from visxai.pipeline.workers import worker_count

    many = len(sources) > 2 or any(isinstance(s, Listing) or os.path.isdir(s) for s in sources)
    count = worker_count(workers, MOST_EARLY) if many else 0
    return stack.enter_context(EarlyWorkers(min(count, MOST_EARLY))) if count > 0 else None


def _local(
    making: dict[str, Any], workers: int | None, early: EarlyWorkers | None
) -> Callable[..., Outcome]:
    """Load the engine, and return the function that runs in this process and its workers."""
    from visxai.cli import terminal

    with terminal.working("Loading the model"):
        from visxai.engine.engine import Engine
        from visxai.pipeline.run import explain_sources

        if any(alone):  # rows are lists and arrays
            leave_pandas_out()
        engine = Engine(**making)
    return partial(explain_sources, engine=engine, workers=workers, early=early)


def _on_ray(
    making: dict[str, Any], workers: int | None, ray: str, stack: ExitStack
) -> Callable[..., Outcome]:
    """Connect to Ray until `stack` is left, and return the function that runs there."""
    from visxai.cli import terminal

    if workers is not None:
        raise ArgumentError(
            f"expected --ray without --workers, got --workers {workers}: Ray places the processes"
        )
    # Other processes may run in another folder: paths must be absolute.
    for name in ("labels", "checkpoint"):
        making[name] = making[name] and os.path.abspath(making[name])
    kind, _, file = making["model"].partition(":")
    if kind == "onnx":
        making["model"] = f"onnx:{os.path.abspath(file)}"
    local = ray == "local"
    with terminal.working("Starting Ray" if local else "Connecting to Ray"):
        from visxai.scale import cluster
        from visxai.scale.run import explain_sources

        stack.enter_context(cluster.connected(None if local else ray))
    return partial(explain_sources, engine=making)


def _style(overlay_format: str, colormap: str | None, panel: bool) -> Style | None:
    """Make the style of overlays from its options, None for no overlays."""
    from visxai.pipeline.tasks import Style

    formats = ("jpg", "webp", "png", "none")
    if overlay_format.lower() not in formats:
        raise UnknownName("overlay format", overlay_format, formats)
    if overlay_format.lower() != "none":
        return Style(overlay_format.lower(), colormap, panel)
    if colormap is not None or panel:
        raise ArgumentError(
            "expected --colormap and --panel with overlays, got --overlay-format none: leave "
            "one of them out"
        )
    return None
