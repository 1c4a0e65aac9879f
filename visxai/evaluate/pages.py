"""The pages of an evaluation: Markdown and HTML, in which text from files is always escaped."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from visxai.foreign import for_html, shown

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #18181b; background: #fcfcfb;
  max-width: 72rem; margin: 2rem auto; padding: 0 1.5rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .8rem .3rem 0; text-align: left; white-space: nowrap;
  border-bottom: 1px solid #e4e4e7; }
.scroll { overflow-x: auto; } img { max-width: 100%; } p, small { color: #3f3f46; }
.warning { padding: .6rem .9rem; border-radius: 8px; background: #fdeedd; color: #9a4a00; }
code { overflow-wrap: anywhere; }
@media (prefers-color-scheme: dark) {
  body { color: #e4e4e7; background: #18181b; } p, small { color: #b4b4bd; }
  th, td { border-bottom-color: #3f3f46; }
  img { background: #fcfcfb; border-radius: 8px; } .warning { background: #46290b; color: #fcd9a8; }
}
@media (max-width: 600px) { .scroll img { max-width: none; width: 720px; } }
"""
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
_FEW = 10  # images below which a page warns that its intervals are unreliable
_ARROWS = {"higher": "↑", "lower": "↓", "neither": ""}

Table = tuple[list[str], list[list[str]]]


def markdown(summary: dict[str, Any], settings: dict[str, Any]) -> str:
    """Format the summary as Markdown; plots and examples are files beside it."""
    lines = ["# Evaluation", "", _told(_intro(summary, settings)), ""]
    lines += [f"**{_told(warning)}**", ""] if (warning := _warning(summary)) else []
    for number, (heading, note, (columns, rows)) in enumerate(_tables(summary)):
        lines += [f"## {heading}", "", *([_told(note), ""] if note else [])]
        lines.append("| " + " | ".join(map(_told, columns)) + " |")
        lines.append("|" + "---|" * len(columns))
        lines += ["| " + " | ".join(map(_told, row)) + " |" for row in rows]
        lines.append("")
        pictures = ("ranks", "curves") if number == 0 else ()
        for name in ("examples",) if heading == _EXAMPLES else pictures:
            if summary["plots"].get(name):
                lines += [f"![{name}]({summary['plots'][name]})", ""]
    return "\n".join(lines)


def page(summary: dict[str, Any], settings: dict[str, Any], out: Path) -> str:
    """Format the summary as an HTML page that needs no other file.

    Args:
        summary: The content of evaluation.json.
        settings: The settings of the run.
        out: The folder of the plots, which are embedded in the page.
    """
    body = ["<h1>Evaluation</h1>", f"<p>{_escaped(_intro(summary, settings))}</p>"]
    if warning := _warning(summary):
        body.append(f'<p class="warning">{_escaped(warning)}</p>')
    tables = _tables(summary)
    body += [_table_html(*tables[0])]
    for name, kind in (("ranks", "svg+xml"), ("curves", "svg+xml"), ("examples", "jpeg")):
        file = summary["plots"].get(name)
        if file:
            heading = {"ranks": "Ranks", "curves": "Curves", "examples": _EXAMPLES}[name]
            data = base64.b64encode((out / file).read_bytes()).decode("ascii")
            alt = _escaped(f"{heading} of the methods")
            body.append(f"<h2>{_escaped(heading)}</h2>")
            image = f'<img alt="{alt}" src="data:image/{kind};base64,{data}">'
            body.append(f'<div class="scroll">{image}</div>')
    body += [_table_html(*table) for table in tables[1:]]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>visxai evaluation</title><style>{_STYLE}</style></head><body>\n"
        + "\n".join(body)
        + "\n</body></html>\n"
    )


_EXAMPLES = "Where methods disagree most"


def _intro(summary: dict[str, Any], settings: dict[str, Any]) -> str:
    level = round(100 * summary["level"])
    return (
        f"{summary['images']} images, {summary['maps']} maps of {settings['model']} (weights "
        f"{settings['weights'][:12]}), target {settings['target']}, on {settings['device']} in "
        f"{settings['precision']}. Intervals hold {level} % of {summary['draws']} bootstrap means "
        "over images drawn anew, the same for all methods. random_map and centred_gaussian are "
        "controls: they know nothing of the model."
    )


def _warning(summary: dict[str, Any]) -> str:
    """Warn where images are few; return "" otherwise."""
    count = summary["images"]
    if count >= _FEW:
        return ""
    images = "1 image says" if count == 1 else f"{count} images say"
    return f"Ranks and intervals from {images} little about others: take {_FEW} or more."


def _tables(summary: dict[str, Any]) -> list[tuple[str, str, Table]]:
    """Build every table as (heading, note, (columns, rows)), the overview first."""
    found = [("Methods", "", overview(summary))]
    for one in summary["metrics"]:
        refused = {e["refused"] for e in one["methods"] if "refused" in e}
        note = "; ".join([f"{one['about']} {one['metric']}", *sorted(refused)])
        found.append((one["name"], note, _metric(summary, one)))
    if summary["agreement"]:
        note = "Mean rank correlation of two methods' maps over the pixels."
        found.append(("Agreement", note, _agreement(summary)))
    if summary["examples"]:
        note = "Mean rank correlation of the methods' maps, controls aside."
        rows = [
            [
                shown(one["path"] or ""),
                one["label"],
                _number(one["score"]),
                _number(one["agreement"]),
            ]
            for one in summary["examples"]
        ]
        found.append((_EXAMPLES, note, (["image", "class", "score", "agreement"], rows)))
    return found


def overview(summary: dict[str, Any]) -> Table:
    """Build the table of methods, with value and interval by every metric."""
    columns = ["method"]
    columns += [f"{one['name']} {_ARROWS[one['better']]}".strip() for one in summary["metrics"]]
    rows = [
        [
            _name(one),
            *(_interval(metric["methods"][place]) for metric in summary["metrics"]),
            _number(one["seconds"]),
        ]
        for place, one in enumerate(summary["methods"])
    ]
    return [*columns, "seconds a map"], rows


def _metric(summary: dict[str, Any], one: dict[str, Any]) -> Table:
    """Build the table of a metric, the best method first."""
    extra = list(one["methods"][0].get("figures", {}))
    ranked = one["better"] != "neither"
    columns = ["method", one["name"], *(["rank"] if ranked else []), "less random_map"]
    names = {m["method"]: _name(m) for m in summary["methods"]}
    entries = one["methods"]
    if ranked:
        entries = sorted(entries, key=lambda e: (e["rank"]["value"] is None, e["rank"]["value"]))
    rows = [
        [
            names[entry["method"]],
            _interval(entry),
            *([_interval(entry["rank"], 1)] if ranked else []),
            _interval(entry["over_random"]),
            *(_number(entry["figures"][name]) for name in extra),
            str(entry["count"]),
        ]
        for entry in entries
    ]
    return [*columns, *extra, "grids" if one["per"] == "grid" else "images"], rows


def _agreement(summary: dict[str, Any]) -> Table:
    names = [_name(one) for one in summary["methods"]]
    rows = [
        [name, *map(_number, row)] for name, row in zip(names, summary["agreement"], strict=True)
    ]
    return ["", *names], rows


def _name(method: dict[str, Any]) -> str:
    return f"{method['name']} (control)" if method["control"] else str(method["name"])


def _interval(entry: dict[str, Any], digits: int = 3) -> str:
    if entry.get("value") is None:
        return "none"
    value, low, high = (_number(entry[name], digits) for name in ("value", "low", "high"))
    return f"{value} ({low} to {high})"


def _number(value: float | None, digits: int = 3) -> str:
    # Adding zero turns a negative zero, the result of rounding, into zero.
    return "none" if value is None else f"{round(value, digits) + 0.0:.{digits}f}"


def _escaped(text: str) -> str:
    return for_html(text)


def _told(text: str) -> str:
    """Escape text for Markdown, so that it can't add markup, cells or lines."""
    escaped = html.escape(shown(text), quote=False)
    # Underscores inside words are no markup, and method names contain many of them.
    return "".join(f"\\{c}" if c in "\\`*[]|~#!" else c for c in escaped)


def _table_html(heading: str, note: str, table: Table) -> str:
    columns, rows = table
    lines = [_line(columns, "th"), *(_line(row, "td") for row in rows)]
    return (
        f"<h2>{_escaped(heading)}</h2>"
        + (f"<p>{_escaped(note)}</p>" if note else "")
        + f'<div class="scroll"><table>{"".join(lines)}</table></div>'
    )


def _line(cells: Sequence[str], tag: str) -> str:
    return f"<tr>{''.join(f'<{tag}>{_escaped(cell)}</{tag}>' for cell in cells)}</tr>"
