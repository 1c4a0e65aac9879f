"""Models by name: cards, libraries, checkpoints, prompts; and what one's own module returns."""

from __future__ import annotations

import json
import socket
import urllib.error
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import zoo
from encoders import PROMPTS, image_and_text, saved, tokenizer
from torch import Tensor, nn

import visxai
from visxai import methods, models
from visxai.engine.batch import compute
from visxai.errors import ArgumentError, ModelError, UnknownName, VisxaiError
from visxai.images.preprocess import Preprocess
from visxai.labels import read_labels
from visxai.metrics.difull import disconnected
from visxai.models import cards, hubs
from visxai.models.probe import Probe
from visxai.models.pytorch.model import TorchModel
from visxai.models.pytorch.modules import adapt
from visxai.target import Target

TINY_VIT = {"img_size": 64, "patch_size": 16, "embed_dim": 48, "depth": 2, "num_heads": 3}


def torch_model(name: str, **given: Any) -> TorchModel:
    found = models.load(name, **given)
    assert isinstance(found, TorchModel)
    return found


@pytest.mark.parametrize("name", models.names())
def test_every_card_is_complete(name: str) -> None:
    card = models.card(name)
    assert card.summary
    assert card.licence
    assert card.activation in ("softmax", "sigmoid", "none")
    assert len(card.labels) == len(set(card.labels)) > 1
    assert len(card.source["sha256"]) == 64
    assert sum(kind in card.source for kind in ("package", "fetch", "bundled")) == 1
    Preprocess(**card.preprocess)


def test_the_default_is_a_card() -> None:
    assert models.DEFAULT in models.names()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("efficientnet", "efficientnet_lite0"),
        ("tourchvision:resnet18", "torchvision"),
        ("torchvision:resnet19", "resnet18"),
        ("torchvision:fasterrcnn", "fasterrcnn_resnet50_fpn"),
        ("timm:resnet19", "resnet18"),
    ],
)
def test_unknown_names_list_the_choices(name: str, said: str) -> None:
    with pytest.raises(UnknownName, match=said):
        models.load(name, weights=False)


def test_torchvision_by_name() -> None:
    found = torch_model("torchvision:mobilenet_v3_small", weights=False)
    assert found.labels is not None
    assert len(found.labels) == 1000
    assert str(found.preprocess).startswith("resize 256 bilinear, crop 224x224")


def test_timm_by_name_with_arguments_of_the_constructor() -> None:
    found = torch_model(
        "timm:vit_tiny_patch16_224", weights=False, build={**TINY_VIT, "num_classes": 7}
    )
    assert found.labels is None
    assert found.scores(zoo.inputs(1)).shape == (1, 7)
    assert isinstance(found.preprocess, Preprocess)
    assert found.preprocess.size == (64, 64)


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Nothing is cached and nothing can be reached; what was asked for."""
    import huggingface_hub
    import torchvision.models as zoo_of_torchvision

    asked: list[str] = []

    def unreachable(where: Any, *_: Any, **__: Any) -> None:
        asked.append(str(where))
        try:
            raise socket.gaierror(-2, "Name or service not known")
        except OSError as error:
            raise urllib.error.URLError(error) from error

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", unreachable)
    monkeypatch.setattr(zoo_of_torchvision, "get_model", unreachable)
    return asked


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("torchvision:resnet18", "--checkpoint FILE"),
        ("timm:resnet18", "--checkpoint FILE"),
        ("timm:hf-hub:somebody/something", "--checkpoint FILE"),
        ("hf:google/vit-base-patch16-224", "name a local folder"),
    ],
)
def test_weights_that_cannot_be_fetched_are_one_sentence_at_once(
    name: str, remedy: str, offline: list[str]
) -> None:
    if name.startswith("hf:"):
        pytest.importorskip("transformers")
    with pytest.raises(ModelError) as caught:
        models.load(name)
    assert len(offline) == 1
    said = str(caught.value)
    assert said.startswith(f"expected the weights of {name} ")
    assert "(Name or service not known): check the network and the name, or " in said
    assert remedy in said
    assert "\n" not in said


def test_what_needs_no_network_asks_for_none(offline: list[str]) -> None:
    assert torch_model("timm:resnet10t", weights=False).labels is not None
    assert not offline


def test_an_unknown_layer_names_the_late_ones_and_the_default() -> None:
    model = TorchModel(zoo.module("conv"), preprocess=zoo.PREPROCESS)
    said = (
        r"did you mean body\? \(late ones are last, body, act, stem; visxai's own choice is last\)"
    )
    with pytest.raises(UnknownName, match=said):
        compute(methods.load("grad_cam(layer='bdy')"), model, zoo.inputs(), Target.of("top1"))
    with pytest.raises(UnknownName, match=said):
        TorchModel(zoo.module("conv"), preprocess=zoo.PREPROCESS, layer="bdy")
    with pytest.raises(UnknownName, match="did you mean body"):
        TorchModel(zoo.module("conv"), layer="bdy")  # of unknown size: nothing is run


@pytest.fixture(scope="module")
def trained() -> nn.Module:
    """A network with 3 classes of its own."""
    import timm

    return zoo.randomise(timm.create_model("resnet10t", num_classes=3)).eval()


def save(state: dict[str, Any], path: Path) -> Path:
    if path.suffix == ".safetensors":
        from safetensors.torch import save_file

        save_file({key: value.contiguous() for key, value in state.items()}, path)
    else:
        torch.save(state, path)
    return path


def nested(state: dict[str, Any], form: str) -> dict[str, Any]:
    if form == "ddp":
        return {"epoch": 3, "state_dict": {f"module.{key}": v for key, v in state.items()}}
    if form == "compiled lightning":
        return {"state_dict": {f"model._orig_mod.{key}": v for key, v in state.items()}}
    return {"model": state} if form == "model" else state


@pytest.mark.parametrize(
    ("form", "suffix"),
    [
        ("plain", ".safetensors"),  # which can't nest
        ("plain", ".pth"),
        ("ddp", ".pth"),
        ("compiled lightning", ".pt"),
        ("model", ".pth"),
    ],
)
def test_a_checkpoint_round_trip(
    trained: nn.Module, suffix: str, form: str, tmp_path: Path
) -> None:
    path = save(nested(trained.state_dict(), form), tmp_path / f"mine{suffix}")
    engine = visxai.Engine(
        "timm:resnet10t", checkpoint=path, labels=["a", "b", "c"], device="cpu", precision="fp32"
    )
    with torch.no_grad():
        assert torch.equal(engine.model.scores(zoo.inputs()), trained(zoo.inputs()))
    assert engine.model.labels == ("a", "b", "c")


def test_a_checkpoint_of_torchvision(tmp_path: Path) -> None:
    from torchvision.models import mobilenet_v3_small

    mine = zoo.randomise(mobilenet_v3_small(num_classes=4)).eval()
    path = save(mine.state_dict(), tmp_path / "mine.pt")
    found = torch_model("torchvision:mobilenet_v3_small", checkpoint=path)
    assert found.labels is None
    with torch.no_grad():
        assert torch.equal(found.scores(zoo.inputs()), mine(zoo.inputs()))


def test_a_checkpoint_of_another_architecture_says_what_differs(
    trained: nn.Module, tmp_path: Path
) -> None:
    state = dict(trained.state_dict())
    state["extra.weight"] = torch.zeros(2)
    del state["conv1.0.weight"]
    state["layer1.0.conv1.weight"] = torch.zeros(1, 1, 3, 3)
    path = save(state, tmp_path / "mine.pth")
    said = (
        r"1 missing \(conv1.0.weight\), 1 unexpected \(extra.weight\), 1 of other shapes \(layer1"
    )
    with pytest.raises(ModelError, match=said):
        models.load("timm:resnet10t", checkpoint=path)


class Innocent:
    """What a pickle could hold: unpickling it would make a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


def test_pickled_objects_are_never_loaded(tmp_path: Path) -> None:
    torch.save({"state_dict": Innocent(tmp_path / "ran")}, tmp_path / "mine.pth")
    with pytest.raises(ModelError, match="never unpickled"):
        models.load("timm:resnet10t", checkpoint=tmp_path / "mine.pth")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["damaged.pth", "damaged.safetensors", "missing.pth"])
def test_unreadable_checkpoints(name: str, tmp_path: Path) -> None:
    if "damaged" in name:
        (tmp_path / name).write_bytes(b"not a checkpoint")
    with pytest.raises(ModelError, match=r"damaged|no such file"):
        models.load("timm:resnet10t", checkpoint=tmp_path / name)


def test_labels_must_fit_the_checkpoint(trained: nn.Module, tmp_path: Path) -> None:
    path = save(trained.state_dict(), tmp_path / "mine.pth")
    with pytest.raises(ArgumentError, match="expected 3 labels"):
        models.load("timm:resnet10t", checkpoint=path, labels=["a", "b"])


@pytest.mark.parametrize("count", [9, 11])
def test_labels_must_fit_the_scores(count: int) -> None:
    names = [f"name {index}" for index in range(count)]
    said = f"expected 10 names for the 10 classes of Conv, got {count}: give one"
    for labels in (names, dict(enumerate(names))):
        engine = visxai.Engine(
            zoo.module("conv"), labels=labels, preprocess=zoo.PREPROCESS, device="cpu"
        )
        x, image = zoo.inputs(), np.zeros((64, 64, 3), np.uint8)
        for method in ("grad_cam", "saliency", "occlusion", "score_cam"):
            with pytest.raises(ArgumentError, match=said):
                engine.attribute(x, method)
            with pytest.raises(ArgumentError, match=said):
                engine.explain(image, method)
        for asked in (engine.predict, engine.score):
            with pytest.raises(ArgumentError, match=said):
                asked(image)


def test_without_labels_classes_have_numbers() -> None:
    engine = visxai.Engine(
        zoo.module("conv"), labels=[], preprocess=zoo.PREPROCESS, device="cpu", precision="fp32"
    )
    (found,) = engine.predict(np.zeros((64, 64, 3), np.uint8))
    assert found.label == f"class {found.class_index}"


def test_a_grid_of_cells_has_other_classes_than_the_labels() -> None:
    labels = [f"name {index}" for index in range(zoo.CLASSES)]
    model = TorchModel(zoo.module("conv"), preprocess=zoo.PREPROCESS, labels=labels)
    grids, _ = disconnected(model, methods.load("grad_cam"), zoo.inputs(1), 2)
    aim, _ = grids.clean(zoo.inputs(1, 2 * zoo.SIZE), Target.of("top1"))
    assert len(aim) == 1


def test_checkpoints_need_an_architecture() -> None:
    with pytest.raises(ArgumentError, match="name the architecture"):
        visxai.Engine("efficientnet_lite0", checkpoint="mine.pth")
    with pytest.raises(ArgumentError, match="into the module before"):
        visxai.Engine(zoo.module("conv"), checkpoint="mine.pth")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("labels.txt", "cat\ndog\nred fox\n"),
        ("labels.json", json.dumps(["cat", "dog", "red fox"])),
        ("labels.json", json.dumps({"2": "red fox", "0": "cat", "1": "dog"})),
        ("labels.json", json.dumps({"red fox": 2, "cat": 0, "dog": 1})),
    ],
)
def test_labels_from_a_file(name: str, content: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content, "utf-8")
    assert read_labels(str(tmp_path / name)) == ("cat", "dog", "red fox")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("labels.json", "[cat", "expected JSON"),
        ("labels.json", json.dumps({"1": "cat", "2": "dog"}), "numbered from 0 to 1"),
        ("labels.json", "3", "names in order"),
        ("none.txt", None, "found no file"),
    ],
)
def test_wrong_label_files(name: str, content: str | None, said: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(ArgumentError, match=said):
        read_labels(tmp_path / name)


def classifier(kind: str, **options: Any) -> Any:
    transformers = pytest.importorskip("transformers")
    names = {index: f"class {index}" for index in range(5)}
    common = {"num_labels": 5, "id2label": names, "image_size": zoo.SIZE, **options}
    if kind == "vit":
        config = transformers.ViTConfig(
            hidden_size=48,
            num_hidden_layers=2,
            num_attention_heads=3,
            intermediate_size=96,
            patch_size=16,
            **common,
        )
        return transformers.ViTForImageClassification(config)
    if kind == "swin":
        config = transformers.SwinConfig(
            embed_dim=24, depths=[1, 1], num_heads=[2, 4], window_size=4, **common
        )
        return transformers.SwinForImageClassification(config)
    config = transformers.ConvNextConfig(
        hidden_sizes=[16, 32], depths=[1, 1], num_stages=2, **common
    )
    return transformers.ConvNextForImageClassification(config)


@pytest.mark.parametrize("kind", ["vit", "swin", "convnext"])
def test_a_hugging_face_folder(kind: str, tmp_path: Path) -> None:
    module = classifier(kind)
    engine = visxai.Engine(saved(module, tmp_path), device="cpu", precision="fp32")
    with torch.no_grad():
        expected = module.eval()(zoo.inputs()).logits
    assert torch.allclose(engine.model.scores(zoo.inputs()), expected, atol=1e-5)
    assert engine.model.labels == tuple(f"class {index}" for index in range(5))
    assert engine.model.activation == "softmax"
    photograph = zoo.inputs(1)[0].permute(1, 2, 0).mul(50).add(128).clamp(0, 255).byte().numpy()
    (found,) = engine.explain(photograph, target="class=class 2")
    assert found.label == "class 2"
    assert not found.degenerate


def test_multi_label_is_told_by_the_problem_type(tmp_path: Path) -> None:
    module = classifier("vit", problem_type="multi_label_classification")
    found = models.load(saved(module, tmp_path))
    assert found.activation == "sigmoid"
    engine = visxai.Engine(module, device="cpu")
    assert engine.model.activation == "sigmoid"


def test_a_hugging_face_folder_takes_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="save_pretrained"):
        models.load(f"hf:{tmp_path}", checkpoint="mine.pth")


@pytest.fixture(params=["clip", "siglip"])
def compared(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Any]:
    module = image_and_text(request.param)
    name = saved(module, tmp_path)
    tokenizer(tmp_path)
    return name, module.eval()


def test_prompts_are_the_classes(compared: tuple[str, Any]) -> None:
    name, module = compared
    transformers = pytest.importorskip("transformers")
    found = torch_model(name, labels=PROMPTS)
    words = transformers.AutoTokenizer.from_pretrained(name.removeprefix("hf:"))
    text = words(list(PROMPTS), padding="max_length", max_length=8, return_tensors="pt")
    mask = {} if "siglip" in module.config.model_type else {"attention_mask": text.attention_mask}
    with torch.no_grad():
        expected = module(pixel_values=zoo.inputs(), input_ids=text.input_ids, **mask)
    assert torch.allclose(found.scores(zoo.inputs()), expected.logits_per_image, atol=1e-4)
    assert found.labels == PROMPTS
    assert found.activation == ("sigmoid" if "siglip" in module.config.model_type else "softmax")
    assert not any("text_model" in key for key, _ in found.module.named_parameters())


@pytest.mark.parametrize("spec", ["grad_cam(relu=False)", "occlusion(window=32, stride=32)"])
def test_maps_of_prompts(compared: tuple[str, Any], spec: str) -> None:
    found, x = torch_model(compared[0], labels=PROMPTS), zoo.inputs()
    target = Target.of("class=a dog", found.labels)
    maps = compute(methods.load(spec), Probe(found, x), x, target).values
    single = compute(methods.load(spec), Probe(found, x[1:2]), x[1:2], target).values
    assert float(maps.abs().max()) > 0
    assert torch.allclose(maps[1], single[0], rtol=1e-3, atol=1e-5)


def test_prompts_are_asked_for(compared: tuple[str, Any]) -> None:
    with pytest.raises(ArgumentError, match="pass the prompts"):
        visxai.Engine(compared[0])


class Returning(nn.Module):
    """The small CNN, its logits handed to `form`."""

    def __init__(self, form: Any) -> None:
        super().__init__()
        self.module = zoo.module("conv")
        self.form = form

    def forward(self, x: Tensor) -> Any:
        return self.form(self.module(x))


FORMS: dict[str, Any] = {
    "tensor": lambda s: s,
    "tuple": lambda s: (s, None),
    "features first": lambda s: [s.reshape(-1, 2, 5), s],
    "dict": lambda s: {"logits": s, "features": s[:, :2]},
    "dict of one": lambda s: {"out": s},
    "four axes": lambda s: s[:, :, None, None],
}


@pytest.mark.parametrize("form", FORMS)
def test_usual_outputs_are_understood(form: str) -> None:
    engine = visxai.Engine(Returning(FORMS[form]), device="cpu", precision="fp32")
    assert torch.equal(engine.model.scores(zoo.inputs()), zoo.model("conv").scores(zoo.inputs()))
    assert engine.attribute(zoo.inputs(), "grad_cam").shape == (3, zoo.SIZE, zoo.SIZE)


@pytest.mark.parametrize("form", [lambda s: s[:, 0], lambda s: s[:, :1]])
@pytest.mark.parametrize("activation", [None, "sigmoid"])
def test_a_single_logit_is_a_probability(form: Any, activation: Any) -> None:
    engine = visxai.Engine(Returning(form), activation=activation, device="cpu", precision="fp32")
    logits = zoo.model("conv").scores(zoo.inputs())[:, :1]
    scores = engine.model.scores(zoo.inputs())
    assert torch.equal(scores, logits)
    assert torch.equal(engine.model.probabilities(scores), logits.sigmoid())
    assert float(engine.attribute(zoo.inputs(), "grad_cam(relu=False)").abs().max()) > 0


ODD: dict[str, Any] = {
    "three axes": lambda s: s[:, None],
    "class indices": lambda s: s.argmax(1),
    "nothing": lambda s: None,
    "a string": lambda s: "cat",
    "an empty tuple": lambda s: (),
    "one row for all": lambda s: s.mean(0, keepdim=True),
}


@pytest.mark.parametrize("form", ODD)
def test_odd_outputs_are_one_sentence(form: str) -> None:
    engine = visxai.Engine(Returning(ODD[form]), device="cpu", precision="fp32")
    with pytest.raises(ModelError, match=r"^expected .* pass output=, a function") as caught:
        engine.model.scores(zoo.inputs())
    assert "\n" not in str(caught.value)


def test_output_makes_scores_of_anything() -> None:
    module = Returning(lambda s: {"deep": {"scores": s}})
    found = TorchModel(module, output=lambda out: out["deep"]["scores"])
    assert found.scores(zoo.inputs()).shape == (3, zoo.CLASSES)


def test_adapt_prefers_logits() -> None:
    scores = torch.zeros(2, 3)
    assert adapt({"hidden": torch.zeros(2, 8), "logits": scores}) is scores


def test_code_beside_weights_is_never_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = saved(classifier("vit"), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config |= {"model_type": "evil", "auto_map": {"AutoConfig": "evil.Evil"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "evil.py").write_text("raise SystemExit('ran')")
    # Without an answer of ours the library asks on standard input.
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked"))
    with pytest.raises((ValueError, VisxaiError), match=r"trust_remote_code|custom code|evil"):
        models.load(name)


def test_hugging_face_models_are_held_at_a_revision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    transformers = pytest.importorskip("transformers")
    folder = saved(classifier("vit"), tmp_path).removeprefix("hf:")
    asked: list[tuple[str, dict[str, Any]]] = []

    def spied(kind: Any) -> None:
        found = kind.from_pretrained(folder)

        def load(name: str, **options: Any) -> Any:
            asked.append((name, options))
            return found

        monkeypatch.setattr(kind, "from_pretrained", load)

    for kind in ("AutoModelForImageClassification", "AutoImageProcessor", "AutoConfig"):
        spied(getattr(transformers, kind))
    monkeypatch.setattr(hubs, "reach", lambda name: asked.append((name, {})))
    models.load("hf:org/thing@abc123")
    assert asked[0] == ("org/thing", {})
    pinned = {"trust_remote_code": False, "revision": "abc123"}
    assert asked[1:] == [("org/thing", pinned)] * 3


def test_timm_models_are_held_at_a_revision(monkeypatch: pytest.MonkeyPatch) -> None:
    made, reached = [], []
    plain = timm.create_model

    def create(name: str, pretrained: bool, **options: Any) -> Any:
        made.append((name, pretrained, options))
        return plain("resnet18", pretrained=False)

    monkeypatch.setattr(timm, "create_model", create)
    monkeypatch.setattr(hubs, "reach", reached.append)
    models.load("timm:resnet18@v2")
    models.load("timm:hf-hub:org/thing@v2")
    overlay = {"pretrained_cfg_overlay": {"hf_hub_id": "timm/resnet18.a1_in1k@v2"}}
    assert made == [("resnet18", True, overlay), ("hf-hub:org/thing@v2", True, {})]
    assert reached == ["timm/resnet18.a1_in1k", "org/thing"]
    with pytest.raises(ArgumentError, match="one commit, tag or branch"):
        models.load("timm:resnet18@a@b")


@pytest.mark.parametrize(
    ("card", "wrong"),
    [
        (b"", "summary"),
        (b"\xff", "TOML"),
        (b"summary = [", "TOML"),
        (b"a = " + b"[" * 20_000, "TOML"),
        (b"summary = 3", "licence"),
    ],
)
def test_a_damaged_card_is_told(card: bytes, wrong: str) -> None:
    with pytest.raises(ModelError, match=wrong):
        cards.Card.of("mine", card)


def test_a_cards_labels_lie_beside_it() -> None:
    data = (models.folder() / "efficientnet_lite0.toml").read_bytes()
    moved = data.replace(b"imagenet1k.txt", b"../README.md")
    assert len(cards.Card.of("mine", data).labels) == 1000
    with pytest.raises(ModelError, match="beside its card"):
        cards.Card.of("mine", moved)
