"""The part of `visxai explain` that is about a video."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import typer

from visxai.cli.base import stopping
from visxai.errors import ArgumentError
from visxai.foreign import for_terminal, shown


def is_video(paths: Sequence[str]) -> bool:
    """Tell whether the sources are videos, by their endings."""
    from visxai.video.frames import ENDINGS

    return any(path.lower().endswith(ENDINGS) for path in paths)


def explain_video(
    paths: Sequence[str],
    out: str,
    *,
    making: Mapping[str, Any],
    method: Sequence[str],
    target: str,
    every: int | None,
    smooth: float | None,
    limit_pixels: int,
    timeout: float | None,
    unused: Mapping[str, bool],
    **options: Any,
) -> int:
    """Explain a video into OUT, and return the exit code.

    Args:
        paths: The sources of the command line.
        out: The folder for the results.
        making: The engine's arguments.
        method: Specs of methods.
        target: What to explain.
        every: The distance between two frames.
        smooth: The time constant of drawn maps, in seconds.
        limit_pixels: The most pixels of a frame.
        timeout: Seconds that decoding a few frames may take.
        unused: Options that mean nothing for a video, and whether they were given.
        options: Further arguments of `visxai.video.explain`.

    Raises:
        ArgumentError: There are several sources, or an option that means nothing for a video.
    """
    if len(paths) != 1:
        raise ArgumentError(
            f"expected one video and nothing else, got {len(paths)} sources: run it for each"
        )
    wrong = [name for name, given in unused.items() if given]
    if wrong:
        raise ArgumentError(f"expected options for a video, got {', '.join(wrong)}: leave that out")
    if not os.path.exists(paths[0]):
        raise ArgumentError(f"expected a video, got no such file: {shown(paths[0])}")
    from visxai.cli import terminal

    with terminal.working("Loading the model"):
        from visxai.engine.engine import Engine
        from visxai.images.decoding import Limits
        from visxai.video.run import SECONDS, explain

        engine = Engine(**making)
    with stopping() as asked, terminal.counting("Explaining frames") as progress:
        made = explain(
            paths[0],
            out,
            engine,
            list(method),
            target,
            every=every or 1,
            smooth=smooth or 0.0,
            limits=Limits(max_pixels=limit_pixels),
            timeout=SECONDS if timeout is None else timeout,
            progress=progress,
            stop=lambda: bool(asked),
            **options,
        )
    typer.echo(
        f"{terminal.counted(made.frames, 'frame')} explained; rows in {for_terminal(str(made.out))}"
        f"/frames.parquet, video in {for_terminal(str(made.out))}/overlay.mp4"
    )
    if made.stopped:
        typer.echo("visxai: stopped; the same command goes on from here", err=True)
    if made.problem is not None:
        typer.echo(f"visxai: {for_terminal(made.problem)}", err=True)
    return 130 if made.stopped else 1 if made.problem else 0
