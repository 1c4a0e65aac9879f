"""The printed lists of models, model cards, methods, and this machine's capabilities."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
from dataclasses import MISSING, fields
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group
from rich.markup import escape
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from visxai.models.cards import Card


def models() -> None:
    """Print the named models, and how to name others."""
    from visxai.models.cards import DEFAULT, card, names
    from visxai.text import cards as texts

    console = Console(highlight=False)
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("Model", "Weights", "Licence", "What it is"):
        table.add_column(name, overflow="fold")
    for name in names():
        one = card(name)
        default = " (default)" if name == DEFAULT else ""
        table.add_row(*map(escape, (name + default, _weights(one)[0], one.licence, one.summary)))
    for name in texts.names():
        told = texts.card(name)
        about = f"texts: {told['summary']}"
        table.add_row(*map(escape, (name, "with visxai", told["licence"], about)))
    console.print(table)
    console.print(
        "\nAlso torchvision:NAME, timm:NAME, hf:NAME (Hugging Face, or a local folder) and "
        "onnx:FILE; weights of your own with --checkpoint FILE."
    )


def _weights(card: Card) -> tuple[str, bool]:
    """Describe the state of a card's weights, and tell whether it is as it should be."""
    from visxai.errors import ModelError
    from visxai.models import weights

    if "fetch" in card.source:
        here = weights.place(card.name, card.source).is_file()
        return ("fetched", True) if here else ("not fetched", True)
    bundled = "bundled" in card.source
    try:
        (weights.bundled_file if bundled else weights.packaged_file)(card.source)
    except ModelError:
        return "missing", False
    return "with visxai" if bundled else "installed", True


def card(card: Card) -> None:
    """Print one model's card."""
    from visxai.images.preprocess import Preprocess

    options: dict[str, Any] = {
        k: tuple(v) if isinstance(v, list) else v for k, v in card.preprocess.items()
    }
    source = {k: v for k, v in card.source.items() if k != "sha256"}
    rows = {
        "name": card.name,
        "what": card.summary,
        "licence": card.licence,
        "weights": f"{_weights(card)[0]}, {' '.join(str(v) for v in source.values())}",
        "sha256": str(card.source["sha256"]),
        "input": str(Preprocess(**options)),
        "activation": card.activation,
        "CAM layer": card.layer or "the last with positions",
        "labels": f"{len(card.labels)}: {', '.join(card.labels[:3])}"
        + (", ..." if len(card.labels) > 3 else ""),
    }
    Console(highlight=False).print(_pairs(rows))


def text_card(name: str) -> None:
    """Print the card of a text model."""
    from visxai.text import cards

    told = cards.card(name)
    rows = {
        "name": name,
        "what": told["summary"],
        "licence": told["licence"],
        "weights": f"with visxai, {told['source']['weights']}",
        "sha256": told["source"]["weights_sha256"],
        "input": f"texts, {told['length']} known words at once",
        "activation": told["activation"],
        "labels": f"{len(told['labels'])}: {', '.join(told['labels'])}",
    }
    Console(highlight=False).print(_pairs(rows))


def methods(name: str | None, full: bool = False) -> None:
    """Print all methods in a line each (name None), or one method's whole page.

    Args:
        name: A method's name.
        full: Whether the list has options, cost and source of each method.
    """
    from visxai import methods as known

    console = Console(highlight=False)
    if name is not None:
        method = known.find(name)
        page = sys.modules[method.__module__].__doc__ or ""
        page += f"\nOptions: {_options(method)}\nNeeds: {method.needs}"
        console.print(Text(page.strip()), soft_wrap=True)
        return
    found = {each: known.find(each) for each in known.names()}
    if full:
        table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 1, 0))
        table.add_column("Method", style="bold", no_wrap=True)
        table.add_column("About", overflow="fold")
        for each, method in found.items():
            told = {
                "options": _options(method),
                "needs": str(method.needs),
                "cost": method.about("Cost"),
                "source": method.about("Source"),
            }
            table.add_row(each, Group(Text(_sentence(method)), _pairs(told)))
    else:
        rows = [(each, str(one.needs), _sentence(one)) for each, one in found.items()]
        table = _lines(("Method", "Needs", "What it does"), rows)
    console.print(table)
    console.print(
        "\nvisxai explain PATH --method 'NAME(option=value)'; `visxai methods NAME` for all about "
        "one, `--full` for options, cost and source of each."
    )


def metrics(name: str | None) -> None:
    """Print all metrics in a line each (name None), or one metric's whole page."""
    from visxai import metrics as known

    console = Console(highlight=False)
    if name is not None:
        metric = known.find(name)
        page = sys.modules[metric.__module__].__doc__ or ""
        console.print(Text(f"{page}\nOptions: {_options(metric)}".strip()), soft_wrap=True)
        return
    found = {each: known.find(each) for each in known.names()}
    rows = [(each, str(one.better), _sentence(one)) for each, one in found.items()]
    console.print(_lines(("Metric", "Better", "What it measures"), rows))
    console.print("\nvisxai evaluate FOLDER --metrics NAME,NAME; `visxai metrics NAME` for all.")


def _lines(columns: tuple[str, str, str], rows: list[tuple[str, str, str]]) -> Table:
    """Make a table of one line a row, whose last column is cut where there is no room."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column, cells in zip(columns[:-1], zip(*rows, strict=True), strict=False):
        table.add_column(column, no_wrap=True, min_width=max(map(len, cells)))
    table.add_column(columns[-1], no_wrap=True, overflow="ellipsis")
    for row in rows:
        table.add_row(*row)
    return table


def _sentence(spec: Any) -> str:
    """Return what a method's or metric's docstring says first, without its name."""
    sentence = spec.about("").partition(": ")[2] or spec.about("")
    return f"{sentence[:1].upper()}{sentence[1:]}"


def _options(method: Any) -> str:
    """List a method's options with their defaults."""
    return (
        ", ".join(
            item.name if item.default is MISSING else f"{item.name}={item.default!r}"
            for item in fields(method)
        )
        or "none"
    )


def doctor() -> int:
    """Print versions, devices, extras, sandbox and weights; return 0 if no weights are missing."""
    import torch

    from visxai.models import speed
    from visxai.models.cards import card, names
    from visxai.models.devices import pick_device, pick_precision, versions

    device = pick_device("auto")
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    devices = [
        f"cpu ({torch.get_num_threads()} threads of {os.cpu_count()} cores, {usable} usable)"
    ]
    for index in range(torch.cuda.device_count()):
        found = torch.cuda.get_device_properties(index)
        devices.insert(index, f"cuda:{index} ({found.name}, {found.total_memory / 2**30:.0f} GiB)")
    if torch.backends.mps.is_available():
        devices.insert(0, "mps")
    cards = {name: _weights(card(name)) for name in names()}
    healthy = all(good for _, good in cards.values())
    rows = {
        "system": f"{platform.platform()}, Python {platform.python_version()}",
        "versions": ", ".join(f"{n} {v}" for n, v in versions().items()),
        "devices": ", ".join(devices),
        "auto": f"{device} in {pick_precision('auto', device)}",
        "half precision": f"bf16 is {speed.gain():.1f} times as fast as float32 on this CPU",
        "other processes": _busy(usable or 1),
        "long runs": _long_runs(pick_precision("auto", device), device.type),
        "measured": _measured(),
        "extras": _extras(),
        "sandbox": _sandbox(),
        "models": ", ".join(f"{name} ({told})" for name, (told, _) in cards.items()),
        "health": "all that is needed is there"
        if healthy
        else "weights are missing or changed: reinstall visxai",
    }
    Console(highlight=False).print(_pairs(rows))
    return 0 if healthy else 1


def _busy(cores: int) -> str:
    """Say how busy the machine is, and how threads of this process wait for each other."""
    from visxai.process import waits_patiently

    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    told = "load unknown" if load is None else f"load {load:.1f} on {cores} usable cores"
    if load is not None and load > 0.5 * cores:
        told += ", so timings will be worse than on a quiet machine"
    if waits_patiently():
        return f"{told}; threads sleep while they wait"
    return (
        f"{told}; threads spin while they wait, which beside other processes makes maps several "
        "times slower: set OMP_WAIT_POLICY=passive, or import visxai before torch"
    )


def _long_runs(precision: str, device: str) -> str:
    """Describe what an engine that may choose considers for a run that is long enough."""
    from visxai.engine.measuring import runtimes

    kinds = [kind for kind in runtimes(precision, device) if kind != "compile"]
    told = f"{precision} by PyTorch or {' or '.join([*kinds, 'compiled'])}"
    if not kinds and device == "cpu":
        told += (
            f" (faster with the extra {'openvino' if precision == 'bf16' else 'onnx or openvino'})"
        )
    return f"{told}, whichever is measured to be fastest for the model"


def _measured() -> str:
    """Tell what was measured of models on this machine, and what a long run would take."""
    from visxai.engine.measuring import on_this_machine

    found: dict[str, list[tuple[float, str]]] = {}
    for model, form, times in on_this_machine():
        found.setdefault(model, []).append((times, form))
    if not found:
        return "nothing yet: a run that is long enough measures its model, and keeps the figures"
    told = []
    for model, forms in found.items():
        best, *rest = sorted(forms, reverse=True)
        if best[0] <= 1:
            best, rest = (1.0, "fp32 by PyTorch"), [best, *rest]
        others = "".join(f", {form} {times:.1f} times" for times, form in rest)
        told.append(
            f"{model}: {best[1]} for long runs, {best[0]:.1f} times as fast as plain{others}"
        )
    return "; ".join(told)


def _sandbox() -> str:
    """Start a worker process, and describe which parts of its sandbox are in force."""
    from visxai.errors import VisxaiError
    from visxai.images.preprocess import Preprocess
    from visxai.pipeline.tasks import Setup
    from visxai.pipeline.workers import Workers, confinement

    pool = Workers(Setup(Preprocess((1, 1))), 1)
    try:
        found = pool.result(pool.submit(confinement, ""))
    except VisxaiError as error:
        return str(error)
    finally:
        pool.close()
    held = [part for part, why in found.items() if not why]
    lacking = [f"{part} ({why})" for part, why in found.items() if why]
    told = f"limits on workers: {', '.join(held)}" if held else "no limits on workers"
    return f"{told}; without {', '.join(lacking)}" if lacking else told


def _extras() -> str:
    """List the package's extras, each with its missing packages."""
    from packaging.requirements import Requirement

    try:
        told = importlib.metadata.metadata("visxai")
    except importlib.metadata.PackageNotFoundError:
        return "unknown: visxai isn't installed, only on the path"
    wanted = [Requirement(text) for text in told.get_all("Requires-Dist") or []]
    found = []
    for extra in told.get_all("Provides-Extra") or []:
        lacking = [
            one.name
            for one in wanted
            if one.marker and one.marker.evaluate({"extra": extra}) and not _installed(one.name)
        ]
        found.append(f"{extra} (without {', '.join(lacking)})" if lacking else extra)
    return ", ".join(found)


def _installed(package: str) -> bool:
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _pairs(rows: dict[str, str]) -> Table:
    """Lay out names and values in two columns."""
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows.items():
        table.add_row(name, Text(value))
    return table
