"""The trunk and the head of a model equal the model, wherever the cut has to lie."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import cache

import pytest
import torch
import zoo
from torch import Tensor, nn

from visxai.errors import LayerError
from visxai.models.pytorch.capture import capture
from visxai.models.pytorch.model import TorchModel
from visxai.models.pytorch.split import split
from visxai.target import Target


def _densenet() -> nn.Module:
    from torchvision.models import DenseNet

    return DenseNet(8, (2, 2, 2), 16, num_classes=zoo.CLASSES)


def _mobilenet_v2() -> nn.Module:
    from torchvision.models import mobilenet_v2

    return mobilenet_v2(num_classes=zoo.CLASSES, width_mult=0.25)


def _bottlenecks() -> nn.Module:
    from torchvision.models.resnet import Bottleneck, ResNet

    return ResNet(Bottleneck, [1, 1, 1, 2], num_classes=zoo.CLASSES, width_per_group=16)


def _efficientnet() -> nn.Module:
    import timm

    return timm.create_model("tf_efficientnet_lite0", num_classes=zoo.CLASSES)


def _convnext_v2() -> nn.Module:
    import timm

    return timm.create_model(
        "convnextv2_atto", num_classes=zoo.CLASSES, depths=(1, 1, 1, 1), dims=(8, 16, 24, 32)
    )


MORE: dict[str, Callable[[], nn.Module]] = {
    "densenet": _densenet,
    "mobilenet_v2": _mobilenet_v2,
    "bottlenecks": _bottlenecks,
    "efficientnet_lite": _efficientnet,
    "convnext_v2": _convnext_v2,
}


@cache
def model(kind: str) -> TorchModel:
    if kind in zoo.KINDS:
        return zoo.model(kind)
    return TorchModel(zoo.randomise(MORE[kind]()), name=kind)


def both(model: TorchModel, layer: str, x: Tensor) -> Tensor:
    found = model.split(layer, x)
    with torch.no_grad():
        return model.forward(x, lambda inside: found.head(found.trunk(inside)))


def close(a: Tensor, b: Tensor, tolerance: float = 1e-5) -> bool:
    return bool((a - b).abs().max() <= tolerance * b.abs().max())


@pytest.mark.parametrize("kind", [*zoo.KINDS, *MORE])
def test_head_of_trunk_is_the_model(kind: str) -> None:
    one, x = model(kind), zoo.inputs(3)
    layer = one.layer(x)
    # A batch that the split was not made on.
    assert close(both(one, layer, x), one.scores(x))
    assert close(both(one, layer, x[:1]), one.scores(x[:1]))


@pytest.mark.parametrize("kind", [*zoo.TRANSFORMERS])
def test_a_transformer_is_cut_where_nothing_goes_around(kind: str) -> None:
    one, x = model(kind), zoo.inputs(2)
    at = one.split(one.layer(x), x).at
    if kind == "swin":
        assert str(at) == "the output of norm"
    else:
        block = one.layer(x).rpartition(".")[0]
        assert str(at) == f"the input of {block}"


@pytest.mark.parametrize(
    ("kind", "layer", "at"),
    [
        ("resnet18", "layer3.0", "the output of layer3.0"),
        ("resnet18", "layer3.0.conv1", "the input of layer3.0"),
        ("resnet18", "conv1", "the output of conv1"),
        ("densenet", "features.denseblock2.denselayer1", "the input of features.denseblock2"),
        ("mobilenet_v3", "features.3", "the output of features.3"),
        ("conv", "act", "the output of act"),
    ],
)
def test_inner_layers(kind: str, layer: str, at: str) -> None:
    one, x = model(kind), zoo.inputs(2)
    assert str(one.split(layer, x).at) == at
    assert close(both(one, layer, x), one.scores(x))


def test_nothing_below_the_cut_runs_in_the_head() -> None:
    one, x = model("resnet18"), zoo.inputs(2)
    found = one.split("layer4", x)
    ran = []
    names = {part: name for name, part in found.head.module.named_modules()}
    handle = nn.modules.module.register_module_forward_hook(
        lambda part, *_: ran.append(names[part]) if "forward" not in vars(part) else None
    )
    try:
        found.head(torch.randn(2, 64, 2, 2))
    finally:
        handle.remove()
    assert ran == ["avgpool", "fc", ""]


def test_a_module_called_before_and_after_the_cut() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Conv2d(3, 4, 3, 2), nn.Conv2d(4, 4, 3, 2)
            self.act, self.head = nn.ReLU(inplace=True), nn.Linear(4, zoo.CLASSES)

        def forward(self, x: Tensor) -> Tensor:
            x = self.act(self.second(self.act(self.first(x))))
            return self.head(self.act(x).mean((2, 3)))

    one, x = TorchModel(zoo.randomise(Shared())), zoo.inputs(3)
    assert str(one.split("second", x).at) == "the output of second"
    assert close(both(one, "second", x), one.scores(x))
    with pytest.raises(LayerError, match="3 times"):
        one.split("act", x)


def test_a_skip_from_the_image_leaves_the_whole_model() -> None:
    class Skip(zoo.Conv):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) + 5 * x.mean((1, 2, 3))[:, None]

    one, x = TorchModel(zoo.randomise(Skip())), zoo.inputs(3)
    assert one.split("last", x).whole
    assert close(both(one, "last", x), one.scores(x))


def test_a_model_that_draws_lots_has_no_split() -> None:
    class Noisy(zoo.Conv):
        def forward(self, x: Tensor) -> Tensor:
            calls.append(1)
            return super().forward(x) * len(calls)

    calls: list[int] = []
    one, x = TorchModel(zoo.randomise(Noisy())), zoo.inputs(2)
    reason = split(one.module, one.forward, "last", x[:1])
    assert isinstance(reason, str)
    assert "the scores differ" in reason
    with pytest.raises(LayerError, match="can't be split"):
        one.replay(x, Target.of(0), "last")


def test_weights_are_shared_and_updates_seen() -> None:
    module = zoo.randomise(zoo.Conv())
    one, x = TorchModel(module), zoo.inputs(2)
    found = one.split("last", x)
    shared = {id(p) for p in module.parameters()}
    assert {id(p) for p in found.head.module.parameters()} == shared
    with torch.no_grad():
        module.head.bias += 1  # type: ignore[operator, union-attr]
    assert close(both(one, "last", x), one.scores(x))


@pytest.mark.parametrize("kind", ["resnet18", "vit"])
def test_a_leaf_in_the_head_has_the_models_gradient(kind: str) -> None:
    one, x = model(kind), zoo.inputs(2)
    layer = one.layer(x)
    found = one.split(layer, x)
    with torch.no_grad():
        below = found.trunk(x)
    with capture(found.head.module, layer, cut=True) as seen:
        scores = one.forward(below, found.head)
        (gradient,) = torch.autograd.grad(scores[:, 3].sum(), seen[layer])
    expected = one.at_layers(x, Target.of(3)).layers[0].gradient
    assert close(one.layout(layer, x).maps(gradient), expected)


def test_threads_share_a_split() -> None:
    one, x = model("vit"), zoo.inputs(4)
    found, expected = one.split(one.layer(x), x), one.scores(x)
    wrong = []

    def work(index: int) -> None:
        with torch.no_grad():
            for size in (1, 2, 3):
                part = x[index : index + size]
                if not close(found.head(found.trunk(part)), expected[index : index + size]):
                    wrong.append(index)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize("kind", ["conv", "vit", "swin"])
def test_replaying_the_clean_activation_changes_nothing(kind: str) -> None:
    one, x = model(kind), zoo.inputs(3)
    at = one.replay(x, Target.of("top2"))
    image = torch.tensor([2, 0, 0, 1])
    assert close(at.head(image, at.activation[image]), at.scores[image])
    assert close(at.scores, one.scores(x))
    assert at.clean.shape == (6,)
