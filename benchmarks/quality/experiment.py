"""What the experiments on maps share: photographs, methods and budgets, progress, results.

An experiment scores maps image by image (or grid by grid); its result holds every method's mean
with a paired bootstrap interval, and its rank (`visxai.evaluate.statistics`).
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from torch import Tensor

import visxai
from visxai.evaluate import statistics
from visxai.methods.base import Method
from visxai.metrics import controls

sys.path.insert(0, str(Path(__file__).parents[1]))
import measure

Contestant = TypeVar("Contestant")
CONTROLS = ("random_map", "centred_gaussian")
# Methods of one backward at most, at their defaults.
CHEAP = (
    "grad_cam",
    "grad_cam_plus_plus",
    "hires_cam",
    "layer_cam",
    "xgrad_cam",
    "eigen_cam",
    "finer_cam",
    "saliency",
    "input_x_gradient",
)
# The others, at budgets that two cores can pay; the results name them.
COSTLY = (
    "ablation_cam",
    "smooth_grad(copies=8)",
    "integrated_gradients(steps=12)",
    "idgi(steps=12)",
    "expected_gradients(samples=12)",
    "guided_ig(steps=12)",
    "blur_ig(steps=12)",
    "xrai(steps=12)",
    "score_cam(top=32)",
    "occlusion(window=64, stride=48)",
    "rise(masks=64)",
    "hsic(samples=64, grid=4)",
    "sobol(samples=4, grid=4)",
    "lime(samples=64, segments=25)",
    "kernel_shap(samples=64, segments=25)",
    "partition_shap(max_evaluations=64)",
)
# Methods that came after the tables above, judged by `--newer` beside Grad-CAM and the controls.
NEWER = (
    "grad_cam",
    "cam",
    "grad_cam_elementwise",
    "eigen_grad_cam",
    "kpca_cam",
    "full_grad",
    "fem",
    "shapley_cam",
    "refine_cam",
    "recipro_cam",
    "guided_backprop",
    "deconvolution",
    "guided_grad_cam",
    "deep_lift",
    "forgrad(method='saliency')",
    "smooth_grad_cam_plus_plus(copies=8)",
    "augmented(flip=True)",
)
# Those of many passes an image.
NEWER_COSTLY = (
    "is_cam(samples=2, top=32)",
    "square_grad(copies=8)",
    "var_grad(copies=8)",
    "gradient_shap(samples=12)",
    "deep_lift_shap(samples=4)",
    "mc_rise(masks=64)",
    "ss_cam(samples=2, top=32)",
    "extremal_perturbation(areas=(0.1,), steps=64)",
)
# A transformer's own methods are those that read its attention or tokens; these are, too.
OF_TRANSFORMERS = ("grad_cam", "recipro_cam")
QUICK = ("grad_cam", "saliency")


def parser(
    doc: str,
    photographs: Literal["needed", "optional", "none"] = "needed",
    newer: bool = False,
) -> argparse.ArgumentParser:
    """The arguments that all experiments have; newer: whether later methods have an own run."""
    made = argparse.ArgumentParser(description=doc.split("\n")[0])
    made.set_defaults(folder=None, newer=False)
    if photographs != "none":
        count = "?" if photographs == "optional" else None
        made.add_argument("folder", type=Path, nargs=count, help="a folder of photographs")
    if newer:
        made.add_argument(
            "--newer", action="store_true", help="the methods that came later, into NAME_newer.json"
        )
    made.add_argument("--methods", nargs="+", metavar="SPEC", help="instead of the usual ones")
    made.add_argument("--quick", action="store_true", help="a smoke test on next to nothing")
    made.add_argument("--out", type=Path, default=measure.RESULTS, help="where results go")
    made.add_argument(
        "--kept", type=Path, help="a folder that keeps what is done, for a run that was cut"
    )
    return made


def engine(name: str = visxai.models.DEFAULT, **options: Any) -> visxai.Engine:
    """The model in float32, on the GPU where there is one."""
    return visxai.Engine(name, precision="fp32", **options)


def method(spec: str) -> Method:
    """A method or a control."""
    is_control = spec.partition("(")[0] in controls.names()
    return controls.load(spec) if is_control else visxai.methods.load(spec)


def contestants(specs: Sequence[str]) -> dict[str, Method]:
    """The controls and the methods of these specs, by how results call them."""
    made = [method(spec) for spec in (*CONTROLS, *specs)]
    return {repr(one): one for one in made}


def photographs(engine: visxai.Engine, folder: Path, count: int) -> Tensor:
    """`count` photographs, evenly spread over the folder's by name: (n, 3, h, w) on the device."""
    images = measure.photographs(count, folder)
    return torch.cat([engine.tensor([engine.prepare(image).pixels]) for image in images])


class Kept:
    """What is done of an experiment, in a file: a run that was cut goes on where it was.

    about: what the figures depend on; a file about something else is begun anew. Without a
    folder nothing is kept.
    """

    def __init__(self, folder: Path | None, name: str, about: Mapping[str, Any]) -> None:
        self.path = None if folder is None else folder / f"{name}.json"
        self.about = json.loads(json.dumps(about))
        self.found: dict[str, Any] = {}
        if self.path is not None and self.path.is_file():
            before = json.loads(self.path.read_text("utf-8"))
            if before["about"] == self.about:
                self.found = before["found"]

    def __call__(self, key: str, make: Callable[[], Any]) -> Any:
        """What make() returns, JSON-ready, or returned when it was last called for `key`."""
        if key not in self.found:
            self.found[key] = make()
            if self.path is not None:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                part = self.path.with_suffix(".part")
                part.write_text(json.dumps({"about": self.about, "found": self.found}), "utf-8")
                part.replace(self.path)
        return self.found[key]

    def each(
        self, contestants: Mapping[str, Contestant], score: Callable[[Contestant], Any]
    ) -> Iterator[tuple[str, Any]]:
        """Yield each contestant's name and what score(contestant) returns, JSON-ready, saying on
        stderr how far it is."""
        told = Told(len(contestants))
        for name, contestant in contestants.items():
            yield name, self(name, partial(score, contestant))
            told(name)


class Told:
    """Says how far an experiment is, on stderr."""

    def __init__(self, total: int) -> None:
        self.total, self.done, self.began = total, 0, time.perf_counter()

    def __call__(self, what: str) -> None:
        self.done += 1
        seconds = time.perf_counter() - self.began
        left = seconds / self.done * (self.total - self.done)
        print(f"{self.done}/{self.total} {what}, {left:.0f} s left", file=sys.stderr, flush=True)


def compared(
    values: Mapping[str, Sequence[float]], better: Literal["higher", "lower"]
) -> list[dict[str, Any]]:
    """For each contestant its mean, interval, count and rank, and which others it is better than:
    those where the interval of the paired difference leaves out 0. The best comes first.

    values: by contestant, one an image or grid; those of a shorter list are the first ones.
    """
    count = max(map(len, values.values()))
    table = np.full((count, len(values)), np.nan)
    for column, told in enumerate(values.values()):
        table[: len(told), column] = told
    means, ranks = statistics.intervals(table), statistics.ranks(table, better)
    rows = [
        {"method": name, **_rounded(mean), "count": len(values[name]), "rank": _rounded(rank)}
        for name, mean, rank in zip(values, means, ranks, strict=True)
    ]
    for column, row in enumerate(rows):
        apart = statistics.differences(table, column, draws=2000)
        row["better_than"] = [
            name
            for name, difference in zip(values, apart, strict=True)
            if (difference.high < 0 if better == "higher" else difference.low > 0)
        ]
    return sorted(rows, key=lambda row: row["rank"]["value"])


def save(
    name: str,
    given: argparse.Namespace,
    results: dict[str, Any],
    tables: Mapping[str, Sequence[Mapping[str, Any]]],
    command: str,
) -> dict[str, Any]:
    """Write NAME.json, and NAME.md with a table for each of `tables`; a smoke test only prints.

    With `--newer --methods` the rows join those of an earlier run on the same images. Returns the
    results as they are written.
    """
    if given.newer:
        name, command = f"{name}_newer", f"{command} --newer"
        before = given.out / f"{name}.json"
        if given.methods and before.is_file():
            results, tables = joined(json.loads(before.read_text("utf-8")), results, tables)
            command = results["command"]
    page = f"# {name.replace('_', ' ').capitalize()}\n\n`python benchmarks/quality/{command}`\n"
    for heading, rows in tables.items():
        page += f"\n## {heading}\n\n{measure.table([_line(row) for row in rows])}\n"
    print(page)
    if not given.quick or given.out != measure.RESULTS:
        measure.save(name, results, command, given.out)
        (given.out / f"{name}.md").write_text(page, "utf-8")
    return results


def joined(
    before: dict[str, Any],
    results: dict[str, Any],
    tables: Mapping[str, Sequence[Mapping[str, Any]]],
) -> tuple[dict[str, Any], dict[str, Sequence[Mapping[str, Any]]]]:
    """Add what an earlier run hasn't: means may stand beside each other where the controls' are
    equal, or are of fewer images; ranks, which need all values at once, are dropped.

    before: the earlier results. results, tables: the later ones.
    """
    pages: dict[str, Sequence[Mapping[str, Any]]] = {}
    for heading, rows in tables.items():
        key = next(key for key, value in results.items() if value is rows)
        known = before.get(key, [])
        found = {row["method"]: row for row in known}
        for row in rows:
            same = found.setdefault(row["method"], row)
            if row["count"] == same["count"] and abs(row["value"] - same["value"]) > 0.01:
                raise SystemExit(f"{row['method']} was {same['value']}, now {row['value']}")
        plain = [
            {name: row[name] for name in ("method", "value", "low", "high", "count")}
            for row in found.values()
        ]
        best, *_, worst = known or rows
        upward = best["value"] <= worst["value"]
        pages[heading] = sorted(plain, key=lambda row: row["value"] if upward else -row["value"])
        before = {**before, key: pages[heading]}
    return _deep(results, before), pages


def _deep(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """Both dictionaries, and theirs within; `after` where both have something."""
    both = {
        key: _deep(before[key], value)
        if isinstance(value, dict) and isinstance(before.get(key), dict)
        else value
        for key, value in after.items()
    }
    return {**before, **both}


def _rounded(interval: statistics.Interval) -> dict[str, float]:
    return {name: round(value, 4) for name, value in vars(interval).items()}


def _line(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of `compared` for a table."""
    line = {
        "method": f"`{row['method']}`",
        "mean (95 % interval)": f"{row['value']:.3f} ({row['low']:.3f} to {row['high']:.3f})",
    }
    if rank := row.get("rank"):
        line["rank"] = f"{rank['value']:g} ({rank['low']:g} to {rank['high']:g})"
    return {**line, "n": row["count"]}
