"""The steps of `benchmarks/gpu.py`, each run as a process: python -m benchmarks.gpu_steps NAME.

A step writes rows, one line of JSON each, as soon as it knows them: {"what", "reached", "unit",
"beside"}. Contestants are run in turn, after their maps were compared. Throughput is that of as
many calls as take 0.4 s, with one synchronisation at their end; latency is of single calls. Inputs
are random and rotate, never zeros.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import itertools
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import visxai
from benchmarks import contestants, gpu_card
from visxai import methods
from visxai.errors import ArgumentError, VisxaiError
from visxai.images.preprocess import Preprocess
from visxai.models.pytorch.folding import fold

Work = Callable[[], Any]


class Bench:
    """What the steps share: the card, where rows go, models and inputs of the right size."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.card = gpu_card.of(options.device)
        self.device, self.quick, self.rows = self.card.device, options.quick, options.rows
        self.side = 64 if self.quick else 224

    def say(self, **row: Any) -> None:
        """Write a row at once, whole."""
        with self.rows.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        print(row, flush=True)

    def module(self, name: str) -> nn.Module:
        """A model with the same random weights every time; in a rehearsal a tiny one."""
        torch.manual_seed(0)
        if self.quick:
            return (TinyVit() if "vit" in name else TinyCnn()).eval()
        if name == "lite0":
            return copy.deepcopy(visxai.Engine(precision="fp32").model.module)
        from torchvision.models import get_model

        module = get_model(name, weights=None)
        for part in module.modules():  # a head of zeros explains nothing
            if isinstance(part, nn.Linear) and not part.weight.any():
                nn.init.normal_(part.weight, std=0.02)
        return module.eval()

    def layer(self, name: str) -> str:
        """The layer that every contestant's Grad-CAM reads."""
        return "body" if self.quick else {"resnet50": "layer4"}[name]

    def engine(self, module: nn.Module, precision: str = "fp32", **how: Any) -> visxai.Engine:
        how = {"accelerate": "off", "preprocess": Preprocess((self.side, self.side)), **how}
        return visxai.Engine(
            copy.deepcopy(module).to(self.device), device=self.device, precision=precision, **how
        )

    def inputs(self, batch: int, count: int = 4) -> list[Tensor]:
        generator = torch.Generator().manual_seed(0)
        shape = (count, batch, 3, self.side, self.side)
        return list(torch.randn(shape, generator=generator).to(self.device))

    def turning(self, call: Callable[[Tensor], Any], xs: list[Tensor]) -> Work:
        """A call whose input is another one each time."""
        turn = itertools.cycle(xs)
        return lambda: call(next(turn))

    def throughput(self, works: dict[str, Work], rounds: int = 3) -> dict[str, float]:
        """The seconds of one call of each contestant: its best round, contestants in turn."""
        least = 0.002 if self.quick else 0.4
        for work in works.values():
            work()
            work()
        self.card.synchronise()
        counts = {}
        for name, work in works.items():
            counts[name] = max(1, round(least / max(1e-6, self.card.seconds(work))))
        best = dict.fromkeys(works, float("inf"))
        for number in range(1 if self.quick else rounds):
            for name in list(works) if number % 2 == 0 else reversed(list(works)):
                began = time.perf_counter()
                for _ in range(counts[name]):
                    works[name]()
                self.card.synchronise()
                best[name] = min(best[name], (time.perf_counter() - began) / counts[name])
        return best

    def latency(self, work: Work) -> tuple[float, float, float]:
        """p50 and p95 of single calls on the device, and p50 by the clock on the wall."""
        calls = 3 if self.quick else 50
        work()
        device = sorted(self.card.seconds(work) for _ in range(calls))
        wall = []
        for _ in range(calls):
            self.card.synchronise()
            began = time.perf_counter()
            work()
            self.card.synchronise()
            wall.append(time.perf_counter() - began)
        return device[calls // 2], device[int(0.95 * calls)], statistics.median(wall)


class TinyCnn(nn.Sequential):
    """A CNN for rehearsals."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 4, 1), nn.BatchNorm2d(8), nn.ReLU())
        self.body = nn.Sequential(nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU())
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10))


class Block(nn.Module):
    """A transformer's block."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.norm = heads, nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        b, n, c = x.shape
        q, k, v = self.qkv(self.norm(x)).reshape(b, n, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        seen = nn.functional.scaled_dot_product_attention(q, k, v)
        return x + self.out(seen.transpose(1, 2).reshape(b, n, c))


class TinyVit(nn.Module):
    """A vision transformer for rehearsals."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, 16, 16)
        self.token = nn.Parameter(torch.randn(1, 1, width))
        self.blocks = nn.Sequential(*(Block(width, 2) for _ in range(2)))
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        return self.head(
            self.blocks(torch.cat([self.token.expand(len(x), -1, -1), tokens], 1))[:, 0]
        )


def prepared(module: nn.Module, x: Tensor, dtype: torch.dtype) -> nn.Module:
    """A detached copy with norms folded, channels last, in a type."""
    made = copy.deepcopy(module)
    fold(made, lambda part, rows: part(rows), x[:1])
    for parameter in made.parameters():
        parameter.requires_grad_(False)
    return made.to(memory_format=torch.channels_last, dtype=dtype)


def forwards(bench: Bench, module: nn.Module, xs: list[Tensor]) -> dict[str, Work]:
    """The plain forward in every form that is known, on the same inputs."""
    half = torch.bfloat16
    plain = copy.deepcopy(module).to(bench.device)
    folded = prepared(plain, xs[0], half)
    compiled = torch.compile(copy.deepcopy(folded), disable=bench.quick)
    narrow = [x.to(half, memory_format=torch.channels_last) for x in xs]

    def autocast(x: Tensor) -> Tensor:
        with torch.autocast(bench.device.type, half):
            return plain(x)

    fixed = narrow[0].clone()
    with torch.no_grad():
        graph = bench.card.graphed(lambda: folded(fixed))
    works = {
        "forward eager fp32": bench.turning(plain, xs),
        "forward autocast bf16": bench.turning(autocast, xs),
        "forward folded channels-last bf16": bench.turning(folded, narrow),
        "forward compiled bf16": bench.turning(compiled, narrow),
        "forward in a CUDA graph, bf16": graph,
    }
    return {name: no_grad(work) for name, work in works.items()}


def no_grad(work: Work) -> Work:
    def run() -> Any:
        with torch.no_grad():
            return work()

    return run


# ---- the steps -----------------------------------------------------------------------------------


def card(bench: Bench) -> None:
    """The card and its versions, what it copies and multiplies, and whether it can compile."""
    from visxai.models.devices import versions

    told = {**versions(), "python": sys.version.split()[0]}
    bench.say(card=bench.card.name(), versions=told, **bench.card.details())
    size = 2**16 if bench.quick else 2**29
    here, there = (torch.empty(size, dtype=torch.uint8, device=bench.device) for _ in range(2))
    seconds = bench.throughput({"copy": lambda: there.copy_(here)})["copy"]
    bench.say(what="copy on the device", reached=round(2 * size / seconds / 1e9), unit="GB/s")
    n = 64 if bench.quick else 8192
    a, b = (torch.randn(n, n, device=bench.device, dtype=torch.bfloat16) for _ in range(2))
    seconds = bench.throughput({"product": lambda: a @ b})["product"]
    bench.say(
        what=f"{n}³ bf16 product", reached=round(2 * n**3 / seconds / 1e12, 2), unit="TFLOP/s"
    )
    bench.say(what="compiler", reached=shutil.which("gcc") or shutil.which("cc") or "none")
    try:
        import onnxruntime

        bench.say(what="ONNX Runtime", reached=", ".join(onnxruntime.get_available_providers()))
    except ImportError:
        bench.say(what="ONNX Runtime", reached="not installed")


def smoke(bench: Bench) -> None:
    """Every method on a CNN and on a ViT, in float32 and in bf16, and where they wait."""
    few = {"steps": 4, "copies": 2, "masks": 16, "samples": 8, "top": 8}
    for name, precision in itertools.product(("lite0", "vit_b_16"), ("fp32", "bf16")):
        engine, (x,) = bench.engine(bench.module(name), precision), bench.inputs(2, 1)
        ran, failed, refused, waited, late = 0, [], [], {}, []
        until = time.monotonic() + (60 if bench.quick else 9)
        for known in methods.names():
            kind = methods.find(known)
            if known in ("captum", "guided_ig", "xrai", "lime", "kernel_shap", "partition_shap"):
                continue  # by design one image or one part at a time: minutes, not seconds
            fields = {field.name for field in dataclasses.fields(kind)}
            options = {key: value for key, value in few.items() if key in fields}
            try:
                method = kind(**options)
                engine.check(method)
            except ArgumentError:
                continue  # made for other networks, or not without an argument
            if time.monotonic() > until:
                late.append(known)
                continue
            try:
                engine.attribute(x, method)
                with bench.card.waits() as places:
                    engine.attribute(x, method)
                bench.card.synchronise()
                ran += 1
                waited[known] = len(places)
            except VisxaiError as error:
                refused.append(f"{known}: {type(error).__name__}: {str(error)[:80]}")
            except Exception as error:
                failed.append(f"{known}: {type(error).__name__}: {str(error)[:80]}")
        most = sorted(waited.items(), key=lambda one: -one[1])[:3]
        bench.say(
            what=f"{name} {precision}: methods that ran",
            reached=ran,
            unit=f"of {ran + len(failed) + len(refused)}",
            beside="; ".join(
                [
                    *failed,
                    *(f"refused: {one}" for one in refused),
                    f"most waits: {most}",
                    *([f"no time: {late}"] if late else []),
                ]
            ),
        )


def contracts(bench: Bench) -> None:
    """The contracts that have a device, as the tests hold them."""
    import pytest

    chosen = ["-m", "gpu"] if bench.device.type == "cuda" else ["-k", "cpu and conv"]
    code = pytest.main(["-q", "-p", "no:cacheprovider", "tests/test_gpu.py", *chosen])
    bench.say(what="contracts on this device", reached="hold" if code == 0 else f"broken ({code})")
    if code:
        sys.exit(1)


def agreement(bench: Bench) -> None:
    """Maps on the device beside float32 on the CPU."""
    specs = ("grad_cam", "occlusion(window=32, stride=32)", "input_x_gradient")
    for name in ("lite0", "vit_b_16"):
        module, (x,) = bench.module(name), bench.inputs(4, 1)
        cpu = visxai.Engine(module, device="cpu", precision="fp32", accelerate="off")
        exact = {spec: cpu.attribute(x.cpu(), spec) for spec in specs}
        scores = cpu.model.scores(x.cpu())
        for precision in ("fp32", "bf16", "fp16"):
            engine = bench.engine(module, precision)
            own = engine.model.scores(x).cpu()
            told = [f"top-1 {float((own.argmax(1) == scores.argmax(1)).float().mean()):.2f}"]
            apart = float((own.softmax(1) - scores.softmax(1)).abs().max())
            told.append(f"probabilities within {apart:.1e}")
            for spec in specs:
                found = engine.attribute(x, spec, scores.argmax(1)).cpu().flatten(1)
                expected = exact[spec].flatten(1)
                cosine = nn.functional.cosine_similarity(found, expected).min()
                worst = (found - expected).abs().max() / expected.abs().max()
                told.append(
                    f"{spec.partition('(')[0]} cosine {float(cosine):.5f}, off {float(worst):.1e}"
                )
            bench.say(what=f"{name} {precision}", reached=told[0], beside="; ".join(told[1:]))


def grad_cam(bench: Bench) -> None:
    """Grad-CAM beside every form of the forward and beside the peers, maps compared first."""
    module, layer = bench.module("resnet50"), bench.layer("resnet50")
    batches = (2,) if bench.quick else (64, 256, 1)
    engines = {}
    for precision, how in itertools.product(("fp32", "bf16"), ("off", "compile")):
        accelerate = "off" if bench.quick else how
        given = {"layer": layer, "accelerate": accelerate, "batch_size": max(batches)}
        engines[f"visxai {precision} {how}"] = bench.engine(module, precision, **given)
    for batch in batches:
        xs = bench.inputs(batch)
        works = forwards(bench, module, xs)
        classes = module(xs[0].cpu()[:1]).argmax(1).tolist() * batch
        exact = None
        for name, engine in engines.items():
            try:
                began = time.perf_counter()
                found = engine.attribute(xs[0], "grad_cam", classes[0])
                bench.card.synchronise()
                first = time.perf_counter() - began
            except Exception as error:
                bench.say(
                    what=name, reached="failed", beside=f"{type(error).__name__}: {error}"[:200]
                )
                continue
            if name == "visxai fp32 off":  # the first: float32 without a prepared form
                exact = found
            off = "not compared"
            if exact is not None:
                off = f"{float((found - exact).abs().max() / exact.abs().max()):.1e}"
            ran = engine.model.accelerated(methods.find("grad_cam").needs)
            told = f"{ran}; first call {first:.1f} s"
            bench.say(what=f"{name}, b{batch}: map", reached=off, unit="off", beside=told)
            works[name] = bench.turning(
                lambda x, e=engine, c=classes[0]: e.attribute(x, "grad_cam", c), xs
            )
        works |= peers(bench, module, layer, xs[0], classes)
        report(bench, f"resnet50 b{batch}", works, batch)
        if batch in (1, 2):
            for name, work in works.items():
                p50, p95, wall = bench.latency(work)
                told = f"p95 {1e3 * p95:.2f}, by the clock {1e3 * wall:.2f}"
                bench.say(
                    what=f"{name}, b{batch}: p50",
                    reached=round(1e3 * p50, 2),
                    unit="ms",
                    beside=told,
                )


def peers(
    bench: Bench, module: nn.Module, layer: str, x: Tensor, classes: list[int]
) -> dict[str, Work]:
    """The peers' Grad-CAM in float32 and under autocast, where they are installed."""
    works: dict[str, Work] = {}
    for name, make in (
        ("captum", contestants.captum_grad_cam),
        ("torchcam", contestants.torchcam_grad_cam),
        ("grad-cam", contestants.pytorch_grad_cam),
    ):

        def plain(make: Callable[..., Work] = make) -> Work:
            return make(copy.deepcopy(module).to(bench.device), layer, x, classes)

        def under(name: str = name) -> Work:
            def work() -> Any:
                with torch.autocast(bench.device.type, torch.bfloat16):
                    return works[f"{name} fp32"]()

            return work

        add(bench, works, f"{name} fp32", plain)
        if f"{name} fp32" in works:
            add(bench, works, f"{name} autocast", under)
    return works


def add(bench: Bench, works: dict[str, Work], name: str, make: Callable[[], Work]) -> None:
    """Add a peer's call, or say why it doesn't run here."""
    try:
        work = make()
        work()
    except Exception as error:  # not installed, or not made for this
        why = f"{type(error).__name__}: {error}"[:120]
        bench.say(what=f"{name}: what didn't run is left out", reached="", beside=why)
    else:
        works[name] = work


def report(bench: Bench, what: str, works: dict[str, Work], rows: int) -> None:
    """Time contestants in turn, and write each one's rows a second beside the others'."""
    seconds = bench.throughput(works)
    eager = seconds.get("forward eager fp32")
    best = min((s for name, s in seconds.items() if name.startswith("forward")), default=None)
    rivals = [s for name, s in seconds.items() if not name.startswith(("forward", "visxai"))]
    for name, each in seconds.items():
        beside = []
        if eager:
            beside.append(f"{eager / each:.2f} × eager fp32")
        if best:
            beside.append(f"{best / each:.2f} × best forward")
        if rivals and name.startswith("visxai"):
            beside.append(f"{min(rivals) / each:.2f} × fastest peer")
        peak = bench.card.peak(works[name])
        beside.append(f"peak {peak[0]:.0f} MiB, reserved {peak[1]:.0f}")
        bench.say(
            what=f"{what}: {name}",
            reached=round(rows / each),
            unit="rows/s",
            beside=", ".join(beside),
        )


def folder(bench: Bench) -> None:
    """A folder run with and without overlays, its seconds by stage, and decoding alone."""
    import numpy as np
    from PIL import Image

    from visxai import pipeline
    from visxai.images.decoding import decode

    count = 6 if bench.quick else 2000
    workers = 1 if bench.quick else max(1, len(os.sched_getaffinity(0)) - 1)
    random = np.random.default_rng(0)
    with tempfile.TemporaryDirectory(prefix="visxai-gpu-") as scratch:
        source = Path(scratch) / "photographs"
        source.mkdir()
        coarse = random.integers(0, 255, (24, 12, 16, 3), dtype=np.uint8)
        pictures = [
            Image.fromarray(one).resize((500, 375), Image.Resampling.BICUBIC) for one in coarse
        ]
        for number in range(count):
            pictures[number % len(pictures)].save(
                source / f"{number:05d}.jpg", quality=90, comment=f"{number}".encode()
            )
        began = time.perf_counter()
        few = sorted(source.iterdir())[: 6 if bench.quick else 200]
        for path in few:
            decode(path)
        seconds = time.perf_counter() - began
        bench.say(what="decoding alone", reached=round(len(few) / seconds), unit="images/s a core")
        module = bench.module("lite0")
        engine = bench.engine(module, "bf16", batch_size=8 if bench.quick else 64)
        for overlays in (True, False):
            style = {} if overlays else {"style": None}
            began = time.perf_counter()
            out = Path(scratch) / f"out{overlays}"
            outcome = pipeline.explain([source], out, engine, workers=workers, **style)
            wall = time.perf_counter() - began
            told = ", ".join(f"{stage} {spent:.1f} s" for stage, spent in outcome.seconds.items())
            bench.say(
                what=f"folder, overlays {'on' if overlays else 'off'}, {workers} workers",
                reached=round(count / wall, 1),
                unit="images/s",
                beside=told,
            )


def perturbation_and_paths(bench: Bench) -> None:
    """Occlusion and integrated gradients beside captum, at internal rows of 64 and of 256."""
    window, stride = (32, 32) if bench.quick else (32, 16)
    for name in ("resnet50", "lite0")[: 1 if bench.quick else 2]:
        module = bench.module(name)
        for batch in (2,) if bench.quick else (8, 64):
            (x,), works = bench.inputs(batch, 1), {}
            classes = [0] * batch
            windows = ((bench.side - window + stride - 1) // stride + 1) ** 2
            for rows in (64, 256):
                for precision in ("fp32", "bf16"):
                    engine = bench.engine(module, precision, batch_size=rows)
                    spec = f"occlusion(window={window}, stride={stride})"
                    works[f"visxai {precision}, {rows} rows"] = partial(
                        engine.attribute, x, spec, 0
                    )
                plain = copy.deepcopy(module).to(bench.device)
                given = (plain, x, classes, window, stride, max(1, rows // batch))
                peer = partial(contestants.captum_occlusion, *given)
                add(bench, works, f"captum, {rows} rows", peer)
            report(bench, f"{name} b{batch} occlusion", works, batch * windows)
            works, steps = {}, 4 if bench.quick else 30
            for rows in (64, 256):
                engine = bench.engine(module, batch_size=rows)
                spec = f"integrated_gradients(steps={steps})"
                works[f"visxai fp32, {rows} rows"] = partial(engine.attribute, x, spec, 0)
                plain = copy.deepcopy(module).to(bench.device)
                given = (plain, x, classes, max(rows, batch), steps)
                peer = partial(contestants.captum_integrated_gradients, *given)
                add(bench, works, f"captum, {rows} rows", peer)
            report(bench, f"{name} b{batch} integrated gradients", works, batch * steps)


def memory(bench: Bench) -> None:
    """Memory that runs out for real: budgets shrink, maps stay, and all works again afterwards."""
    module, (x,) = bench.module("resnet50"), bench.inputs(16 if not bench.quick else 4, 1)
    engine = bench.engine(module, batch_size=256)
    spec = "occlusion(window=64, stride=32)"
    expected = engine.attribute(x, spec, 0)
    for leave, elsewhere in ((1500, False), (700, False), (350, False), (1500, True)):
        engine.model.budget.known.clear()
        with bench.card.full(leave, elsewhere):
            try:
                found = engine.attribute(x, spec, 0)
                off = float((found - expected).abs().max() / expected.abs().max())
                told, shrank = f"{off:.1e}", dict(engine.model.budget.known)
            except VisxaiError as error:
                told, shrank = type(error).__name__, {}
        bench.say(
            what=f"{leave} MiB left{' by another process' * elsewhere}",
            reached=told,
            unit="off",
            beside=f"rows: {list(shrank.values())}",
        )
    again = engine.attribute(x, spec, 0)
    worst = float((again - expected).abs().max() / expected.abs().max())
    bench.say(what="afterwards", reached=f"{worst:.1e}", unit="off")


def legrad(bench: Bench) -> None:
    """LeGrad and other attention methods on a ViT beside its forward and torchcam's Grad-CAM."""
    module, batch = bench.module("vit_b_16"), 2 if bench.quick else 64
    xs = bench.inputs(batch)
    works = forwards(bench, module, xs)
    for precision, spec in itertools.product(("fp32", "bf16"), ("legrad", "chefer", "grad_cam")):
        engine = bench.engine(module, precision, batch_size=batch)
        works[f"visxai {spec} {precision}"] = bench.turning(
            lambda x, e=engine, s=spec: e.attribute(x, s, 0), xs
        )
    report(bench, f"vit_b_16 b{batch}", works, batch)


def grid(bench: Bench) -> None:
    """The rest of the time: other models at other batch sizes."""
    names = ("mobilenet_v3_large", "convnext_tiny", "lite0", "vit_b_16")
    for name, batch in itertools.product(names[:: 3 if bench.quick else 1], (1, 8, 64, 256)):
        if bench.quick and batch > 1:
            continue
        module, xs = bench.module(name), bench.inputs(batch)
        plain = copy.deepcopy(module).to(bench.device)
        works = {"forward eager fp32": no_grad(bench.turning(plain, xs))}
        for precision in ("fp32", "bf16"):
            engine = bench.engine(module, precision, batch_size=batch)
            works[f"visxai grad_cam {precision}"] = bench.turning(
                lambda x, e=engine: e.attribute(x, "grad_cam", 0), xs
            )
        report(bench, f"{name} b{batch}", works, batch)


def precompile(bench: Bench) -> None:
    """In the background: what the steps compile, into inductor's cache on disk."""
    for name in ("resnet50", "vit_b_16"):
        module = bench.module(name)
        for batch in (64, 1):
            forwards(bench, module, bench.inputs(batch, 1))["forward compiled bf16"]()
        for precision in ("bf16", "fp32"):
            engine = bench.engine(module, precision, accelerate="compile", batch_size=64)
            engine.attribute(bench.inputs(2, 1)[0], "grad_cam", 0)


def fails(bench: Bench) -> None:
    """Planted in rehearsals."""
    bench.say(what="before the failure", reached=1)
    raise RuntimeError("planted failure")


def hangs(bench: Bench) -> None:
    """Planted in rehearsals."""
    bench.say(what="before the timeout", reached=1)
    time.sleep(600)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("name")
    parser.add_argument("--rows", type=Path, required=True)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    globals()[options.name](Bench(options))


if __name__ == "__main__":
    main()
