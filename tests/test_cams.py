"""The CAM family against its formulas, its identities and, where they are right, its peers."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import zoo
from test_contracts import close, count_rows
from torch import Tensor, nn
from torch.nn import functional as F

from visxai import methods
from visxai.engine.batch import compute
from visxai.errors import ArgumentError, ModelError, TargetError
from visxai.methods.eigen_cam import EigenCam
from visxai.methods.finer_cam import FinerCam
from visxai.methods.score_cam import ScoreCam
from visxai.models.probe import Probe
from visxai.models.pytorch.model import TorchModel
from visxai.models.views import AtLayer
from visxai.target import Target

LINEAR = ("grad_cam", "hires_cam", "xgrad_cam", "finer_cam(gamma=0.5)")
EVERY = (
    "ablation_cam",
    "eigen_cam",
    "finer_cam",
    "grad_cam",
    "grad_cam_plus_plus",
    "hires_cam",
    "layer_cam",
    "score_cam(top=5)",
    "xgrad_cam",
)


def run(model: TorchModel, spec: str, x: Tensor, target: Any = 3) -> Tensor:
    return compute(methods.load(spec), Probe(model, x), x, Target.of(target)).values


def drawn(seed: int = 0, shape: tuple[int, ...] = (2, 4, 3, 5)) -> AtLayer:
    generator = torch.Generator().manual_seed(seed)
    activation = torch.randn(shape, generator=generator)
    return AtLayer("layer", activation, torch.randn(shape, generator=generator))


@pytest.fixture(scope="module")
def conv() -> TorchModel:
    """Global average pooling and a linear layer on 12 channels of 8x8."""
    return zoo.model("conv")


def test_weights_of_a_pooled_linear_head_are_cams(conv: TorchModel) -> None:
    x = zoo.inputs(2)
    at = conv.activations(x, Target.of(3), ["last"])
    weight = conv.module.head.weight[3].detach()
    cam = torch.einsum("k,bkuv->buv", weight, at.layers[0]) / 64
    for name in ("grad_cam", "hires_cam", "xgrad_cam"):
        spec = name if name == "hires_cam" else f"{name}(relu=False)"
        assert close(run(conv, spec, x), cam, 1e-5)
    assert close(run(conv, "grad_cam", x), cam.relu(), 1e-5)
    positive = torch.einsum("k,bkuv->buv", weight.relu(), at.layers[0]) / 64
    assert close(run(conv, "layer_cam", x), positive, 1e-5)


def test_grad_cam_plus_plus_is_its_formula() -> None:
    at = drawn()
    at.gradient[0, 0, 0, 0] = 0.0
    expected = torch.zeros(2, 3, 5, dtype=torch.float64)
    a, g = at.activation.double(), at.gradient.double()
    for row in range(2):
        for k in range(4):
            total, weight = a[row, k].sum(), 0.0
            for value in g[row, k].flatten():
                divisor = 2 * value**2 + total * value**3
                alpha = value**2 / divisor if divisor != 0 else 0.0
                weight += alpha * max(value, torch.tensor(0.0))
            expected[row] += weight * a[row, k]
    method = methods.load("grad_cam_plus_plus")
    assert close(method.map(at).double(), expected.relu(), 1e-4)  # type: ignore[attr-defined]


def test_grad_cam_plus_plus_of_tiny_gradients_does_not_underflow() -> None:
    at = drawn()
    small = AtLayer("layer", at.activation, at.gradient * 1e-20)
    weights = at.gradient.relu().sum((2, 3)) / 2  # 2 + (sum A) g is 2
    expected = torch.einsum("rk,rkuv->ruv", weights, at.activation)
    method = methods.load("grad_cam_plus_plus(relu=False)")
    assert close(method.map(small) * 1e20, expected, 1e-5)  # type: ignore[attr-defined]


def test_xgrad_cam_conserves_and_skips_empty_channels() -> None:
    at = drawn()
    at.activation[:, 1] = 0
    maps = methods.load("xgrad_cam(relu=False)").map(at)  # type: ignore[attr-defined]
    assert maps.isfinite().all()
    assert close(maps.sum((1, 2)), (at.gradient * at.activation).sum((1, 2, 3)), 1e-4)


def test_eigen_cam_of_a_rank_one_activation() -> None:
    shared = torch.tensor([[0.0, 1.0, 2.0], [3.0, 1.0, -1.0]])
    factors = torch.tensor([1.0, 2.0, 2.0])
    for many in (factors, torch.cat([factors, torch.zeros(9)])):  # both Gram matrices
        activation = (many[:, None, None] * shared)[None]
        assert close(EigenCam().map(activation)[0], 3 * shared, 1e-5)
        assert close(EigenCam(centred=True).map(activation)[0], 3 * (shared - 1), 1e-5)


def test_eigen_cam_is_the_singular_vector() -> None:
    activation = drawn(3).activation
    u, s, _ = torch.linalg.svd(activation.flatten(2).mT, full_matrices=False)
    expected = (u[:, :, 0] * s[:, :1]).unflatten(1, (3, 5))
    found = EigenCam().map(activation)
    assert close(found.abs(), expected.abs(), 1e-4)


def test_eigen_cam_asks_no_target_and_no_gradient(conv: TorchModel) -> None:
    x = zoo.inputs(2)
    counted = count_rows(conv, lambda: run(conv, "eigen_cam", x))
    assert counted == {"forwards": 2, "heads": 0, "backwards": 0}
    maps = run(conv, "eigen_cam", x, "top2")
    assert torch.equal(maps[0], maps[1])


def test_ablation_cam_of_a_linear_head_by_hand(conv: TorchModel) -> None:
    x = zoo.inputs(2)
    a = conv.activations(x, Target.of(3), ["last"]).layers[0]
    y = conv.scores(x)[:, 3:4]
    drop = conv.module.head.weight[3].detach() * a.mean((2, 3))  # what a channel adds to y
    expected = torch.einsum("bk,bkuv->buv", drop / y.abs(), a)
    assert close(run(conv, "ablation_cam(relu=False, layer='last')", x), expected, 1e-4)


@pytest.mark.parametrize("kind", ["conv", "vit", "swin"])
def test_ablation_cam_equals_whole_forwards(kind: str) -> None:
    model, x = zoo.model(kind), zoo.inputs(1)
    layer = model.layer(x)
    layout, a = model.layout(layer, x), model.activations(x, Target.of(3)).layers[0]
    y, expected = model.scores(x)[0, 3], torch.zeros(a.shape[2:])
    for k in range(a.shape[1]):

        def ablate(_module: nn.Module, _args: object, output: Tensor, k: int = k) -> Tensor:
            maps = layout.maps(output).clone()
            maps[:, k] = 0
            return layout.unmaps(maps, output)

        handle = model.module.get_submodule(layer).register_forward_hook(ablate)
        without = model.scores(x)[0, 3]
        handle.remove()
        expected += (y - without) / y.abs() * a[0, k]
    assert close(run(model, "ablation_cam(relu=False)", x)[0], expected, 1e-3)


def test_ablation_cam_runs_the_trunk_once() -> None:
    for kind in ("resnet18", "vit"):
        model, x = zoo.model(kind), zoo.inputs(1)
        run(model, "ablation_cam", x)  # the split is found once
        counted = count_rows(model, lambda: run(model, "ablation_cam", x, "top2"))  # noqa: B023
        channels = model.layer_shape(x, model.layer(x))[0]
        assert counted == {"forwards": 1, "heads": 1 + channels, "backwards": 0}


def test_score_cam_by_hand(conv: TorchModel) -> None:
    x = zoo.inputs(1)
    a = conv.activations(x, Target.of(3)).layers[0][0]
    scores = []
    for channel in a:
        up = F.interpolate(channel[None, None], x.shape[2:], mode="bilinear")
        span = up.max() - up.min()
        mask = (up - up.min()) / span if span > 0 else torch.zeros_like(up)
        scores.append(conv.scores(x * mask))
    logits = torch.cat(scores)
    for output, y in (("logit", logits[:, 3]), ("probability", logits.softmax(1)[:, 3])):
        expected = torch.einsum("k,kuv->uv", y.softmax(0), a).relu()
        assert close(run(conv, f"score_cam(output={output!r})", x)[0], expected, 1e-4)


def test_score_cam_masks() -> None:
    x = torch.ones(1, 3, 8, 8)
    activation = torch.stack([torch.full((2, 2), 7.0), torch.tensor([[0.0, 1.0], [2.0, 3.0]])])
    rows = ScoreCam().turns(x, activation[None])
    built = rows.build(torch.tensor([0, 0]), torch.tensor([0, 1]))
    assert not built[0].any()  # a flat channel hides everything
    assert built[1].min() == 0
    assert built[1].max() == 1
    assert (rows.images, rows.turns, rows.shape) == (1, 2, (3, 8, 8))


def test_top_keeps_the_channels_that_vary_most(conv: TorchModel) -> None:
    x = zoo.inputs(2)
    assert close(run(conv, "score_cam(top=12)", x), run(conv, "score_cam", x))
    counted = count_rows(conv, lambda: run(conv, "score_cam(top=3)", x[:1]))
    assert counted["forwards"] == 4
    single = run(conv, "score_cam(top=1)", x[:1])[0]
    a = conv.activations(x[:1], Target.of(3)).layers[0][0]
    assert close(single, a[a.flatten(1).var(1).argmax()].relu(), 1e-5)


def test_finer_cam_is_grad_cam_of_the_contrast(conv: TorchModel) -> None:
    x = zoo.inputs(3)
    unit = F.normalize(conv.module.head.weight.detach(), dim=1)
    order = (unit @ unit[3]).argsort(descending=True)
    near = order[order != 3][:2]

    def contrast(scores: Tensor) -> Tensor:
        return scores[:, 3] - 0.7 * scores[:, near].mean(1)

    found = run(conv, "finer_cam(gamma=0.7, similar=2)", x)
    assert close(found, run(conv, "grad_cam", x, contrast), 1e-5)
    assert close(run(conv, "finer_cam(gamma=0.0)", x), run(conv, "grad_cam", x), 1e-5)


def test_finer_cam_per_image_equals_one_at_a_time(conv: TorchModel) -> None:
    x = zoo.inputs(3)
    maps = run(conv, "finer_cam(relu=False)", x, [1, 2, 1])
    for index, target in enumerate([1, 2, 1]):
        single = run(conv, "finer_cam(relu=False)", x[index : index + 1], target)
        assert close(maps[index], single[0], 1e-4)


def test_finer_cam_compares_with_no_more_classes_than_there_are(conv: TorchModel) -> None:
    x = zoo.inputs(2)
    assert torch.equal(run(conv, "finer_cam(similar=10)", x), run(conv, "finer_cam(similar=9)", x))
    method = FinerCam()
    assert method.nearest(torch.eye(2)).tolist() == [[1], [0]]
    with pytest.raises(ArgumentError, match="at least 2 classes"):
        method.nearest(torch.eye(1))


def test_finer_cam_refuses_what_is_no_class(conv: TorchModel) -> None:
    x = zoo.inputs(1)
    for target in ("any=1,2", "diff=1,2", lambda scores: scores[:, 0]):
        with pytest.raises(TargetError, match="single classes"):
            run(conv, "finer_cam", x, target)
    module = nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(ModelError, match="linear layer with its 4 classes"):
        run(TorchModel(zoo.randomise(module)), "finer_cam(similar=1)", x, 1)


def test_head_weight_of_a_convolution() -> None:
    module = nn.Sequential(
        nn.Conv2d(3, 6, 3, 2), nn.ReLU(), nn.Conv2d(6, 5, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    model = TorchModel(zoo.randomise(module))
    assert torch.equal(model.head_weight(zoo.inputs(1), 5), module[2].weight.detach().flatten(1))


@pytest.mark.parametrize("name", ["grad_cam(relu=False)", "hires_cam", "xgrad_cam(relu=False)"])
@pytest.mark.parametrize("kind", ["conv", "vit"])
def test_contrast_is_antisymmetric(kind: str, name: str) -> None:
    model, x = zoo.model(kind), zoo.inputs(2)
    assert close(run(model, name, x, "diff=1,2"), -run(model, name, x, "diff=2,1"), 1e-4)
    apart = run(model, name, x, 1) - run(model, name, x, 2)
    assert close(run(model, name, x, "diff=1,2"), apart, 1e-4)


@pytest.mark.parametrize("spec", EVERY)
def test_fused_layers_average_scaled_maps(spec: str, conv: TorchModel) -> None:
    x = zoo.inputs(2)
    method = methods.load(spec)

    def at(layer: str) -> Tensor:
        return run(conv, repr(type(method)(**{**vars(method), "layer": layer})), x)

    fine, coarse = at("act"), at("last")
    scaled = [m / m.abs().amax((1, 2), keepdim=True).clamp_min(1e-30) for m in (fine, coarse)]
    up = F.interpolate(scaled[1][:, None], fine.shape[1:], mode="bilinear")[:, 0]
    assert close(at("act+last"), (scaled[0] + up) / 2, 1e-4)


@pytest.mark.parametrize("spec", EVERY)
def test_relu_is_what_is_left_of_the_signed_map(spec: str, conv: TorchModel) -> None:
    method = methods.load(spec)
    if not hasattr(method, "relu"):
        pytest.skip("defined without a ReLU")
    signed = type(method)(**{**vars(method), "relu": False})
    x = zoo.inputs(2)
    assert torch.equal(run(conv, repr(method), x), run(conv, repr(signed), x).relu())


@pytest.mark.parametrize(
    ("spec", "peer"),
    [
        ("grad_cam", "GradCAM"),
        ("layer_cam", "LayerCAM"),
        ("xgrad_cam", "XGradCAM"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_torchcam_agrees(spec: str, peer: str) -> None:
    # Its Grad-CAM++ is no reference: the weights stay undivided.
    from torchcam import methods as peers

    module, x = copy.deepcopy(zoo.module("resnet18")), zoo.inputs(2)
    with getattr(peers, peer)(module, "layer3") as extractor:
        scores = module(x)
        (expected,) = extractor([3, 3], scores, normalized=False)
    found = run(zoo.model("resnet18"), f"{spec}(layer='layer3')", x)
    assert close(found, expected.detach(), 1e-4)


@pytest.mark.filterwarnings("ignore")
def test_torchcam_score_cam_is_near() -> None:
    # It takes a mask's extremes before upsampling and the paper after it, so masks differ a little.
    # At "body" it would be wrong: the in-place ReLU that follows overwrites what it captured.
    from torchcam.methods import ScoreCAM

    module, x = copy.deepcopy(zoo.module("conv")), zoo.inputs(2)
    with ScoreCAM(module, "last") as extractor:
        scores = module(x)
        (expected,) = extractor([3, 3], scores, normalized=False)
    found = run(zoo.model("conv"), "score_cam(layer='last')", x)
    similar = F.cosine_similarity(found.flatten(1), expected.flatten(1))
    assert bool((similar > 0.99).all())


@pytest.mark.parametrize(
    ("spec", "peer"),
    [
        ("grad_cam_plus_plus(layer='layer3', relu=False)", "GradCAMPlusPlus"),
        ("hires_cam(layer='layer3')", "HiResCAM"),
        ("eigen_cam(layer='layer3', centred=True)", "EigenCAM"),
        ("ablation_cam(layer='layer3', relu=False)", "AblationCAM"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_pytorch_grad_cam_agrees(spec: str, peer: str) -> None:
    import pytorch_grad_cam

    def target(scores: Tensor) -> Tensor:
        # Steep, for its Grad-CAM++ adds 1e-6 to a divisor made of squares of small gradients.
        return 1000 * scores[..., 3]

    module, x = copy.deepcopy(zoo.module("resnet18")), zoo.inputs(1)
    other = getattr(pytorch_grad_cam, peer)(model=module, target_layers=[module.layer3])
    seen: list[Any] = []
    plain = other.get_cam_image

    def keep(*args: Any, **kwargs: Any) -> Any:
        seen.append(plain(*args, **kwargs))
        return seen[0]

    other.get_cam_image = keep  # before it scales each map to [0, 1]
    other(input_tensor=x.clone(), targets=[target])
    expected = torch.as_tensor(seen[0]).float()
    found = run(zoo.model("resnet18"), spec, x, target)
    if peer == "EigenCAM":  # its sign is whatever the decomposition gives
        found, expected = found.abs(), expected.abs()
    if peer == "AblationCAM":  # it divides by the score itself, which turns negative ones around
        expected = expected * zoo.model("resnet18").scores(x)[0, 3].sign()
    assert close(found, expected, 1e-3)
