"""The parts that commands share: common options, early checks, and interruption by signals."""

from __future__ import annotations

import shlex
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from visxai.errors import ArgumentError
from visxai.spec import split_specs

if TYPE_CHECKING:
    from visxai.engine.engine import Engine
    from visxai.images.preprocess import Preprocess

# The words typed after `visxai`.
given: list[str] = []
# Whether the process is the command's own: the last `main` took the words from `sys.argv`.
alone: list[bool] = []

ModelName = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        rich_help_panel="Model",
        metavar="NAME",
        help="A name from `visxai models`, torchvision:NAME, timm:NAME, hf:NAME, onnx:FILE or "
        "keras:FILE.",
    ),
]
Fresh = Annotated[
    bool,
    typer.Option(
        "--fresh/--resume",
        rich_help_panel="Results",
        help="Delete the results in the --out folder and start over, or go on where an "
        "earlier run stopped.",
    ),
]
Device = Annotated[
    str,
    typer.Option(
        "--device",
        rich_help_panel="Machine",
        metavar="NAME",
        help="auto, cpu, cuda, cuda:1 or mps; auto takes a GPU.",
    ),
]
Precision = Annotated[
    str,
    typer.Option(
        "--precision",
        rich_help_panel="Machine",
        metavar="NAME",
        help="Of the model: auto, fp32, bf16 or fp16; auto is the fastest of this device. "
        "Maps are float32 always.",
    ),
]
Accelerate = Annotated[
    str,
    typer.Option(
        "--accelerate",
        rich_help_panel="Machine",
        metavar="NAME",
        help="auto, off, onnx, openvino or compile: faster forms of what needs no graph, prepared "
        "once; auto prepares them when the run is long enough to earn it back.",
    ),
]
BatchSize = Annotated[
    int | None,
    typer.Option(
        "--batch-size",
        "-b",
        rich_help_panel="Machine",
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
        rich_help_panel="Model",
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
        rich_help_panel="Model",
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
        rich_help_panel="Model",
        metavar="FILE",
        help="Your own weights for --model timm:NAME or torchvision:NAME. "
        "[dim]\\[default: the library's][/dim]",
        show_default=False,
    ),
]
Size = Annotated[
    str | None,
    typer.Option(
        "--size",
        rich_help_panel="Preprocessing",
        metavar="N",
        help="Preprocessing, where the model has none of its own (onnx:FILE, keras:FILE) or "
        "another: the input's side in pixels, or HEIGHTxWIDTH. A card beside such a file, "
        "model.toml next to model.onnx, does as well. [dim]\\[default: the model's own][/dim]",
        show_default=False,
    ),
]
Resize = Annotated[
    str | None,
    typer.Option(
        "--resize",
        rich_help_panel="Preprocessing",
        metavar="N",
        help="With --size: what photographs are resized to before the crop, their short side or "
        "HEIGHTxWIDTH. [dim]\\[default: the short side at the longer side of --size][/dim]",
        show_default=False,
    ),
]
Mean = Annotated[
    str | None,
    typer.Option(
        "--mean",
        rich_help_panel="Preprocessing",
        metavar="R,G,B",
        help="With --size: what is taken off pixels in 0..1; one number for a model of greys. "
        "[dim]\\[default: 0,0,0][/dim]",
        show_default=False,
    ),
]
Std = Annotated[
    str | None,
    typer.Option(
        "--std",
        rich_help_panel="Preprocessing",
        metavar="R,G,B",
        help="With --size: what they are divided by then. [dim]\\[default: 1,1,1][/dim]",
        show_default=False,
    ),
]
Interpolation = Annotated[
    str | None,
    typer.Option(
        "--interpolation",
        rich_help_panel="Preprocessing",
        metavar="NAME",
        help="With --size: nearest, bilinear, bicubic, lanczos or box. "
        "[dim]\\[default: bilinear][/dim]",
        show_default=False,
    ),
]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


def command_line(*without: str) -> str:
    """Return the typed command, quoted for the system's shell, without the given words."""
    return quoted(["visxai", *(word for word in given if word not in without)])


def quoted(words: list[str]) -> str:
    """Join a command's words, quoted for the system's shell."""
    # The shells of Windows know no single quotes.
    return subprocess.list2cmdline(words) if sys.platform == "win32" else shlex.join(words)


def preprocess_of(
    size: str | None,
    resize: str | None,
    mean: str | None,
    std: str | None,
    interpolation: str | None,
) -> Preprocess | None:
    """Make the preprocessing that the options describe.

    Args:
        size: The input's side in pixels, or HEIGHTxWIDTH.
        resize: The size before the crop: the short side in pixels, or HEIGHTxWIDTH.
        mean: The mean of each channel, with commas between them, for pixels in 0..1.
        std: The standard deviation of each channel, likewise.
        interpolation: The interpolation's name.

    Returns:
        The preprocessing, None if no option is given.

    Raises:
        ArgumentError: If an option is malformed, or another one is given without a size.
    """
    from visxai.images.preprocess import Preprocess

    others = {"--resize": resize, "--mean": mean, "--std": std, "--interpolation": interpolation}
    if size is None:
        given = [name for name, value in others.items() if value is not None]
        if given:
            raise ArgumentError(
                f"expected --size with {given[0]}, got none: say the model's input size, such as "
                "--size 224"
            )
        return None
    sides = _sides(size, "--size")
    height, width = sides * 2 if len(sides) == 1 else sides
    resized = (max(height, width),) if resize is None else _sides(resize, "--resize")
    moments: dict[str, Any] = {
        name: _numbers(value, f"--{name}")
        for name, value in (("mean", mean), ("std", std))
        if value is not None
    }
    return Preprocess(
        size=(height, width),
        resize=resized[0] if len(resized) == 1 else (resized[0], resized[1]),
        interpolation=interpolation or "bilinear",
        **moments,
    )


def _sides(text: str, option: str) -> tuple[int, ...]:
    """Parse a side, or height and width, in pixels."""
    parts = text.lower().replace("×", "x").split("x")
    if len(parts) > 2 or not all(part.strip().isdecimal() for part in parts):
        raise ArgumentError(f"expected pixels for {option}, got {text!r}: write 224 or 224x320")
    return tuple(int(part) for part in parts)


def _numbers(text: str, option: str) -> tuple[float, ...]:
    """Parse numbers with commas between them."""
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise ArgumentError(
            f"expected numbers for {option}, got {text!r}: write 0.485,0.456,0.406"
        ) from None


def check_specs(
    methods: Iterable[str],
    target: str | None,
    *,
    only: str | None = None,
    check: str | None = None,
    metrics: Iterable[str] = (),
) -> None:
    """Check specs, target and gate as far as that is possible before the model is loaded.

    Args:
        methods: Specs of methods.
        target: The target, None for no check.
        only: The gate, None for no check.
        check: The spec of a metric that judges each map, None for no check.
        metrics: Specs of metrics.

    Raises:
        ArgumentError: If a spec, the target or the gate is wrong.
    """
    from visxai.cli import terminal

    with terminal.working("Loading PyTorch"):
        from visxai import methods as all_methods
        from visxai import metrics as all_metrics
        from visxai.engine.gate import check_form

    for spec in methods:
        all_methods.load(spec)
    for spec in metrics:
        all_metrics.load(spec)
    if check is not None:
        all_metrics.load_check(check)
    check_form(target, only)


def load_judged(
    paths: list[str],
    out: str,
    methods: Iterable[str],
    metrics: str,
    target: str | None,
    **making: Any,
) -> tuple[Engine, list[str], list[str]]:
    """Check what is to be judged on which images, then load the engine.

    Args:
        paths: Images, and folders of them.
        out: The folder of results, "" for none.
        methods: Specs of methods, several in one text with commas between them.
        metrics: Specs of metrics, likewise.
        target: The target, None for no check.
        **making: The arguments of the engine.

    Returns:
        The engine, and the specs of methods and of metrics one by one.

    Raises:
        VisxaiError: If one of them is wrong, or the model can't be loaded.
    """
    from visxai.cli import terminal
    from visxai.images import sources

    wanted = [spec for text in methods for spec in split_specs(text, "--methods")]
    judged = split_specs(metrics, "--metrics")
    sources.check(paths, out)
    check_specs(wanted, target, metrics=judged)
    with terminal.working("Loading the model"):
        from visxai.engine.engine import Engine

        return Engine(**making), wanted, judged


@contextmanager
def stopping() -> Iterator[list[int]]:
    """Catch the signals that stop the process (SIGINT, SIGTERM) while the context lasts.

    Yields:
        A list that is empty until the first signal. A second signal raises KeyboardInterrupt.
    """
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
