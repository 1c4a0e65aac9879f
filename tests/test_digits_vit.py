"""The small digits transformer: it reads, and its maps lie on the digit that was asked for."""

from __future__ import annotations

import importlib.util
from functools import cache
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import visxai

ROOT = Path(__file__).parents[1]


@cache
def benchmark() -> ModuleType:
    """benchmarks/quality/digits_vit.py, which draws the canvases."""
    path = ROOT / "benchmarks" / "quality" / "digits_vit.py"
    spec = importlib.util.spec_from_file_location("quality_digits_vit", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def engine() -> visxai.Engine:
    return visxai.Engine("digits_vit", device="cpu", precision="fp32", batch_size=60)


def test_it_is_small() -> None:
    assert (ROOT / "models" / "digits_vit.safetensors").stat().st_size < 1_000_000
    assert (ROOT / "tests" / "data" / "digits.npz").stat().st_size < 100_000


def test_it_reads_digits_it_never_saw(engine: visxai.Engine) -> None:
    digits, labels = benchmark().held_out()
    canvases = [
        benchmark().canvas(*((digit, None) if index % 2 else (None, digit)), index)
        for index, digit in enumerate(digits[:240])
    ]
    found = np.array([prediction.class_index for prediction in engine.predict(canvases)])
    assert (found == labels[:240]).mean() > 0.85


@pytest.mark.parametrize("method", ["chefer", "legrad", "beyond_intuition", "grad_cam"])
def test_the_map_lies_on_the_digit_asked_for(engine: visxai.Engine, method: str) -> None:
    shares = benchmark().shares(engine, method, 40)
    low, _ = benchmark().interval(shares)
    assert low > 0.52
    assert benchmark().told_apart(shares) > 0.75


def test_rollout_ignores_the_question(engine: visxai.Engine) -> None:
    shares = benchmark().shares(engine, "attention_rollout", 40)
    assert shares == pytest.approx(0.5, abs=1e-6)


def test_a_card_with_other_weights_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("visxai.models.weights.sha256_of", lambda path: "0" * 64)
    with pytest.raises(visxai.errors.ModelError, match="reinstall visxai"):
        visxai.models.load("digits_vit")
