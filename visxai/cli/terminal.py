"""The output of the command line: results on stdout, progress on stderr."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from visxai.foreign import for_terminal, shown

if TYPE_CHECKING:
    from visxai.compare.comparison import Comparison, Gate
    from visxai.evaluate.evaluation import Evaluation
    from visxai.govern.groups import Fairness
    from visxai.govern.windows import Drift
    from visxai.pipeline.progress import Outcome, Progress
    from visxai.report.gallery import Report
    from visxai.results.exports import Export

_EVERY = 10.0  # seconds between lines where there is no terminal
_NOUNS = {
    "text": "text",
    "table": "row",
    "pair": "pair",
}  # what runs that aren't over images are over
_SMALL = 20  # images whose labels are listed at the end of a run


def output() -> Console:
    """Make the console that commands print their results to."""
    return Console(highlight=False, soft_wrap=False)


def _err() -> Console:
    return Console(stderr=True, highlight=False)


@contextmanager
def working(what: str) -> Iterator[None]:
    """Show a spinner while the context lasts; print nothing without a terminal."""
    with _err().status(f"{what} ..."):
        yield


@contextmanager
def counting(what: str) -> Iterator[Callable[[int, int], None]]:
    """Show a spinner with a count while the context lasts; print nothing without a terminal.

    Yields:
        A function of the finished and the total number, which updates the count.
    """
    with _err().status(f"{what} ...") as status:

        def tell(done: int, total: int) -> None:
            status.update(f"{what} ... {done}/{total}")

        yield tell


class Watch:
    """The display of a run's progress: a bar on a terminal, elsewhere a line every ten seconds."""

    def __init__(self, noun: str = "image") -> None:
        """Make the display of a run over images, or over another kind of input."""
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            SpinnerColumn,
            TextColumn,
            TimeElapsedColumn,
        )
        from rich.progress import Progress as Bar

        self.noun, self.console = noun, _err()
        self.bar = Bar(
            SpinnerColumn(),
            MofNCompleteColumn(),
            BarColumn(bar_width=None),
            TimeElapsedColumn(),
            TextColumn("{task.fields[told]}"),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self.task = self.bar.add_task("", total=None, told="")
        self.last = time.perf_counter()

    def __enter__(self) -> Watch:
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def __call__(self, progress: Progress) -> None:
        """Show a run's progress."""
        told = speed(progress.rate, self.noun) if progress.rate else "the first batch"
        if progress.remaining and progress.done < progress.images:
            told += f", {duration(progress.remaining)} left"
        if progress.failures:
            told += f", {progress.failures} failed"
        done = progress.done + progress.part
        self.bar.update(self.task, total=progress.images, completed=done, told=told)
        now = time.perf_counter()
        if not self.console.is_terminal and now - self.last >= _EVERY:
            self.last = now
            self.console.print(
                f"{progress.done}/{progress.images} {self.noun}s, {told}", soft_wrap=True
            )


def summary(outcome: Outcome, command: str) -> None:
    """Print what a run has written, and where.

    Args:
        outcome: The run's outcome.
        command: The command line that continues the run.
    """
    from visxai.results import reading

    console, counts, run = output(), outcome.counts, outcome.progress
    if counts["maps"] and counts["images"] <= _SMALL and outcome.complete:
        console.print(top_labels(list(reading.read(outcome.out))))
    done = (run.done if outcome.complete else counts["finished"]) - run.before
    settings = (reading.about(outcome.out) or {})["settings"]
    noun = _NOUNS.get(settings.get("kind"), "image")
    told = f"{counted(done, noun)} in {duration(run.seconds)}"
    if done:
        told += f", {speed(run.rate, noun)}, on {settings['device']} in {settings['precision']}"
    if run.before:
        told += f"; {run.before} {'was' if run.before == 1 else 'were'} done before"
    console.print(told, soft_wrap=True)
    if "scored" in counts:
        console.print(
            f"{counted(counts['scored'], noun)} scored, {counts['explained']} of them "
            f"explained, as --only asks; the scores of all: visxai.results.scores("
            f"{for_terminal(repr(str(_near(outcome.out))))})",
            soft_wrap=True,
        )
    if counts.get("labelled"):
        console.print(
            f"The model got {counts['right']} of {counts['labelled']} right "
            f"({100 * counts['right'] / counts['labelled']:.1f} %), by the {noun}s' labels",
            soft_wrap=True,
        )
    if outcome.changed:
        console.print(
            f"[yellow]{counted(outcome.changed, noun)} changed after being explained: --fresh "
            "explains all again[/yellow]",
            soft_wrap=True,
        )
    out = _near(outcome.out)
    table = Table.grid(padding=(0, 2))
    where = [(counted(counts["maps"], "row"), "explanations", f"visxai.results.read({str(out)!r})")]
    if (outcome.out / "overlays").is_dir() and any((outcome.out / "overlays").iterdir()):
        where.append(("overlays", "overlays", ""))
    if counts["failures"]:
        others = counts["failures"] - len(outcome.failed)
        told = f"{others} of earlier sources" if others else ""
        where.append((counted(counts["failures"], "failure"), "failures.parquet", told))
    for what, name, how in where:
        table.add_row(what, for_terminal(str(out / name)), f"[dim]{for_terminal(how)}[/dim]")
    console.print(table)
    told = _checked(outcome.out)
    if told:
        console.print(told, soft_wrap=True)
    _failures(outcome, console)
    if not outcome.complete:
        console.print(
            f"Stopped: {counts['finished']} of {counts['images']} {noun}s are finished and kept; "
            f"go on with: {for_terminal(command)}",
            soft_wrap=True,
        )


def _checked(out: Path) -> str:
    """Describe how many maps passed the check of faithfulness; return "" for a run without it."""
    from visxai.results import reading

    if not ((reading.about(out) or {}).get("settings", {}).get("check") or "").startswith("faith"):
        return ""
    told = [one for table in reading.tables(out, ["quality"]) for one in table[0].to_pylist()]
    passed = sum(json.loads(quality).get("faithful") is True for quality in told)
    return f"{passed} of {counted(len(told), 'map')} passed the check of faithfulness"


def evaluation(found: Evaluation, command: str) -> None:
    """Print the table of an evaluation, and where its other results are.

    Args:
        found: The evaluation.
        command: The command line that continues it.
    """
    from visxai.evaluate import pages

    console, outcome = output(), found.outcome
    if found.summary is None:
        console.print(
            f"Stopped: {outcome.counts['finished']} of {outcome.counts['images']} images are "
            f"finished and kept; go on with: {for_terminal(command)}",
            soft_wrap=True,
        )
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    columns, rows = pages.overview(found.summary)
    for name in columns:
        table.add_column(Text(shown(name)), overflow="fold")
    # If the table is too wide with intervals, each metric gets a table of its own.
    wide = sum(max(map(len, column)) + 2 for column in zip(columns, *rows, strict=True))
    if wide > console.width:
        for place, name in enumerate(columns[1:], 1):
            one = Table(box=None, header_style="bold", pad_edge=False)
            for heading in (columns[0], name):
                one.add_column(Text(shown(heading)), overflow="fold")
            for row in rows:
                one.add_row(for_terminal(row[0]), for_terminal(row[place]))
            console.print(one, "")
    else:
        for row in rows:
            table.add_row(*map(for_terminal, row))
        console.print(table)
    console.print(
        f"{counted(found.summary['images'], 'image')}; intervals, ranks, curves and examples: "
        f"{placed(outcome.out / 'evaluation.html')}",
        soft_wrap=True,
    )
    _failures(outcome, console)


def _failures(outcome: Outcome, console: Console) -> None:
    """Print the first five failures of a run, and how many more there are."""
    for one in outcome.failed[:5]:
        console.print(f"  [red]failed[/red] {for_terminal(one.reason)}", soft_wrap=True)
    if len(outcome.failed) > 5:
        console.print(f"  and {len(outcome.failed) - 5} more")


def top_labels(explanations: list[Any]) -> Table:
    """Make a table of images with the label and score of each explanation, and its methods."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    noun = _NOUNS.get(explanations[0].kind, "image") if explanations else "image"
    table.add_column(noun.capitalize(), overflow="fold", max_width=48)
    table.add_column("Label", overflow="fold")
    table.add_column("Score", justify="right")
    table.add_column("Methods", overflow="fold", style="dim")
    from visxai.images import address

    rows: dict[tuple[str, str, str], list[str]] = {}
    # Absolute paths would leave no room: leave out the folders that all share.
    folders = [os.path.dirname(one.input.path) for one in explanations]
    plain = not any(address.remote(folder) for folder in folders)
    try:
        shared = os.path.commonpath(folders) if plain else ""
    except ValueError:  # they lie on several drives, or only some are absolute
        plain, shared = False, ""
    for one in explanations:
        path = os.path.relpath(one.input.path, shared) if plain else one.input.path
        name = one.method.partition("(")[0] + (" (flat map)" if one.degenerate else "")
        rows.setdefault((path, one.label, f"{one.score:.3f}"), []).append(name)
    for (path, label, score), names in rows.items():
        table.add_row(*map(for_terminal, (path, label, score, ", ".join(names))))
    return table


def gallery(made: Report) -> None:
    """Print where a gallery is, and what it lacks."""
    console, told = output(), counted(made.shown, "explanation")
    if made.shown < made.rows:
        told = f"{made.shown} of {counted(made.rows, 'explanation')}"
    console.print(
        f"{told} in {placed(made.path)}: open it in a browser",
        soft_wrap=True,
    )
    if made.missing:
        console.print(
            f"[yellow]{counted(made.missing, 'original')} gone or changed since: shown without "
            "photograph[/yellow]",
            soft_wrap=True,
        )


def compared(found: Comparison, gates: Sequence[Gate], page: Path) -> None:
    """Print what differs between two runs, what was required, and where the page is."""
    console, mean, share = output(), found.agreement, found.changes
    console.print(
        f"{counted(len(found.pairs), 'input')} in both; mean agreement {mean.value:.3f} "
        f"({mean.low:.3f} to {mean.high:.3f}); {counted(found.changed, 'decision')} changed, "
        f"{share.value:.1%} ({share.low:.1%} to {share.high:.1%})",
        soft_wrap=True,
    )
    for gate in gates:
        verdict = "[green]passed[/green]" if gate.passed else "[red]failed[/red]"
        console.print(f"{verdict}  {gate.name}: {gate.said}", soft_wrap=True)
    console.print(f"What changed most: {placed(page)}", soft_wrap=True)


def drifted(found: Drift) -> None:
    """Print each window with the p-value of each side, and what moved where a side alarms."""
    console = output()
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("window", "from", "items", "input", "score", "explanation", "moved most"):
        table.add_column(name, overflow="fold")
    for number, window in enumerate(found.windows, 1):
        cells = []
        for side in ("input", "score", "explanation"):
            if side in window.q:
                said = f"{window.q[side]:.3f}"
                cells.append(f"[red]{said}[/red]" if side in window.alarms else said)
            else:
                cells.append("–")
        moved = [
            f"{one.name} {one.before:.3g} → {one.after:.3g}"
            for side in window.alarms
            for one in window.sides[side].columns[:2]
        ]
        said = for_terminal(", ".join(moved))
        table.add_row(str(number), window.first[:19], str(window.n), *cells, said)
    console.print(table)
    console.print(
        f"{found.alarms} of {counted(len(found.windows), 'window')} drifted; p-values adjusted for "
        f"the sides, {found.reference} items of reference, level {found.level:g}",
        soft_wrap=True,
    )


def gaps(found: Fairness) -> None:
    """Print the gaps that chance doesn't explain, and the groups that are too small."""
    console = output()
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("group", "figure", "n", "mean", "others", "gap (95 % interval)", "p"):
        table.add_column(name, overflow="fold")
    for gap in found.findings[:_SMALL]:
        interval = f"{gap.gap:+.3f} ({gap.low:+.3f} to {gap.high:+.3f})"
        table.add_row(
            for_terminal(gap.group),
            for_terminal(gap.figure),
            str(gap.n),
            f"{gap.mean:.3f}",
            f"{gap.others:.3f}",
            interval,
            f"{gap.p:.3f}",
        )
    if found.findings:
        console.print(table)
    warned = {gap.group: gap.warning for gap in found.gaps if gap.warning}
    for group, warning in warned.items():
        console.print(f"[yellow]{for_terminal(group)}: {warning}[/yellow]", soft_wrap=True)
    console.print(
        f"{counted(len(found.findings), 'gap')} between groups of {for_terminal(found.attribute)} "
        f"that chance doesn't explain, at level {found.level:g}; "
        f"{counted(found.unknown, 'item')} without a group",
        soft_wrap=True,
    )


def exported(made: Export) -> None:
    """Print where an export is, and what it lacks."""
    console = output()
    console.print(
        f"{counted(made.written, 'explanation')} in {placed(made.path)}",
        soft_wrap=True,
    )
    if made.left_out:
        console.print(
            f"[yellow]{counted(made.left_out, 'explanation')} left out: the original is gone or "
            "has changed[/yellow]",
            soft_wrap=True,
        )


def counted(number: int, noun: str) -> str:
    """Format a number with its noun: "1 image", "2 images"."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def duration(seconds: float) -> str:
    """Format a duration: "12 s", "3 min 20 s", "5 h 02 min"."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def speed(rate: float, noun: str = "image") -> str:
    """Format a rate in images a second: "12.3 images/s", or "45 s an image" below 1."""
    article = "an" if noun[0] in "aeiou" else "a"
    return f"{rate:.1f} {noun}s/s" if rate >= 1 else f"{duration(1 / rate)} {article} {noun}"


def placed(path: str | Path) -> str:
    """Format a path for the terminal, relative to the current folder if it lies below it."""
    return for_terminal(_near(Path(path)))


def _near(path: Path) -> Path:
    """Make a path relative to the current folder if it lies below it."""
    try:
        return path.relative_to(Path.cwd())
    except ValueError:
        return path
