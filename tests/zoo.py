"""Small members of every model family, random weights, small inputs: what the contracts run over.

Weights are drawn by a generator of their own; zero-initialised heads are drawn too, since a zero
head has nothing to explain.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial

import torch
from torch import Tensor, nn

from visxai.images.preprocess import Preprocess
from visxai.models.pytorch.model import TorchModel

SIZE = 64
CLASSES = 10
PREPROCESS = Preprocess(size=(SIZE, SIZE), resize=SIZE)


def randomise(module: nn.Module, seed: int = 0, size: int = SIZE) -> nn.Module:
    """Give every parameter a seeded draw, scaled so that signals neither die nor burst."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in module.named_parameters():
        fan_in = parameter[0].numel() if parameter.ndim > 1 else 1
        draw = torch.randn(parameter.shape, generator=generator)
        scale = fan_in**-0.5 if parameter.ndim > 1 else 0.1
        centre = 1.0 if parameter.ndim == 1 and name.endswith("weight") else 0.0
        parameter.data = centre + scale * draw
    norms = [part for part in module.modules() if isinstance(part, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None  # plain averages over the one batch below
    if norms:
        with torch.no_grad():
            module.train()(inputs(4, size, seed=2))
    return module.eval()


def inputs(count: int = 3, size: int = SIZE, seed: int = 1) -> Tensor:
    """Random inputs (count, 3, size, size) with some low-frequency structure."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(count, 3, 8, 8, generator=generator)
    fine = torch.randn(count, 3, size, size, generator=generator)
    return nn.functional.interpolate(coarse, size, mode="bilinear") + 0.3 * fine


class Conv(nn.Module):
    """A small CNN with an in-place ReLU right after its last convolution."""

    def __init__(self, channels: int = 12) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, channels, 3, stride=2, padding=1)
        self.act = nn.ReLU(inplace=True)
        self.body = nn.Conv2d(channels, channels, 3, stride=4, padding=1)
        self.last = nn.ReLU(inplace=True)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(channels, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.last(self.body(self.act(self.stem(x))))
        return self.head(self.pool(x).flatten(1))


def _resnet18() -> nn.Module:
    """torchvision's resnet18 with an eighth of the channels and one block a stage: the full one
    took half the time of all contracts, and showed nothing more."""
    from torchvision.models.resnet import BasicBlock, ResNet

    class Narrow(ResNet):
        def _make_layer(
            self,
            block: type[BasicBlock],  # type: ignore[override]
            planes: int,
            blocks: int,
            stride: int = 1,
            dilate: bool = False,
        ) -> nn.Sequential:
            return super()._make_layer(block, planes // 8, blocks, stride, dilate)

    module = Narrow(BasicBlock, [1, 1, 1, 1])
    module.fc = nn.Linear(512 // 8, CLASSES)
    return module


def _mobilenet() -> nn.Module:
    from torchvision.models import MobileNetV3
    from torchvision.models.mobilenetv3 import InvertedResidualConfig

    # Channels in, kernel, expanded and out; squeeze and excitation, activation, stride, dilation.
    settings = [
        InvertedResidualConfig(16, 3, 16, 16, True, "RE", 2, 1, 1.0),
        InvertedResidualConfig(16, 3, 32, 24, False, "RE", 2, 1, 1.0),
        InvertedResidualConfig(24, 5, 48, 24, True, "HS", 1, 1, 1.0),
        InvertedResidualConfig(24, 5, 48, 32, True, "HS", 2, 1, 1.0),
    ]
    return MobileNetV3(settings, last_channel=64, num_classes=CLASSES)


def _convnext() -> nn.Module:
    from torchvision.models.convnext import CNBlockConfig, ConvNeXt

    settings = [CNBlockConfig(24, 48, 1), CNBlockConfig(48, 96, 1), CNBlockConfig(96, None, 2)]
    return ConvNeXt(settings, num_classes=CLASSES)


def _vit(blocks: int = 3) -> nn.Module:
    from torchvision.models import VisionTransformer

    return VisionTransformer(
        image_size=SIZE,
        patch_size=16,
        num_layers=blocks,
        num_heads=3,
        hidden_dim=48,
        mlp_dim=96,
        num_classes=CLASSES,
    )


def _swin() -> nn.Module:
    from torchvision.models import SwinTransformer

    return SwinTransformer(
        patch_size=[4, 4],
        embed_dim=24,
        depths=[2, 2],
        num_heads=[2, 4],
        window_size=[4, 4],
        num_classes=CLASSES,
    )


def _timm_registers(blocks: int = 3) -> nn.Module:
    from timm.models.vision_transformer import VisionTransformer

    return VisionTransformer(
        img_size=SIZE,
        patch_size=16,
        embed_dim=48,
        depth=blocks,
        num_heads=3,
        reg_tokens=4,
        num_classes=CLASSES,
    )


def _hugging_face(blocks: int = 3) -> nn.Module:
    from transformers import ViTConfig, ViTForImageClassification

    return ViTForImageClassification(
        ViTConfig(
            image_size=SIZE,
            patch_size=16,
            hidden_size=48,
            num_hidden_layers=blocks,
            num_attention_heads=3,
            intermediate_size=96,
            num_labels=CLASSES,
        )
    )


CNNS: dict[str, Callable[[], nn.Module]] = {
    "conv": Conv,
    "resnet18": _resnet18,
    "mobilenet_v3": _mobilenet,
    "convnext": _convnext,
}
TRANSFORMERS: dict[str, Callable[[], nn.Module]] = {
    "vit": _vit,
    "swin": _swin,
    "timm_registers": _timm_registers,
    "hf_vit": _hugging_face,
}
KINDS = {**CNNS, **TRANSFORMERS}
# Of two blocks, one below the last, for what takes seconds a block, such as exports.
SHALLOW: dict[str, Callable[[], nn.Module]] = {
    "vit": partial(_vit, 2),
    "timm_registers": partial(_timm_registers, 2),
    "hf_vit": partial(_hugging_face, 2),
}


@cache
def module(kind: str) -> nn.Module:
    """The one module of a kind in this process, frozen weights drawn once."""
    return randomise(KINDS[kind]())


@cache
def shallow(kind: str) -> TorchModel:
    """The one model of a kind in this process, with two blocks where it is one of `SHALLOW`."""
    if kind not in SHALLOW:
        return model(kind)
    return TorchModel(randomise(SHALLOW[kind]()), name=kind, preprocess=PREPROCESS)


@cache
def model(kind: str) -> TorchModel:
    """The one model of a kind in this process."""
    return TorchModel(module(kind), name=kind, preprocess=PREPROCESS)


class Fragile(nn.Module):
    """A network whose scores are constant for black pictures, so that no gradient is left, and a
    hundred thousand times as large for bright ones: more than fp16 holds."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        scores = self.network(x)
        if torch.is_autocast_enabled("cpu"):  # the last layer's are float32, these are not
            scores = scores.to(torch.get_autocast_dtype("cpu"))
        elif x.dtype in (torch.bfloat16, torch.float16):
            scores = scores.to(x.dtype)
        level = x.mean((1, 2, 3)).detach().repeat(len(scores) // len(x))
        factor = torch.where(level > 5, 1e5, 1.0).unsqueeze(1).to(scores.dtype)
        return torch.where(level.unsqueeze(1) < -5, scores.detach() * 0 + 1, scores * factor)


class Overwriting(nn.Module):
    """A network that writes into the pictures it is given."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x.mul_(2) / 2)  # no bit is lost


@cache
def fragile(kind: str) -> TorchModel:
    """The network of a kind, lost in half precision for black and for bright pictures."""
    return TorchModel(Fragile(module(kind)), name=kind, preprocess=PREPROCESS)


@cache
def overwriting(kind: str) -> TorchModel:
    """The network of a kind behind steps that work in place."""
    return TorchModel(Overwriting(module(kind)), name=kind, preprocess=PREPROCESS)
