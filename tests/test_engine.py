"""The engine: inputs of every kind, targets, errors, coordinates, and real maps on photographs."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
import zoo
from PIL import Image
from torch import Tensor, nn

import visxai
from visxai.errors import (
    ArgumentError,
    Failure,
    ImageError,
    LayerError,
    ModelError,
    TargetError,
    UnknownName,
)
from visxai.record.image import ImageExplanation


def picture(seed: int = 0, size: tuple[int, int] = (90, 70)) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 255, (9, 7, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC)


@pytest.fixture(scope="module")
def small() -> visxai.Engine:
    return visxai.Engine(zoo.model("conv"), precision="fp32", batch_size=2)


def test_every_kind_of_image_gives_the_same_map(small: visxai.Engine, tmp_path) -> None:
    image = picture()
    path = tmp_path / "a.png"
    image.save(path)
    array = np.asarray(image)
    results = small.explain([path, str(path), path.read_bytes(), image, array])
    assert len(results) == 5
    for found in results[1:]:
        assert np.allclose(found.values, results[0].values, atol=1e-6)
    assert results[0].input.path == str(path)
    assert results[2].input.path is None
    assert results[0].input.source_sha256 == results[2].input.source_sha256
    assert all(found.overlay().size == image.size for found in results)


def test_a_single_image_needs_no_list(small: visxai.Engine) -> None:
    (found,) = small.explain(picture())
    assert isinstance(found, ImageExplanation)


def test_a_record_says_everything(small: visxai.Engine) -> None:
    (found,) = small.explain([picture()], method="grad_cam(relu=False)", target="class=4")
    assert found.class_index == 4
    assert found.label == "class 4"
    assert found.layer == "last"
    assert found.method == "grad_cam(relu=False)"
    assert found.target == "class=4"
    assert found.precision == "fp32"
    assert found.device == "cpu"
    assert len(found.model.weights_sha256) == 64
    assert found.model.preprocess.startswith("resize 64")
    assert set(found.versions) >= {"visxai", "torch", "numpy"}
    assert found.values.shape == (8, 8)
    assert not found.degenerate
    (again,) = small.explain([picture()], method=found.method, target=found.class_index)
    assert np.array_equal(again.values, found.values)


def test_scores_are_what_the_model_says(small: visxai.Engine) -> None:
    (found,) = small.explain([picture()])
    (prediction,) = small.predict([picture()])
    assert prediction.score == pytest.approx(found.score)
    assert prediction.class_index == found.class_index
    assert prediction.probabilities.sum() == pytest.approx(1, abs=1e-5)
    assert prediction.top(2)[0] == (found.label, pytest.approx(found.score))


def test_several_classes_and_methods_come_in_order(small: visxai.Engine) -> None:
    images = [picture(seed) for seed in range(3)]
    results = small.explain(images, method=["grad_cam", "grad_cam(relu=False)"], target="top2")
    assert [found.method for found in results[:4]] == ["grad_cam(relu=True)"] * 2 + [
        "grad_cam(relu=False)"
    ] * 2
    assert len(results) == 12
    assert results[0].class_index == results[2].class_index != results[1].class_index
    assert results[0].score > results[1].score


def test_per_image_targets_cross_batches(small: visxai.Engine) -> None:
    images = [picture(seed) for seed in range(5)]
    results = small.explain(images, target=torch.tensor([5, 4, 3, 2, 1]))
    assert [found.class_index for found in results] == [5, 4, 3, 2, 1]
    with pytest.raises(TargetError, match="2 targets for 5 images"):
        small.explain(images, target=[1, 2])


def test_failures_keep_their_places(small: visxai.Engine, tmp_path) -> None:
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"not an image")
    images = [picture(0), bad, picture(1), tmp_path / "missing.png", picture(2)]
    results = small.explain(images, target=[1, 2, 3, 4, 5], on_error="record")
    assert [type(found) for found in results] == [
        ImageExplanation,
        Failure,
        ImageExplanation,
        Failure,
        ImageExplanation,
    ]
    assert [getattr(found, "class_index", None) for found in results] == [1, None, 3, None, 5]
    assert results[1].path == str(bad)
    assert "bad.jpg" in results[1].reason
    with pytest.raises(ImageError):
        small.explain(images)


def test_streaming_is_lazy(small: visxai.Engine) -> None:
    read = []

    def sources():
        for seed in range(10):
            read.append(seed)
            yield picture(seed)

    stream = small.stream(sources())
    next(stream)
    assert len(read) == 2
    assert len(list(stream)) == 9


def test_above_can_give_none_or_many() -> None:
    engine = visxai.Engine(zoo.module("conv"), activation="sigmoid", preprocess=zoo.PREPROCESS)
    results = engine.explain([picture()], target="above=0.0")
    assert len(results) == zoo.CLASSES
    assert all(0 < found.score < 1 for found in results)
    assert engine.explain([picture()], target="above=1.0") == []


@pytest.mark.parametrize(
    ("target", "label"),
    [("diff=1,2", "class 1 rather than class 2"), ("any=1,2", None), (lambda s: s[:, 0], None)],
)
def test_targets_that_are_not_one_class(small: visxai.Engine, target, label) -> None:
    (found,) = small.explain([picture()], target=target)
    assert np.isfinite(found.logit)
    if label:
        assert found.label == label
    if callable(target):
        assert found.class_index is None
        assert found.score == found.logit


def test_a_set_is_recorded_under_its_name(small: visxai.Engine) -> None:
    (plain,) = small.explain([picture()], target="any=1,2")
    (named,) = small.explain([picture()], target="weapons=any:1,2")
    assert plain.label == "any of class 1, class 2"
    assert (named.label, named.target) == ("weapons", "weapons=any:1,2")
    assert named.score == plain.score
    assert np.array_equal(named.values, plain.values)


def test_engines_and_predictions_are_printed_in_a_line(small: visxai.Engine) -> None:
    (prediction,) = small.predict([picture()])
    assert len(repr([prediction])) < 200
    assert repr(prediction).endswith("of 10 classes>")
    assert prediction.label in repr(prediction)
    assert repr(small).startswith("Engine('")
    assert "device='cpu'" in repr(small)


def test_the_score_of_a_set_of_exclusive_classes_is_their_sum(small: visxai.Engine) -> None:
    (found,) = small.explain([picture()], target="any=1,2,3")
    (prediction,) = small.predict([picture()])
    assert found.score == pytest.approx(float(prediction.probabilities[1:4].sum()), rel=1e-5)


def test_attribute_upsamples_on_the_inputs_device(small: visxai.Engine) -> None:
    x = zoo.inputs(3)
    maps = small.attribute(x, target=torch.tensor([3, 7, 1]))
    assert maps.shape == (3, 64, 64)
    assert maps.dtype == torch.float32
    native = small.explain(picture())[0].values.shape
    assert native == (8, 8)
    assert small.attribute(x, target="top2").shape == (6, 64, 64)
    with pytest.raises(ArgumentError, match="float tensor"):
        small.attribute(x[0])
    with pytest.raises(ArgumentError, match="use attribute"):
        small.explain(x)


def test_reproduce(small: visxai.Engine) -> None:
    image = picture(7)
    (old,) = small.explain([image], target="top1")
    again = small.reproduce(old.to_dict(), image)
    assert again.agrees
    assert again.same_image
    assert again.map_difference < 1e-3
    assert not small.reproduce(old.to_dict(), picture(8)).agrees
    other = visxai.Engine(zoo.randomise(zoo.Conv(), 5), preprocess=zoo.PREPROCESS)
    with pytest.raises(ArgumentError, match="the engine that made the record"):
        other.reproduce(old, image)


def test_updated_weights_are_seen_and_the_callers_module_is_left_alone() -> None:
    module = zoo.randomise(zoo.Conv()).train()
    engine = visxai.Engine(module, preprocess=zoo.PREPROCESS)
    before = engine.attribute(zoo.inputs())
    with torch.no_grad():
        module.head.weight.mul_(-1)
    after = engine.attribute(zoo.inputs(), "grad_cam(relu=False)", 0)
    assert not torch.allclose(before, after)
    assert module.training


class Odd(nn.Module):
    """Outputs whatever `form` says."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.form = form

    def forward(self, x: Tensor):
        features = self.conv(x)
        scores = features.mean((2, 3))
        return {
            "tuple": (features, scores),
            "dict": {"features": features, "logits": scores},
            "plain dict": {"features": features, "out": scores},
            "one": scores[:, 0],
            "column": scores[:, :1],
            "cell": scores[:, :, None, None],
            "image": features,
            "text": "scores",
            "none": None,
        }[self.form]


@pytest.mark.parametrize(
    ("form", "classes"),
    [("tuple", 4), ("dict", 4), ("plain dict", 4), ("one", 1), ("column", 1), ("cell", 4)],
)
def test_outputs_are_adapted(form: str, classes: int) -> None:
    engine = visxai.Engine(Odd(form), preprocess=zoo.PREPROCESS)
    assert engine.model.scores(zoo.inputs()).shape == (3, classes)
    assert engine.attribute(zoo.inputs()).shape == (3, 64, 64)


@pytest.mark.parametrize("form", ["image", "text", "none"])
def test_odd_outputs_are_refused_or_adapted_by_the_caller(form: str) -> None:
    with pytest.raises(ModelError, match="pass output="):
        visxai.Engine(Odd(form)).attribute(zoo.inputs())
    if form == "image":
        engine = visxai.Engine(Odd(form), output=lambda out: out.mean((2, 3)))
        assert engine.attribute(zoo.inputs()).shape == (3, 64, 64)


class Flat(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3 * 64 * 64, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x.flatten(1))


def test_a_model_without_positions_says_so_and_other_methods_work() -> None:
    engine = visxai.Engine(Flat())
    with pytest.raises(LayerError, match="layer with positions"):
        engine.attribute(zoo.inputs())
    maps = engine.attribute(zoo.inputs(), "integrated_gradients", 2)
    assert maps.shape == (3, 64, 64)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"model": "resnet"}, UnknownName, "unknown model"),
        ({"model": "torchvision:resnet5"}, UnknownName, "did you mean resnet50"),
        ({"model": "timm:vit_tiny"}, UnknownName, "did you mean"),
        ({"model": "tf:x"}, UnknownName, "unknown kind of model"),
        ({"model": 3}, ArgumentError, "model's name or an nn.Module"),
        ({"model": zoo.Conv(), "layer": "lst"}, UnknownName, "did you mean last"),
        ({"model": zoo.Conv(), "layer": nn.ReLU()}, LayerError, "isn't part of it"),
        ({"device": "gpu7"}, ArgumentError, "use device='auto'"),
        ({"precision": "fp8"}, ArgumentError, "expected a precision of"),
        ({"activation": "relu", "model": zoo.Conv()}, ArgumentError, "softmax, sigmoid or none"),
        ({"batch_size": 0}, ArgumentError, "at least 1"),
    ],
)
def test_wrong_engines(arguments, error, message) -> None:
    with pytest.raises(error, match=message):
        visxai.Engine(**arguments)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"method": "grad_cm"}, UnknownName, "did you mean grad_cam"),
        ({"method": "grad_cam(relv=True)"}, UnknownName, "did you mean relu"),
        ({"method": "grad_cam("}, ArgumentError, "write a name"),
        ({"method": "grad_cam(__import__('os'))"}, ArgumentError, "plain values"),
        ({"method": "grad_cam(relu=open('x'))"}, ArgumentError, "plain values"),
        ({"method": []}, ArgumentError, "at least one method"),
        ({"method": "occlusion(window=8, stride=9)"}, ArgumentError, "stride no larger"),
        ({"method": "grad_cam(layer='nope')"}, UnknownName, "unknown layer"),
        ({"method": "grad_cam(layer='head')"}, LayerError, "choose an earlier layer"),
        ({"target": "class=11"}, TargetError, "the model has 10 classes"),
        ({"target": "class=cat"}, TargetError, "no labels"),
        ({"on_error": "ignore"}, ArgumentError, "'raise' or 'record'"),
        ({"images": 5}, ArgumentError, "expected images"),
        ({"images": ["/nonexistent.jpg"]}, ImageError, "nonexistent.jpg"),
    ],
)
def test_wrong_requests(small: visxai.Engine, arguments, error, message) -> None:
    with pytest.raises(error, match=message) as caught:
        small.explain(**{"images": [picture()], **arguments})
    assert "\n" not in str(caught.value)


def test_images_need_a_preprocess() -> None:
    with pytest.raises(ArgumentError, match="pass preprocess="):
        visxai.Engine(zoo.Conv()).explain([picture()])


def test_an_opaque_preprocess_takes_the_whole_image() -> None:
    def squash(image: Image.Image) -> Tensor:
        return torch.from_numpy(np.array(image.resize((64, 64)))).permute(2, 0, 1) / 255

    engine = visxai.Engine(zoo.module("conv"), preprocess=squash)
    (found,) = engine.explain([picture()])
    assert found.input.transform.assumed
    assert np.isfinite(found.heatmap()).all()


# ---- the default model on real photographs -------------------------------------------------------

data = pytest.importorskip("skimage.data", reason="photographs come with the extra demo")


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        ("coffee", {"espresso"}),
        ("camera", {"tripod"}),
        ("chelsea", {"tiger cat", "Egyptian cat", "tabby"}),
        ("rocket", {"missile"}),
        ("astronaut", {"football helmet"}),
    ],
)
def test_the_default_model_knows_the_photographs(engine: visxai.Engine, name, labels) -> None:
    (found,) = engine.explain([getattr(data, name)()])
    assert found.label in labels
    assert found.layer == "bn2"
    assert found.values.shape == (7, 7)


@pytest.mark.parametrize(("side", "label"), [("left", "Egyptian cat"), ("right", "espresso")])
def test_each_object_is_found_in_its_own_half(engine: visxai.Engine, side, label) -> None:
    """chelsea beside coffee on a 224 x 448 canvas: at least 0.9 of the energy on the right one."""
    canvas = Image.new("RGB", (448, 224))
    for left, picture in ((0, data.chelsea()), (224, data.coffee())):
        image = Image.fromarray(picture)
        short = min(image.size)
        box = ((image.width - short) // 2, (image.height - short) // 2)
        square = image.crop((*box, box[0] + short, box[1] + short)).resize((224, 224), 3)
        canvas.paste(square, (left, 0))
    x = torch.from_numpy(np.array(canvas)).permute(2, 0, 1)[None] / 127.5 - 1
    maps = engine.attribute(x, "grad_cam", f"class={label}")[0]
    half = maps[:, :224] if side == "left" else maps[:, 224:]
    assert half.sum() / maps.sum() >= 0.9


def test_a_rotated_file_gives_an_upright_map(engine: visxai.Engine) -> None:
    upright = Image.fromarray(data.coffee())
    exif = Image.Exif()
    exif[0x0112] = 6
    file = io.BytesIO()
    upright.transpose(Image.Transpose.ROTATE_90).save(file, "PNG", exif=exif)
    plain, rotated = engine.explain([upright, file.getvalue()])
    assert np.array_equal(plain.values, rotated.values)
    assert rotated.heatmap().shape == (400, 600)
    assert rotated.heatmap(stored=True).shape == (600, 400)


def test_hiding_the_evidence_lowers_the_score(engine: visxai.Engine) -> None:
    (found,) = engine.explain([data.coffee()])
    redacted = engine.redact(found)
    assert redacted.before == pytest.approx(0.95, abs=0.02)
    assert redacted.after < redacted.before / 2
    assert 0 < redacted.area < 0.5
    assert str(redacted).startswith("with ")
    assert "espresso falls from 0.95 to 0." in str(redacted)
    changed = (np.asarray(redacted.image) != data.coffee()).any(-1)
    assert changed[found.mask(0.5)].mean() > 0.9
    assert not changed[~found.mask(0.5)].any()
    with pytest.raises(ArgumentError, match="how='blur' or how='fill'"):
        engine.redact(found, how="hide")
    assert engine.redact(found, how="fill", share=0.9).area > redacted.area


def test_a_gate_explains_only_what_it_lets_through(small: visxai.Engine) -> None:
    images = [picture(seed) for seed in range(5)]
    scores = small.score(images, "class=3")
    limit = sorted(scores)[2]
    passing = [index for index, score in enumerate(scores) if score > limit]
    results = small.explain(images, target=[1, 2, 3, 4, 5], only=f"class=3>{limit}")
    assert [found.class_index for found in results] == [index + 1 for index in passing]
    everything = small.explain(images, target=[1, 2, 3, 4, 5])
    for found, index in zip(results, passing, strict=True):
        assert np.allclose(found.values, everything[index].values, atol=1e-6)
    assert small.explain(images, only="top1<0") == []
    assert small.explain(images, only="top1>1.1") == []


@pytest.mark.parametrize(
    "text", ["", "0.5", "class=3", "class=3>x", "top2>0.5", ">0.5", "above=1>0"]
)
def test_wrong_gates(small: visxai.Engine, text: str) -> None:
    with pytest.raises(TargetError, match="condition on scores"):
        small.explain([picture()], only=text)
