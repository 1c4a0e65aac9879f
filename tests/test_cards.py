"""ONNX files on the command line: preprocessing by options and by the card beside the file."""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import zoo
from PIL import Image

import visxai
from visxai import models
from visxai.cli.base import preprocess_of
from visxai.errors import ArgumentError, ModelError
from visxai.images.preprocess import Preprocess
from visxai.record.base import Explanation

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnx2torch")

NAMES = [f"thing {number}" for number in range(zoo.CLASSES)]
CARD = """
activation = "softmax"
labels = "names.txt"

[preprocess]
size = [64, 64]
resize = 70
mean = [0.5, 0.5, 0.5]
std = [0.25, 0.25, 0.25]
"""
STATED = Preprocess(size=(64, 64), resize=70, mean=(0.5,) * 3, std=(0.25,) * 3)
IMAGE = np.random.default_rng(2).integers(0, 255, (80, 90, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("exported") / "model.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            zoo.module("conv").eval(),
            (zoo.inputs(1),),
            str(path),
            input_names=["pixels"],
            output_names=["scores"],
            dynamic_axes={"pixels": {0: "n"}, "scores": {0: "n"}},
            dynamo=False,
        )
    return path.read_bytes()


@pytest.fixture
def file(tmp_path: Path, exported: bytes) -> Path:
    (tmp_path / "model.onnx").write_bytes(exported)
    (tmp_path / "names.txt").write_text("\n".join(NAMES))
    Image.fromarray(IMAGE).save(tmp_path / "one.png")
    return tmp_path / "model.onnx"


def visxai_(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            *(sys.executable, "-m", "visxai", "explain", "one.png", "--model", "onnx:model.onnx"),
            *("--precision", "fp32", "--workers", "0", *arguments),
        ],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=600,
    )


def read(folder: Path) -> Explanation:
    (found,) = visxai.results.read(folder / "visxai_out")
    return found


def test_options_give_an_onnx_file_its_preprocessing(file: Path) -> None:
    without = visxai_(file.parent)
    assert without.returncode == 2
    assert "--size, --resize, --mean and --std" in without.stderr
    done = visxai_(
        file.parent,
        *("--size", "64", "--resize", "70", "--mean", "0.5,0.5,0.5", "--std", "0.25,0.25,0.25"),
    )
    assert done.returncode == 0, done.stderr
    engine = visxai.Engine(f"onnx:{file}", preprocess=STATED, precision="fp32")
    (expected,) = engine.explain(str(file.parent / "one.png"))
    assert isinstance(expected, Explanation)
    found = read(file.parent)
    assert found.model.preprocess == str(STATED)
    assert found.score == pytest.approx(expected.score, abs=1e-5)


def test_a_card_beside_the_file_does_as_well_and_options_override_it(file: Path) -> None:
    file.with_suffix(".toml").write_text(CARD)
    done = visxai_(file.parent)
    assert done.returncode == 0, done.stderr
    assert read(file.parent).model.preprocess == str(STATED)
    assert read(file.parent).label in NAMES
    assert visxai_(file.parent, "--size", "64", "--fresh").returncode == 0
    other = Preprocess(size=(64, 64), resize=64)
    assert read(file.parent).model.preprocess == str(other)
    assert models.load(f"onnx:{file}", labels=["x"] * zoo.CLASSES).labels == ("x",) * zoo.CLASSES


@pytest.mark.parametrize(
    "card",
    [
        "labels = [",
        "labels = 3",
        "labels = 'gone.txt'",
        "[preprocess]\nsizes = [64, 64]",
        "[preprocess]\nsize = 64",
        "preprocess = 'usual'",
    ],
)
def test_a_card_that_is_none_is_told_with_its_name(file: Path, card: str) -> None:
    file.with_suffix(".toml").write_text(card)
    with pytest.raises(ModelError, match=r"model\.toml"):
        models.load(f"onnx:{file}")


def test_a_card_names_labels_of_its_own_folder_alone(file: Path, tmp_path: Path) -> None:
    (tmp_path.parent / "secret.txt").write_text("root")
    file.with_suffix(".toml").write_text('labels = "../secret.txt"')
    with pytest.raises(ModelError, match=r"secret\.txt"):
        models.load(f"onnx:{file}")


def test_the_reason_why_a_file_has_no_gradients_is_told(file: Path) -> None:
    proto = onnx.load(file)
    # The converter knows no operator of this kind, and the runtime does.
    helper = onnx.helper
    proto.graph.node.append(helper.make_node("Shrink", [proto.graph.output[0].name], ["twisted"]))
    proto.graph.output[0].name = "twisted"
    onnx.save(proto, file)
    engine = visxai.Engine(f"onnx:{file}", preprocess=STATED)
    with pytest.raises(ArgumentError, match=r"onnx2torch: .*Shrink") as told:
        engine.explain(IMAGE, "grad_cam")
    assert "occlusion" in str(told.value)
    assert engine.explain(IMAGE, "occlusion(window=32, stride=32)")


def test_options_are_numbers_that_go_with_a_size() -> None:
    none = (None,) * 5
    assert preprocess_of(*none) is None
    assert preprocess_of("64x48", None, None, None, None) == Preprocess((64, 48), 64)
    assert preprocess_of("28", "28x28", "0.5", None, "bicubic") == Preprocess(
        (28, 28), (28, 28), "bicubic", (0.5,), (1.0,)
    )
    for given, said in (
        ((None, "3", None, None, None), "expected --size with --resize"),
        (("a", None, None, None, None), "pixels for --size, got 'a'"),
        (("8x8x8", None, None, None, None), "pixels for --size"),
        (("8", None, "a,b,c", None, None), "numbers for --mean"),
        (("8", None, "1,2", None, None), "expected 3 numbers as mean"),
        (("8", None, None, "0,0,0", None), "positive std"),
        (("8", None, None, None, "best"), "interpolation"),
    ):
        with pytest.raises(ArgumentError, match=said):
            preprocess_of(*given)
