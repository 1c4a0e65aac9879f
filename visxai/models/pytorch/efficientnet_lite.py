"""EfficientNet-Lite0, the embedded default model: its graph without another library's imports.

    stem 3x3/2 -> 16 blocks in 7 stages -> 1x1 head -> mean over positions -> linear

Lite networks leave out squeeze-and-excitation and replace swish by ReLU6. Modules have timm's names
and order, so layers are named as there (`bn2` is what a CAM reads) and weights have one sha256.
Strided convolutions pad as TensorFlow does: as much as makes the output ceil(size / stride), the
odd pixel at the end.

Cost: 0.4 billion multiplications an image of 224 x 224; importing timm would take a second or more.
Source: Tan and Le, EfficientNet, ICML 2019; the Lite variants were published by Google in 2020.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn

# Kernel, stride, expansion and output channels of each stage, and how many blocks it has.
_STAGES = (
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)
_STEM, _HEAD = 32, 1280
_EPS = 1e-3  # of batch norms, as TensorFlow has it


class EfficientNetLite(nn.Module):
    """EfficientNet-Lite0 for pixels (b, 3, h, w) in model space.

    Args:
        num_classes: The number of scores.
    """

    def __init__(self, num_classes: int = 1000) -> None:
        super().__init__()
        self.conv_stem = _PaddedConv(3, _STEM, 3, stride=2, bias=False)
        self.bn1 = _Norm(_STEM, nn.ReLU6(inplace=True))
        stages, channels = [], _STEM
        for kernel, stride, expansion, out, count in _STAGES:
            blocks = []
            for index in range(count):
                blocks.append(_block(channels, out, kernel, 1 if index else stride, expansion))
                channels = out
            stages.append(nn.Sequential(*blocks))
        self.blocks = nn.Sequential(*stages)
        self.conv_head = nn.Conv2d(channels, _HEAD, 1, bias=False)
        self.bn2 = _Norm(_HEAD, nn.ReLU6(inplace=True))
        self.global_pool = nn.Sequential(
            OrderedDict(pool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten())
        )
        self.classifier = nn.Linear(_HEAD, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Compute the scores (b, num_classes)."""
        x = self.blocks(self.bn1(self.conv_stem(x)))
        out: Tensor = self.classifier(self.global_pool(self.bn2(self.conv_head(x))))
        return out


class _Norm(nn.BatchNorm2d):
    """A batch norm with the activation that follows it."""

    def __init__(self, channels: int, act: nn.Module) -> None:
        super().__init__(channels, eps=_EPS)
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.act(super().forward(x))
        return out


class _PaddedConv(nn.Conv2d):
    """A strided convolution that pads as TensorFlow does, by the size of its input."""

    def forward(self, x: Tensor) -> Tensor:
        sides = []
        for size, kernel, stride in zip(x.shape[:1:-1], self.kernel_size, self.stride, strict=True):
            total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
            sides += [total // 2, total - total // 2]
        return super().forward(nn.functional.pad(x, sides))


class _Block(nn.Sequential):
    """Convolutions and norms in order, around which the input is added where it fits."""

    def __init__(self, parts: dict[str, nn.Module], *, adds: bool) -> None:
        super().__init__(OrderedDict(parts))
        self.adds = adds

    def forward(self, x: Tensor) -> Tensor:
        out = x
        for part in self:
            out = part(out)
        return out + x if self.adds else out


def _block(channels: int, out: int, kernel: int, stride: int, expansion: int) -> _Block:
    """Make a depthwise separable block, widened by a 1x1 convolution where expansion is above 1."""
    wide = channels * expansion
    conv = nn.Conv2d if stride == 1 else _PaddedConv
    padding = (kernel - 1) // 2 if stride == 1 else 0
    deep = conv(wide, wide, kernel, stride=stride, padding=padding, groups=wide, bias=False)
    adds = stride == 1 and channels == out
    if expansion == 1:
        parts: dict[str, nn.Module] = {
            "conv_dw": deep,
            "bn1": _Norm(wide, nn.ReLU6(inplace=True)),
            "conv_pw": nn.Conv2d(wide, out, 1, bias=False),
            "bn2": _Norm(out, nn.Identity()),
        }
    else:
        parts = {
            "conv_pw": nn.Conv2d(channels, wide, 1, bias=False),
            "bn1": _Norm(wide, nn.ReLU6(inplace=True)),
            "conv_dw": deep,
            "bn2": _Norm(wide, nn.ReLU6(inplace=True)),
            "conv_pwl": nn.Conv2d(wide, out, 1, bias=False),
            "bn3": _Norm(out, nn.Identity()),
        }
    return _Block(parts, adds=adds)
