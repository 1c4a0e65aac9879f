"""ONNX files: scores equal the network they were exported from, gradients where they can be had,
nothing outside the model's folder read, nothing in the file run."""

from __future__ import annotations

import threading
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import zoo
from torch import Tensor, nn

import visxai
from visxai import methods, models
from visxai.engine.batch import compute
from visxai.errors import ArgumentError, ModelError, UnknownName
from visxai.methods.base import Method
from visxai.models import weights
from visxai.models.interface import Model, Need
from visxai.models.onnx import convert
from visxai.models.onnx.graph import read
from visxai.models.onnx.model import OnnxModel
from visxai.models.probe import Probe
from visxai.models.pytorch.model import TorchModel
from visxai.target import Target

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnx2torch")

TARGET = Target.of("class=3")
# Smaller budgets for methods of many forwards.
BUDGETS = {
    "hsic": "hsic(samples=20, grid=3)",
    "kernel_shap": "kernel_shap(segments=(3, 3), samples=30)",
    "lime": "lime(segments=9, samples=30)",
    "occlusion": "occlusion(window=32, stride=32)",
    "partition_shap": "partition_shap(max_evaluations=20, grid=8)",
    "rise": "rise(masks=20)",
    "sobol": "sobol(samples=4, grid=3)",
}
BY_SCORES = [name for name in methods.names() if not methods.find(name).needs & ~Need.SCORES]


def export(module: nn.Module, path: Path, *, free: bool = True, batch: int = 1) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module.eval(),
            (zoo.inputs(batch),),
            str(path),
            input_names=["pixels"],
            output_names=["scores"],
            dynamic_axes={"pixels": {0: "n"}, "scores": {0: "n"}} if free else None,
            dynamo=False,
        )
    return path


class ChannelsLast(nn.Module):
    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        return self.module(x.permute(0, 3, 1, 2))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("onnx")


@pytest.fixture(scope="module")
def file(folder: Path) -> Path:
    """The small CNN with a free batch."""
    return export(zoo.module("conv"), folder / "conv.onnx")


@pytest.fixture(scope="module")
def model(file: Path) -> TorchModel:
    found = models.load(f"onnx:{file}")
    assert isinstance(found, TorchModel)
    return found


@pytest.fixture(scope="module")
def scores_only(file: Path) -> OnnxModel:
    """The same file as if it couldn't be converted."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(convert, "convert", lambda _: None)
        found = models.load(f"onnx:{file}")
    assert isinstance(found, OnnxModel)
    return found


def run(model: Model, method: Method, x: Tensor) -> Tensor:
    return compute(method, Probe(model, x), x, TARGET).values


def close(a: Tensor, b: Tensor, tolerance: float = 1e-4) -> bool:
    return bool((a - b).abs().max() <= tolerance * b.abs().max().clamp_min(1e-12))


def edited(file: Path, path: Path, edit: Any) -> Path:
    proto = onnx.load(str(file))
    edit(proto)
    path.write_bytes(proto.SerializeToString())
    return path


@pytest.mark.parametrize("kind", ["conv", "resnet18", "vit"])
def test_scores_equal_the_network_exported(kind: str, folder: Path) -> None:
    found = models.load(f"onnx:{export(zoo.module(kind), folder / f'{kind}.onnx')}")
    assert close(found.scores(zoo.inputs(5)), zoo.model(kind).scores(zoo.inputs(5)))
    assert found.accelerated(Need.SCORES).startswith("onnxruntime ")
    assert "CPUExecutionProvider" in found.accelerated(Need.SCORES) or torch.cuda.is_available()


@pytest.mark.parametrize("batch", [1, 2])
def test_a_fixed_batch_is_padded_and_looped(batch: int, folder: Path) -> None:
    path = export(zoo.module("conv"), folder / f"fixed{batch}.onnx", free=False, batch=batch)
    found = models.load(f"onnx:{path}")
    for count in (1, 2, 5):
        assert close(found.scores(zoo.inputs(count)), zoo.model("conv").scores(zoo.inputs(count)))


def test_channels_last_is_told_by_the_axis_of_channels(folder: Path) -> None:
    module = ChannelsLast(zoo.module("conv"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module, (zoo.inputs(1).permute(0, 2, 3, 1),), str(folder / "nhwc.onnx"), dynamo=False
        )
    found = models.load(f"onnx:{folder / 'nhwc.onnx'}")
    assert close(found.scores(zoo.inputs()), zoo.model("conv").scores(zoo.inputs()))
    assert close(
        run(found, methods.load("grad_cam"), zoo.inputs()),
        run(zoo.model("conv"), methods.load("grad_cam(layer='last')"), zoo.inputs()),
    )


@pytest.mark.parametrize(
    ("last", "activation"), [(nn.Softmax(1), "softmax"), (nn.Sigmoid(), "sigmoid")]
)
def test_a_final_activation_is_cut_off(last: nn.Module, activation: str, folder: Path) -> None:
    path = export(nn.Sequential(zoo.module("conv"), last), folder / f"{activation}.onnx")
    found = models.load(f"onnx:{path}")
    logits = zoo.model("conv").scores(zoo.inputs())
    assert found.activation == activation
    assert close(found.scores(zoo.inputs()), logits)
    assert close(found.probabilities(found.scores(zoo.inputs())), last(logits))


def test_activation_none_takes_the_scores_as_they_are(folder: Path) -> None:
    path = export(nn.Sequential(zoo.module("conv"), nn.Softmax(1)), folder / "asis.onnx")
    found = models.load(f"onnx:{path}", activation="none")
    assert close(found.scores(zoo.inputs()), zoo.model("conv").scores(zoo.inputs()).softmax(1))


def test_probabilities_that_cannot_be_cut_become_their_logarithm(folder: Path) -> None:
    class Inner(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = zoo.module("conv")

        def forward(self, x: Tensor) -> Tensor:
            return self.module(x).softmax(1) * 0.5 + self.module(x).softmax(1) * 0.5

    found = models.load(f"onnx:{export(Inner(), folder / 'inner.onnx')}")
    expected = zoo.model("conv").scores(zoo.inputs()).log_softmax(1)
    assert found.activation == "softmax"
    assert close(found.scores(zoo.inputs()), expected)


def test_one_of_several_outputs(folder: Path, file: Path) -> None:
    def more(proto: Any) -> None:
        inner = next(node.output[0] for node in proto.graph.node if node.op_type == "Flatten")
        proto.graph.output.append(onnx.helper.make_tensor_value_info(inner, 1, ["n", 12]))

    path = edited(file, folder / "two.onnx", more)
    named = onnx.load(str(path)).graph.output[1].name
    assert models.load(f"onnx:{path}").scores(zoo.inputs()).shape == (3, zoo.CLASSES)
    assert models.load(f"onnx:{path}", output=named).scores(zoo.inputs()).shape == (3, 12)
    with pytest.raises(UnknownName, match="scores"):
        models.load(f"onnx:{path}", output="logits")


@pytest.mark.parametrize("name", BY_SCORES)
def test_every_method_of_scores_equals_its_pytorch_twin(
    name: str, model: TorchModel, scores_only: OnnxModel
) -> None:
    method, x = methods.load(BUDGETS.get(name, name)), zoo.inputs()
    expected = run(zoo.model("conv"), method, x)
    # A map of differences keeps fewer digits than the scores it is made of.
    assert close(run(model, method, x), expected, 1e-3)
    assert close(run(scores_only, method, x), expected, 1e-3)


@pytest.mark.parametrize("name", ["grad_cam", "integrated_gradients(steps=10)"])
def test_gradients_equal_the_network_exported(name: str, model: TorchModel) -> None:
    twin = zoo.model("conv")
    method = methods.load(name)
    assert close(run(model, method, zoo.inputs()), run(twin, method, zoo.inputs()))


def test_a_flat_graph_of_a_transformer_is_seen_at_the_same_layer(folder: Path) -> None:
    found = models.load(f"onnx:{export(zoo.module('vit'), folder / 'flat.onnx')}")
    assert found.layer(zoo.inputs()) == "encoder_layers_encoder_layer_2_ln_1_LayerNormalization"
    method = methods.load("grad_cam")
    expected = run(zoo.model("vit"), method, zoo.inputs())
    assert close(run(found, method, zoo.inputs()), expected)


def test_newer_operators_are_converted_in_their_older_forms(tmp_path: Path) -> None:
    text = """
    <ir_version: 9, opset_import: ["" : 20]>
    newer (float[n, 3, 64, 64] x) => (float[n, 3] y) {
        axes = Constant <value: tensor = int64[2] {2, 3}> ()
        bent = Gelu (x)
        y = ReduceMean <keepdims: int = 0> (bent, axes)
    }
    """
    path = tmp_path / "newer.onnx"
    path.write_bytes(onnx.parser.parse_model(text).SerializeToString())
    found = models.load(f"onnx:{path}")
    assert isinstance(found, TorchModel)
    expected = nn.functional.gelu(zoo.inputs()).mean((2, 3))
    assert close(found.scores(zoo.inputs()), expected)
    with torch.no_grad():
        assert close(found.forward(zoo.inputs()), expected)


def test_constants_that_are_kept_once_under_several_names_are_converted(tmp_path: Path) -> None:
    layers: list[nn.Module] = []
    for _ in range(2):  # folded into the convolutions, both norms leave the same bias
        layers += [nn.Conv2d(3, 3, 3, bias=False), nn.BatchNorm2d(3), nn.ReLU()]
    module = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 4))
    path = export(module, tmp_path / "aliases.onnx")
    assert "Identity" in {node.op_type for node in onnx.load(path).graph.node}
    found = models.load(f"onnx:{path}", device="cpu")
    assert Need.INPUT_GRADIENT in found.offers
    assert close(found.scores(zoo.inputs()), module(zoo.inputs()).detach())


def test_slices_are_those_of_the_standard() -> None:
    x = torch.arange(24).reshape(2, 3, 4)
    most = 2**63 - 1

    def cut(starts: list[int], ends: list[int], axes: list[int], steps: list[int]) -> Tensor:
        return convert.Slice()(x, *map(torch.tensor, (starts, ends, axes, steps)))

    assert torch.equal(cut([1], [most], [-1], [2]), x[..., 1::2])
    assert torch.equal(cut([0, -2], [1, most], [0, 1], [1, 1]), x[:1, -2:])
    assert torch.equal(cut([-1], [-most], [2], [-1]), x.flip(2))


def test_without_conversion_the_engine_names_what_remains(scores_only: OnnxModel) -> None:
    with pytest.raises(ArgumentError, match=r"use one of .*occlusion"):
        visxai.Engine(scores_only).attribute(zoo.inputs(), "grad_cam")


@pytest.mark.parametrize("which", ["model", "scores_only"])
def test_batch_invariance(which: str, request: pytest.FixtureRequest) -> None:
    found: Model = request.getfixturevalue(which)
    method, x = methods.load(BUDGETS["occlusion"]), zoo.inputs()
    together = run(found, method, x)
    for index in range(3):
        assert close(run(found, method, x[index : index + 1])[0], together[index])


def test_threads_share_a_session(scores_only: OnnxModel) -> None:
    method, x = methods.load(BUDGETS["occlusion"]), zoo.inputs()
    together, wrong = run(scores_only, method, x), []

    def explain(index: int) -> None:
        mine = [run(scores_only, method, x[index : index + 1])[0] for _ in range(5)]
        wrong.extend(index for one in mine if not close(one, together[index]))

    threads = [threading.Thread(target=explain, args=(index,)) for index in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_out_of_memory_backs_off(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convert, "convert", lambda _: None)
    found = models.load(f"onnx:{file}")
    assert isinstance(found, OnnxModel)
    plain = found.runtime

    def small(x: Tensor) -> Tensor:
        if len(x) > 2:
            raise MemoryError("Failed to allocate memory (pretended)")
        return plain(x)

    monkeypatch.setattr(found, "runtime", small)
    method = methods.load(BUDGETS["occlusion"])
    assert close(run(found, method, zoo.inputs()), run(zoo.model("conv"), method, zoo.inputs()))
    assert max(found.budget.known.values()) <= 2


def test_identity_is_the_file(file: Path, model: TorchModel, scores_only: OnnxModel) -> None:
    digest = weights.sha256_of(file)
    assert model.ref.weights_sha256 == scores_only.ref.weights_sha256 == digest
    assert model.ref.name == "onnx:conv.onnx"


def test_explains_photographs_with_a_preprocess(file: Path) -> None:
    labels = [f"c{i}" for i in range(10)]
    engine = visxai.Engine(
        f"onnx:{file}", preprocess=zoo.PREPROCESS, labels=labels, device="cpu", precision="fp32"
    )
    pixels = zoo.inputs(1)[0].permute(1, 2, 0).mul(50).add(128).clamp(0, 255).byte().numpy()
    (found,) = engine.explain(pixels, "occlusion(window=32, stride=32)")
    assert found.label.startswith("c")
    assert found.accelerate.startswith("onnxruntime")
    assert found.to_dict()["accelerate"] == found.accelerate


def test_without_a_preprocess_explain_says_so(file: Path) -> None:
    engine = visxai.Engine(f"onnx:{file}", device="cpu")
    with pytest.raises(ArgumentError, match="pass preprocess="):
        engine.explain(torch.zeros(8, 8, 3, dtype=torch.uint8).numpy())


def test_half_precision_is_refused_where_only_the_runtime_computes(
    scores_only: OnnxModel,
) -> None:
    assert visxai.Engine(scores_only).precision == "fp32"
    with pytest.raises(ArgumentError, match="precision='auto'"):
        visxai.Engine(scores_only, precision="bf16")


def test_another_input_size_is_one_sentence(scores_only: OnnxModel) -> None:
    with pytest.raises(ModelError, match=r"\(batch, 3, 64, 64\).*got \(1, 3, 32, 32\)"):
        scores_only.scores(zoo.inputs(1, 32))


def external(file: Path, path: Path, location: str) -> Path:
    """The file with its weights in another file, `location` as the model states it."""
    proto = onnx.load(str(file))
    content = b""
    for tensor in proto.graph.initializer:
        raw = onnx.numpy_helper.to_array(tensor).tobytes()
        del tensor.external_data[:]
        for key, value in (("location", location), ("offset", len(content)), ("length", len(raw))):
            tensor.external_data.add(key=key, value=str(value))
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        content += raw
    path.write_bytes(proto.SerializeToString())
    target = path.parent / "weights.bin"
    target.write_bytes(content)
    return path


def test_external_data_beside_the_model(file: Path, tmp_path: Path) -> None:
    path = external(file, tmp_path / "model.onnx", "weights.bin")
    found = models.load(f"onnx:{path}")
    assert close(found.scores(zoo.inputs()), zoo.model("conv").scores(zoo.inputs()))
    changed = bytearray((tmp_path / "weights.bin").read_bytes())
    changed[2] ^= 1
    (tmp_path / "weights.bin").write_bytes(changed)
    assert models.load(f"onnx:{path}").ref.weights_sha256 != found.ref.weights_sha256


@pytest.mark.parametrize("location", ["../weights.bin", "/etc/passwd", "C:\\weights.bin", "link"])
def test_external_data_outside_is_refused(file: Path, tmp_path: Path, location: str) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    (tmp_path / "weights.bin").write_bytes(b"\0" * 100_000)
    (inside / "link").symlink_to(tmp_path / "weights.bin")
    path = external(file, inside / "model.onnx", location)
    with pytest.raises(ModelError, match="outside its folder"):
        models.load(f"onnx:{path}")


def test_external_data_too_short_or_missing(file: Path, tmp_path: Path) -> None:
    path = external(file, tmp_path / "model.onnx", "weights.bin")
    (tmp_path / "weights.bin").write_bytes(b"\0" * 8)
    with pytest.raises(ModelError, match="too short"):
        models.load(f"onnx:{path}")
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(ModelError, match="no such file"):
        models.load(f"onnx:{path}")


@pytest.mark.parametrize("content", [b"", b"not a model", b"\x08\x07" * 40])
def test_damaged_files(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "bad.onnx").write_bytes(content)
    with pytest.raises(ModelError, match="damaged"):
        models.load(f"onnx:{tmp_path / 'bad.onnx'}")


def test_a_truncated_file(file: Path, tmp_path: Path) -> None:
    (tmp_path / "cut.onnx").write_bytes(file.read_bytes()[:-500])
    with pytest.raises(ModelError, match="damaged"):
        models.load(f"onnx:{tmp_path / 'cut.onnx'}")


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="found none at"):
        models.load(f"onnx:{tmp_path / 'none.onnx'}")


def test_a_graph_the_runtime_refuses(file: Path, tmp_path: Path) -> None:
    def unknown(proto: Any) -> None:
        proto.graph.node[0].op_type = "Wonder"

    path = edited(file, tmp_path / "wonder.onnx", unknown)
    with pytest.raises(ModelError, match=r"can run, but onnx:wonder\.onnx isn't"):
        models.load(f"onnx:{path}")


def test_custom_operators_are_refused(file: Path, tmp_path: Path) -> None:
    def custom(proto: Any) -> None:
        proto.graph.node[0].domain = "my.library"

    path = edited(file, tmp_path / "custom.onnx", custom)
    with pytest.raises(ModelError, match=r"operators of ONNX .* my.library"):
        models.load(f"onnx:{path}")


def test_several_inputs_are_refused(file: Path, tmp_path: Path) -> None:
    def second(proto: Any) -> None:
        proto.graph.input.append(onnx.helper.make_tensor_value_info("other", 1, [1]))

    path = edited(file, tmp_path / "inputs.onnx", second)
    with pytest.raises(ModelError, match="one input, the image, got pixels, other"):
        models.load(f"onnx:{path}")


def test_names_in_a_file_never_become_code(file: Path, tmp_path: Path) -> None:
    """Converters write node names into source code; this one would leave a file behind."""
    mark = tmp_path / "ran"
    code = f'"), open({str(mark)!r}, "w").close(), getattr(self, "'

    def rename(proto: Any) -> None:
        for number, node in enumerate(proto.graph.node):
            node.name = code + str(number)
        proto.graph.node[-1].name = "forward"
        proto.graph.node[-2].name = "class"

    found = models.load(f"onnx:{edited(file, tmp_path / 'names.onnx', rename)}")
    assert isinstance(found, TorchModel)
    assert all(name.isidentifier() for name, _ in found.module.named_modules() if name)
    assert close(found.scores(zoo.inputs()), zoo.model("conv").scores(zoo.inputs()))
    assert not mark.exists()


def graph_of(*nodes: tuple[str, list[str], list[str]], name: str = "x") -> bytes:
    helper = onnx.helper
    graph = helper.make_graph(
        [helper.make_node(*node) for node in nodes],
        "g",
        [helper.make_tensor_value_info(name, 1, (1, 3, 4, 4))],
        [helper.make_tensor_value_info("y", 1, (1, 2))],
    )
    data: bytes = helper.make_model(graph).SerializeToString()
    return data


@pytest.mark.parametrize(
    "nodes",
    [
        [("Identity", ["y"], ["y"])],
        [("Identity", ["z"], ["y"]), ("Identity", ["y"], ["z"])],
        [("Softmax", [], ["y"])],
        [("Identity", [], ["y"])],
    ],
)
def test_an_activation_that_leads_nowhere_stays(tmp_path: Path, nodes: list) -> None:
    (tmp_path / "m.onnx").write_bytes(graph_of(*nodes))
    found = read(tmp_path / "m.onnx", output=None, layout=None, keep_activation=False)
    assert found.activation is None
    assert len(found.proto.graph.node) == len(nodes)


def test_names_that_are_no_text_are_refused(tmp_path: Path) -> None:
    data = graph_of(("Relu", ["x"], ["y"]), name="QQQ").replace(b"QQQ", b"\xff\xfe\xfd")
    for name, content in (("bytes", data), ("none", graph_of(("Relu", ["x"], ["y"]), name=""))):
        path = tmp_path / f"{name}.onnx"
        path.write_bytes(content)
        with pytest.raises(ModelError, match="all names in UTF-8"):
            read(path, output=None, layout=None, keep_activation=False)


@pytest.mark.parametrize("location", ["weights\0.bin", "w" * 5000])
def test_weights_at_an_impossible_place_are_refused(
    file: Path, tmp_path: Path, location: str
) -> None:
    path = external(file, tmp_path / "model.onnx", "weights.bin")
    proto = onnx.load(path, load_external_data=False)
    for tensor in proto.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = location
    path.write_bytes(proto.SerializeToString())
    with pytest.raises(ModelError, match="outside its folder"):
        read(path, output=None, layout=None, keep_activation=False)
