"""What the commands share: options that read alike everywhere, early checks, a way to stop."""

from __future__ import annotations

import shlex
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from visxai.errors import ArgumentError

# What was typed after `visxai`.
given: list[str] = []

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


def command_line(*without: str) -> str:
    """What was typed, quoted for the system's own shell, less some words."""
    words = ["visxai", *(word for word in given if word not in without)]
    # Windows' shells know no single quotes.
    return subprocess.list2cmdline(words) if sys.platform == "win32" else shlex.join(words)


def check_specs(
    methods: Iterable[str],
    target: str | None,
    *,
    only: str | None = None,
    check: str | None = None,
    metrics: Iterable[str] = (),
) -> None:
    """Raise what can be told of specs, target and gate before a model is loaded."""
    from visxai import terminal

    with terminal.working("Loading PyTorch"):
        from visxai import methods as all_methods
        from visxai import metrics as all_metrics
        from visxai.target import check_form

    for spec in methods:
        all_methods.load(spec)
    for spec in metrics:
        all_metrics.load(spec)
    if check is not None:
        all_metrics.load_check(check)
    check_form(target, only)


def split_specs(text: str, option: str = "--method") -> list[str]:
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
        raise ArgumentError(f"expected specs between the commas of {option}, got {text!r}")
    return specs


@contextmanager
def stopping() -> Iterator[list[int]]:
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
