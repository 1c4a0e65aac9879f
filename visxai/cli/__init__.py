"""The command line, which turns arguments into an exit code; `terminal` and `catalogue` print.

Each file holds the commands of one subject. Exit codes: 0 all done, 1 some image (or the machine)
failed, 2 wrong arguments, 130 interrupted. Nothing heavy is imported before a command runs.
"""

from __future__ import annotations

import copy
import io
import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

import visxai
from visxai.cli import (
    audit,
    bench,
    compare,
    concepts,
    debug,
    demo,
    detect,
    evaluate,
    explain,
    govern,
    hello,
    listings,
    match,
    outputs,
    package,
    recommend,
    serve,
    wording,
)
from visxai.cli.base import alone, given
from visxai.errors import OutOfMemory, VisxaiError
from visxai.foreign import shown
from visxai.process import collect_rarely, forget_objects

app = typer.Typer(
    help="Which pixels made the model say that? Saliency maps for any vision model, in batches.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


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


# The commands, in the order of `visxai --help`.
app.command()(hello.hello)
app.command(cls=explain.PerhapsRay)(explain.explain)
app.add_typer(listings.models_app, name="models")
app.add_typer(audit.audit_app, name="audit")
for command in (
    listings.methods,
    listings.metrics,
    bench.bench,
    evaluate.evaluate,
    recommend.recommend,
    detect.detect,
    match.match,
    compare.compare,
    debug.debug,
    outputs.report,
    outputs.export,
    outputs.letters,
    concepts.concepts,
    concepts.nearest,
    package.package,
    demo.demo,
    serve.serve,
    serve.worker,
    listings.doctor,
):
    app.command()(command)
app.add_typer(govern.app, name="govern")


def _narrowed(words: Sequence[str]) -> typer.Typer:
    """Return an app with the one command that comes first in `words`, else the whole app.

    Typer builds the options of all commands before it runs one, which takes a tenth of a second.
    """
    named = words[0] if words else ""
    commands = [c for c in app.registered_commands if c.callback and c.callback.__name__ == named]
    groups = [group for group in app.registered_groups if group.name == named]
    if not commands and not groups:
        return app
    narrow = copy.copy(app)
    narrow.registered_commands, narrow.registered_groups = commands, groups
    return narrow


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line, and exit with its exit code.

    Args:
        arguments: The words after `visxai`; None takes them from `sys.argv`.

    Raises:
        SystemExit: With the exit code.
        Exception: The command's error itself, with --debug.
    """
    given[:] = sys.argv[1:] if arguments is None else arguments
    alone[:] = [arguments is None]
    if arguments is None:
        collect_rarely()
    for stream in (sys.stdout, sys.stderr):
        # On Windows a pipe has the locale's code page: characters that it lacks are escaped, as
        # are stray bytes of a file's name, rather than ending the run.
        if isinstance(stream, io.TextIOWrapper) and stream.errors in ("strict", "surrogateescape"):
            stream.reconfigure(errors="backslashreplace")
    try:
        code = _narrowed(given)(given, prog_name="visxai", standalone_mode=False)
    except Exception as error:
        if "--debug" in given:
            raise
        code = _told(error)
    if arguments is None:
        forget_objects()
    sys.exit(code if isinstance(code, int) else 0)


def _told(error: Exception) -> int:
    """Print an error as one sentence on standard error, and return the exit code."""
    if isinstance(error, BrokenPipeError):
        # The reader of a pipe has closed it, as `head` does: nothing can be flushed to it any more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    code = 1
    if isinstance(error, VisxaiError):
        sentence, code = wording.sentence(error), 1 if isinstance(error, OutOfMemory) else 2
    elif hasattr(error, "format_message"):  # typer's own
        sentence, code = error.format_message().rstrip("."), getattr(error, "exit_code", 2)
        if not sentence:  # a group without a command, such as `visxai govern`: its help is printed
            return code
        context = getattr(error, "ctx", None)
        if context is not None:
            sentence += f" (see {context.command_path} --help)"
    elif isinstance(error, typer.Abort):
        sentence = "interrupted"
    else:
        first = (str(error).strip() or "no more is known").splitlines()[0]
        sentence = f"{type(error).__name__}: {first} (run it again with --debug to see where)"
    # The sentence may quote a name from a stranger's file: escape control characters.
    sys.stderr.write(f"visxai: {shown(' '.join(sentence.split()))}\n")
    return code
