"""Latency and throughput of methods beside the plain forward of the same batch.

    pytest benchmarks                            # a small part: 3 minutes on two cores
    pytest benchmarks --full -k "resnet50 and grad_cam"       # a part of the whole grid
    pytest benchmarks --full --memory            # all of it, with peaks: hours on a CPU

    --benchmark-json FILE keeps the figures, --benchmark-columns=median,ops shortens the table.

Random weights: time does not depend on them. Compare within a group: the plain forward of the
same model and batch is the unit. Batch 1 shows latency (extra_info has p50 and p95), larger
batches throughput (images_per_second). What takes more than LONGEST rows is left to CUDA.
"""

from __future__ import annotations

from functools import cache, partial
from typing import Any

import pytest
import torch

import visxai
from visxai.bench import cases, measure
from visxai.errors import ArgumentError
from visxai.methods import load

MODELS = (
    "efficientnet_lite0",
    "resnet50",
    "mobilenet_v3_large",
    "convnext_tiny",
    "vit_b_16",
    "deit_tiny_patch16_224",
    "swin_t",
)
METHODS = ("forward", "grad_cam", "integrated_gradients", "occlusion", "legrad")
BATCHES = (1, 8, 64)
PRECISIONS = ("fp32", "bf16", "fp16")
ACCELERATIONS = ("off", "onnx", "compile")
SMALL = {
    (model, method, batch, "fp32", how)
    for model in ("efficientnet_lite0", "deit_tiny_patch16_224")
    for method in ("forward", "grad_cam")
    for batch in (1, 8)
    for how in ("off", "onnx")
} | {("deit_tiny_patch16_224", "legrad", 8, "fp32", "off")}
LONGEST = 2500  # rows through the network that one call on a CPU may take


def loaded(model: str, precision: str, accelerate: str) -> visxai.Engine:
    """An engine on a model of random weights (the default has its own)."""
    how: dict[str, Any] = {"precision": precision, "accelerate": accelerate, "batch_size": 64}
    if model == "efficientnet_lite0":
        return visxai.Engine(**how)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    with torch.random.fork_rng():
        torch.manual_seed(0)  # the same weights, so that prepared forms are found again
        if model.startswith("deit"):
            import timm

            module = timm.create_model(model, pretrained=False)
        else:
            from torchvision.models import get_model

            module = get_model(model, weights=None)
    return visxai.Engine(module, device=device, **how)


engine = cache(loaded)


def work(model: str, method: str, batch: int, precision: str, accelerate: str) -> measure.Work:
    """The call alone, for the process that measures memory."""
    return cases.work(loaded(model, precision, accelerate), method, batch)


@pytest.mark.parametrize("accelerate", ACCELERATIONS)
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("model", MODELS)
def test_latency(
    benchmark: Any,
    request: pytest.FixtureRequest,
    model: str,
    method: str,
    batch: int,
    precision: str,
    accelerate: str,
) -> None:
    case = (model, method, batch, precision, accelerate)
    if case not in SMALL and not request.config.getoption("--full"):
        pytest.skip("part of --full")
    cuda = torch.cuda.is_available()
    if precision == "fp16" and not cuda:
        pytest.skip("fp16 is a GPU's")
    if accelerate != "off" and precision != "fp32":
        pytest.skip("prepared forms compute in fp32")
    if accelerate == "onnx" and cuda:
        pytest.skip("ONNX Runtime accelerates on a CPU")
    subject = engine(model, precision, accelerate)
    if method != "forward":
        loaded_method = load(method)
        try:
            subject.check(loaded_method)
        except ArgumentError as error:
            pytest.skip(str(error))
        cost = loaded_method.cost(subject.model, torch.zeros(1, 3, 224, 224, device=subject.device))
        rows = batch * (cost.forwards + 2 * cost.backwards)
        if rows > LONGEST and not cuda:
            pytest.skip(f"{rows} rows take minutes on a CPU")
    timed = cases.work(subject, method, batch)
    rounds = 30 if batch == 1 and method in ("forward", "grad_cam", "legrad") else 5
    benchmark.group = f"{model}, batch {batch}, {precision}"
    benchmark.pedantic(partial(finished, timed), rounds=rounds, warmup_rounds=1)
    seconds = list(benchmark.stats.stats.data)
    benchmark.extra_info |= {
        "p50_ms": round(1000 * measure.percentile(seconds, 0.5), 2),
        "p95_ms": round(1000 * measure.percentile(seconds, 0.95), 2),
        "images_per_second": round(batch / measure.percentile(seconds, 0.5), 2),
    }
    if request.config.getoption("--memory"):
        peak = (
            measure.allocator_peak(timed) if cuda else measure.peak_increase(partial(work, *case))
        )
        benchmark.extra_info["peak_mib"] = None if peak is None else round(peak, 1)


def finished(timed: measure.Work) -> None:
    """The call, and what it left running on the device."""
    timed()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
