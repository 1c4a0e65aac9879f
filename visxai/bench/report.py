"""Reports of measurements: reading, comparison, and output as tables, Markdown and plots."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from visxai.errors import ArgumentError, MissingExtra, StoreError, require
from visxai.foreign import shown

if TYPE_CHECKING:
    from rich.table import Table

Report = Mapping[str, Any]
# Okabe and Ito's colours, which people who see few colours can tell apart; a form's kind of line.
_COLOURS = ["#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#000000", "#B8A800"]
_STYLES = [("-", "o"), ("--", "s"), (":", "^"), ("-.", "D"), ((0, (1, 3)), "v"), ((0, (6, 3)), "x")]
_SMALLEST = 0.03  # changes below 3 % count as noise, however small the spreads are


@dataclass(frozen=True)
class Change:
    """The change of a case's median seconds between two reports.

    Attributes:
        method: The spec of the method.
        batch: The batch size.
        accelerate: The kind of acceleration.
        precision: The precision.
        ratio: New seconds over old seconds.
        noise: The relative change that noise explains.
        model: The model's name, in a report of several.
    """

    method: str
    batch: int
    accelerate: str
    precision: str
    ratio: float
    noise: float
    model: str = ""

    @property
    def slower(self) -> bool:
        """Return whether the case became slower beyond noise."""
        return self.ratio > 1 + self.noise

    @property
    def faster(self) -> bool:
        """Return whether the case became faster beyond noise."""
        return self.ratio < 1 / (1 + self.noise)

    def __str__(self) -> str:
        word = "slower" if self.slower else "faster" if self.faster else "as fast"
        of = f"{self.model}: " if self.model else ""
        return (
            f"{of}{self.method}, batch {self.batch}, {self.accelerate}, {self.precision}: {word}, "
            f"{self.ratio:.2f} times the seconds (noise ±{100 * self.noise:.0f} %)"
        )


def read(path: str | Path) -> dict[str, Any]:
    """Read a report that was written as JSON; raise ArgumentError for anything else."""
    try:
        found = json.loads(Path(path).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ArgumentError(
            f"expected a report of `visxai bench` in {path}, got {_reason(error)}: check the path"
        ) from None
    if not isinstance(found, dict) or found.get("visxai_bench") != 1:
        raise ArgumentError(
            f"expected a report of `visxai bench` in {path}, got something else: write one with "
            "`visxai bench --out`"
        )
    return found


def _reason(error: OSError | ValueError) -> str:
    """Say in words why a file couldn't be read."""
    if isinstance(error, OSError):
        return (error.strerror or str(error)).lower()
    return "something that isn't JSON"


def compare(new: Report, old: Report) -> tuple[list[Change], list[str]]:
    """Compare the cases that two reports share.

    A change is more than noise when the ratio of the medians leaves 1 by more than both
    interquartile ranges, each over its median, taken together (root of the sum of squares).

    Returns:
        The changes, the largest slowdown first, and sentences about differences between the two
        measurements that may explain them.
    """
    before = {_key(case): case for case in old["cases"]}
    changes = []
    for case in new["cases"]:
        earlier = before.get(_key(case))
        if earlier is None:
            continue
        parts = [_relative_spread(one["seconds"]) for one in (case, earlier)]
        noise = max(_SMALLEST, sum(part**2 for part in parts) ** 0.5)
        changed = case["seconds"]["median"] / earlier["seconds"]["median"]
        model, method, batch, how, precision = _key(case)
        changes.append(Change(method, batch, how, precision, changed, noise, model))
    changes.sort(key=lambda change: -change.ratio)
    return changes, _cautions(new, old, changes)


def _key(case: Mapping[str, Any]) -> tuple[str, str, int, str, str]:
    return (
        case.get("model", ""),
        case["method"],
        case["batch"],
        case["accelerate"],
        case["precision"],
    )


def _relative_spread(seconds: Mapping[str, float]) -> float:
    return (seconds["high"] - seconds["low"]) / seconds["median"]


def _cautions(new: Report, old: Report, changes: Sequence[Change]) -> list[str]:
    told = []
    if not changes:
        told.append("the reports have no case in common")
    told += [
        f"{name} was {old[name]}, is {new[name]}"
        for name in ("model", "weights_sha256", "device", "input")
        if new[name] != old[name]
    ]
    here, there = new["environment"], old["environment"]
    told += [
        f"{name} was {there.get(name)}, is {here.get(name)}"
        for name in sorted({*here, *there})
        if here.get(name) != there.get(name)
    ]
    told += [
        f"the plain forward of batch {change.batch} takes {change.ratio:.2f} times as long itself: "
        "the machine may have been busier"
        for change in changes
        if change.method == "forward" and change.slower
    ]
    return told


def tell(
    report: dict[str, Any], earlier: Report | None, out: str | Path | None, command: str
) -> int:
    """Print a report and what changed since an earlier report, and write it to files.

    Args:
        report: The report.
        earlier: A report to compare with, or None.
        out: The path of the JSON file, beside which the summary and the plot are written; None
            writes nothing.
        command: The command line, for the written report.

    Returns:
        The exit code, 1 if a case became slower beyond noise.
    """
    from rich.console import Console

    console = Console(highlight=False)
    console.print(heading(report), soft_wrap=True)
    if not report["device"].startswith("cuda"):
        console.print("No CUDA device is used: these are figures of the CPU.", style="dim")
    console.print(rich_table(report))
    for name, why in report["left_out"].items():
        # Without the method's options; the batch size stands behind them.
        brief = name.partition("(")[0] + name.rpartition(")")[2] * ("(" in name)
        console.print(f"left out: {brief}: {why}", soft_wrap=True, style="dim")
    changes, cautions = ([], []) if earlier is None else compare(report, earlier)
    slower = [change for change in changes if change.slower]
    if earlier is not None:
        for caution in cautions:
            console.print(f"note: {shown(caution)}", soft_wrap=True, style="yellow", markup=False)
        for change in changes:
            if change.slower or change.faster:
                style = "red" if change.slower else "green"
                console.print(shown(str(change)), soft_wrap=True, style=style, markup=False)
        if not slower:
            console.print("Nothing got slower beyond noise.")
    if out is not None:
        report = {"command": command, **report}
        for path in write(report, Path(out), changes, cautions):
            console.print(f"written: {path}", soft_wrap=True, markup=False)
    return 1 if slower else 0


def write(
    report: Report, path: Path, changes: Sequence[Change] = (), cautions: Sequence[str] = ()
) -> list[Path]:
    """Write a report as JSON, its summary beside it, and a plot if matplotlib is installed.

    Returns:
        The paths of the files.

    Raises:
        StoreError: A file can't be written.
    """
    summary, picture = path.with_suffix(".md"), path.with_suffix(".png")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(report, indent=1) + "\n", "utf-8")
        summary.write_text(markdown(report, changes, cautions), "utf-8")
        try:
            plots(report, picture)
        except MissingExtra:
            return [path, summary]
    except OSError as error:
        raise StoreError(
            f"expected to write {path}, got {(error.strerror or str(error)).lower()}: choose "
            "another --out"
        ) from None
    return [path, summary, picture]


# ---- tables, text and plots --------------------------------------------------------------------


def rows(report: Report) -> list[dict[str, str]]:
    """Format the cases as text for a table.

    "× forward" is the speed relative to the plain forward's, with its quartiles; "± %" is half the
    interquartile range of the seconds.
    """
    found = []
    several = len({case["precision"] for case in report["cases"]}) > 1
    specs = {case["method"] for case in report["cases"]}
    names = [spec.partition("(")[0] for spec in specs]
    for case in sorted(
        report["cases"], key=lambda one: (one.get("model", ""), one["batch"], one["method"])
    ):
        share, seconds = case["of_forward"], case["seconds"]
        peak, name = case["peak_mib"], case["method"].partition("(")[0]
        found.append(
            ({"model": case["model"]} if "model" in case else {})
            | {
                "method": case["method"] if names.count(name) > 1 else name,
                "batch": str(case["batch"]),
                "how": f"{case['accelerate']}, {case['precision']}"
                if several
                else case["accelerate"],
                "p50 ms": f"{1000 * case['p50']:.1f}",
                "p95 ms": f"{1000 * case['p95']:.1f}",
                "± %": f"{50 * _relative_spread(seconds):.0f}" if case["rounds"] > 1 else "-",
                "images/s": f"{case['images_per_second']:.1f}",
                "× forward": f"{share['median']:.2f}",
                "quartiles": f"{share['low']:.2f} to {share['high']:.2f}"
                if case["rounds"] > 1
                else "-",
                "peak MiB": "not measured" if peak is None else f"{peak:.0f}",
            }
        )
    return found


def _order(case: Mapping[str, Any]) -> tuple[str, int, str]:
    return case.get("model", ""), case["batch"], case["method"]


def table(given: Sequence[Mapping[str, Any]]) -> str:
    """Format dictionaries with the same keys as a Markdown table."""
    names = list(given[0])
    lines = ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
    lines += ["| " + " | ".join(str(row[name]) for name in names) + " |" for row in given]
    return "\n".join(lines)


def rich_table(report: Report) -> Table:
    """Build the table of the cases for a terminal, without the columns that don't fit."""
    from rich.table import Table

    # These columns fit a terminal of eighty characters.
    made = Table(box=None, header_style="bold", pad_edge=False)
    names: tuple[str, ...] = ("method", "batch", "how", "p50 ms", "p95 ms", "images/s")
    names += ("× forward", "peak MiB")
    given = rows(report)
    if given and "model" in given[0]:
        names = ("model", *names)
    for name in names:
        number = name not in ("model", "method", "how")
        made.add_column(name, justify="right" if number else "left", overflow="fold")
    for case in given:
        made.add_row(*(case[name].replace("not measured", "-") for name in names))
    return made


def heading(report: Report) -> str:
    """Describe in a line what was measured, and on what."""
    on = report["environment"]
    threads = f"{on['threads']} CPU thread{'s' if on['threads'] != 1 else ''}"
    where = on["gpu"] if report["device"].startswith("cuda") else threads
    size = "×".join(map(str, report["input"]))
    told = f"{report['model']}, {size}, {report['precision']}, {report['device']} ({where})"
    return f"{told}, torch {on['torch']}"


def markdown(report: Report, changes: Sequence[Change] = (), cautions: Sequence[str] = ()) -> str:
    """Format a report as Markdown: the table, what changed, and the environment."""
    parts = [f"# {heading(report)}", table(rows(report))]
    if not report["device"].startswith("cuda"):
        parts.append("GPU: not measured.")
    if report["left_out"]:
        parts.append("\n".join(f"- {name}: {why}" for name, why in report["left_out"].items()))
    if changes or cautions:
        told = [*(f"Note: {caution}." for caution in cautions), *map(str, changes)]
        parts.append("## Compared\n\n" + "\n".join(f"- {line}" for line in told))
    lines = (f"- {name}: {value}" for name, value in report["environment"].items())
    parts.append("## Environment\n\n" + "\n".join(lines))
    return "\n\n".join(parts) + "\n"


def plots(report: Report, path: Path) -> None:
    """Plot images a second by batch size.

    Each model has a panel, each method a colour, and each form (acceleration and precision) a kind
    of line.
    """
    require("matplotlib", "bench", "drawing plots")
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    several = len({case["precision"] for case in report["cases"]}) > 1
    lines: dict[tuple[str, str, str], list[tuple[float, float]]] = {}
    for case in sorted(report["cases"], key=_order):
        name, form = case["method"].partition("(")[0], case["accelerate"]
        form += f", {case['precision']}" if several else ""
        line = lines.setdefault((case.get("model", report["model"]), name, form), [])
        line.append((case["batch"], case["images_per_second"]))
    models, names, forms = (list(dict.fromkeys(part)) for part in zip(*lines, strict=True))
    figure = Figure(figsize=(3.2 + 3.6 * len(models), 4.4), dpi=110, layout="constrained")
    panels = figure.subplots(1, len(models), sharey=True, squeeze=False)[0]
    colours = dict(zip(names, _COLOURS * len(names), strict=False))
    styles = dict(zip(forms, _STYLES * len(forms), strict=False))
    for axes, model in zip(panels, models, strict=True):
        for (of, name, form), points in lines.items():
            if of == model:
                style, marker = styles[form]
                axes.plot(
                    *zip(*points, strict=True), style, marker=marker, ms=5, c=colours[name], lw=1.5
                )
        axes.set_title(model if len(models) > 1 else "", fontsize=9)
        axes.set_xlabel("batch size")
        _logarithmic(axes, sorted({case["batch"] for case in report["cases"]}))
    panels[0].set_ylabel("images a second")
    keys = [Line2D([], [], color=colours[name], lw=3, label=name) for name in names]
    if len(forms) > 1:
        keys += [
            Line2D([], [], color="grey", linestyle=style, marker=marker, ms=5, label=form)
            for form, (style, marker) in ((form, styles[form]) for form in forms)
        ]
    figure.legend(handles=keys, loc="outside right upper", fontsize=8, frameon=False)
    on = heading(report).removeprefix(f"{report['model']}, ") if len(models) > 1 else ""
    figure.suptitle(on or heading(report), fontsize=9)
    figure.savefig(path)


def _logarithmic(axes: Any, batches: Sequence[int]) -> None:
    """Scale both axes by logarithms, with plain numbers at few places."""
    from matplotlib.ticker import LogLocator, NullFormatter

    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_xticks(batches)
    axes.minorticks_off()
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high > 5 * low else range(1, 10)))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_formatter("{x:g}")
    axes.grid(alpha=0.3)


def plot_lines(
    lines: Mapping[str, Sequence[tuple[float, float]]],
    path: Path,
    title: str,
    x: str,
    y: str,
    *,
    log: bool = False,
    log_y: bool = False,
) -> None:
    """Draw lines of points (x, y) into a picture.

    Args:
        lines: The points of each line, by its label.
        path: The file of the picture.
        title: The title.
        x: The label of the x axis.
        y: The label of the y axis.
        log: Whether the x axis is logarithmic.
        log_y: Whether the y axis is, on which slow lines don't coincide at 0.
    """
    require("matplotlib", "bench", "drawing plots")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.2), dpi=110, layout="constrained")
    axes = figure.subplots()
    for name, points in lines.items():
        axes.plot(*zip(*points, strict=True), marker="o", label=name)
    axes.set(title=title, xlabel=x, ylabel=y)
    if log:
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter("{x:g}")
        axes.set_xticks(sorted({point[0] for points in lines.values() for point in points}))
    if log_y:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")
    else:
        axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    if len(lines) > 1:
        axes.legend(fontsize=8)
    axes.title.set_fontsize(9)
    figure.savefig(path)
