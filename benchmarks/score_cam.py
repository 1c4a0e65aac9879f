"""Score-CAM's speed and peak of memory at its fastest setting, beside torchcam's and grad-cam's.

    OMP_NUM_THREADS=1 python benchmarks/score_cam.py settings       # how fast, by rows at once
    OMP_NUM_THREADS=1 python benchmarks/score_cam.py maps,speed     # the settings found, in turn
    OMP_NUM_THREADS=1 python benchmarks/score_cam.py memory         # peaks, in fresh processes

mobilenet_v2 with random weights, one random image, the 1280 channels of its last layer (the 96 of
an earlier one for `settings` and `maps`, where all channels would take long). visxai runs in
bfloat16 by OpenVINO; torchcam may use bfloat16 autocast, grad-cam's NumPy can't. visxai's setting
is the smallest number of rows that is within a tenth of the fastest: more rows cost memory alone.

A peak is how far a fresh process's resident memory rises over its level after one prediction,
freed memory given back first. `in all` counts the first prediction too, with what it prepares;
`again` is the rise over the level after one explanation, which has prepared everything.
Maps are compared scaled to 0..1 before anything is timed. Writes
benchmarks/results/score_cam.json; parts that aren't named keep their figures.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any

import bars
import contestants as peers
import measure
import torch
from apart import Apart

import visxai

OURS, LAYER, FEWER, CLASS = "visxai", "features", "features.13", 3
ROWS = {OURS: (1, 2, 4, 8, 16), "torchcam": (4, 8, 16), "grad-cam": (4, 8, 16)}
ASKED = {"grad-cam": 0.15, "torchcam": 0.5}  # of their peak, at most


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
    if name == who:
        return work
    narrow = bars.under(work)
    return lambda: narrow().float()  # NumPy knows no bfloat16


def settings(command: str) -> None:
    """Find the rows at once with which each is fastest, on the layer with 96 channels."""
    for who, choices in (ROWS | {"torchcam autocast": ROWS["torchcam"]}).items():
        found = bars.kept("score_cam").get("settings", {})
        if who in found:  # so that a run in slices goes on
            continue
        makers = {str(rows): partial(made, who, rows, FEWER) for rows in choices}
        with Apart(makers) as apart:
            seconds = measure.contest(apart.works, 2, 1)
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
    found = {who: peers.scaled(made(who, rows, FEWER)()) for who, rows in chosen.items()}
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
    """Peaks in fresh processes, and visxai's share of each peer's."""
    peaks: dict[str, float] = {}
    for who, rows in chosen.items():
        peaks[who] = round(measure.peak_increase(partial(made, who, rows, LAYER, True)) or 0, 1)
        print(f"{who}, {rows} rows: {peaks[who]} MiB", flush=True)
    whole = round(measure.peak_increase(partial(made, OURS, chosen[OURS], LAYER)) or 0, 1)
    found: list[dict[str, Any]] = [
        {"who": OURS, "rows": chosen[OURS], "MiB": peaks[OURS], "MiB in all": whole}
    ]
    for who, theirs in peaks.items():
        if who != OURS:
            asked = ASKED[who.removesuffix(" autocast")]
            share = round(peaks[OURS] / theirs, 3)
            row = {"who": who, "rows": chosen[who], "MiB": theirs, "share": share}
            row |= {"share in all": round(whole / theirs, 3), "bar": f"≤ {asked:g}"}
            found.append(row | {"met": share <= asked})
            print(found[-1], flush=True)
    return found


def explained(rows: int) -> peers.Maps:
    """visxai's call in a process that has explained once, so that all forms are prepared."""
    work = made(OURS, rows, LAYER)
    work()
    return work


def again(chosen: dict[str, int]) -> dict[str, Any]:
    """visxai's peak over its level after one explanation."""
    peak = measure.peak_increase(partial(explained, chosen[OURS])) or 0
    found = {"who": OURS, "rows": chosen[OURS], "MiB": round(peak, 1)}
    print(found, flush=True)
    return found


PARTS: dict[str, Callable[[dict[str, int]], Any]] = {
    "maps": maps,
    "speed": speed,
    "memory": memory,
    "again": again,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("parts", help="settings, maps, speed, memory, again, with commas")
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
