"""Latency and throughput of methods beside the plain forward of the same batch.

    pytest benchmarks --benchmark-group-by=param:model,param:batch --benchmark-columns=median,ops

Random weights: time does not depend on them. Compare within a group: the plain forward of the
same batch is the unit.
"""

from __future__ import annotations

from functools import cache

import pytest
import torch
from torch import Tensor

import visxai

MODELS = ("resnet50", "mobilenet_v2", "mobilenet_v3_large", "convnext_tiny", "vit_b_16", "swin_t")


@cache
def engine(model: str) -> visxai.Engine:
    from torchvision.models import get_model

    return visxai.Engine(get_model(model, weights=None), batch_size=64)


def images(batch: int) -> Tensor:
    return torch.randn(batch, 3, 224, 224, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("batch", [1, 8, 16])
@pytest.mark.parametrize("method", ["forward", "grad_cam"])
def test_one_pass(benchmark, model: str, batch: int, method: str) -> None:
    x, subject = images(batch).to(engine(model).device), engine(model)
    if method == "forward":
        plain = subject.model.module  # type: ignore[attr-defined]

        def work() -> None:
            with torch.no_grad():
                plain(x)
    else:

        def work() -> None:
            subject.attribute(x, method)

    benchmark.extra_info["images"] = batch
    benchmark.pedantic(work, rounds=5, warmup_rounds=1)
