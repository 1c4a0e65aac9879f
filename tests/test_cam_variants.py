"""Relatives of the CAM family against their formulas, their identities and the peers that agree."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import zoo
from test_cams import drawn, run
from test_contracts import close
from torch import Tensor, nn
from torch.nn import functional as F

from visxai import methods
from visxai.engine.batch import compute
from visxai.errors import ArgumentError, ModelError
from visxai.methods.fem import Fem
from visxai.methods.kpca_cam import KpcaCam
from visxai.models.probe import Probe
from visxai.models.pytorch.model import TorchModel
from visxai.target import Target


@pytest.fixture(scope="module")
def conv() -> TorchModel:
    """Global average pooling and a linear layer on 12 channels of 8x8."""
    return zoo.model("conv")


def map_of(spec: str, at: Any) -> Tensor:
    found: Tensor = methods.load(spec).map(at)  # type: ignore[attr-defined]
    return found


def test_cam_is_the_classes_row_times_the_activation(conv: TorchModel) -> None:
    x = zoo.inputs(2)
    (a,) = conv.activations(x, Target.of(3), ["last"]).layers
    weight = conv.module.head.weight.detach()
    expected = torch.einsum("k,bkuv->buv", weight[3], a)
    found = run(conv, "cam(relu=False)", x)
    assert close(found, expected, 1e-5)
    assert close(found, 64 * run(conv, "grad_cam(relu=False)", x), 1e-5)
    score = conv.scores(x)[:, 3] - conv.module.head.bias[3].detach()
    assert close(found.mean((1, 2)), score, 1e-4)
    contrast = torch.einsum("k,bkuv->buv", weight[1] - weight[2], a)
    assert close(run(conv, "cam(relu=False)", x, "diff=1,2"), contrast, 1e-5)


def test_cam_refuses_a_head_that_is_more_than_a_linear_layer() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Conv2d(3, 4, 3, stride=8)
            self.head = nn.Linear(4, 5)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.body(x).mean((2, 3)).relu())

    model = TorchModel(zoo.randomise(Twice()), name="twice")
    with pytest.raises(ModelError, match="use grad_cam"):
        run(model, "cam(layer='body')", zoo.inputs(2))
    with pytest.raises(ModelError, match="averaged over its positions"):
        run(zoo.model("mobilenet_v3"), "cam", zoo.inputs(1))


def test_elementwise_by_hand_and_on_a_relu_layer(conv: TorchModel) -> None:
    at = drawn()
    assert close(
        map_of("grad_cam_elementwise", at), (at.gradient * at.activation).clamp_min(0).sum(1)
    )
    x = zoo.inputs(2)
    assert close(run(conv, "grad_cam_elementwise", x), run(conv, "layer_cam", x), 1e-6)


def test_eigen_grad_cam_is_the_singular_vector_with_hires_cams_sign() -> None:
    at = drawn(4)
    products = (at.gradient * at.activation).flatten(2).mT
    products = products - products.mean(1, keepdim=True)
    u, s, _ = torch.linalg.svd(products, full_matrices=False)
    expected = (u[:, :, 0] * s[:, :1]).unflatten(1, (3, 5))
    found = map_of("eigen_grad_cam(relu=False)", at)
    assert close(found.abs(), expected.abs(), 1e-4)
    hires = (at.gradient * at.activation).sum(1)
    centred = hires - hires.mean((1, 2), keepdim=True)
    assert bool(((found * centred).sum((1, 2)) >= 0).all())
    tiny = type(at)(at.name, at.activation, at.gradient * 1e-25)
    assert close(map_of("eigen_grad_cam(relu=False)", tiny) * 1e25, found, 1e-4)


def test_kpca_cam_with_a_linear_kernel_is_eigen_cam() -> None:
    a = drawn(5).activation
    found = KpcaCam(kernel="linear").map(a)
    assert close(found, methods.load("eigen_cam(centred=True)").map(a), 1e-4)  # type: ignore[attr-defined]


@pytest.mark.parametrize(("kernel", "gamma"), [("sigmoid", None), ("rbf", None)])
def test_kpca_cam_is_scikit_learns(kernel: str, gamma: float | None) -> None:
    from sklearn.decomposition import KernelPCA

    a = drawn(6, (1, 7, 4, 5)).activation
    plain = a[0].flatten(1).T.double()
    plain = plain - plain.mean(0)
    theirs = KernelPCA(1, kernel=kernel, gamma=gamma).fit_transform(plain.numpy())
    expected = torch.from_numpy(theirs).reshape(4, 5).float()
    found = KpcaCam(kernel=kernel).map(a)[0]  # type: ignore[arg-type]
    assert close(found.abs(), expected.abs(), 1e-4)


def test_fem_by_hand() -> None:
    flat, peaked = torch.full((2, 3), 5.0), torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, 6.0]])
    activation = torch.stack([flat, peaked])[None]
    # The flat channel has no response above its mean; the other's mean is 1, its deviation 2.24.
    assert torch.equal(Fem(sigmas=2).map(activation)[0], torch.tensor([[0.0] * 3, [0.0, 0.0, 1.0]]))
    assert not Fem(sigmas=2.3).map(activation).any()


def test_refine_cam_is_the_product_of_the_layers_maps() -> None:
    model, x = zoo.model("resnet18"), zoo.inputs(2)
    parts = [run(model, f"grad_cam_plus_plus(layer='layer{n}')", x) for n in (2, 4)]
    parts = [part / part.amax((1, 2), keepdim=True) for part in parts]
    late = F.interpolate(parts[1][:, None], parts[0].shape[1:], mode="bilinear")[:, 0]
    found = run(model, "refine_cam(layer='layer2+layer4')", x)
    assert close(found, parts[0] * late, 1e-4)
    alone = run(model, "refine_cam(method='layer_cam')", x)
    single = run(model, "layer_cam", x)
    assert close(alone, single / single.amax((1, 2), keepdim=True), 1e-5)
    with pytest.raises(ArgumentError, match="grad_cam_plus_plus, grad_cam, layer_cam"):
        methods.load("refine_cam(method='chefer')")


def test_ss_cam_and_is_cam_end_in_score_cam(conv: TorchModel) -> None:
    x = zoo.inputs(2)
    expected = run(conv, "score_cam(relu=False)", x)
    assert close(run(conv, "ss_cam(relu=False, samples=2, sigma=0)", x), expected, 1e-5)
    assert close(run(conv, "is_cam(relu=False, samples=1)", x), expected, 1e-5)


def test_is_cam_by_hand(conv: TorchModel) -> None:
    x = zoo.inputs(1)
    a = conv.activations(x, Target.of(3)).layers[0][0]
    means = []
    for channel in a:
        up = F.interpolate(channel[None, None], x.shape[2:], mode="bilinear")
        span = up.max() - up.min()
        mask = (up - up.min()) / span if span > 0 else torch.zeros_like(up)
        means.append(
            torch.stack([conv.scores(x * mask * j / 4)[0, 3] for j in (1, 2, 3, 4)]).mean()
        )
    expected = torch.einsum("k,kuv->uv", torch.stack(means).softmax(0), a).relu()
    assert close(run(conv, "is_cam(samples=4)", x)[0], expected, 1e-4)


def test_smooth_grad_cam_plus_plus_without_noise_is_grad_cam_plus_plus() -> None:
    model, x = zoo.model("resnet18"), zoo.inputs(2)
    spec = "smooth_grad_cam_plus_plus(copies=3, sigma=0, relu=False, layer='layer3')"
    assert close(
        run(model, spec, x), run(model, "grad_cam_plus_plus(relu=False, layer='layer3')", x)
    )


def test_smooth_grad_cam_plus_plus_by_hand(conv: TorchModel) -> None:
    from visxai.methods.smooth_grad import Noise

    x = zoo.inputs(1)
    noise, image = Noise.of(x, 2, 0.3, 0), torch.zeros(1, dtype=torch.long)
    seen = conv.at_layers(x, Target.of(3)).layers[0]
    gradients = [
        conv.at_layers(x + noise(image, torch.tensor([j])), Target.of(3)).layers[0].gradient
        for j in (0, 1)
    ]
    first, second, third = (sum(g**p for g in gradients) / 2 for p in (1, 2, 3))
    total = seen.activation.sum((2, 3), keepdim=True)
    alpha = second / (2 * second + total * third)
    weights = (alpha * first.relu()).nan_to_num(0).sum((2, 3))
    expected = torch.einsum("rk,rkuv->ruv", weights, seen.activation)
    spec = "smooth_grad_cam_plus_plus(copies=2, sigma=0.3, relu=False)"
    assert close(run(conv, spec, x), expected, 1e-4)


def test_recipro_cam_of_a_pooled_linear_head_is_a_blurred_cam(conv: TorchModel) -> None:
    x = zoo.inputs(2)
    cam = run(conv, "cam(relu=False)", x)
    assert close(run(conv, "recipro_cam(spread=False)", x), cam / 64, 1e-4)
    kernel = torch.tensor([[1.0, 2, 1], [2, 4, 2], [1, 2, 1]]) / 16
    blurred = F.conv2d(cam[:, None], kernel[None, None], padding=1)[:, 0]
    assert close(run(conv, "recipro_cam", x), blurred / 64, 1e-4)


def test_recipro_cam_keeps_the_class_token_of_a_transformer() -> None:
    model, x = zoo.model("vit"), zoo.inputs(1)
    layer = model.layer(x)
    layout, place = model.layout(layer, x), 5

    def alone(_module: nn.Module, _args: object, output: Tensor, keep: int | None = None) -> Tensor:
        maps = torch.zeros_like(layout.maps(output))
        if keep is not None:
            maps.flatten(2)[:, :, keep] = layout.maps(output).flatten(2)[:, :, keep]
        return layout.unmaps(maps, output)

    scores = []
    for keep in (None, place):
        part = model.module.get_submodule(layer)
        handle = part.register_forward_hook(lambda m, a, o, keep=keep: alone(m, a, o, keep))
        scores.append(model.scores(x)[0, 3])
        handle.remove()
    found = run(model, "recipro_cam(spread=False)", x)[0].flatten()[place]
    assert float((found - (scores[1] - scores[0])).abs()) < 1e-5


def test_shapley_cam_of_a_piecewise_linear_head_is_grad_cam(conv: TorchModel) -> None:
    x = zoo.inputs(2)
    assert close(run(conv, "shapley_cam", x), run(conv, "grad_cam", x), 1e-5)
    with pytest.raises(ModelError, match="fused attention"):
        run(zoo.model("vit"), "shapley_cam", x)


def test_shapley_cam_of_a_quadratic_head_by_hand() -> None:
    class Quadratic(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Conv2d(3, 2, 8, stride=8)
            self.head = nn.Linear(2, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.body(x).square().mean((2, 3)))

    model, x = TorchModel(zoo.randomise(Quadratic()), name="quadratic"), zoo.inputs(1)
    (a,) = model.activations(x, Target.of(1), ["body"]).layers
    # y = w mean a^2: g = 2 w a / n, H a = 2 w a / n, so g - H a / 2 = w a / n.
    weights = model.module.head.weight[1].detach() * a.mean((2, 3)) / 64
    expected = torch.einsum("rk,rkuv->ruv", weights, a)
    assert close(run(model, "shapley_cam(relu=False, layer='body')", x, 1), expected, 1e-4)


@pytest.mark.parametrize("kind", ["vit", "timm_registers", "hf_vit"])
def test_cdam_is_hires_cam_of_a_transformer(kind: str) -> None:
    x = zoo.inputs(2)
    assert torch.equal(run(zoo.model(kind), "cdam", x), run(zoo.model(kind), "hires_cam", x))
    missing = methods.find("cdam").needs & ~zoo.model("resnet18").offers
    assert str(missing) == "attention"


@pytest.mark.parametrize(
    ("spec", "peer"),
    [
        ("grad_cam_elementwise(layer='layer3')", "GradCAMElementWise"),
        ("eigen_grad_cam(layer='layer3', relu=False)", "EigenGradCAM"),
        ("kpca_cam(layer='layer3')", "KPCA_CAM"),
        ("shapley_cam(layer='layer3', relu=False)", "ShapleyCAM"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_pytorch_grad_cam_agrees(spec: str, peer: str) -> None:
    import pytorch_grad_cam

    module, x = copy.deepcopy(zoo.module("resnet18")), zoo.inputs(1)
    other = getattr(pytorch_grad_cam, peer)(model=module, target_layers=[module.layer3])
    seen: list[Any] = []
    plain = other.get_cam_image

    def keep(*args: Any, **kwargs: Any) -> Any:
        seen.append(plain(*args, **kwargs))
        return seen[0]

    other.get_cam_image = keep  # before it scales each map to [0, 1]
    other(input_tensor=x.clone(), targets=[lambda scores: scores[..., 3]])
    expected = torch.as_tensor(seen[0]).float()
    found = run(zoo.model("resnet18"), spec, x)
    if "PCA" in peer or "Eigen" in peer:  # its sign is whatever the decomposition gives
        found, expected = found.abs(), expected.abs()
    assert close(found, expected, 1e-3)


@pytest.mark.filterwarnings("ignore")
def test_torchcams_cam_agrees() -> None:
    from torchcam.methods import CAM

    module, x = copy.deepcopy(zoo.module("resnet18")), zoo.inputs(2)
    with CAM(module, "layer4", "fc") as extractor:
        module(x)
        (expected,) = extractor([3, 3], normalized=False)
    assert close(
        run(zoo.model("resnet18"), "cam(layer='layer4', relu=False)", x), expected.detach(), 1e-4
    )


def test_several_layers_are_fused(conv: TorchModel) -> None:
    x = zoo.inputs(1)
    for spec in ("fem", "kpca_cam", "recipro_cam", "grad_cam_elementwise", "ss_cam(samples=1)"):
        name = spec.partition("(")[0]
        rest = spec.partition("(")[2].removesuffix(")")
        layers = f"layer='act+last'{', ' + rest if rest else ''}"
        maps = compute(methods.load(f"{name}({layers})"), Probe(conv, x), x, Target.of(3)).values
        assert maps.shape == (1, 32, 32)
