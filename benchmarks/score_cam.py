"""Score-CAM's speed and peak of memory at its fastest setting, beside torchcam's and grad-cam's.

    OMP_NUM_THREADS=1 python benchmarks/score_cam.py settings       # how fast, by rows at once
    OMP_NUM_THREADS=1 python benchmarks/score_cam.py maps,speed     # the settings found, in turn
    OMP_NUM_THREADS=1 python benchmarks/score_cam.py memory         # peaks, in fresh processes

mobilenet_v2 with random weights, one random image, the 1280 channels of its last layer (the 96 of
an earlier one for `settings`, where only the time of a row counts). visxai runs in bfloat16 by
OpenVINO; torchcam may use bfloat16 autocast, grad-cam's NumPy can't. visxai's setting is the
smallest number of rows that is within a tenth of the fastest, as more rows cost memory alone.

A peak is how far a fresh process's resident memory rises over its level after one prediction,
freed memory given back first. `in all` counts the first prediction too, with all that it prepares.
Maps are compared scaled to 0..1 before anything is timed. Writes
benchmarks/results/score_cam.json; parts that aren't named keep their figures.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from functools import partial
from typing import Any

import bars
import contestants as peers
import measure
import torch
from apart import Apart

import visxai

OURS, LAYER, CLASS = "visxai", "features", 3
ROWS = {OURS: (1, 2, 4, 8, 16), "torchcam": (8, 16, 32), "grad-cam": (8, 16, 32)}
ASKED = {"grad-cam": 0.15, "torchcam": 0.5}  # of their peak, at most
Make = Callable[[], peers.Maps]


def image() -> torch.Tensor:
    return torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))


def made(who: str, rows: int, layer: str, predicted: bool = False) -> peers.Maps:
    """A contestant's call, in a process of its own; `predicted`: after one prediction."""
    x, module, name = image(), bars.load("mobilenet_v2"), who.removesuffix(" autocast")
    if name == OURS:
        engine = visxai.Engine(
            module, layer=layer, precision="bf16", accelerate="openvino", batch_size=rows
        )
        if predicted:
            engine.model.scores(x)
        return partial(engine.attribute, x, "score_cam", [CLASS])
    make = peers.torchcam_score_cam if name == "torchcam" else peers.pytorch_score_cam
    if predicted:
        peers.forward(module, x)()
    work = make(module, layer, x, [CLASS], rows)
    return work if name == who else bars.under(work)


def settings(command: str) -> None:
    """Find the rows at once with which each is fastest, on the layer with 96 channels."""
    for who, choices in (ROWS | {"torchcam autocast": ROWS["torchcam"]}).items():
        found = bars.kept("score_cam").get("settings", {})
        if who in found:  # so that a run in slices goes on
            continue
        makers = {str(rows): partial(made, who, rows, "features.13") for rows in choices}
        with Apart(makers) as apart:
            seconds = measure.contest(apart.works, 3, 1, limit=20)
        speeds = {rows: 96 / min(times) for rows, times in seconds.items()}
        enough = (0.9 if who == OURS else 1) * max(speeds.values())
        chosen = next(int(rows) for rows, speed in speeds.items() if speed >= enough)
        told = {rows: round(speed, 1) for rows, speed in speeds.items()}
        found[who] = {"rows": chosen, "rows a second": told}
        print(f"{who}: {found[who]}", flush=True)
        bars.keep("score_cam", {"settings": found}, command)


def fastest(found: dict[str, Any]) -> dict[str, int]:
    """Each contestant's rows at once, torchcam under autocast or not as is faster for it."""

    def speed(who: str) -> float:
        return float(found[who]["rows a second"][str(found[who]["rows"])])

    torchcam = max(("torchcam", "torchcam autocast"), key=speed)
    return {who: found[who]["rows"] for who in (OURS, torchcam, "grad-cam")}


def maps(chosen: dict[str, int]) -> dict[str, Any]:
    """How far the maps of each are from visxai's."""
    found = {who: peers.scaled(made(who, rows, LAYER)()) for who, rows in chosen.items()}
    apart = {}
    for who in chosen:
        if who != OURS:
            size = found[who].shape[-2:]
            ours, theirs = (
                peers.upsample(found[one].float(), size).flatten(1) for one in (OURS, who)
            )
            cosine = (bars.unit(ours) * bars.unit(theirs)).sum(1).min()
            largest = peers.difference(found[OURS], found[who])
            apart[who] = {"cosine": round(float(cosine), 5), "difference": round(largest, 4)}
            print(f"{who}: {apart[who]}", flush=True)
    return apart


def speed(chosen: dict[str, int]) -> list[dict[str, Any]]:
    """Seconds of each in turn, and how many times as fast visxai is."""
    makers = {who: partial(made, who, rows, LAYER) for who, rows in chosen.items()}
    with Apart(makers) as apart:
        seconds = measure.contest(apart.works, 3, 1, limit=60)
    return [
        {"of": who, "rows": chosen[who], "times as fast": bars.times(seconds, OURS, who)}
        for who in chosen
    ]


def memory(chosen: dict[str, int]) -> list[dict[str, Any]]:
    """Peaks in fresh processes, three times each, and visxai's share of each peer's."""
    peaks: dict[str, dict[str, float]] = {}
    for who, rows in chosen.items():
        peaks[who] = {}
        for name, predicted in (("MiB", True), ("MiB in all", False)):
            make: Make = partial(made, who, rows, LAYER, predicted)
            each = [measure.peak_increase(make) for _ in range(3)]
            peaks[who][name] = round(statistics.median(one or 0.0 for one in each), 1)
        print(f"{who}: {peaks[who]}", flush=True)
    found: list[dict[str, Any]] = [{"who": OURS, "rows": chosen[OURS], **peaks[OURS]}]
    for who, theirs in peaks.items():
        if who != OURS:
            asked = ASKED[who.removesuffix(" autocast")]
            share, whole = (peaks[OURS][name] / theirs[name] for name in theirs)
            row = {"who": who, "rows": chosen[who], **theirs, "share": round(share, 3)}
            row |= {"share in all": round(whole, 3), "bar": f"≤ {asked:g}", "met": share <= asked}
            print(row, flush=True)
            found.append(row)
    return found


PARTS: dict[str, Callable[[dict[str, int]], Any]] = {"maps": maps, "speed": speed, "memory": memory}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("parts", help="settings, maps, speed and memory, commas between them")
    threads = torch.get_num_threads()
    command = f"OMP_NUM_THREADS={threads} python benchmarks/score_cam.py settings,maps,speed,memory"
    for part in parser.parse_args().parts.split(","):
        if part == "settings":
            settings(command)
        else:
            found = PARTS[part](fastest(bars.kept("score_cam")["settings"]))
            bars.keep("score_cam", {part: found}, command)


if __name__ == "__main__":
    main()
