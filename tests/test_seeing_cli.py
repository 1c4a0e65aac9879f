"""Detectors and matches on the command line, with detectors whose answers are known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import zoo
from encoders import image_and_text, saved, tokenizer
from onnx import TensorProto, helper
from PIL import Image

import visxai
from visxai import cli, similarity
from visxai.detection import Detector
from visxai.errors import ModelError
from visxai.models import detectors

SIDE = 64
BOX = (24, 8, 56, 40)


def visxai_(*arguments: Any) -> int:
    with pytest.raises(SystemExit) as left:
        cli.main([str(one) for one in arguments])
    assert isinstance(left.value.code, int)
    return left.value.code


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """A grey picture with a red square in the middle of the box."""
    found = np.full((SIDE, SIDE, 3), 20, np.uint8)
    found[12:36, 28:52] = (250, 20, 20)
    Image.fromarray(found).save(tmp_path / "picture.png")
    return tmp_path / "picture.png"


def planted(path: Path, batch: int | str) -> Path:
    """A file like ultralytics': one proposal of three classes, as sure as the square is red."""
    left, top, right, bottom = BOX
    box = [(left + right) / 2, (top + bottom) / 2, right - left, bottom - top]
    graph = helper.make_graph(
        [
            helper.make_node("Slice", ["images", "from", "to", "axes"], ["square"]),
            helper.make_node("ReduceMean", ["square", "axes"], ["mean"]),
            helper.make_node("Mul", ["mean", "pick"], ["scores"]),
            helper.make_node("Mul", ["mean", "none"], ["nothing"]),
            helper.make_node("Add", ["nothing", "box"], ["place"]),
            helper.make_node("Concat", ["place", "scores"], ["whole"], axis=1),
            helper.make_node("Squeeze", ["whole", "last"], ["output0"]),
        ],
        "planted",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [batch, 3, SIDE, SIDE])],
        [helper.make_tensor_value_info("output0", TensorProto.FLOAT, [batch, 7, 1])],
        [
            helper.make_tensor("from", TensorProto.INT64, [3], [0, 12, 28]),
            helper.make_tensor("to", TensorProto.INT64, [3], [1, 36, 52]),
            helper.make_tensor("axes", TensorProto.INT64, [3], [1, 2, 3]),
            helper.make_tensor("last", TensorProto.INT64, [1], [3]),
            helper.make_tensor("pick", TensorProto.FLOAT, [1, 3, 1, 1], [0.0, 1.0, 0.0]),
            helper.make_tensor("none", TensorProto.FLOAT, [1, 4, 1, 1], [0.0] * 4),
            helper.make_tensor("box", TensorProto.FLOAT, [1, 4, 1, 1], box),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    for key, value in (("names", "{0: 'cat', 1: 'red square', 2: 'dog'}"), ("imgsz", "[64, 64]")):
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())
    return path


@pytest.mark.parametrize("batch", [1, "batch"])
def test_an_exported_yolo_is_explained(
    tmp_path: Path, picture: Path, batch: int | str, capsys: pytest.CaptureFixture[str]
) -> None:
    file, out = planted(tmp_path / "planted.onnx", batch), tmp_path / "objects"
    spec = "occlusion(window=8, stride=8)"
    assert visxai_("detect", picture, "--model", f"onnx:{file}", "--method", spec, "-o", out) == 0
    (row,) = json.loads((out / "objects.json").read_text("utf-8"))
    assert row["label"] == "red square"
    assert row["score"] == pytest.approx(250 / 255, abs=1e-4)
    assert row["box"] == pytest.approx(BOX)
    assert row["evidence_in_box"] >= 0.9
    with Image.open(out / row["picture"]) as drawn:
        assert drawn.size == (SIDE, SIDE)
    said = capsys.readouterr().out
    assert "red square" in said
    assert "24 8 56 40" in said
    assert visxai_("detect", picture, "--model", f"onnx:{file}", "--least", 1, "-o", out) == 0
    assert "No object in 1 image: lower --least." in capsys.readouterr().out


def test_a_picture_that_cannot_be_read_is_told(
    tmp_path: Path, picture: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, broken = planted(tmp_path / "planted.onnx", 1), tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    given = ("--model", f"onnx:{file}", "--method", "rise(masks=4)", "-o", tmp_path / "objects")
    assert visxai_("detect", broken, picture, *given) == 1
    said = capsys.readouterr().out
    assert "failed" in said
    assert "red square" in said


def test_a_detector_of_hugging_face_by_folder(tmp_path: Path, picture: Path) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.YolosConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        image_size=[SIDE, SIDE],
        num_detection_tokens=4,
        num_labels=3,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        transformers.YolosForObjectDetection(config).save_pretrained(tmp_path)
    side = {"shortest_edge": SIDE, "longest_edge": 2 * SIDE}
    transformers.YolosImageProcessor(size=side).save_pretrained(tmp_path)
    detector = Detector(f"hf:{tmp_path}", device="cpu")
    assert detector.labels is not None
    assert detector.labels[0] == "LABEL_0"
    assert str(detector.model.preprocess).startswith("resize 64 long side")
    assert detector.explain(picture, "rise(masks=4)", least=0.0, most=2)


def test_detectors_that_are_none_are_refused(tmp_path: Path) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"no graph")
    for name, said in (
        (f"onnx:{tmp_path}/none.onnx", "isn't there"),
        (f"onnx:{tmp_path}/broken.onnx", "export it again"),
    ):
        with pytest.raises(ModelError, match=said):
            Detector(name)
    assert detectors.load("torchvision:fcos_resnet50_fpn") is None


def test_two_pictures_on_the_command_line(
    tmp_path: Path, picture: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other, out = tmp_path / "other.png", tmp_path / "match"
    Image.open(picture).rotate(90).save(other)
    spec = "occlusion(window=112, stride=112)"
    assert visxai_("match", picture, other, "--method", spec, "-o", out, "--device", "cpu") == 0
    records = json.loads((out / "match.json").read_text("utf-8"))
    assert len(records) == 2
    assert records[0]["score"] == pytest.approx(records[1]["score"], abs=1e-5)
    assert (out / "02.jpg").is_file()
    assert "finds a similarity of 0." in capsys.readouterr().out


def test_a_picture_and_texts_on_the_command_line(
    tmp_path: Path, picture: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = saved(image_and_text("clip"), tmp_path)
    tokenizer(tmp_path)
    out = tmp_path / "match"
    asked = ("--text", "a cat", "--text", "a red fox")
    assert visxai_("match", picture, *asked, "--model", name, "-o", out, "--device", "cpu") == 0
    records = json.loads((out / "match.json").read_text("utf-8"))
    assert [one["kind"] for one in records] == ["image", "text"] * 2
    assert "a red fox" in capsys.readouterr().out
    assert visxai_("match", picture, "--model", name) == 2
    assert "two pictures, or one picture and --text" in capsys.readouterr().err


def test_a_classifier_embeds_by_what_enters_its_last_layer() -> None:
    classifier = zoo.model("resnet18")
    named = visxai.Engine(
        zoo.module("resnet18"),
        preprocess=zoo.PREPROCESS,
        labels=[str(place) for place in range(zoo.CLASSES)],
        device="cpu",
        precision="fp32",
        accelerate="off",
    )
    found, x = similarity.embedder(named), zoo.inputs()
    embedded = found.model.scores(x)
    head = zoo.module("resnet18").fc
    assert torch.allclose(head(embedded), classifier.scores(x), atol=1e-4)
    assert similarity.embedder(found) is found
