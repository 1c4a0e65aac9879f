"""The command line: arguments in, exit code out; what it prints is in `visxai.terminal`.

Exit codes: 0 all done, 1 some image (or the machine) failed, 2 wrong arguments, 130 interrupted.
Nothing heavy is imported before a command runs.
"""

from __future__ import annotations

import os
import shlex
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

import visxai
from visxai.errors import ArgumentError, OutOfMemory, VisxaiError

if TYPE_CHECKING:
    from visxai.pipeline import Outcome
    from visxai.workers import Style

app = typer.Typer(
    help="Which pixels made the model say that? Saliency maps for any vision model, in batches.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


class _ByName(TyperGroup):
    """`visxai models NAME` is `visxai models show NAME`."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and args[0] not in self.commands and not args[0].startswith("-"):
            args = ["show", *args]
        return super().resolve_command(ctx, args)


class _PerhapsRay(TyperCommand):
    """`--ray` without an address is `--ray local`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        at = args.index("--ray") + 1 if "--ray" in args else 0
        if at and (at == len(args) or args[at].startswith("-")):
            args = [*args[:at], "local", *args[at:]]
        return super().parse_args(ctx, args)


models_app = typer.Typer(cls=_ByName, rich_markup_mode="rich")
app.add_typer(models_app, name="models")

# Options that several commands share, so that they read the same everywhere.
ModelName = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        metavar="NAME",
        help="A name from `visxai models`, torchvision:NAME, timm:NAME, hf:NAME or onnx:FILE.",
    ),
]
Fresh = Annotated[
    bool,
    typer.Option(
        "--fresh/--resume",
        help="Delete the results in the --out folder and start over, or go on where an "
        "earlier run stopped.",
    ),
]
Device = Annotated[
    str,
    typer.Option(
        "--device", metavar="NAME", help="auto, cpu, cuda, cuda:1 or mps; auto takes a GPU."
    ),
]
Precision = Annotated[
    str,
    typer.Option(
        "--precision",
        metavar="NAME",
        help="Of the model: auto, fp32, bf16 or fp16; auto is the fastest of this device. "
        "Maps are float32 always.",
    ),
]
Accelerate = Annotated[
    str,
    typer.Option(
        "--accelerate",
        metavar="NAME",
        help="auto, off, onnx or compile: faster forms of what needs no graph, prepared once; "
        "auto prepares them when the run is long enough to earn it back.",
    ),
]
BatchSize = Annotated[
    int | None,
    typer.Option(
        "--batch-size",
        "-b",
        metavar="N",
        min=1,
        help="Images computed at once, halved where memory runs out. "
        "[dim]\\[default: 64 on a GPU, 16 on a CPU][/dim]",
        show_default=False,
    ),
]
Layer = Annotated[
    str | None,
    typer.Option(
        "--layer",
        metavar="NAME",
        help="The layer that CAMs look at, such as features.7. "
        "[dim]\\[default: the model's own choice][/dim]",
        show_default=False,
    ),
]
Labels = Annotated[
    str | None,
    typer.Option(
        "--labels",
        metavar="FILE",
        help="Names of the classes in order: a text file, one a line, or JSON. "
        "[dim]\\[default: the model's own][/dim]",
        show_default=False,
    ),
]
Checkpoint = Annotated[
    str | None,
    typer.Option(
        "--checkpoint",
        metavar="FILE",
        help="Your own weights for --model timm:NAME or torchvision:NAME. "
        "[dim]\\[default: the library's][/dim]",
        show_default=False,
    ),
]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


@app.callback(invoke_without_command=True)
def _visxai(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and leave.")
    ] = False,
) -> int:
    if version:
        typer.echo(f"visxai {visxai.__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
    return 0


@app.command(cls=_PerhapsRay)
def explain(
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE",
            help="Images, and folders that are searched for them (jpg, png, webp, bmp, tiff, gif); "
            "- for paths on standard input; a table of paths (.csv, .parquet); a .tar of images; "
            "a URL such as s3://bucket/photos.",
            show_default=False,
        ),
    ],
    model: ModelName = "efficientnet_lite0",
    method: Annotated[
        list[str],
        typer.Option(
            "--method",
            metavar="SPEC",
            help="A name from `visxai methods`, with options: 'occlusion(window=64, stride=32)'. "
            "Several: repeat it, or write commas between them.",
        ),
    ] = ["grad_cam"],  # noqa: B006 - typer copies it
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
            "tells whether it beats its own cells in other orders (128 forwards a map). "
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
            help="What to explain: top1, top3, class=207, class=tabby, any=281,282 (a set), "
            "diff=207,282 (one rather than another), above=0.5 (every class over it).",
        ),
    ] = "top1",
    out: Annotated[
        str,
        typer.Option("--out", "-o", metavar="FOLDER", help="Where the results go."),
    ] = "visxai_out",
    fresh: Fresh = False,
    retry_failures: Annotated[
        bool,
        typer.Option("--retry-failures", help="Do again what failed in an earlier run into --out."),
    ] = False,
    path_column: Annotated[
        str | None,
        typer.Option(
            "--path-column",
            metavar="NAME",
            help="Of a table: the column of paths, relative to the table's folder. "
            "[dim]\\[default: path, file, filename, image or the like][/dim]",
            show_default=False,
        ),
    ] = None,
    label_column: Annotated[
        str | None,
        typer.Option(
            "--label-column",
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
            metavar="N",
            min=1,
            help="Images finished together, a multiple of the batch size: what a killed run may "
            "have to do again. [dim]\\[default: that multiple from 64 on][/dim]",
            show_default=False,
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers",
            metavar="N",
            min=0,
            help="Processes that decode images and draw overlays; 0 does all in one process. "
            "[dim]\\[default: one a core][/dim]",
            show_default=False,
        ),
    ] = None,
    ray: Annotated[
        str | None,
        typer.Option(
            "--ray",
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
            metavar="NAME",
            help="Of the overlays: jpg, webp, png, or none for none.",
        ),
    ] = "jpg",
    colormap: Annotated[
        str | None,
        typer.Option(
            "--colormap",
            metavar="NAME",
            help="turbo, jet, viridis, inferno or diverging. "
            "[dim]\\[default: turbo, diverging for maps with evidence against][/dim]",
            show_default=False,
        ),
    ] = None,
    panel: Annotated[
        bool,
        typer.Option(
            "--panel", help="Draw photograph, overlay and map side by side over a caption."
        ),
    ] = False,
    layer: Layer = None,
    labels: Labels = None,
    checkpoint: Checkpoint = None,
    limit_pixels: Annotated[
        int,
        typer.Option(
            "--limit-pixels",
            metavar="N",
            min=1,
            help="Images with more pixels are listed as failures.",
        ),
    ] = 100_000_000,
    timeout: Annotated[
        float,
        typer.Option(
            "--timeout",
            metavar="SECONDS",
            help="Images that take a worker process longer to decode are listed as failures.",
        ),
    ] = 60.0,
    debug: Debug = False,
) -> int:
    """Explain images: a map, an overlay and a row of data for each.

    Run it again with the same --out to go on after an interruption, or to add new images.

    [bold]Examples[/bold]

    visxai explain cat.jpg

    visxai explain photos --method grad_cam,occlusion --target top3 --out results

    visxai explain photos --model timm:resnet18 --checkpoint mine.safetensors --labels names.txt

    visxai explain labels.csv --only wrong --out mistakes

    find photos -name '*.jpg' -newer last | visxai explain - --out results
    """
    from visxai import images, sources, terminal

    specs = [spec for given in method for spec in split_specs(given)]
    style = _style(overlay_format, colormap, panel)
    # What can be told without the model is told before it is loaded.
    given = sources.from_input(paths, sys.stdin.buffer)
    columns = {"path_column": path_column, "label_column": label_column}
    sources.check(given, out, **columns)
    making = {
        "model": model,
        "labels": labels,
        "layer": layer,
        "checkpoint": checkpoint,
        "device": device,
        "precision": precision,
        "accelerate": accelerate,
        "batch_size": batch_size,
    }
    command = ["visxai", *(word for word in _given if word not in ("--fresh", "--retry-failures"))]
    with ExitStack() as stack:
        run = _local(making, workers) if ray is None else _on_ray(making, workers, ray, stack)
        stopping = stack.enter_context(_stopping())
        outcome = run(
            given,
            out,
            method=specs,
            target=target,
            only=only,
            check=check,
            style=style,
            limits=images.Limits(max_pixels=limit_pixels),
            chunk_size=chunk_size,
            timeout=timeout,
            **columns,
            fresh=fresh,
            retry_failures=retry_failures,
            command=shlex.join(command),
            progress=stack.enter_context(terminal.Watch()),
            stop=lambda: bool(stopping),
        )
    terminal.summary(outcome, shlex.join(command))
    if not outcome.complete:
        return 130
    return 1 if outcome.counts["failures"] else 0


def _local(making: dict[str, Any], workers: int | None) -> Callable[..., Outcome]:
    """A folder run in this process and its workers."""
    from visxai import terminal

    with terminal.working("Loading the model"):
        from visxai import pipeline
        from visxai.engine import Engine

        engine = Engine(**making)
    return partial(pipeline.explain, engine=engine, workers=workers)


def _on_ray(
    making: dict[str, Any], workers: int | None, ray: str, stack: ExitStack
) -> Callable[..., Outcome]:
    """A folder run on Ray, connected until `stack` is left."""
    from visxai import terminal

    if workers is not None:
        raise ArgumentError(
            f"expected --ray without --workers, got --workers {workers}: Ray places the processes"
        )
    # Other processes needn't run in this folder.
    for name in ("labels", "checkpoint"):
        making[name] = making[name] and os.path.abspath(making[name])
    kind, _, file = making["model"].partition(":")
    if kind == "onnx":
        making["model"] = f"onnx:{os.path.abspath(file)}"
    local = ray == "local"
    with terminal.working("Starting Ray" if local else "Connecting to Ray"):
        from visxai import cluster, scale

        stack.enter_context(cluster.connected(None if local else ray))
    return partial(scale.explain, engine=making)


@models_app.callback(invoke_without_command=True)
def _models(context: typer.Context) -> int:
    """What models there are, one model's card, and weights that are fetched apart.

    [bold]Examples[/bold]

    visxai models

    visxai models efficientnet_lite0

    visxai models fetch nsfw
    """
    if context.invoked_subcommand is None:
        from visxai import terminal

        terminal.models()
    return 0


@models_app.command("show")
def _show(
    name: Annotated[str, typer.Argument(help="A model's name.", show_default=False)],
    debug: Debug = False,
) -> int:
    """One model's card; `visxai models NAME` is the same."""
    from visxai import models, terminal

    terminal.card(models.card(name))
    return 0


@models_app.command("fetch")
def _fetch(
    name: Annotated[str, typer.Argument(help="A model's name.", show_default=False)],
    debug: Debug = False,
) -> int:
    """Fetch the weights of a model that doesn't come with visxai."""
    from visxai import models, terminal

    with terminal.working(f"Fetching {name}"):
        path = models.fetch(name)
    typer.echo(f"{name} is in {path}: use it with --model {name}")
    return 0


@app.command()
def methods(
    name: Annotated[
        str | None,
        typer.Argument(help="One method, to read all about it.", show_default=False),
    ] = None,
    debug: Debug = False,
) -> int:
    """What methods there are: what each does, needs and costs, and its options."""
    from visxai import terminal

    terminal.methods(name)
    return 0


@app.command()
def bench(
    model: ModelName = "efficientnet_lite0",
    methods: Annotated[
        str | None,
        typer.Option(
            "--methods",
            metavar="SPECS",
            help="Commas between them. [dim]\\[default: grad_cam, integrated_gradients, occlusion "
            "and legrad, where the model serves them][/dim]",
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
            help="Of off, onnx and compile, commas between them. [dim]\\[default: off, and onnx "
            "on a CPU][/dim]",
            show_default=False,
        ),
    ] = None,
    precision: Precision = "auto",
    device: Device = "auto",
    checkpoint: Checkpoint = None,
    layer: Layer = None,
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

    [bold]Examples[/bold]

    visxai bench --model timm:resnet18 --methods grad_cam --out bench.json

    visxai bench --model timm:resnet18 --methods grad_cam --compare bench.json
    """
    from visxai import terminal

    specs = () if methods is None else tuple(split_specs(methods))
    try:
        batches = tuple(int(text) for text in batch_sizes.split(","))
    except ValueError:
        raise ArgumentError(
            f"expected numbers between the commas of --batch-sizes, got {batch_sizes!r}"
        ) from None
    kinds = () if accelerate is None else tuple(part.strip() for part in accelerate.split(","))
    with terminal.working("Loading PyTorch"):
        from visxai import bench as measuring

    earlier = None if compare is None else measuring.read(compare)
    setup = measuring.Setup(
        model, specs, batches, kinds, precision, device, checkpoint, layer, seconds, memory
    )
    report = measuring.run(setup, progress=lambda step: typer.echo(step, err=True))
    return measuring.tell(report, earlier, out, shlex.join(["visxai", *_given]))


@app.command()
def evaluate(
    paths: Annotated[
        list[str],
        typer.Argument(metavar="PATH", help="Images, and folders of them.", show_default=False),
    ],
    model: ModelName = "efficientnet_lite0",
    methods: Annotated[
        str, typer.Option("--methods", metavar="SPECS", help="Commas between them.")
    ] = "grad_cam,integrated_gradients",
    metrics: Annotated[
        str,
        typer.Option(
            "--metrics",
            metavar="SPECS",
            help="Commas between them: insertion, deletion, road, sparseness, "
            "'infidelity(removal=\"square\")', grid_pointing and so on.",
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
    chunk_size: Annotated[
        int,
        typer.Option(
            "--chunk-size",
            metavar="N",
            min=1,
            help="Images judged and finished together: what a killed run may have to do again.",
        ),
    ] = 8,
    layer: Layer = None,
    labels: Labels = None,
    checkpoint: Checkpoint = None,
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
    same --out to go on after an interruption.

    [bold]Examples[/bold]

    visxai evaluate photos --methods grad_cam,layer_cam,rise --metrics 'insertion(steps=56)'

    visxai evaluate photos --metrics pointing,segmentation --truth boxes.csv --target truth
    """
    from visxai import sources, terminal

    wanted, judged = split_specs(methods), split_specs(metrics)
    sources.check(paths, out)
    with terminal.working("Loading the model"):
        from visxai.engine import Engine
        from visxai.evaluate import run

        engine = Engine(
            model,
            labels=labels,
            layer=layer,
            checkpoint=checkpoint,
            device=device,
            precision=precision,
            accelerate=accelerate,
            batch_size=batch_size,
        )
    command = ["visxai", *(word for word in _given if word != "--fresh")]
    with _stopping() as stopping, terminal.Watch() as watch:
        evaluation = run(
            engine,
            paths,
            wanted,
            judged,
            out,
            target=target,
            truth=truth,
            chunk_size=chunk_size,
            draws=draws,
            seed=seed,
            examples=examples,
            fresh=fresh,
            command=shlex.join(command),
            progress=watch,
            stop=lambda: bool(stopping),
        )
    terminal.evaluation(evaluation, shlex.join(command))
    if evaluation.summary is None:
        return 130
    return 1 if evaluation.outcome.counts["failures"] else 0


Results = Annotated[
    str,
    typer.Argument(metavar="OUT", help="The --out folder of a `visxai explain`, finished or not."),
]


@app.command()
def report(
    out: Results = "visxai_out",
    single_file: Annotated[
        bool,
        typer.Option(
            "--single-file",
            help="One file OUT/report.html to send, with the pictures of the first 500 inside it.",
        ),
    ] = False,
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers",
            metavar="N",
            min=0,
            help="Processes that draw the pictures; 0 does all in one process. "
            "[dim]\\[default: one a core][/dim]",
            show_default=False,
        ),
    ] = None,
    debug: Debug = False,
) -> int:
    """Make a gallery of a run's results that opens from disk: filters, plots, mean maps.

    [bold]Examples[/bold]

    visxai report results

    visxai report results --single-file
    """
    from visxai import terminal
    from visxai.report import build

    with terminal.counting("Drawing the gallery") as progress:
        made = build(out, single_file=single_file, workers=workers, progress=progress)
    terminal.gallery(made)
    return 0


@app.command()
def export(
    out: Results = "visxai_out",
    to: Annotated[
        str,
        typer.Option(
            "--to", metavar="NAME", help="csv, coco, fiftyone, tensorboard or wandb (offline)."
        ),
    ] = "csv",
    folder: Annotated[
        str | None,
        typer.Option(
            "--folder",
            metavar="FOLDER",
            help="Where it goes. [dim]\\[default: OUT/export/NAME][/dim]",
            show_default=False,
        ),
    ] = None,
    debug: Debug = False,
) -> int:
    """Write a run's results for another tool; nothing is sent anywhere.

    [bold]Examples[/bold]

    visxai export results --to csv

    visxai export results --to coco --folder annotations
    """
    from visxai import export as exports
    from visxai import terminal

    with terminal.counting(f"Exporting to {to}") as progress:
        made = exports.export(out, to, folder=folder, progress=progress)
    terminal.exported(made)
    return 0


@app.command()
def doctor(debug: Debug = False) -> int:
    """What this machine can do, and whether all that is needed is there (exit code 0)."""
    from visxai import terminal

    return terminal.doctor()


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and leave with its exit code."""
    global _given
    _given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        code = app(_given, prog_name="visxai", standalone_mode=False)
    except Exception as error:
        if "--debug" in _given:
            raise
        code = _told(error)
    sys.exit(code if isinstance(code, int) else 0)


_given: list[str] = []


def _told(error: Exception) -> int:
    """Print an error as one sentence; returns the exit code."""
    if isinstance(error, BrokenPipeError):
        # The reader of a pipe has left, as `head` does; nothing is to be flushed to it any more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    code = 1
    if isinstance(error, VisxaiError):
        sentence, code = str(error), 1 if isinstance(error, OutOfMemory) else 2
    elif hasattr(error, "format_message"):  # typer's own
        sentence, code = error.format_message().rstrip("."), getattr(error, "exit_code", 2)
        context = getattr(error, "ctx", None)
        if context is not None:
            sentence += f" (see {context.command_path} --help)"
    elif isinstance(error, typer.Abort):
        sentence = "interrupted"
    else:
        first = (str(error).strip() or "no more is known").splitlines()[0]
        sentence = f"{type(error).__name__}: {first} (run it again with --debug to see where)"
    sys.stderr.write(f"visxai: {' '.join(sentence.split())}\n")
    return code


def split_specs(text: str) -> list[str]:
    """Method specs separated by commas; those inside brackets or quotes separate nothing.

    >>> split_specs("grad_cam,occlusion(window=64, stride=32)")
    ['grad_cam', 'occlusion(window=64, stride=32)']
    """
    parts, depth, quote = [""], 0, ""
    for character in text:
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"":
            quote = character
        elif character in "([{":
            depth += 1
        elif character in ")]}":
            depth -= 1
        elif character == "," and depth == 0:
            parts.append("")
            continue
        parts[-1] += character
    specs = [part.strip() for part in parts]
    if not all(specs):
        raise ArgumentError(f"expected methods between the commas of --method, got {text!r}")
    return specs


def _style(overlay_format: str, colormap: str | None, panel: bool) -> Style | None:
    from visxai.workers import Style

    if overlay_format != "none":
        return Style(overlay_format.lower(), colormap, panel)
    if colormap is not None or panel:
        raise ArgumentError(
            "expected --colormap and --panel with overlays, got --overlay-format none: leave "
            "one of them out"
        )
    return None


@contextmanager
def _stopping() -> Iterator[list[int]]:
    """A list that fills when the process is asked to stop; asked twice, it stops at once."""
    asked: list[int] = []

    def ask(number: int, _: object) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)
        sys.stderr.write("\nStopping after this batch; once more stops at once.\n")

    signals = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(one, ask) for one in signals]
    try:
        yield asked
    finally:
        for one, handler in zip(signals, before, strict=True):
            signal.signal(one, handler)
