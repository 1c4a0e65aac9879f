"""Which method to choose: the figures, tables and plot of docs/choosing.md, from the results.

    python benchmarks/quality/page.py [--check]

Between `<!-- table NAME -->` and `<!-- /table -->` of the page stands a table, between
`<!-- figure FILE/TABLE/METHOD -->` and `<!-- /figure -->` one mean with its 95 % interval, or
another figure (see `figure`), all from benchmarks/results; docs/ranks.svg shows the ranks (extra
`bench`). What was not measured says so, and what a method can't be asked.
`--check` writes nothing and fails where the page and the results differ.
"""

from __future__ import annotations

import argparse
import io
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

import experiment
import measure

from visxai.errors import VisxaiError

ROOT = Path(__file__).resolve().parents[2]
PAGE, PLOT = ROOT / "docs" / "choosing.md", ROOT / "docs" / "ranks.svg"
ABSENT, REFUSED = "not measured", "can't be asked"
# A method points where more than this share of its evidence lies on what is asked for, and depends
# on the model where its maps correlate less than this with those of the destroyed model.
# Fewer than so many grids or images leave it open.
POINTS, FORGETS, ENOUGH = 0.5, 0.3, 5
_PEERS = ("captum ", "torchcam ", "grad-cam ")
Row = Mapping[str, Any]
# Tables of a line a method: for each column's heading the file and the table it comes from.
COLUMNS = {
    "pointing": {
        "GridPG": ("grid_pointing", "grid_pointing"),
        "DiFull": ("grid_pointing", "difull"),
    },
    "insertion": {
        "insertion (higher is better)": ("insertion_deletion", "insertion"),
        "deletion (lower is better)": ("insertion_deletion", "deletion"),
    },
    "check": {
        "passes": ("faithfulness", "passed"),
        "insertion − deletion": ("faithfulness", "value"),
        "of its permutations": ("faithfulness", "controls"),
    },
    "newer": {
        "insertion": ("insertion_deletion_newer", "insertion"),
        "deletion (lower is better)": ("insertion_deletion_newer", "deletion"),
        "randomisation (lower is better)": ("sanity_newer", "methods"),
        "GridPG": ("grid_pointing_newer", "grid_pointing"),
        "DiFull": ("grid_pointing_newer", "difull"),
        "check passes": ("faithfulness_newer", "passed"),
    },
    "transformers": {
        "perturbation": ("digits_perturbation", "perturbation"),
        "positive": ("digits_perturbation", "positive"),
        "negative": ("digits_perturbation", "negative"),
        "randomisation": ("digits_sanity", "methods"),
    },
}

# What was published, and where its order is looked for here: (claim, file, table, better, worse).
PUBLISHED = (
    ("insertion, ResNet-50: RISE .727, Grad-CAM .677", "insertion_deletion", "insertion",
     "rise", "grad_cam"),
    ("insertion, ResNet-50: RISE .727, LIME .694", "insertion_deletion", "insertion",
     "rise", "lime"),
    ("insertion, ResNet-50: LIME .694, Grad-CAM .677", "insertion_deletion", "insertion",
     "lime", "grad_cam"),
    ("deletion, ResNet-50: RISE .108, Grad-CAM .123", "insertion_deletion", "deletion",
     "rise", "grad_cam"),
    ("deletion, ResNet-50: RISE .108, LIME .122", "insertion_deletion", "deletion",
     "rise", "lime"),
    ("pointing game, VOC07: Grad-CAM 90.4, RISE 86.4; here on grids", "grid_pointing",
     "grid_pointing", "grad_cam", "rise"),
    ("pointing game, VOC07: RISE 86.4, gradient 72.3; here on grids", "grid_pointing",
     "grid_pointing", "rise", "saliency"),
    ("pointing game, VOC07: gradient 72.3, image centre 69.6; here on grids", "grid_pointing",
     "grid_pointing", "saliency", "centred_gaussian"),
    ("perturbation, ViT-B, negative: Beyond Intuition 58.0, rollout 53.9", "digits_perturbation",
     "negative", "beyond_intuition", "attention_rollout"),
    ("perturbation, ViT-B, negative: rollout 53.9, Chefer 49.0", "digits_perturbation",
     "negative", "attention_rollout", "chefer"),
    ("perturbation, ViT-B, positive: Beyond Intuition 15.9, rollout 20.5", "digits_perturbation",
     "positive", "beyond_intuition", "attention_rollout"),
    ("perturbation, ViT-B, positive: rollout 20.5, Chefer 21.0", "digits_perturbation",
     "positive", "attention_rollout", "chefer"),
)  # fmt: skip
# The plot: title, file, table.
RANKED = (
    ("GridPG", "grid_pointing", "grid_pointing"),
    ("DiFull", "grid_pointing", "difull"),
    ("insertion", "insertion_deletion", "insertion"),
    ("deletion", "insertion_deletion", "deletion"),
    ("randomisation", "sanity", "methods"),
)


class Results:
    """The experiments' files, each read once; {} for one that is missing."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._read: dict[str, dict[str, Any]] = {}

    def of(self, name: str) -> dict[str, Any]:
        path = self.folder / f"{name}.json"
        if name not in self._read:
            found = json.loads(path.read_text("utf-8")) if path.is_file() else {}
            self._read[name] = found
        return self._read[name]

    def rows(self, name: str, table: str) -> list[Row]:
        rows: list[Row] = self.of(name).get(table, [])
        return rows

    def row(self, name: str, table: str, method: str) -> Row | None:
        """A method's row, by its name, or its spec where there are several of it."""
        found = [row for row in self.rows(name, table) if method in (plain(row), short(row))]
        if len(found) > 1:
            raise SystemExit(f"expected one {method} in {name}/{table}, got {len(found)}")
        return found[0] if found else None


def spec_of(row: Row) -> str:
    return str(row["method"]).removeprefix("visxai ")


def plain(row: Row) -> str:
    """A method's name without its options."""
    return spec_of(row).partition("(")[0]


def short(row: Row) -> str:
    """A method's spec without the options that are as they are by default."""
    spec = spec_of(row)
    try:
        method, usual = experiment.method(spec), experiment.method(plain(row))
    except VisxaiError:  # a peer's
        return spec
    given = [
        f"{one.name}={getattr(method, one.name)!r}"
        for one in fields(method)
        if getattr(method, one.name) != getattr(usual, one.name)
    ]
    return f"{plain(row)}({', '.join(given)})" if given else plain(row)


def shown(row: Row | None) -> str:
    """A mean and its interval."""
    if row is None:
        return ABSENT
    return f"{row['value']:.3f} ({row['low']:.3f} to {row['high']:.3f})"


def merged(results: Results, columns: Mapping[str, tuple[str, str]]) -> list[dict[str, Any]]:
    """A line a method with what several tables, by their column's heading, say of it; in the order
    of the first. A figure of fewer images or grids than its column's others has its n beside it."""
    lines: dict[str, dict[str, Any]] = {}
    for heading, (name, table) in columns.items():
        rows = results.rows(name, table)
        most = max((row["count"] for row in rows), default=0)
        for row in rows:
            label = plain(row) if plain(row).startswith(_PEERS) else f"`{short(row)}`"
            line = lines.setdefault(plain(row), {"method": label})
            few = f", n = {row['count']}" if row["count"] < most else ""
            line[heading] = shown(row) + few
        for refused in results.of(name).get("refused", ()):  # TABLE METHOD(...)
            asked, _, method = refused.partition("(")[0].partition(" ")
            if asked == table and method in lines:
                lines[method].setdefault(heading, REFUSED)
    return [
        {"method": line["method"], **{h: line.get(h, ABSENT) for h in columns}}
        for line in lines.values()
    ]


def glance(results: Results) -> list[dict[str, Any]]:
    """Of each method whether it points and depends on the model; most to be trusted first."""

    def told(row: Row | None, bar: float, above: bool) -> tuple[int, str]:
        if row is None:
            return 0, ABSENT
        sure = (row["low"] > bar or row["high"] < bar) and row["count"] >= ENOUGH
        good = (row["value"] > bar) == above
        verdict = ("**no**", "unsure", "yes")[1 + sure * (1 if good else -1)]
        return sure * (1 if good else -1), f"{verdict}, {row['value']:.2f}"

    def row(name: str, table: str, method: str) -> Row | None:
        return results.row(name, table, method) or results.row(f"{name}_newer", table, method)

    names = {
        plain(one): None
        for name in ("grid_pointing", "grid_pointing_newer")
        for one in results.rows(name, "grid_pointing")
        if plain(one) not in experiment.CONTROLS
    }
    lines = []
    for name in names:
        place = row("grid_pointing", "grid_pointing", name)
        points, pointing = told(place, POINTS, above=True)
        depends, forgetting = told(row("sanity", "methods", name), FORGETS, above=False)
        line = {
            "method": f"`{name}`",
            "points at what is asked for": pointing,
            "depends on the model": forgetting,
        }
        lines.append(((-points - depends, -(place or {}).get("value", 0.0)), line))
    return [line for _, line in sorted(lines, key=lambda found: found[0])]


def randomisation(results: Results) -> list[dict[str, Any]]:
    curves = results.of("sanity").get("methods_similarity", {})
    return [
        {
            "method": f"`{short(row)}`",
            "similarity, mean over the parts": shown(row),
            "after all parts": f"{curves[row['method']][-1]:.2f}",
        }
        for row in results.rows("sanity", "methods")
    ]


def transformers(results: Results) -> list[dict[str, Any]]:
    shares = results.of("digits_vit").get("methods", {})
    lines = merged(results, COLUMNS["transformers"])
    for line in lines:
        found = shares.get(line["method"].strip("`"))
        line["share on the asked digit"] = shown(found and {**found, "value": found["mean"]})
    return lines


def paths(results: Results) -> list[dict[str, Any]]:
    found = results.of("integrated_gradients")
    return [
        {
            "method": name if name.startswith("captum") else f"`{name}`",
            "evaluations, mean": entry["evaluations"]["mean"],
            "map error, mean": shown({**entry["map error"], "value": entry["map error"]["mean"]}),
            "map error, median": entry["map error"]["median"],
            "completeness error, median": entry["completeness error"]["median"],
            "90th percentile": entry["completeness error"]["p90"],
        }
        for name, entry in found.items()
        if isinstance(entry, dict) and "map error" in entry
    ]


def baselines(results: Results) -> list[dict[str, Any]]:
    found = results.of("integrated_gradients")["baselines"]
    return [
        {
            "method": f"`{spec}`",
            "baseline": name,
            "evaluations": entry["evaluations"]["mean"],
            "map error, mean": shown({**entry["map error"], "value": entry["map error"]["mean"]}),
            "90th percentile": entry["map error"]["p90"],
            "completeness error, 90th percentile": entry["completeness error"]["p90"],
        }
        for name in ("grey", "black")
        for spec, entry in found[name].items()
    ]


def published(results: Results) -> list[dict[str, Any]]:
    lines = []
    for claim, name, table, better, worse in PUBLISHED:
        first, second = (results.row(name, table, method) for method in (better, worse))
        verdict = ABSENT
        if first is not None and second is not None:
            verdict = "not told apart"
            if second["method"] in first["better_than"]:
                verdict = "yes"
            if first["method"] in second["better_than"]:
                verdict = "**no, the other way round**"
        lines.append(
            {
                "published": claim,
                "here": f"`{better}` {shown(first)}, `{worse}` {shown(second)}",
                "same order": verdict,
            }
        )
    return lines


def throughput(results: Results) -> list[dict[str, Any]]:
    found = results.of("throughput")
    if not found:
        return []
    rates = found["forwards a second"]
    quartiles = "{median} ({low} to {high})"
    return [
        {
            "photographs": found["images"],
            "methods": len(found["methods"]),
            "forwards": found["forwards"],
            "evaluator, forwards/s": quartiles.format(**rates["evaluator"]),
            "model alone, forwards/s": quartiles.format(**rates["model"]),
            "ratio (quartiles)": quartiles.format(**found["ratio"]),
        }
    ]


TABLES: dict[str, Callable[[Results], list[dict[str, Any]]]] = {
    **{name: partial(merged, columns=columns) for name, columns in COLUMNS.items()},
    "glance": glance,
    "randomisation": randomisation,
    "transformers": transformers,
    "paths": paths,
    "baselines": baselines,
    "published": published,
    "throughput": throughput,
}


def figure(results: Results, place: str) -> str:
    """The figure at FILE/TABLE/METHOD, or FILE/NAME where a file has it by name; a latency's
    median at latency/MODEL/METHOD/BATCH/ACCELERATE, in forwards."""
    name, _, rest = place.partition("/")
    if name == "latency":
        keys = ("model", "method", "batch", "accelerate")
        found = {"/".join(str(row[key]) for key in keys): row for row in results.rows(name, "rows")}
        return f"{found[rest]['forwards']:.2f}" if rest in found else ABSENT
    table, _, method = rest.partition("/")
    if method:
        return shown(results.row(name, table, method))
    told = results.of(name).get(table, ABSENT)
    return f"{len(told)}" if isinstance(told, list) else f"{told}"


def filled(text: str, results: Results) -> str:
    """The page with what the results say between its markers."""

    def table(found: re.Match[str]) -> str:
        lines = TABLES[found[1]](results)
        told = measure.table(lines) if lines else f"({ABSENT})"
        return f"<!-- table {found[1]} -->\n{told}\n<!-- /table -->"

    def one(found: re.Match[str]) -> str:
        return f"<!-- figure {found[1]} -->{figure(results, found[1])}<!-- /figure -->"

    text = re.sub(r"<!-- table (\w+) -->.*?<!-- /table -->", table, text, flags=re.S)
    return re.sub(r"<!-- figure (\S+) -->.*?<!-- /figure -->", one, text, flags=re.S)


def plot(results: Results) -> str | None:
    """The ranks with their intervals, a column an experiment, a line a method; None without any."""
    import matplotlib
    from matplotlib.figure import Figure

    found = [(title, results.rows(*where)) for title, *where in RANKED if results.rows(*where)]
    if not found:
        return None
    placed: dict[str, list[float]] = {}
    for _, rows in found:
        for row in rows:
            if not plain(row).startswith(_PEERS):
                placed.setdefault(plain(row), []).append(row["rank"]["value"] / len(rows))
    names = sorted(placed, key=lambda name: sum(placed[name]) / len(placed[name]))
    drawn = Figure((1.9 * len(found) + 1.6, 0.21 * len(names) + 0.8), layout="constrained")
    axes = drawn.subplots(1, len(found), sharey=True, squeeze=False)[0]
    for axis, (title, rows) in zip(axes, found, strict=True):
        for row in rows:
            if plain(row) not in names:
                continue
            rank, at = row["rank"], names.index(plain(row))
            control = plain(row) in experiment.CONTROLS
            colour = "#8a8a8a" if control else "#0072b2"
            axis.plot([rank["low"], rank["high"]], [at, at], color=colour, linewidth=1.6)
            axis.plot([rank["value"]], [at], "o", color=colour, markersize=3.6)
        axis.set_title(title, fontsize=8)
        axis.set_xlim(0, len(rows) + 1)
        axis.tick_params(labelsize=7, length=2)
        axis.grid(color="#e8e8e8", linewidth=0.6)
        axis.set_axisbelow(True)
        for side in ("top", "right"):
            axis.spines[side].set_visible(False)
    axes[0].set_yticks(range(len(names)), names, fontsize=7)
    axes[0].set_ylim(len(names) - 0.4, -0.6)
    drawn.supxlabel("rank, 1 the best, with its 95 % interval", fontsize=7)
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "visxai", "svg.fonttype": "none"}):
        drawn.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--check", action="store_true", help="only compare")
    parser.add_argument("--results", type=Path, default=measure.RESULTS)
    parser.add_argument("--page", type=Path, default=PAGE)
    given = parser.parse_args()
    results, before = Results(given.results), given.page.read_text("utf-8")
    after = filled(before, results)
    if given.check:
        if after != before:
            raise SystemExit(f"expected {given.page.name} to say what the results say: run page.py")
        return
    given.page.write_text(after, "utf-8")
    drawn = plot(results)
    if drawn is not None:
        given.page.with_name(PLOT.name).write_text(drawn, "utf-8")


if __name__ == "__main__":
    main()
