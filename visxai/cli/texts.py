"""The part of `visxai explain` that is about texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from visxai.cli.base import command_line, stopping

_IMAGES = "grad_cam"  # the default method of images, which no text has


def is_text(model: str, text_column: str | None) -> bool:
    """Tell whether a run is about texts: it names their column, or a model of texts."""
    if text_column is not None:
        return True
    from visxai.models.cards import folder

    return ":" not in model and (folder() / "text" / f"{model}.toml").is_file()


def explain_texts(
    sources: Sequence[str],
    out: str,
    *,
    model: str,
    method: Sequence[str],
    labels: str | None,
    device: str,
    batch_size: int | None,
    **options: Any,
) -> int:
    """Explain texts into OUT, and return the exit code.

    Args:
        sources: Tables, lines of JSON, and "-".
        out: The folder for the results.
        model: The model's name; that of images by default is read as "toxicity".
        method: Specs of methods.
        labels: A file of labels.
        device: Where the model runs.
        batch_size: Texts of one forward.
        options: Further arguments of `visxai.text.run.explain`.
    """
    from visxai.cli import terminal
    from visxai.models.cards import DEFAULT

    with terminal.working("Loading the model"):
        from visxai.text.engine import Engine
        from visxai.text.loading import DEFAULT as TOXICITY
        from visxai.text.run import explain

        named = TOXICITY if model == DEFAULT else model
        engine = Engine(named, labels=labels, device=device, batch_size=batch_size or 64)
    command = command_line("--fresh", "--retry-failures")
    specs = "integrated_gradients" if list(method) == [_IMAGES] else ",".join(method)
    with stopping() as asked, terminal.Watch("text") as watch:
        outcome = explain(
            sources,
            out,
            engine,
            specs,
            command=command,
            progress=watch,
            stop=lambda: bool(asked),
            **options,
        )
    terminal.summary(outcome, command)
    if not outcome.complete:
        return 130
    return 1 if outcome.failed else 0
