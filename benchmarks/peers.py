"""visxai beside captum, torchcam and grad-cam in one run, and beside the plain forward.

    python benchmarks/peers.py [--only grad_cam,occlusion] [--photographs FOLDER] [--quick]

Contestants run in turn, each at its own best setting, after their maps were compared: `difference`
is max|a - b| / max|b|. Ratios are medians over rounds, with quartiles. Peaks of memory are those of
a process of its own for each contestant, over its loaded model. Results go to
benchmarks/results/peers.json and peers.md; `--readme` puts the table into README.md. Where a bar
is about visxai at its best, it is asked of the accelerated row, and the plain row beside it is for
information. With `--only` the other rows stay as they were.

On two quiet cores the whole takes about 35 minutes: grad_cam 4, occlusion 8, integrated_gradients
8, score_cam 9, gate 5, help below 1. `--quick` runs everything on tiny inputs in 3 minutes and
writes nothing: its ratios mean nothing.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import contestants as peers
import measure
import torch
from contestants import Maps
from torch import Tensor, nn

import visxai

README = Path(__file__).parents[1] / "README.md"
START, END = "<!-- speed -->", "<!-- /speed -->"
Row = dict[str, Any]
ACCELERATIONS = ("off", "onnx")
LABELS = {"off": "plain", "onnx": "accelerated"}


@dataclass(frozen=True)
class Options:
    """quick: tiny inputs, one round. folder: photographs. seconds: of timing for each contest."""

    quick: bool
    folder: Path | None
    seconds: float

    @property
    def side(self) -> int:
        return 64 if self.quick else 224

    def inputs(self, batch: int) -> Tensor:
        generator = torch.Generator().manual_seed(0)
        return torch.randn(
            min(batch, 2) if self.quick else batch, 3, self.side, self.side, generator=generator
        )

    def photographs(self, engine: visxai.Engine, count: int) -> Tensor:
        images = measure.photographs(min(count, 2) if self.quick else count, self.folder)
        x = engine.tensor([engine.prepare(image).pixels for image in images])
        return x[..., : self.side, : self.side].contiguous()

    def timed(self, contestants: dict[str, Callable[[], Any]], warm_up: int = 0) -> Any:
        """Seconds of each; its maps having been compared, everything is warm."""
        rounds = 1 if self.quick else 9
        return measure.contest(contestants, rounds, warm_up, limit=self.seconds)


def best(what: str, settings: Iterable[Any], make: Callable[[Any], Maps], options: Options) -> Any:
    """The setting with which a contestant is fastest: all of them in turn, the best of two."""
    works = {str(setting): make(setting) for setting in settings}
    seconds = measure.contest(works, 1 if options.quick else 2, 0)
    fastest = {name: min(found) for name, found in seconds.items()}
    say(f"{what}: " + ", ".join(f"{name}: {found:.2f} s" for name, found in fastest.items()))
    return min(settings, key=lambda setting: fastest[str(setting)])


def random_module(name: str) -> nn.Module:
    """A torchvision architecture, the same random weights every time."""
    from torchvision.models import get_model

    with torch.random.fork_rng():
        torch.manual_seed(0)
        return get_model(name, weights=None).eval()


def own(module: nn.Module) -> nn.Module:
    """A copy for a peer that leaves its hooks in the module."""
    return copy.deepcopy(module)


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


# ---- the rows ----------------------------------------------------------------------------------


def grad_cam(options: Options) -> list[Row]:
    rows = []
    for name, layer, batch in (("resnet50", "layer4", 8), ("mobilenet_v2", "features", 16)):
        module, x = random_module(name), options.inputs(batch)
        classes = module(x).argmax(1).tolist()
        entrants: dict[str, Maps] = {"forward": peers.forward(module, x)}
        for kind in ACCELERATIONS:
            say(f"grad_cam, {name}: preparing {kind}")
            engine = visxai.Engine(
                own(module), layer=layer, precision="fp32", accelerate=kind, batch_size=len(x)
            )
            entrants[kind] = partial(engine.attribute, x, "grad_cam", classes)
        entrants["captum"] = peers.captum_grad_cam(own(module), layer, x, classes)
        entrants["torchcam"] = peers.torchcam_grad_cam(own(module), layer, x, classes)
        entrants["grad-cam"] = peers.pytorch_grad_cam(own(module), layer, x, classes)
        maps = {entrant: run() for entrant, run in entrants.items()}
        apart = {peer: peers.difference(maps["off"], maps[peer]) for peer in ("captum", "torchcam")}
        apart["grad-cam"] = peers.difference(peers.scaled(maps["off"]), maps["grad-cam"])
        apart["onnx"] = peers.difference(maps["onnx"], maps["off"])
        say(f"grad_cam, {name}: differences " + ", ".join(f"{k} {v:.1e}" for k, v in apart.items()))
        seconds = options.timed(entrants)
        what = f"grad_cam, {name}, batch {len(x)}"
        speed = partial(measure.ratio, seconds)
        rows.append(
            row(
                f"{what}: plain, of the eager forward's throughput",
                0.95,
                speed("off", "forward"),
                difference=apart["captum"],
            )
        )
        rows.append(
            row(
                f"{what}: accelerated, of the eager forward's throughput",
                2.0,
                speed("onnx", "forward"),
                difference=apart["onnx"],
            )
        )
        fastest = min(("captum", "torchcam"), key=lambda peer: statistics.median(seconds[peer]))
        for kind in ACCELERATIONS:
            rows.append(
                row(
                    f"{what}: {LABELS[kind]}, of the fastest peer ({fastest})",
                    2.0 if kind == "onnx" else None,
                    speed(kind, fastest),
                    difference=apart[fastest],
                )
            )
            rows.append(
                row(
                    f"{what}: {LABELS[kind]}, of grad-cam",
                    6.0 if kind == "onnx" else None,
                    speed(kind, "grad-cam"),
                    difference=apart["grad-cam"],
                )
            )
    return rows


def occlusion(options: Options) -> list[Row]:
    rows = []
    spec = "occlusion(window=32, stride=16)"
    for name in ("mobilenet_v2", "efficientnet_lite0"):
        default = name == "efficientnet_lite0"
        model = name if default else random_module(name)
        engines = {
            kind: visxai.Engine(model, precision="fp32", accelerate=kind) for kind in ACCELERATIONS
        }
        plain = engines["off"]
        x = options.photographs(plain, 4) if default else options.inputs(4)
        module = plain.model.module  # type: ignore[attr-defined]
        classes = plain.model.scores(x).argmax(1).tolist()
        tried = (1, 4, 8, 16, 32)
        captum = partial(peers.captum_occlusion, module, x, classes, 32, 16)
        captum(8)()
        together = best(f"occlusion, {name}, captum by windows at once", tried, captum, options)
        entrants: dict[str, Maps] = {"captum": captum(together)}
        for kind, engine in engines.items():
            entrants[kind] = partial(engine.attribute, x, spec, classes)
        maps = {entrant: run() for entrant, run in entrants.items()}
        seconds = options.timed(entrants)
        for kind, bar in (("onnx", 5.0), ("off", 1.2)):
            rows.append(
                row(
                    f"occlusion 32/16, {name}, batch {len(x)}: {LABELS[kind]}, of captum",
                    bar,
                    measure.ratio(seconds, kind, "captum"),
                    difference=peers.difference(maps[kind], maps["captum"]),
                    note=f"captum's best of {tried}: {together} at once",
                )
            )
    return rows


def integrated_gradients(options: Options) -> list[Row]:
    engines = {kind: visxai.Engine(precision="fp32", accelerate=kind) for kind in ACCELERATIONS}
    plain = engines["off"]
    module = plain.model.module  # type: ignore[attr-defined]
    x = options.photographs(plain, 8)
    classes = plain.model.scores(x).argmax(1).tolist()
    captum = partial(peers.captum_integrated_gradients, module, x, classes)
    if options.quick:
        captum = partial(captum, steps=4)
    captum(8)()
    together = best(
        "integrated_gradients, captum by rows at once", (None, 8, 16, 32), captum, options
    )
    entrants: dict[str, Maps] = {"captum": captum(together)}
    specs = {
        "default": "steps=20" if options.quick else "",
        "tolerance=0.1": "tolerance=0.1",
        "tolerance=0.05": "tolerance=0.05",
    }
    for tier, settings in specs.items():
        for kind, engine in engines.items():
            spec = f"integrated_gradients({settings})"
            entrants[f"{tier} {kind}"] = partial(engine.attribute, x, spec, classes)
    for run in entrants.values():
        run()
    seconds = options.timed(entrants)
    bars = {"default": 1.8, "tolerance=0.1": 4.0, "tolerance=0.05": None}
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


_ROWS = {"torchcam": (16, 32, 64), "grad-cam": (16, 32, 64)}


def _score_cam(name: str, rows: int, x: Tensor, where: tuple[str, str]) -> Maps:
    """A contestant, its model loaded: what the process that measures memory makes as well."""
    module, layer = random_module(where[0]), where[1]
    with torch.no_grad():
        classes = module(x).argmax(1).tolist()
    if name == "torchcam":
        return peers.torchcam_score_cam(module, layer, x, classes, rows)
    if name == "grad-cam":
        return peers.pytorch_score_cam(module, layer, x, classes, rows)
    engine = visxai.Engine(module, layer=layer, precision="fp32", accelerate=name, batch_size=rows)
    return partial(engine.attribute, x, "score_cam", classes)


def score_cam(options: Options) -> list[Row]:
    x, small = options.inputs(2), options.inputs(1)
    where = ("resnet18", "layer1") if options.quick else ("mobilenet_v2", "features")
    entrants: dict[str, Maps] = {}
    settings: dict[str, int] = {}
    for name in (*ACCELERATIONS, *_ROWS):
        if name in ACCELERATIONS:
            _score_cam(name, 4, small, where)()  # prepares
        settings[name] = best(
            f"score_cam, {name} by rows at once",
            _ROWS.get(name, (4, 8, 16)),
            partial(_score_cam, name, x=small, where=where),
            options,
        )
        entrants[name] = _score_cam(name, settings[name], x, where)
    maps = {entrant: run() for entrant, run in entrants.items()}
    apart = {
        peer: peers.difference(peers.scaled(maps["off"]), peers.scaled(maps[peer]))
        for peer in _ROWS
    }
    apart["onnx"] = peers.difference(maps["onnx"], maps["off"])
    seconds = options.timed(entrants)
    say("score_cam: measuring memory, a process for each")
    # The least memory, too, is a setting of one's own: the peers' at theirs, visxai at the same
    # rows as it was timed with.
    peak = {
        name: measure.peak_increase(partial(_score_cam, name, settings[name], x, where))
        for name in entrants
    }
    rows_made = []
    what = f"score_cam, {where[0]}, batch {len(x)}"
    for peer in _ROWS:
        for kind in ACCELERATIONS:
            note = f"rows at once: {settings[kind]} here, {settings[peer]} there; maps scaled, "
            note += "masks upsampled differently there"
            rows_made.append(
                row(
                    f"{what}: {LABELS[kind]}, of {peer}",
                    3.0,
                    measure.ratio(seconds, kind, peer),
                    difference=apart[peer],
                    note=note,
                )
            )
            mine, theirs = peak[kind], peak[peer]
            if mine is None or theirs is None:
                say("score_cam: memory is not measured on this system")
                continue
            share = measure.spread([mine / theirs])
            rows_made.append(
                row(
                    f"{what}: {LABELS[kind]}, peak memory of {peer}'s",
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
    rows = []
    for kind in ACCELERATIONS:
        engine = visxai.Engine(precision="fp32", accelerate=kind)
        scores = sorted(one.score for one in engine.predict(images))
        only = f"top1<{(scores[0] + scores[1]) / 2}"
        flagged = len(engine.explain(images, spec, only=only))
        say(f"gate: {kind}, {flagged} of {len(images)} flagged by {only}")
        seconds = options.timed(
            {
                "all": partial(engine.explain, images, spec),
                "gate": partial(engine.explain, images, spec, only=only),
            }
        )
        rows.append(
            row(
                f"gate, {flagged} of {len(images)} flagged, occlusion: {LABELS[kind]}, of "
                "explaining all",
                10.0,
                measure.ratio(seconds, "gate", "all"),
            )
        )
    return rows


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
    "help": help_,
}


# ---- results -----------------------------------------------------------------------------------


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


def write(groups: dict[str, list[Row]], command: str) -> None:
    """peers.json with these groups in place of earlier ones, and peers.md."""
    path = measure.RESULTS / "peers.json"
    kept = json.loads(path.read_text("utf-8"))["rows"] if path.is_file() else {}
    merged = {name: groups.get(name) or kept.get(name) for name in ROWS}
    rows = {name: found for name, found in merged.items() if found}
    measure.save("peers", {"rows": rows}, command)
    on = measure.environment()
    text = table([one for found in rows.values() for one in found])
    text += (
        f"\n\nRatios of one run on {on['cores']} CPU cores (torch {on['torch']}), by "
        "`python benchmarks/peers.py`; differences are max|a - b| / max|b|. GPU: not measured.\n"
    )
    (measure.RESULTS / "peers.md").write_text(text, "utf-8")


def into_readme(readme: Path = README, source: Path | None = None) -> None:
    """Put peers.md between the README's markers, adding the second where it is missing."""
    told = (source or measure.RESULTS / "peers.md").read_text("utf-8")
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
    parser.add_argument("--quick", action="store_true", help="tiny inputs; writes nothing")
    parser.add_argument("--readme", action="store_true", help="only put peers.md into README.md")
    args = parser.parse_args()
    if args.readme:
        into_readme()
        return
    chosen = args.only.split(",")
    if unknown := set(chosen) - set(ROWS):
        parser.error(f"expected --only of {', '.join(ROWS)}, got {', '.join(unknown)}")
    options = Options(args.quick, args.photographs, 1.0 if args.quick else args.seconds)
    groups = {}
    for name in chosen:
        began = time.perf_counter()
        say(f"{name} ...")
        groups[name] = ROWS[name](options)
        say(f"{name} took {time.perf_counter() - began:.0f} s")
        if not args.quick:
            write(groups, f"python benchmarks/peers.py --only {','.join(groups)}")
    print(table([one for found in groups.values() for one in found]))


if __name__ == "__main__":
    main()
