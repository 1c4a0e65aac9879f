"""The peers' calls that visxai is timed against, each as its documentation writes it."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from visxai.methods._maps import upsample

# grad-cam's Score-CAM draws progress bars.
os.environ.setdefault("TQDM_DISABLE", "1")

Maps = Callable[[], Tensor]


def forward(module: nn.Module, x: Tensor) -> Maps:
    """The plain eager forward, without a graph."""

    def run() -> Tensor:
        with torch.no_grad():
            return module(x)  # type: ignore[no-any-return]

    return run


def captum_grad_cam(module: nn.Module, layer: str, x: Tensor, classes: list[int]) -> Maps:
    from captum.attr import LayerGradCam

    method = LayerGradCam(module, module.get_submodule(layer))
    return lambda: method.attribute(x, target=classes, relu_attributions=True)[:, 0].detach()


def torchcam_grad_cam(module: nn.Module, layer: str, x: Tensor, classes: list[int]) -> Maps:
    from torchcam.methods import GradCAM

    method = GradCAM(module, layer)
    return lambda: method(classes, module(x), normalized=False)[0].detach()


def pytorch_grad_cam(module: nn.Module, layer: str, x: Tensor, classes: list[int]) -> Maps:
    """Maps at the size of the image, each scaled to 0..1."""
    return _pytorch_grad_cam("GradCAM", module, layer, x, classes)


def torchcam_score_cam(
    module: nn.Module, layer: str, x: Tensor, classes: list[int], rows: int = 32
) -> Maps:
    from torchcam.methods import ScoreCAM

    method = ScoreCAM(module, layer, batch_size=rows)

    def run() -> Tensor:
        with torch.no_grad():
            module(x)
            return method(classes, normalized=False)[0]

    return run


def pytorch_score_cam(
    module: nn.Module, layer: str, x: Tensor, classes: list[int], rows: int = 16
) -> Maps:
    return _pytorch_grad_cam("ScoreCAM", module, layer, x, classes, rows)


def captum_occlusion(
    module: nn.Module, x: Tensor, classes: list[int], window: int, stride: int, together: int
) -> Maps:
    from captum.attr import Occlusion

    method = Occlusion(module)

    def run() -> Tensor:
        with torch.no_grad():
            found = method.attribute(
                x,
                sliding_window_shapes=(3, window, window),
                strides=(3, stride, stride),
                target=classes,
                perturbations_per_eval=together,
            )
        return found[:, 0]

    return run


def captum_integrated_gradients(
    module: nn.Module,
    x: Tensor,
    classes: list[int],
    together: int | None = None,
    steps: int = 50,
) -> Maps:
    """captum's default: 50 Gauss-Legendre points, at most `together` rows at once."""
    from captum.attr import IntegratedGradients

    method = IntegratedGradients(module)
    options: dict[str, Any] = {"n_steps": steps, "internal_batch_size": together}
    return lambda: method.attribute(x, target=classes, **options).sum(1).detach()


def _pytorch_grad_cam(
    name: str,
    module: nn.Module,
    layer: str,
    x: Tensor,
    classes: list[int],
    rows: int | None = None,
) -> Maps:
    import pytorch_grad_cam
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    method: Any = getattr(pytorch_grad_cam, name)(
        model=module, target_layers=[module.get_submodule(layer)]
    )
    if rows is not None:
        method.batch_size = rows
    targets = [ClassifierOutputTarget(index) for index in classes]
    return lambda: torch.from_numpy(method(input_tensor=x, targets=targets))


def difference(found: Tensor, expected: Tensor) -> float:
    """max|found - expected| / max|expected|, the smaller map upsampled to the other's size."""
    size = max(found.shape[-2:], expected.shape[-2:])
    found, expected = (upsample(maps.float(), size) for maps in (found, expected))
    return float((found - expected).abs().max() / expected.abs().max().clamp_min(1e-30))


def scaled(maps: Tensor) -> Tensor:
    """Each map (b, h, w) from 0 to 1."""
    low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    return (maps - low) / (high - low).clamp_min(1e-30)
