"""Nothing of a batch waits for Python's search for cycles: its tensors would pile up meanwhile."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import numpy as np
import pytest
import zoo
from torch import Tensor

import visxai


@pytest.fixture
def uncollected() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.set_debug(0)
    gc.garbage.clear()
    gc.enable()


@pytest.mark.parametrize("method", ["grad_cam", "occlusion(window=16)", "integrated_gradients"])
@pytest.mark.parametrize("check", [None, "faithfulness"])
def test_tensors_are_freed_at_once(uncollected: None, method: str, check: str | None) -> None:
    engine = visxai.Engine(zoo.module("conv"), preprocess=zoo.PREPROCESS, accelerate="off")
    image = np.random.default_rng(0).integers(0, 255, (70, 70, 3), dtype=np.uint8)
    engine.explain([image], method, check=check)
    gc.collect()
    engine.explain([image], method, check=check)
    gc.set_debug(gc.DEBUG_SAVEALL)
    gc.collect()
    assert [tuple(left.shape) for left in gc.garbage if isinstance(left, Tensor)] == []
