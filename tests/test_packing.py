"""Models packed with their maps: what ONNX Runtime alone gives is what the engine gives."""

from __future__ import annotations

import functools
import http.server
import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zoo
from numpy.typing import NDArray
from PIL import Image
from torch import nn

import visxai
from visxai import cli, package
from visxai.errors import ArgumentError, ModelError, TargetError, UnknownName, VisxaiError
from visxai.images.transforms import FILTERS
from visxai.models.pytorch import symbolic
from visxai.package import check, graph, head, serving, site
from visxai.quiet import warnings_of

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


FLAGS = (
    "--no-sandbox --disable-background-networking --disable-component-update --disable-sync "
    "--disable-quic --no-first-run"
)


def pictures(count: int = 3) -> list[NDArray[np.uint8]]:
    draw = np.random.default_rng(5)
    coarse = draw.integers(0, 256, (count, 8, 8, 3), np.uint8)
    return list(coarse.repeat(9, 1).repeat(9, 2))


@pytest.fixture(scope="module")
def engine() -> visxai.Engine:
    labels = [f"class {i}" for i in range(zoo.CLASSES)]
    return visxai.Engine(
        zoo.module("conv"),
        preprocess=zoo.PREPROCESS,
        labels=labels,
        device="cpu",
        precision="fp32",
        accelerate="off",
    )


@pytest.fixture(scope="module")
def file(engine: visxai.Engine, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("packed") / "model.onnx"
    found = package.write(engine, path, target="input", images=pictures())
    assert found.photographs == 3
    assert 0 < found.worst < 1e-5
    return path


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_a_file_explains_batches_of_any_size_and_class(
    engine: visxai.Engine, file: Path, batch: int
) -> None:
    session = check.opened(file.read_bytes())
    x = zoo.inputs(batch, seed=batch)
    classes = [(3 * i) % zoo.CLASSES for i in range(batch)]
    scores, maps = check.run(session, x, classes)
    torch.testing.assert_close(scores, engine.model.scores(x), rtol=1e-5, atol=1e-5)
    expected = engine.attribute(x, "grad_cam", classes)
    upsampled = torch.nn.functional.interpolate(maps[:, None], x.shape[2:], mode="bilinear")[:, 0]
    torch.testing.assert_close(upsampled, expected, rtol=1e-4, atol=1e-6)
    # A class below zero is the strongest, one beyond the last has no evidence.
    top = check.run(session, x, [-1] * batch)[1]
    torch.testing.assert_close(top, check.run(session, x, scores.argmax(1).tolist())[1])
    assert not check.run(session, x, [zoo.CLASSES] * batch)[1].any()


def test_a_file_says_what_its_reader_must_know(file: Path) -> None:
    proto = onnx.load(str(file))
    onnx.checker.check_model(proto, full_check=True)
    told = {entry.key: entry.value for entry in proto.metadata_props}
    assert told["visxai.version"] == visxai.__version__
    assert told["visxai.method"] == "grad_cam(relu=True)"
    assert told["visxai.layer"] == "last"
    assert json.loads(told["visxai.labels"])[3] == "class 3"
    assert json.loads(told["visxai.preprocess"])["size"] == [zoo.SIZE, zoo.SIZE]
    assert [one.name for one in proto.graph.input] == ["images", "class"]
    assert [one.name for one in proto.graph.output] == ["scores", "maps"]
    # Nothing of the machine that made it.
    assert str(Path(__file__).parents[1]).encode() not in file.read_bytes()


def test_a_file_needs_onnx_runtime_alone(file: Path) -> None:
    code = (
        "import sys, numpy, onnxruntime\n"
        "session = onnxruntime.InferenceSession(sys.argv[1], providers=['CPUExecutionProvider'])\n"
        "x = numpy.zeros((2, 3, 64, 64), numpy.float32)\n"
        "scores, maps = session.run(None, {'images': x, 'class': numpy.array([1, -1])})\n"
        "assert not {'torch', 'visxai', 'onnx'} & set(sys.modules)\n"
        "print(scores.shape, maps.shape)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, file], capture_output=True, text=True, check=True
    )
    assert done.stdout.split("\n")[0] == "(2, 10) (2, 8, 8)"


@pytest.mark.parametrize(
    ("kind", "method"),
    [
        ("conv", "hires_cam"),
        ("conv", "layer_cam(layer='stem')"),  # a convolution lies above it
        ("convnext", "grad_cam_plus_plus"),
        ("vit", "grad_cam(relu=False)"),
        ("hf_vit", "legrad"),
        ("timm_registers", "legrad"),
        ("swin", "xgrad_cam"),
    ],
)
def test_traced_heads_give_the_maps_of_the_engine(kind: str, method: str) -> None:
    model = zoo.shallow(kind)
    cam: Any = visxai.methods.load(method)
    parts = head.trace(model, cam, zoo.inputs(2), 3, False)
    for batch in (1, 4):
        x = zoo.inputs(batch, seed=9)
        with torch.no_grad():
            scores, maps = parts.head(*parts.below(x))
        torch.testing.assert_close(scores, model.scores(x), rtol=1e-4, atol=1e-5)
        expected = cam(model, x, visxai.Target.of(3)).values
        assert (maps - expected).abs().max() <= 1e-5 * expected.abs().max()


class Pooled(nn.Module):
    """A network whose head pools by windows and reshapes to sizes that it names."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.ReLU())
        self.pool = nn.AvgPool2d(3, 2, 1)
        self.line = nn.Linear(4 * 4 * 4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.line(self.pool(self.stem(x)).reshape(-1, 4 * 4 * 4))


def test_the_head_of_a_network_read_from_onnx_is_traced(tmp_path: Path) -> None:
    path = tmp_path / "network.onnx"
    torch.manual_seed(0)
    axes = {"x": {0: "batch"}, "y": {0: "batch"}}
    names: Any = {"input_names": ["x"], "output_names": ["y"], "dynamic_axes": axes}
    with warnings_of():
        torch.onnx.export(Pooled(), (torch.rand(2, 3, 17, 17),), path, dynamo=False, **names)
    sizes = visxai.Preprocess(size=(17, 17), mean=(0.5,) * 3, std=(0.5,) * 3)
    engine = visxai.Engine(f"onnx:{path}", preprocess=sizes, device="cpu", accelerate="off")
    model: Any = engine.model
    layer = next(n for n, one in model.copied().named_modules() if isinstance(one, nn.ReLU))
    cam: Any = visxai.methods.load(f"grad_cam(layer='{layer}')")
    x = torch.rand(3, 3, 17, 17)
    parts = head.trace(model, cam, x[:2], 1, False)
    with torch.no_grad():
        scores, maps = parts.head(*parts.below(x))
    torch.testing.assert_close(scores, model.scores(x))
    torch.testing.assert_close(maps, cam(model, x, visxai.Target.of(1)).values)


@pytest.mark.parametrize("options", [(3, 2, 1), (2, 2, 0), (3, 2, 0), (2, 1, 1)])
def test_the_backward_of_a_pooling_is_that_of_autograd(options: tuple[int, int, int]) -> None:
    x = torch.rand(2, 3, 8, 9, requires_grad=True)
    y = nn.functional.avg_pool2d(x, *options)
    gradient = torch.rand_like(y)
    (expected,) = torch.autograd.grad(y, x, gradient)
    kernel, stride, padding = ([one, one] for one in options)
    given = (gradient, x.detach(), kernel, stride, padding, False, True, None)
    torch.testing.assert_close(symbolic._pooling_backward(*given), expected)
    assert symbolic._pooling_backward(*given[:5], True, True, None) is NotImplemented


def test_of_a_last_block_only_what_the_head_reads_is_computed() -> None:
    model = zoo.shallow("vit")  # of 17 tokens, of which the head reads the first
    last = "encoder.layers.encoder_layer_1"
    for method, rows in (
        ("grad_cam", {1}),
        ("legrad", {1}),
        (f"grad_cam(layer='{last}.ln_2')", {17}),
    ):
        cam: Any = visxai.methods.load(method)
        parts = head.trace(model, cam, zoo.inputs(2), None, False)
        found = [node for node in parts.head.graph.nodes if "gelu" in str(node.target)]
        assert {node.meta["val"].shape[1] for node in found} == rows


def test_legrad_is_packed_for_a_transformer(tmp_path: Path) -> None:
    network = zoo.SHALLOW["vit"]()
    engine = visxai.Engine(zoo.randomise(network), preprocess=zoo.PREPROCESS, device="cpu")
    path = tmp_path / "legrad.onnx"
    found = package.write(engine, path, method="legrad", target="input", images=pictures())
    assert 0 < found.worst < 1e-5
    told = {one.key: one.value for one in onnx.load(str(path)).metadata_props}
    assert (told["visxai.method"], told["visxai.layer"]) == ("legrad()", "null")
    with pytest.raises(ArgumentError, match="without outliers"):
        package.write(engine, path, method="legrad(outliers=3.0)", images=pictures())
    convolutional = visxai.Engine(zoo.module("conv"), preprocess=zoo.PREPROCESS, device="cpu")
    with pytest.raises(VisxaiError, match="attention"):
        package.write(convolutional, path, method="legrad", images=pictures())


def test_a_repository_names_what_the_file_has(
    engine: visxai.Engine, file: Path, tmp_path: Path
) -> None:
    serving.fill(tmp_path, "small", file.read_bytes(), engine.model.labels, 4)
    config = (tmp_path / "small" / "config.pbtxt").read_text("utf-8")
    assert (tmp_path / "small" / "1" / "model.onnx").read_bytes() == file.read_bytes()
    for line in (
        'name: "small"',
        "max_batch_size: 4",
        '{ name: "images" data_type: TYPE_FP32 dims: [ 3, 64, 64 ] },',
        '{ name: "class" data_type: TYPE_INT64 dims: [ 1 ] reshape: { shape: [ ] } }',
        '{ name: "scores" data_type: TYPE_FP32 dims: [ 10 ] label_filename: "labels.txt" },',
        '{ name: "maps" data_type: TYPE_FP32 dims: [ 8, 8 ] }',
    ):
        assert line in config
    assert (tmp_path / "small" / "labels.txt").read_text("utf-8").splitlines()[3] == "class 3"
    assert "storageUri: pvc://models/small" in (tmp_path / "kserve.yaml").read_text("utf-8")
    with pytest.raises(ArgumentError, match="letters"):
        package.repository(engine, tmp_path, name="../x", images=pictures(1))


def test_a_file_that_disagrees_is_not_written(
    engine: visxai.Engine, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graph, "_exported", lambda *_: onnx.load(str(file)))
    monkeypatch.setattr(graph, "LIMIT", 0.0)
    with pytest.raises(ModelError, match="agree with the engine"):
        package.write(engine, tmp_path / "never.onnx", target="input", images=pictures(1))
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Path:
    try:
        return site.runtime_in(None, tmp_path_factory.mktemp("npm"))
    except ModelError as error:
        pytest.skip(f"no onnxruntime-web: {error}")


def test_the_runtime_is_taken_from_a_folder_or_an_archive(runtime: Path, tmp_path: Path) -> None:
    unpacked = tmp_path / "package" / "dist"
    unpacked.mkdir(parents=True)
    for name in site.RUNTIME:
        (unpacked / name).write_bytes((runtime / name).read_bytes())
    assert site.runtime_in(tmp_path, tmp_path) == unpacked
    with pytest.raises(ArgumentError, match="npm pack onnxruntime-web"):
        site.runtime_in(tmp_path / "nowhere.tgz", tmp_path)


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def opened(file: Path, runtime: Path, tmp_path: Path) -> Iterator[tuple[Any, list[str]]]:
    """The page of the packed model, once its model is loaded, and what it complains about or asks
    of other machines."""
    playwright = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("no browser")
    site.fill(tmp_path, file.read_bytes(), runtime)
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Quiet, directory=str(tmp_path))
    )
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    address = f"http://127.0.0.1:{server.server_port}/"
    wrong: list[str] = []
    try:
        with playwright.sync_playwright() as started:
            browser = started.chromium.launch(executable_path=chromium, args=FLAGS.split())
            page = browser.new_page()
            page.on("console", lambda said: wrong.append(said.text))
            page.on("pageerror", lambda error: wrong.append(str(error)))
            page.on(
                "request",
                lambda one: (
                    one.url.startswith((address, "blob:", "data:")) or wrong.append(one.url)
                ),
            )
            page.goto(address)
            page.wait_for_selector("#file:not([disabled])", state="attached")
            yield page, wrong
            browser.close()
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.mark.xdist_group("browser")
def test_a_page_explains_a_picture_without_a_network(
    engine: visxai.Engine, opened: tuple[Any, list[str]], tmp_path: Path
) -> None:
    page, wrong = opened
    picture = tmp_path / "picture.png"
    Image.fromarray(pictures(1)[0][:, :60]).save(picture)
    page.context.set_offline(True)
    page.set_input_files("#file", str(picture))
    page.wait_for_selector("body[data-milliseconds]")
    assert "grey margin" in page.inner_text("#told")  # the picture is cropped to a square
    (found,) = engine.explain([str(picture)])
    maps = json.loads(page.get_attribute("body", "data-map"))
    np.testing.assert_allclose(maps, found.values.ravel(), atol=0.01 * found.values.max())
    assert page.inner_text("#classes li:first-child span:first-child") == found.label
    # Another answer, from the keyboard, has another map.
    page.focus("#classes li:nth-child(2) button")
    page.keyboard.press("Enter")
    page.wait_for_selector("#classes li:nth-child(2) button[aria-pressed=true]")
    assert json.loads(page.get_attribute("body", "data-map")) != maps
    # What isn't a picture is refused in a sentence.
    (tmp_path / "text.png").write_text("no picture")
    page.set_input_files("#file", str(tmp_path / "text.png"))
    page.wait_for_selector("#wrong:not([hidden])")
    assert "choose another one" in page.inner_text("#wrong")
    page.wait_for_selector("main[aria-busy=false]")
    assert wrong == []
    # The arithmetic of the pixels is Pillow's.
    draw = np.random.default_rng(3).integers(0, 256, (37, 53, 3), np.uint8)
    source = np.concatenate([draw, np.full((37, 53, 1), 255, np.uint8)], 2).ravel().tolist()
    for name in ("nearest", "bilinear", "bicubic", "lanczos", "box"):
        for size in ((16, 24), (80, 61)):
            out = page.evaluate(
                "async ([data, name, size]) => Array.from((await import('./pixels.js')).resized("
                "Uint8ClampedArray.from(data), 53, 37, size[0], size[1], name))",
                [source, name, size],
            )
            expected = np.asarray(Image.fromarray(draw).resize(size, FILTERS[name]))
            got = np.array(out, np.uint8).reshape(size[1], size[0], 4)[..., :3]
            assert np.abs(got.astype(int) - expected).max() <= (0 if name == "nearest" else 1)


def test_what_can_not_be_packed_is_refused(engine: visxai.Engine, tmp_path: Path) -> None:
    out = tmp_path / "never.onnx"
    with pytest.raises(ArgumentError, match="class activation map"):
        package.write(engine, out, method="integrated_gradients", images=pictures())
    with pytest.raises(ArgumentError, match="top1, class=NAME or input"):
        package.write(engine, out, target="top3", images=pictures())
    with pytest.raises((TargetError, UnknownName)):
        package.write(engine, out, target="class=zebra", images=pictures())
    with pytest.raises(ArgumentError, match="photographs"):
        package.write(engine, out, images=[])
    scores = visxai.Engine(lambda x: x.mean((2, 3)), preprocess=zoo.PREPROCESS)
    with pytest.raises(ModelError, match="of PyTorch's"):
        package.write(scores, out, images=pictures())


def test_a_model_of_texts_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        cli.main(["package", "toxicity", "--out", "never.onnx"])
    assert left.value.code == 2
    assert "model of images, the only ones that can be packaged" in capsys.readouterr().err
