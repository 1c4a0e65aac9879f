"""visxai beside captum, torchcam and grad-cam in one run, and beside the plain forward.

    python benchmarks/peers.py [--only grad_cam,occlusion] [--photographs FOLDER] [--quick]

Contestants run in turn, each at its own best setting and in a process of its own, as its users
would run it: in one process the first to free large blocks changes how fast the others get theirs.
Their maps are compared before: `difference` is max|a - b| / max|b|. Ratios are medians over
rounds, with quartiles. Peaks of memory are over the loaded model.

An engine on a CPU keeps the memory it frees (`visxai.process.keep_memory`); with `--keep-memory`
the peers' processes and the plain forward's do so too, and the rows say "freed memory kept by
all". Results go to benchmarks/results/peers.json and peers.md; `--readme` puts a short table into
docs/performance.md. Where a bar is about visxai at its best, it is asked of the accelerated row,
and the plain row beside it is for information. With `--only` the other rows stay as they were.

On two quiet cores the whole takes about 20 minutes. `--quick` runs everything on tiny inputs in 3
minutes and writes nothing: its ratios mean nothing.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import contestants as peers
import measure
import torch
from apart import Apart
from contestants import Maps
from torch import Tensor, nn

import visxai
from visxai import process

PAGE = Path(__file__).parents[1] / "docs" / "performance.md"
DEFAULT = visxai.models.DEFAULT
START, END = "<!-- speed -->", "<!-- /speed -->"
Row = dict[str, Any]
ACCELERATIONS = ("off", "onnx")
LABELS = {"off": "plain", "onnx": "accelerated"}


@dataclass(frozen=True)
class Options:
    """quick: tiny inputs, one round. folder: photographs. seconds: of timing for each contest.
    kept: the peers, too, keep the memory they free; otherwise they run as anyone starts them."""

    quick: bool
    folder: Path | None
    seconds: float
    kept: bool

    @property
    def mode(self) -> str:
        """What tells these rows from those of the other mode."""
        return ", freed memory kept by all" if self.kept else ""

    @property
    def setup(self) -> Callable[[], None] | None:
        """What every contestant's process does first."""
        return process.keep_memory if self.kept else None

    @property
    def side(self) -> int:
        return 64 if self.quick else 224

    def inputs(self, batch: int) -> Tensor:
        generator = torch.Generator().manual_seed(0)
        return torch.randn(
            min(batch, 2) if self.quick else batch, 3, self.side, self.side, generator=generator
        )

    def photographs(self, count: int) -> Tensor:
        """Of the default model."""
        engine = visxai.Engine(precision="fp32")
        images = measure.photographs(min(count, 2) if self.quick else count, self.folder)
        x = engine.tensor([engine.prepare(image).pixels for image in images])
        return x[..., : self.side, : self.side].contiguous()

    def contest(
        self, makers: dict[str, Callable[[], Maps]]
    ) -> tuple[dict[str, Tensor], dict[str, list[float]]]:
        """The maps and the seconds of contestants, each in a process of its own."""
        with Apart(makers, self.setup) as apart:
            maps = {name: torch.from_numpy(apart.result(name)) for name in makers}
            rounds = 1 if self.quick else 9
            return maps, measure.contest(apart.works, rounds, 0, limit=self.seconds)


def best(what: str, makers: dict[Any, Callable[[], Maps]], options: Options) -> Any:
    """The setting with which a contestant is fastest: each once, in turn, in its own process."""
    with Apart({str(key): make for key, make in makers.items()}, options.setup) as apart:
        seconds = measure.contest(apart.works, 1, 0)
    say(f"{what}: " + ", ".join(f"{name}: {found[0]:.2f} s" for name, found in seconds.items()))
    return min(makers, key=lambda setting: seconds[str(setting)])


def load(name: str) -> nn.Module:
    """The default model, or a torchvision architecture with the same random weights every time."""
    if name == DEFAULT:
        return visxai.Engine(name, precision="fp32").model.module  # type: ignore[attr-defined, no-any-return]
    from torchvision.models import get_model

    with torch.random.fork_rng():
        torch.manual_seed(0)
        return get_model(name, weights=None).eval()


def peer(make: Callable[..., Maps], name: str, *given: Any, **named: Any) -> Maps:
    """A peer's contestant over its own copy of a model, in which it may leave its hooks."""
    return make(load(name), *given, **named)


def ours(
    name: str,
    kind: str,
    spec: str,
    x: Tensor,
    classes: list[int],
    layer: str | None = None,
    rows: int | None = None,
) -> Maps:
    """visxai's maps by a method, plain or accelerated."""
    model = name if name == DEFAULT else load(name)
    engine = visxai.Engine(model, layer=layer, precision="fp32", accelerate=kind, batch_size=rows)
    return partial(engine.attribute, x, spec, classes)


def top_classes(name: str, x: Tensor) -> list[int]:
    with torch.no_grad():
        found: list[int] = load(name)(x).argmax(1).tolist()
    return found


def say(text: str) -> None:
    print(f"[{time.strftime('%H:%M:%S')}] {text}", file=sys.stderr, flush=True)


VERDICT = {True: "met", False: "MISSED", None: "info"}


def row(
    what: str,
    bar: float | None,
    reached: dict[str, float],
    *,
    difference: float | None = None,
    most: bool = False,
    unit: str = "×",
    note: str = "",
) -> Row:
    """One line of the table; `most` for bars that must not be exceeded, None for no bar."""
    met: bool | None = None
    if bar is not None:
        met = reached["median"] <= bar if most else reached["median"] >= bar
    made = {
        "what": what,
        "bar": "" if bar is None else f"{'≤' if most else '≥'} {bar:g} {unit}",
        "reached": reached,
        "unit": unit,
        "met": met,
        "difference": difference,
        "note": note,
    }
    say(f"{VERDICT[met]:6} {what}: {shown(made)} (bar {made['bar'] or 'none'}) {note}")
    return made


def shown(one: Row) -> str:
    reached, unit = one["reached"], one["unit"]
    text = f"{reached['median']:g}"
    if reached["low"] != reached["high"]:
        text += f" ({reached['low']:g} to {reached['high']:g})"
    return f"{text} {unit}"


def grad_cam(options: Options) -> list[Row]:
    return [
        made
        for name, layer, batch in (("resnet50", "layer4", 8), ("mobilenet_v2", "features", 16))
        for made in _grad_cam(options, name, layer, options.inputs(batch))
    ]


def _grad_cam(options: Options, name: str, layer: str, x: Tensor) -> list[Row]:
    classes = top_classes(name, x)
    named = {
        "captum": peers.captum_grad_cam,
        "torchcam": peers.torchcam_grad_cam,
        "grad-cam": peers.pytorch_grad_cam,
    }
    makers: dict[str, Callable[[], Maps]] = {"forward": partial(peer, peers.forward, name, x)}
    for kind in ACCELERATIONS:
        makers[kind] = partial(ours, name, kind, "grad_cam", x, classes, layer, len(x))
    for other, make in named.items():
        makers[other] = partial(peer, make, name, layer, x, classes)
    maps, seconds = options.contest(makers)
    apart = {other: peers.difference(maps["off"], maps[other]) for other in ("captum", "torchcam")}
    apart["grad-cam"] = peers.difference(peers.scaled(maps["off"]), maps["grad-cam"])
    apart["onnx"] = peers.difference(maps["onnx"], maps["off"])
    say(f"grad_cam, {name}: differences " + ", ".join(f"{k} {v:.1e}" for k, v in apart.items()))
    what = f"grad_cam, {name}, batch {len(x)}"
    fastest = min(("captum", "torchcam"), key=lambda other: statistics.median(seconds[other]))
    compared = [
        ("off", "forward", "the eager forward's throughput", 0.95, apart["captum"]),
        ("onnx", "forward", "the eager forward's throughput", 2.0, apart["onnx"]),
        ("off", fastest, f"the fastest peer ({fastest})", None, apart[fastest]),
        ("onnx", fastest, f"the fastest peer ({fastest})", 2.0, apart[fastest]),
        ("off", "grad-cam", "grad-cam", None, apart["grad-cam"]),
        ("onnx", "grad-cam", "grad-cam", 6.0, apart["grad-cam"]),
    ]
    return [
        row(
            f"{what}: {LABELS[kind]}, of {of}",
            bar,
            measure.ratio(seconds, kind, other),
            difference=difference,
        )
        for kind, other, of, bar, difference in compared
    ]


def occlusion(options: Options) -> list[Row]:
    rows = []
    spec = "occlusion(window=32, stride=16)"
    for name in ("mobilenet_v2", DEFAULT):
        x = options.photographs(4) if name == DEFAULT else options.inputs(4)
        classes = top_classes(name, x)
        captum = {
            together: partial(peer, peers.captum_occlusion, name, x, classes, 32, 16, together)
            for together in (1, 2, 4)
        }
        together = best(f"occlusion, {name}, captum by windows at once", captum, options)
        makers: dict[str, Callable[[], Maps]] = {
            kind: partial(ours, name, kind, spec, x, classes) for kind in ACCELERATIONS
        }
        makers["captum"] = captum[together]
        maps, seconds = options.contest(makers)
        for kind, bar in (("onnx", 5.0), ("off", 1.2)):
            rows.append(
                row(
                    f"occlusion 32/16, {name}, batch {len(x)}: {LABELS[kind]}, of captum",
                    bar,
                    measure.ratio(seconds, kind, "captum"),
                    difference=peers.difference(maps[kind], maps["captum"]),
                    note=f"captum's best of {tuple(captum)}: {together} at once",
                )
            )
    return rows


def integrated_gradients(options: Options) -> list[Row]:
    x = options.photographs(8)
    classes = top_classes(DEFAULT, x)
    how: dict[str, Any] = {"steps": 4} if options.quick else {}
    # All 400 rows at once, which is its default, take over 20 GiB.
    captum = {
        together: partial(
            peer, peers.captum_integrated_gradients, DEFAULT, x, classes, together, **how
        )
        for together in (8, 16)
    }
    together = best("integrated_gradients, captum by rows at once", captum, options)
    makers: dict[str, Callable[[], Maps]] = {"captum": captum[together]}
    specs = {
        "default": "steps=20" if options.quick else "",
        "tolerance=0.1": "tolerance=0.1",
    }
    for tier, settings in specs.items():
        for kind in ACCELERATIONS:
            spec = f"integrated_gradients({settings})"
            makers[f"{tier} {kind}"] = partial(ours, DEFAULT, kind, spec, x, classes)
    _, seconds = options.contest(makers)
    bars = {"default": 1.8, "tolerance=0.1": 4.0}
    return [
        row(
            f"integrated_gradients, {tier}, {len(x)} photographs: {LABELS[kind]}, of captum's "
            "default",
            bar if kind == "onnx" else None,
            measure.ratio(seconds, f"{tier} {kind}", "captum"),
            note=_accuracy(tier),
        )
        for tier, bar in bars.items()
        for kind in ACCELERATIONS
    ]


def _accuracy(tier: str) -> str:
    """What benchmarks/quality/integrated_gradients.py found of a tier and of captum."""
    path = measure.RESULTS / "integrated_gradients.json"
    if not path.is_file():
        return "accuracy: run benchmarks/quality/integrated_gradients.py"
    found = json.loads(path.read_text("utf-8"))
    name = "integrated_gradients" if tier == "default" else f"integrated_gradients({tier})"
    entries = {
        "here": found.get(name),
        "captum": next((value for key, value in found.items() if key.startswith("captum")), None),
    }
    told = []
    for who, entry in entries.items():
        if entry:
            error, missed = entry["map error"]["median"], entry["completeness error"]["p90"]
            told.append(f"{who} {error} and {missed}")
    return "map error (median) and completeness error (p90): " + ", ".join(told)


_ROWS = {"torchcam": (16, 32), "grad-cam": (16, 32)}


def _score_cam(
    contestant: str, rows: int, x: Tensor, classes: list[int], where: tuple[str, str]
) -> Maps:
    name, layer = where
    if contestant in ACCELERATIONS:
        return ours(name, contestant, "score_cam", x, classes, layer, rows)
    make = {"torchcam": peers.torchcam_score_cam, "grad-cam": peers.pytorch_score_cam}[contestant]
    return peer(make, name, layer, x, classes, rows)


def score_cam(options: Options) -> list[Row]:
    x = options.inputs(1)
    where = ("resnet18", "layer1") if options.quick else ("mobilenet_v2", "features")
    classes = top_classes(where[0], x)
    settings: dict[str, int] = {}
    makers: dict[str, Callable[[], Maps]] = {}
    for name in (*ACCELERATIONS, *_ROWS):
        tried = {
            rows: partial(_score_cam, name, rows, x, classes, where)
            for rows in _ROWS.get(name, (4, 16))
        }
        settings[name] = best(f"score_cam, {name} by rows at once", tried, options)
        makers[name] = tried[settings[name]]
    maps, seconds = options.contest(makers)
    apart = {
        other: peers.difference(peers.scaled(maps["off"]), peers.scaled(maps[other]))
        for other in _ROWS
    }
    say("score_cam: measuring memory, a process for each")
    # The least memory, too, is a setting of one's own: the peers' at theirs, visxai at the same
    # rows as it was timed with.
    peak = {name: measure.peak_increase(make) for name, make in makers.items()}
    rows_made = []
    what = f"score_cam, {where[0]}, batch {len(x)}"
    for other in _ROWS:
        for kind in ACCELERATIONS:
            note = f"rows at once: {settings[kind]} here, {settings[other]} there; maps scaled, "
            note += "masks upsampled differently there"
            rows_made.append(
                row(
                    f"{what}: {LABELS[kind]}, of {other}",
                    3.0 if kind == "onnx" else None,
                    measure.ratio(seconds, kind, other),
                    difference=apart[other],
                    note=note,
                )
            )
            mine, theirs = peak[kind], peak[other]
            if mine is None or theirs is None:
                say("score_cam: memory is not measured on this system")
                continue
            share = measure.spread([mine / theirs])
            rows_made.append(
                row(
                    f"{what}: {LABELS[kind]}, peak memory of {other}'s",
                    0.1,
                    share,
                    most=True,
                    note=f"{mine:.0f} of {theirs:.0f} MiB",
                )
            )
    return rows_made


def gate(options: Options) -> list[Row]:
    """5 % flagged: one of 20 photographs, by a threshold between the two least certain."""
    images = measure.photographs(20, options.folder)
    spec = (
        f"occlusion(window={112 if options.quick else 32}, stride={112 if options.quick else 16})"
    )
    engine = visxai.Engine(precision="fp32", accelerate="onnx")
    scores = sorted(one.score for one in engine.predict(images))
    only = f"top1<{(scores[0] + scores[1]) / 2}"
    flagged = len(engine.explain(images, spec, only=only))
    say(f"gate: {flagged} of {len(images)} flagged by {only}")
    works = {
        "all": partial(engine.explain, images, spec),
        "gate": partial(engine.explain, images, spec, only=only),
    }
    seconds = measure.contest(works, 1 if options.quick else 5, 0, limit=options.seconds)
    what = f"gate, {flagged} of {len(images)} flagged, occlusion: accelerated, of explaining all"
    return [row(what, 10.0, measure.ratio(seconds, "gate", "all"))]


def ceiling(options: Options) -> list[Row]:
    """What bounds every ratio above: the arithmetic a forward needs, and how fast this machine
    does arithmetic."""
    from torch.utils.flop_counter import FlopCounterMode

    side = 256 if options.quick else 2048
    square = torch.randn(side, side)
    rows = []
    for name, batch in (("resnet50", 8), ("mobilenet_v2", 16), (DEFAULT, 16)):
        x, module = options.inputs(batch), load(name)
        fast = visxai.Engine(
            name if name == DEFAULT else module,
            precision="fp32",
            accelerate="onnx",
            batch_size=len(x),
        )
        works = {
            "eager forward": peers.forward(module, x),
            "accelerated forward": partial(fast.model.scores, x),
        }
        with FlopCounterMode(display=False) as counter:
            works["eager forward"]()
        counts = dict.fromkeys(works, counter.get_total_flops())
        works["matrix product"] = partial(torch.mm, square, square)
        counts["matrix product"] = 2 * side**3
        for which, seconds in measure.contest(works, 1 if options.quick else 9).items():
            speeds = [counts[which] / one / 1e9 for one in seconds]
            what = f"{name}, batch {len(x)}: {which}" if "forward" in which else which
            rows.append(row(what, None, measure.spread(speeds, 0), unit="GFLOP/s"))
    return [one for one in rows if one["what"] != "matrix product"] + rows[-1:]


def help_(options: Options) -> list[Row]:
    command = [sys.executable, "-m", "visxai", "--help"]
    run = partial(subprocess.run, command, check=True, stdout=subprocess.DEVNULL)
    found = measure.contest({"help": run}, 1 if options.quick else 7)["help"]
    return [row("visxai --help", 1.0, measure.spread(found), most=True, unit="s")]


ROWS: dict[str, Callable[[Options], list[Row]]] = {
    "grad_cam": grad_cam,
    "occlusion": occlusion,
    "integrated_gradients": integrated_gradients,
    "score_cam": score_cam,
    "gate": gate,
    "ceiling": ceiling,
    "help": help_,
}


def table(rows: list[Row]) -> str:
    """The Markdown table for people."""
    return measure.table(
        [
            {
                "what": one["what"],
                "bar": one["bar"],
                "reached (quartiles)": shown(one),
                "met": {True: "yes", False: "**no**", None: ""}[one["met"]],
                "maps differ by": "" if one["difference"] is None else f"{one['difference']:.0e}",
            }
            for one in rows
        ]
    )


_COMPARED = re.compile(r"(.*): (plain|accelerated), (.*?)(, freed memory kept by all)?$")


def summary(rows: list[Row]) -> str:
    """The short table: a line for what is compared with what, plain and accelerated beside each
    other, and again with the peers keeping their memory."""
    lines: dict[str, dict[str, str]] = {}
    for one in rows:
        found = _COMPARED.match(one["what"])
        if found is None:
            continue
        what, kind, of, kept = found.groups()
        of = re.sub(r" \(.*\)", "", of)  # which peer was fastest
        line = lines.setdefault(f"{what}, {of}", {"bar": ""})
        if one["bar"] and not (kept or (kind == "plain" and line["bar"])):
            line["bar"] = one["bar"]
        line[kind + (kept or "")] = f"{one['reached']['median']:g}"
    columns = {
        "bar": "bar",
        "plain": "plain",
        "accelerated": "accelerated",
        "plain, all keep memory": "plain, freed memory kept by all",
        "accelerated, all keep memory": "accelerated, freed memory kept by all",
    }
    return measure.table(
        [
            {"what": what} | {told: line.get(key, "") for told, key in columns.items()}
            for what, line in lines.items()
        ]
    )


def write(groups: dict[str, list[Row]], command: str) -> None:
    """peers.json with these groups in place of earlier ones, and peers.md."""
    path = measure.RESULTS / "peers.json"
    kept = json.loads(path.read_text("utf-8"))["rows"] if path.is_file() else {}
    modes = [name + mode for name in ROWS for mode in ("", ", freed memory kept by all")]
    merged = {name: groups.get(name) or kept.get(name) for name in modes}
    rows = {name: found for name, found in merged.items() if found}
    measure.save("peers", {"rows": rows}, command)
    on = measure.environment()
    text = table([one for found in rows.values() for one in found])
    text += (
        f"\n\nRatios of one run on {on['cores']} CPU cores (torch {on['torch']}), by "
        "`python benchmarks/peers.py`; differences are max|a - b| / max|b|. GPU: not measured.\n"
    )
    (measure.RESULTS / "peers.md").write_text(text, "utf-8")


def into_readme(readme: Path = PAGE, source: Path = measure.RESULTS / "peers.json") -> None:
    """Put the short table of peers.json between the page's markers."""
    found = json.loads(source.read_text("utf-8"))["rows"]
    told = summary([one for rows in found.values() for one in rows]) + "\n"
    text = readme.read_text("utf-8")
    before, found, after = text.partition(START)
    if not found:
        raise SystemExit(f"expected {START} in {readme}, found none")
    rest = after.partition(END)[2] if END in after else after
    readme.write_text(f"{before}{START}\n{told}{END}{rest}", "utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--only", default=",".join(ROWS), help=f"of {', '.join(ROWS)}")
    parser.add_argument("--photographs", type=Path, help="a folder; default: scikit-image's")
    parser.add_argument("--seconds", type=float, default=100, help="of timing for each contest")
    parser.add_argument(
        "--keep-memory", action="store_true", help="the peers, too, keep the memory they free"
    )
    parser.add_argument("--quick", action="store_true", help="tiny inputs; writes nothing")
    parser.add_argument("--readme", action="store_true", help="only fill the README's table")
    args = parser.parse_args()
    if args.readme:
        into_readme()
        return
    chosen = args.only.split(",")
    if unknown := set(chosen) - set(ROWS):
        parser.error(f"expected --only of {', '.join(ROWS)}, got {', '.join(unknown)}")
    seconds = 1.0 if args.quick else args.seconds
    options = Options(args.quick, args.photographs, seconds, args.keep_memory)
    if args.keep_memory:
        process.keep_memory()
    groups = {}
    for name in chosen:
        began = time.perf_counter()
        say(f"{name} ...")
        groups[name + options.mode] = [
            one | {"what": one["what"] + options.mode} for one in ROWS[name](options)
        ]
        say(f"{name} took {time.perf_counter() - began:.0f} s")
        if not args.quick:
            write(groups, "python benchmarks/peers.py, and the same with --keep-memory")
    print(table([one for found in groups.values() for one in found]))


if __name__ == "__main__":
    main()
