"""The contracts of the design, over every method and every kind of model that serves it.

A new method or kind of model is found and run here unasked.
"""

from __future__ import annotations

import contextlib
import copy
import gc
import threading
from collections.abc import Callable, Iterator
from functools import cache

import pytest
import torch
import zoo
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook

from visxai import methods
from visxai.engine.batch import compute, tidy
from visxai.errors import ModelError, TargetError
from visxai.methods.base import Maps, Method
from visxai.models.interface import Need
from visxai.models.probe import Probe
from visxai.models.pytorch.model import TorchModel
from visxai.target import Settled, Target

# Smaller budgets for slow methods; what isn't named runs with its defaults.
BUDGETS = {
    # Signed: what a ReLU leaves of a map may be next to nothing, and all of it rounding error.
    "ablation_cam": "ablation_cam(relu=False)",
    "finer_cam": "finer_cam(relu=False)",
    "grad_cam": "grad_cam(relu=False)",
    "grad_cam_plus_plus": "grad_cam_plus_plus(relu=False)",
    "layer_cam": "layer_cam(relu=False)",
    "score_cam": "score_cam(relu=False, top=12)",
    "xgrad_cam": "xgrad_cam(relu=False)",
    "occlusion": "occlusion(window=16, stride=16)",
    "integrated_gradients": "integrated_gradients(steps=16)",
    "blur_ig": "blur_ig(steps=8)",
    "expected_gradients": "expected_gradients(samples=8)",
    "guided_ig": "guided_ig(steps=2)",
    "hsic": "hsic(samples=40, grid=4)",
    "idgi": "idgi(steps=8)",
    "kernel_shap": "kernel_shap(segments=(3, 3), samples=40)",
    "lime": "lime(segments=9, samples=40)",
    "partition_shap": "partition_shap(max_evaluations=40, grid=8)",
    "rise": "rise(masks=40)",
    "smooth_grad": "smooth_grad(copies=2, sigma=0.02)",
    "sobol": "sobol(samples=4, grid=3)",
    "xrai": "xrai(steps=8, dilation=0)",
    "cam": "cam(relu=False)",
    "fem": "fem(sigmas=1.0)",
    "eigen_grad_cam": "eigen_grad_cam(relu=False)",
    "shapley_cam": "shapley_cam(relu=False)",
    "smooth_grad_cam_plus_plus": "smooth_grad_cam_plus_plus(copies=2, sigma=0.02, relu=False)",
    "ss_cam": "ss_cam(relu=False, samples=2, top=12)",
    "is_cam": "is_cam(relu=False, samples=2, top=12)",
    "deep_lift_shap": "deep_lift_shap(samples=2)",
    "gradient_shap": "gradient_shap(samples=8, sigma=0.02)",
    "square_grad": "square_grad(copies=2, sigma=0.02)",
    "var_grad": "var_grad(copies=3, sigma=0.2)",
    "mc_rise": "mc_rise(masks=40)",
    "extremal_perturbation": "extremal_perturbation(areas=(0.1, 0.3), steps=3, grid=8)",
    "token_drop": "token_drop(masks=16, cells=3)",
    "beyond_intuition": "beyond_intuition(points=4)",
}
# The class whose score is furthest from zero for every kind: ablation_cam divides by it.
TARGET = Target.of("class=2")


def method_of(name: str) -> Method:
    return methods.load(BUDGETS.get(name, name))


def serves(kind: str, name: str) -> bool:
    return not methods.find(name).needs & ~zoo.model(kind).offers


# A few of captum's attributions, and the kinds of model that each is for.
CAPTUM = {
    "captum:DeepLift()": ("conv",),
    "captum:FeatureAblation(grid=3)": ("conv", "swin"),
    "captum:GradientShap(n_samples=2)": ("resnet18", "vit"),
    "captum:GuidedBackprop()": ("conv", "resnet18"),
}
PAIRS = [
    # Grouped, so that parallel workers share a pair's reference instead of each making it.
    pytest.param(kind, name, id=f"{name}-{kind}", marks=pytest.mark.xdist_group(f"{name}-{kind}"))
    for kind in zoo.KINDS
    for name in (*methods.names(), *CAPTUM)
    if name != "captum" and serves(kind, name) and kind in CAPTUM.get(name, zoo.KINDS)
]
over_all = pytest.mark.parametrize(("kind", "name"), PAIRS)


def spread() -> Iterator[object]:
    """A CNN and a transformer for each method, another for the next method, so that every kind
    comes up; all of them where a method looks into modules."""
    for number, name in enumerate(dict.fromkeys(pair.values[1] for pair in PAIRS)):
        own = [pair for pair in PAIRS if pair.values[1] == name]
        if name in CAPTUM or Need.MODULE in methods.find(str(name)).needs:
            yield from own
            continue
        for family in (zoo.CNNS, zoo.TRANSFORMERS):
            of = [pair for pair in own if pair.values[0] in family]
            if of:
                yield of[number % len(of)]


# What is asked of how methods and models meet, not of a method on each kind of model.
over_some = pytest.mark.parametrize(("kind", "name"), list(spread()))
# Where one network of either family shows it all. DeepLift can't follow their added steps.
over_two = pytest.mark.parametrize(
    ("kind", "name"),
    [
        pair
        for pair in PAIRS
        if pair.values[0] in ("conv", "vit")
        and pair.values[1] not in ("captum:DeepLift()", "deep_lift", "deep_lift_shap")
    ],
)


@pytest.fixture(autouse=True)
def served(request: pytest.FixtureRequest) -> None:
    """Leave out the pairs that a method which looks into modules refuses; see the last test."""
    given = getattr(request.node, "callspec", None)
    if (
        given is not None
        and "kind" in given.params
        and refused(given.params["kind"], given.params["name"])
    ):
        pytest.skip("the method refuses this model")


@cache
def refused(kind: str, name: str) -> bool:
    """Whether a method says, by a ModelError, that it isn't for this kind of model."""
    try:
        reference(kind, name)
    except ModelError:
        return True
    return False


def run(model: TorchModel, method: Method, x: Tensor, target: Target = TARGET) -> Maps:
    return compute(method, Probe(model, x), x, target)


@cache
def reference(kind: str, name: str) -> Tensor:
    """The maps of three images in float32, computed once a process."""
    return run(zoo.model(kind), method_of(name), zoo.inputs()).values


def close(a: Tensor, b: Tensor, tolerance: float = 1e-4) -> bool:
    """max|a - b| / max|b| within tolerance; two zero maps are equal."""
    return bool((a - b).abs().max() <= tolerance * b.abs().max().clamp_min(1e-12))


def state(module: nn.Module) -> list[object]:
    """Everything about a module that a method must leave alone."""
    found: list[object] = [
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.get_rng_state().tolist(),
        torch.backends.mha.get_fastpath_enabled(),
        torch.nn.functional.scaled_dot_product_attention,
    ]
    for name, part in module.named_modules():
        hooks = (part._forward_hooks, part._forward_pre_hooks, part._backward_hooks)
        found.append((name, part.training, [len(h) for h in hooks], sorted(vars(part))))
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        found.append(
            (name, tensor.requires_grad, tensor.grad is None, float(tensor.detach().sum()))
        )
    return found


def test_every_kind_and_method_comes_up_in_the_spread() -> None:
    kinds, names = zip(*(pair.values for pair in spread()), strict=True)
    assert set(kinds) == set(zoo.KINDS)
    assert set(names) == {pair.values[1] for pair in PAIRS}


@over_all
def test_shape_and_dtype(kind: str, name: str) -> None:
    maps = reference(kind, name)
    assert maps.ndim == 3
    assert maps.shape[0] == 3
    assert maps.dtype == torch.float32
    assert maps.isfinite().all()
    assert not maps.requires_grad


@over_all
def test_a_map_is_negative_only_where_the_spec_says_so(kind: str, name: str) -> None:
    # Of the layer's own sign, which eigen_cam takes over, a spec can say nothing.
    if name != "eigen_cam" and not method_of(name).two_sided:
        assert (reference(kind, name) >= 0).all()


@over_all
def test_no_side_effects(kind: str, name: str) -> None:
    module = copy.deepcopy(zoo.module(kind)).train()
    module.register_forward_hook(lambda *_: None)
    model = TorchModel(module, name=kind)
    x = zoo.inputs()
    before, inner, pixels = state(module), state(model.module), x.clone()
    run(model, method_of(name), x)
    assert state(module) == before
    assert state(model.module) == inner
    assert torch.equal(x, pixels)


@over_all
def test_no_side_effects_after_an_exception(kind: str, name: str) -> None:
    model = TorchModel(zoo.module(kind), name=kind)
    model.layer(zoo.inputs())
    before = state(model.module)
    calls = []

    def explode(scores: Tensor) -> Tensor:
        calls.append(1)
        if len(calls) > 1 or "cam" in name:
            raise KeyboardInterrupt
        return scores[:, 0]

    with contextlib.suppress(KeyboardInterrupt, TargetError):
        run(model, method_of(name), zoo.inputs(), Target.of(explode))
    # finer_cam refuses a callable; maps of no class never ask what their target says.
    silent = ("attention_rollout", "eigen_cam", "fem", "finer_cam", "kpca_cam")
    assert calls or name in silent
    assert state(model.module) == before


@over_some
def test_a_settled_target_is_the_same(kind: str, name: str) -> None:
    """Metrics explain altered copies of a batch for the classes of the batch itself."""
    model, method, x = zoo.model(kind), method_of(name), zoo.inputs()
    settled = Settled.on_aim(TARGET, model.aim(x, TARGET))
    assert close(run(model, method, x, settled).values, reference(kind, name))


@over_all
def test_batch_invariance(kind: str, name: str) -> None:
    model, method, x = zoo.model(kind), method_of(name), zoo.inputs()
    for index in range(3):
        single = run(model, method, x[index : index + 1]).values
        assert close(single[0], reference(kind, name)[index])


@over_some
def test_a_permuted_batch_gives_permuted_maps(kind: str, name: str) -> None:
    order = torch.tensor([2, 0, 1])
    maps = run(zoo.model(kind), method_of(name), zoo.inputs()[order]).values
    assert close(maps, reference(kind, name)[order])


@over_some
@pytest.mark.parametrize("mode", ["no_grad", "inference_mode", "frozen"])
def test_any_grad_mode(kind: str, name: str, mode: str) -> None:
    model, x = zoo.model(kind), zoo.inputs()
    if mode == "frozen":
        module = copy.deepcopy(zoo.module(kind)).requires_grad_(False)
        maps = run(
            TorchModel(module, name=kind, preprocess=zoo.PREPROCESS), method_of(name), x
        ).values
    else:
        with getattr(torch, mode)():
            maps = run(model, method_of(name), x.clone()).values
    assert close(maps, reference(kind, name))


@over_some
def test_threads_share_a_model(kind: str, name: str) -> None:
    model, method, x = zoo.model(kind), method_of(name), zoo.inputs()
    reference(kind, name)
    wrong: list[object] = []

    def explain(index: int) -> None:
        try:
            for _ in range(2):
                maps = run(model, method, x[index : index + 1]).values
                if not close(maps[0], reference(kind, name)[index]):
                    wrong.append(index)
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=explain, args=(index,)) for index in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@over_all
def test_out_of_memory_backs_off(kind: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = TorchModel(zoo.module(kind), name=kind, preprocess=zoo.PREPROCESS)
    model.layer(zoo.inputs())
    plain = model.forward

    def small(x: Tensor, *rest: object) -> Tensor:
        if len(x) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory (pretended)")
        return plain(x, *rest)

    monkeypatch.setattr(model, "forward", small)
    assert close(run(model, method_of(name), zoo.inputs()).values, reference(kind, name))
    assert max(model.budget.known.values()) <= 2


@over_some
def test_nothing_with_a_graph_is_kept(kind: str, name: str) -> None:
    gc.freeze()  # only what the run itself leaves is looked through
    try:
        run(zoo.model(kind), method_of(name), zoo.inputs())
        gc.collect()
        kept = [
            found
            for found in gc.get_objects()
            # By type: isinstance would ask every object for its class, and some warn when asked.
            if issubclass(type(found), Tensor) and found.grad_fn is not None
        ]
    finally:
        gc.unfreeze()
    assert not kept


@over_all
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_agrees(kind: str, name: str, precision: str) -> None:
    model = zoo.model(kind).in_precision(precision)
    maps = run(model, method_of(name), zoo.inputs()).values
    assert maps.dtype == torch.float32
    assert maps.isfinite().all()
    expected = reference(kind, name)
    # bfloat16 has 8 bits: agreement is of direction, and depends on the method's own noise.
    similar = nn.functional.cosine_similarity(maps.flatten(1), expected.flatten(1))
    blank = expected.flatten(1).abs().amax(1) == 0
    # A path or a ranking of regions that follows the gradient also follows its rounding.
    least = {"guided_ig": 0.6, "xrai": 0.6}.get(name, 0.8)
    if (kind, name, precision) == ("hf_vit", "xgrad_cam", "fp16"):
        least = -1  # it divides by a channel's sum, which is next to zero for one of the images
    if (kind, name) in (("mobilenet_v3", "var_grad"), ("convnext", "kpca_cam")):
        least = -1  # a difference of near gradients, and the first of two near eigenvalues
    assert bool(((similar > least) | blank).all())


@over_two
@pytest.mark.parametrize(("precision", "level"), [("bf16", -9.0), ("fp16", 9.0)])
def test_half_precision_loses_one_image_alone(
    kind: str, name: str, precision: str, level: float
) -> None:
    model, x, method = zoo.fragile(kind).in_precision(precision), zoo.inputs(), method_of(name)
    mixed = torch.cat([x[:1], torch.full_like(x[:1], level), x[2:]])
    probe = Probe(model, mixed)
    maps = compute(method, probe, mixed, TARGET).values
    alone = compute(method, Probe(model, x), x, TARGET).values
    # The neighbours' maps don't know of the image that was lost, nor do their records.
    assert torch.equal(maps[[0, 2]], alone[[0, 2]])
    assert not probe.reran[[0, 2]].any()
    assert maps.isfinite().all()
    assert probe.scores(mixed).isfinite().all()
    if method.needs & (Need.LAYER_GRADIENT | Need.ATTENTION) and name != "attention_rollout":
        # One row an image, or a few: all of it was lost, and all of it is float32's.
        assert probe.reran[1]
        exact = run(zoo.fragile(kind), method, mixed[1:2]).values[0]
        assert close(maps[1], exact, 1e-3)


@over_two
def test_a_forward_may_write_into_its_input(kind: str, name: str) -> None:
    x = zoo.inputs()
    pixels = x.clone()
    maps = run(zoo.overwriting(kind), method_of(name), x).values
    assert torch.equal(x, pixels)
    assert close(maps, reference(kind, name))


@over_some
def test_a_constant_model_is_degenerate_and_finite(kind: str, name: str) -> None:
    module = copy.deepcopy(zoo.module(kind))
    for parameter in module.parameters():
        parameter.data.zero_()
    values, degenerate = tidy(
        run(TorchModel(module, name=kind), method_of(name), zoo.inputs()).values
    )
    assert values.isfinite().all()
    assert degenerate.all()


@over_some
def test_several_classes_equal_one_at_a_time(kind: str, name: str) -> None:
    model, method, x = zoo.model(kind), method_of(name), zoo.inputs()
    target = Target.of("top2")
    probe = Probe(model, x)
    maps = compute(method, probe, x, target).values
    aim = probe.aim(x, target)
    assert len(maps) == len(aim) == 6
    assert aim.classes is not None
    for number in (0, 3):
        chosen = Target.of(int(aim.classes[number]))
        row = int(aim.rows[number])
        assert close(maps[number], run(model, method, x[row : row + 1], chosen).values[0])


@over_all
def test_cost_is_what_the_method_says(kind: str, name: str) -> None:
    model, method, x = zoo.model(kind), method_of(name), zoo.inputs(1)
    reference(kind, name)  # what is learned of a model once isn't a cost of the method
    said = method.cost(model, x)
    counted = count_rows(model, lambda: run(model, method, x))
    assert counted == {
        "forwards": said.forwards,
        "heads": said.heads,
        "backwards": said.backwards,
    }


def count_rows(model: TorchModel, work: Callable[[], object]) -> dict[str, int]:
    """Rows through the first convolution, through the classifier beyond those (heads run again),
    and back through the classifier. Copies of the model share its weights, so they count too."""
    first = next(part for part in model.module.modules() if isinstance(part, nn.Conv2d))
    last = [part for part in model.module.modules() if isinstance(part, nn.Linear)][-1]
    rows = {"stem": 0, "classifier": 0, "backwards": 0}

    def count(part: nn.Module, _: object, output: Tensor) -> None:
        if getattr(part, "weight", None) is first.weight and "forward" not in vars(part):
            rows["stem"] += len(output)  # a replaced forward only stands for the convolution
        if getattr(part, "weight", None) is last.weight:
            rows["classifier"] += len(output)
            if output.requires_grad:
                output.register_hook(lambda g: rows.update(backwards=rows["backwards"] + len(g)))

    work()  # once uncounted: the layer, the split and the like are found out once a model
    handle = register_module_forward_hook(count)
    try:
        work()
    finally:
        handle.remove()
    return {
        "forwards": rows["stem"],
        "heads": rows["classifier"] - rows["stem"],
        "backwards": rows["backwards"],
    }


@pytest.mark.parametrize("name", [name for name in methods.names() if name != "captum"])
def test_only_methods_that_look_into_modules_refuse_models(name: str) -> None:
    kinds = [kind for kind in zoo.KINDS if serves(kind, name)]
    refusing = [kind for kind in kinds if refused(kind, name)]
    assert len(refusing) < len(kinds)
    assert not refusing or Need.MODULE in methods.find(name).needs
