"""Models, layers, targets and tensors in the forms in which newcomers give them."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
import zoo
from PIL import Image
from torch import Tensor, nn

import visxai
from visxai import methods
from visxai.errors import ArgumentError, ModelError, TargetError, UnknownName
from visxai.images.preprocess import Preprocess
from visxai.models.interface import Need
from visxai.record.base import Explanation

IMAGE = np.random.default_rng(5).integers(0, 255, (70, 80, 3), dtype=np.uint8)
LABELS = [f"thing {number}" for number in range(zoo.CLASSES - 2)] + ["pirate, pirate ship", "owl"]


@pytest.fixture(scope="module")
def module() -> nn.Module:
    return zoo.module("conv")


@pytest.fixture
def own(module: nn.Module) -> visxai.Engine:
    return visxai.Engine(
        module,
        preprocess=zoo.PREPROCESS,
        labels=LABELS,
        device="cpu",
        precision="fp32",
        accelerate="off",
    )


def maps(found: list[Any]) -> list[Any]:
    assert all(isinstance(one, Explanation) for one in found)
    return [one.values for one in found]


@pytest.mark.parametrize("name", ["grad_cam", "score_cam", "eigen_cam", "layer_cam"])
def test_several_layers_as_a_tuple_are_those_joined_by_plus(
    module: nn.Module, own: visxai.Engine, name: str
) -> None:
    convs = [n for n, part in module.named_modules() if isinstance(part, nn.Conv2d)][-2:]
    cls = methods.find(name)
    joined = own.explain(IMAGE, f"{name}(layer={'+'.join(convs)!r})")
    for given in (cls(layer=tuple(convs)), f"{name}(layer={tuple(convs)!r})"):  # type: ignore[call-arg]
        found = own.explain(IMAGE, given)
        assert (maps(found)[0] == maps(joined)[0]).all()
        assert found[0].method == joined[0].method  # type: ignore[union-attr]
    parts = [module.get_submodule(one) for one in convs]
    for given in (convs, parts):
        engine = visxai.Engine(
            module,
            preprocess=zoo.PREPROCESS,
            layer=given,
            device="cpu",
            precision="fp32",
            accelerate="off",
        )
        assert (maps(engine.explain(IMAGE, name))[0] == maps(joined)[0]).all()
    with pytest.raises(UnknownName, match="unknown layer 'nope'"):
        own.explain(IMAGE, cls(layer=(convs[0], "nope")))  # type: ignore[call-arg]


def test_torchscript_with_a_cam_is_one_sentence_and_the_rest_serves(module: nn.Module) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated by torch, and still what many have
        scripted = torch.jit.trace(module.eval(), zoo.inputs(1))
    engine = visxai.Engine(
        scripted, preprocess=zoo.PREPROCESS, device="cpu", precision="fp32", accelerate="off"
    )
    for name in ("grad_cam", "score_cam", "finer_cam", "eigen_cam", "ablation_cam"):
        with pytest.raises(ArgumentError, match="layers inside TorchScript"):
            engine.explain(IMAGE, name)
    plain = visxai.Engine(
        module, preprocess=zoo.PREPROCESS, device="cpu", precision="fp32", accelerate="off"
    )
    for name in ("saliency", "occlusion(window=32, stride=32)"):
        a, b = maps(engine.explain(IMAGE, name)), maps(plain.explain(IMAGE, name))
        np.testing.assert_allclose(a[0], b[0], rtol=1e-3, atol=1e-5)


def test_channels_last_tensors_are_one_sentence_with_the_remedy(own: visxai.Engine) -> None:
    with pytest.raises(ArgumentError, match=r"pass x\.permute\(0, 3, 1, 2\)") as told:
        own.attribute(torch.rand(2, 64, 64, 3))
    assert len(str(told.value).splitlines()) == 1
    assert own.attribute(torch.rand(2, 64, 64, 3).permute(0, 3, 1, 2)).shape == (2, 64, 64)


def test_several_methods_in_one_string(own: visxai.Engine) -> None:
    found = own.explain(IMAGE, "GradCAM, occlusion(window=32, stride=32)")
    assert [one.method.partition("(")[0] for one in found] == ["grad_cam", "occlusion"]  # type: ignore[union-attr]
    with pytest.raises(ArgumentError, match="between the commas"):
        own.explain(IMAGE, "grad_cam,")


def test_labels_are_targets_by_themselves_and_one_an_image(own: visxai.Engine) -> None:
    for written in ("pirate", "Pirate Ship", "class=pirate"):
        assert own.explain(IMAGE, target=written)[0].class_index == zoo.CLASSES - 2  # type: ignore[union-attr]
    found = own.explain([IMAGE, IMAGE, IMAGE], target=["owl", "pirate", 0])
    assert [one.class_index for one in found] == [zoo.CLASSES - 1, zoo.CLASSES - 2, 0]  # type: ignore[union-attr]
    with pytest.raises(TargetError, match="did you mean pirate"):
        own.explain(IMAGE, target="pirat")
    with pytest.raises(UnknownName, match="did you mean"):
        own.explain([IMAGE, IMAGE], target=["owl", "pirat"])
    with pytest.raises(TargetError, match="one target per image"):
        own.explain(IMAGE, target=["owl", "pirate"])
    with pytest.raises(TargetError, match="expected a target"):
        own.explain(IMAGE, target="frobnicate")


def test_a_function_serves_the_methods_that_ask_for_scores(module: nn.Module) -> None:
    plain = visxai.Engine(
        module, preprocess=zoo.PREPROCESS, device="cpu", precision="fp32", accelerate="off"
    )
    network = module.eval()

    def logits(x: Tensor) -> Tensor:
        with torch.no_grad():
            return network(x)

    def probabilities(x: Tensor) -> Any:
        return logits(x).softmax(1).numpy()

    for function in (logits, probabilities):
        engine = visxai.Engine(function, preprocess=zoo.PREPROCESS, labels=LABELS)
        assert engine.model.offers == Need.SCORES
        for name in ("occlusion(window=32, stride=32)", "rise(masks=20)"):
            (a,), (b,) = engine.explain(IMAGE, name), plain.explain(IMAGE, name)
            assert isinstance(a, Explanation)
            assert isinstance(b, Explanation)
            if function is logits:  # logarithms of probabilities change by their normalisation too
                np.testing.assert_allclose(a.values, b.values, rtol=1e-3, atol=1e-4)
            assert a.score == pytest.approx(b.score, abs=1e-5)
            assert a.class_index == b.class_index
        assert engine.reproduce(a, IMAGE).agrees
        with pytest.raises(ArgumentError, match=r"explain the nn\.Module itself"):
            engine.explain(IMAGE, "grad_cam")


def test_functions_that_dont_fit_are_told(module: nn.Module) -> None:
    engine = visxai.Engine(lambda x: torch.zeros(3), preprocess=zoo.PREPROCESS)
    with pytest.raises(ModelError, match="one row of scores an image"):
        engine.explain(IMAGE, "rise(masks=4)")
    with pytest.raises(ArgumentError, match="without layer="):
        visxai.Engine(lambda x: x, layer="features")
    with pytest.raises(ArgumentError, match=r"nn\.Module"):
        visxai.Engine(type(module))  # type: ignore[arg-type]


def test_a_function_that_writes_into_its_pixels_changes_nothing() -> None:
    def scores(x: Tensor) -> Tensor:
        found = torch.stack([x.mean((1, 2, 3)), x[:, 0].mean((1, 2))], 1)
        x.zero_()
        return found

    engine = visxai.Engine(scores, preprocess=zoo.PREPROCESS, activation="none")
    once, again = (maps(engine.explain(IMAGE, "occlusion(window=32, stride=32)")) for _ in range(2))
    assert (once[0] == again[0]).all()
    assert once[0].any()


def test_a_pipeline_of_hugging_faces_stands_for_its_module() -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        image_size=64,
        patch_size=16,
        num_labels=3,
        id2label={0: "cat", 1: "dog", 2: "owl"},
    )
    processor = transformers.ViTImageProcessor(size={"height": 64, "width": 64})
    module = transformers.ViTForImageClassification(config).eval()
    pipe = transformers.pipeline("image-classification", model=module, image_processor=processor)
    engine = visxai.Engine(pipe, precision="fp32", accelerate="off")
    (found,) = engine.explain(IMAGE, "grad_cam", target="owl")
    assert isinstance(found, Explanation)
    assert found.label == "owl"
    from PIL import Image

    told = {one["label"]: one["score"] for one in pipe(Image.fromarray(IMAGE))}
    assert found.score == pytest.approx(told["owl"], abs=1e-3)


class Lightning(nn.Module):
    """As a LightningModule is: its trainer raises until one is attached."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self._trainer = None

    @property
    def trainer(self) -> Any:
        raise RuntimeError(f"{type(self).__qualname__} is not attached to a `Trainer`.")

    def forward(self, x: Tensor) -> Any:
        return self.network(x)

    def training_step(self, batch: Any, index: int) -> Any:
        return self(batch).sum()


def test_a_module_of_lightning_is_a_module(module: nn.Module) -> None:
    wrapped = visxai.Engine(
        Lightning(module),
        preprocess=zoo.PREPROCESS,
        device="cpu",
        precision="fp32",
        accelerate="off",
    )
    plain = visxai.Engine(
        module, preprocess=zoo.PREPROCESS, device="cpu", precision="fp32", accelerate="off"
    )
    for name in ("grad_cam", "saliency"):
        assert (maps(wrapped.explain(IMAGE, name))[0] == maps(plain.explain(IMAGE, name))[0]).all()


class Grey(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(1, 4, 3, stride=2), nn.ReLU())
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x).mean((2, 3)))


@pytest.mark.parametrize(
    "name",
    [
        "grad_cam",
        "saliency",
        "integrated_gradients(steps=8)",
        "occlusion(window=16, stride=16)",
        "rise(masks=8)",
        "lime(segments=9, samples=20)",
        "smooth_grad(copies=2)",
    ],
)
def test_models_of_one_channel_see_the_photographs_grey(name: str) -> None:
    network = zoo.randomise(Grey())
    grey = Preprocess(size=(48, 48), resize=48, mean=(0.5,), std=(0.25,))
    engine = visxai.Engine(
        network, preprocess=grey, device="cpu", precision="fp32", accelerate="off"
    )
    (found,) = engine.explain(IMAGE, name, target=1)
    assert isinstance(found, Explanation)
    assert found.overlay().size == (80, 70)
    assert "grey, mean 0.5, std 0.25" in found.model.preprocess
    from PIL import Image

    pixels = Image.fromarray(IMAGE).convert("L").resize((54, 48), Image.Resampling.BILINEAR)
    x = (np.asarray(pixels)[:, 3:51] / 255 - 0.5) / 0.25
    scores = network.eval()(torch.tensor(x, dtype=torch.float32)[None, None])
    assert found.score == pytest.approx(float(scores.softmax(1)[0, 1].detach()), abs=1e-5)


def test_moments_of_one_channel_go_together() -> None:
    assert Preprocess(size=(8, 8), mean=(0.5,)).std == (1.0,)
    assert Preprocess(size=(8, 8), std=(0.5,)).mean == (0.0,)
    with pytest.raises(ArgumentError, match="as many numbers as mean as std"):
        Preprocess(size=(8, 8), mean=(0.5,), std=(0.1, 0.2, 0.3))
    grey = Preprocess(size=(8, 8), mean=(0.5,), std=(0.5,))
    x = grey.normalise(torch.from_numpy(grey.blank())[None])
    assert x.shape == (1, 1, 8, 8)
    assert (x == -1).all()
    assert grey.denormalise(x).shape == (1, 3, 8, 8)


def test_data_sets_and_loaders_are_read_sample_by_sample(own: visxai.Engine) -> None:
    from torch.utils.data import DataLoader, Dataset, TensorDataset

    class Pictures(Dataset[Any]):
        def __len__(self) -> int:
            return 3

        def __getitem__(self, index: int) -> Any:  # raises nothing past the end
            return Image.fromarray(np.roll(IMAGE, index, 0)), index

    alone = maps(own.explain([np.roll(IMAGE, index, 0) for index in range(3)]))
    pixels = torch.from_numpy(np.stack([np.roll(IMAGE, index, 0) for index in range(3)]))
    loader = DataLoader(TensorDataset(pixels.permute(0, 3, 1, 2), torch.arange(3)), batch_size=2)
    rows = [{"image": Pictures()[index][0], "label": index} for index in range(3)]
    for given in (Pictures(), loader, rows, [Pictures()[index] for index in range(3)]):
        for found in (own.explain(given), list(own.stream(given))):
            assert all((a == b).all() for a, b in zip(maps(found), alone, strict=True))
    floats = DataLoader(TensorDataset(torch.rand(2, 3, 8, 8)))
    with pytest.raises(ArgumentError, match=r"use attribute\(\)"):
        own.explain(floats)
